"""What is said about trainings whose fault is known, and that nothing is said where chance explains it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_runs import train_run

from netsmith.report.evidence import Evidence, Mark, SampleMark, ValMark, gather
from netsmith.report.lessons import difference, lessons
from netsmith.run.gradients import GradientRow, Layer, ends, in_words
from netsmith.run.metrics import wilson
from netsmith.run.plan import PlanRow


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return gather(train_run(tmp_path_factory.mktemp("train") / "r18"))


def row(*shares: float, step: int = 10) -> GradientRow:
    return GradientRow(
        step=step,
        progress=0.1,
        layers=tuple(Layer(name=f"l{n}", gradient=share, weight=1.0) for n, share in enumerate(shares)),
    )


def said(
    evidence: Evidence,
    *,
    train: float,
    val: float,
    n: int = 1000,
    losses: list[float] | None = None,
    val_losses: list[float] | None = None,
    epochs: float = 60.0,
    gradients: tuple[GradientRow, ...] = (),
    rewinds: int = 0,
    recipe: dict[str, Any] | None = None,
    verb: str = "train",
    every: int = 40,
) -> list[tuple[str, str]]:
    losses = losses or [2.3 * math.exp(-place / 8) + 0.7 for place in range(50)]
    count = len(losses)
    marks = [
        Mark(
            step=every * (place + 1),
            progress=(place + 1) / count,
            epoch=epochs * (place + 1) / count,
            lr=0.05,
            side=32,
            loss=loss,
            val=ValMark(top1=val, loss=val_losses[place] if val_losses else 1.0),
        )
        for place, loss in enumerate(losses)
    ]
    marks[-1] = marks[-1].model_copy(update={"train": SampleMark(top1=train, n=n, loss=0.1)})
    plan = tuple(PlanRow(at=100, kind="lr_factor", value=0.5, why="") for _ in range(rewinds))
    assert evidence.recipe is not None
    made = replace(
        evidence,
        marks=tuple(marks),
        gradients=gradients,
        plan=plan,
        command=[verb, *evidence.command[1:]],
        recipe=evidence.recipe.model_copy(update=recipe or {}),
    )
    return [(each.kind, each.text) for each in lessons(made, pictures=n)]


def test_a_good_training_is_passed_over_in_silence(evidence: Evidence) -> None:
    assert said(evidence, train=0.97, val=0.95) == []


def test_overfitting_with_its_numbers_and_what_to_try(evidence: Evidence) -> None:
    rising = [1.2 - 0.02 * place if place < 25 else 0.7 + 0.02 * (place - 25) for place in range(50)]
    [(kind, text)] = said(evidence, train=0.991, val=0.81, val_losses=rising)
    assert kind == "overfitting"
    assert "99.1% (98.3–99.5%) of its training pictures" in text
    assert "81.0% (78.5–83.3%) of the validation pictures" in text
    assert "the validation loss was lowest at epoch 31.2 (0.700) and ended at 1.18" in text
    assert "--mixup 0.2" in text
    [(_, text)] = said(evidence, train=0.991, val=0.81, recipe={"mixup": 0.2, "auto_augment": "randaugment"})
    assert "--mixup" not in text
    assert "--auto-augment" not in text
    assert "more pictures" in text


def test_a_gap_that_chance_explains_is_not_told(evidence: Evidence) -> None:
    assert said(evidence, train=1.0, val=0.9, n=40) == []
    assert said(evidence, train=1.0, val=0.9, n=2000) != []


def test_underfitting_too_short_and_strong_augmentation(evidence: Evidence) -> None:
    flat = [1.5] * 10 + [1.0] * 40
    [(kind, text)] = said(evidence, train=0.7, val=0.69, losses=flat)
    assert kind == "underfitting"
    assert "a larger network" in text
    [(kind, text)] = said(evidence, train=0.7, val=0.69, losses=flat, recipe={"mixup": 0.4, "random_erase": 0.5})
    assert "less of --mixup or --random-erase" in text
    [(kind, text)] = said(evidence, train=0.7, val=0.69, losses=flat, epochs=3.0)
    assert kind == "too short"
    assert "3.00 epochs are short; try --epochs 10 or as much more --time or --pretrained weights" in text
    [(_, text)] = said(evidence, train=0.7, val=0.69, losses=flat, epochs=3.0, recipe={"model": "resnet18@0.5"})
    assert "--pretrained" not in text, "it has no published weights"
    [(kind, text)] = said(evidence, train=0.1, val=0.1, losses=flat, epochs=0.2)
    assert kind == "too short"
    assert text == (
        "too short: 2,000 updates are 20.0% of one pass over the training pictures; try --epochs 10 or 50 times the "
        "--time"
    )
    [(kind, text)] = said(evidence, train=0.7, val=0.69, losses=[3 - 0.04 * place for place in range(50)])
    assert kind == "too short"
    assert "still fell from" in text


def test_rates_too_high_and_too_low(evidence: Evidence) -> None:
    [(kind, text)] = said(evidence, train=0.4, val=0.41, losses=[2.3, 2.0, 1.8, 1.7, 2.6, *[2.2] * 45])
    assert kind == "rate too high"
    assert "rose from 1.70 at step 160 to 2.60 at step 200" in text
    [(kind, text)] = said(evidence, train=0.4, val=0.41, rewinds=2)
    assert kind == "rate too high"
    assert "was not finite 2 times" in text
    slow = [2.3 - 0.001 * place for place in range(50)]
    still = (row(*[1e-5] * 12),)
    [(kind, text)] = said(evidence, train=0.2, val=0.2, losses=slow, gradients=still)
    assert kind == "rate too low"
    assert "could change the weights by 1.0% of their size" in text
    [(kind, _)] = said(evidence, train=0.2, val=0.2, losses=slow, gradients=(row(*[1e-2] * 12),))
    assert kind == "nothing learned"
    # Where there were few updates it is not the rate that was wrong.
    [(kind, text)] = said(evidence, train=0.2, val=0.2, losses=slow[:20], gradients=still, every=1, epochs=20.0)
    assert kind == "too short"
    assert "20.0 epochs of 20 updates together are short; try --epochs 60" in text
    # A bump that mended itself is no fault.
    assert said(evidence, train=0.97, val=0.95, losses=[2.3, 1.0, 2.6, *[0.9] * 47]) == []


def test_what_to_try_is_what_the_verb_has(evidence: Evidence) -> None:
    """`fit` takes none of the flags but --time, and `distill` no --pretrained: whoever types them is refused."""
    flat = [1.5] * 10 + [1.0] * 40
    [(_, text)] = said(evidence, train=0.7, val=0.69, losses=flat, epochs=3.0, verb="fit")
    assert text.endswith("netsmith train has the others: its -c takes the recipe.yaml of this run")
    [(_, text)] = said(evidence, train=0.7, val=0.69, losses=flat, epochs=3.0, verb="distill")
    assert text.endswith("try --epochs 10 or as much more --time")
    assert said(evidence, train=0.97, val=0.95, verb="fit") == []


def test_gradients_that_vanish_and_explode_are_told_and_others_are_not() -> None:
    vanishing = row(*(10.0 ** (place / 2 - 8) for place in range(14)))
    exploding = row(*(10.0 ** (-place / 2) for place in range(14)))
    assert "vanishing gradients" in (in_words([vanishing]) or "")
    assert "exploding gradients" in (in_words([exploding]) or "")
    assert in_words([row(*[1.0, 0.02] * 7)]) is None
    assert in_words([row(1e-9, *[1.0] * 6)]) is None  # too few layers to speak of depth
    assert in_words([]) is None
    first = vanishing.model_copy(update={"step": 0})
    assert in_words([first, row(*[1.0] * 14)]) is None  # what starts slowly may still start
    first = exploding.model_copy(update={"step": 0})
    assert "exploding gradients at the beginning" in (in_words([first, row(*[1.0] * 14)]) or "")
    frozen = row(1.0, step=20)
    assert in_words([vanishing, frozen]) == in_words([vanishing])
    assert ends([row(*[0.0] * 14)]) is None


def test_difference_is_newcombes() -> None:
    """His table II, 56/70 - 48/80 and 9/10 - 3/10 (method 10)."""
    found = difference(wilson(56, 70), wilson(48, 80))
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    found = difference(wilson(9, 10), wilson(3, 10))
    assert (found.low, found.high) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_a_report_shows_the_sentences_escaped(tmp_path: Path) -> None:
    from netsmith.report.page import write_report
    from netsmith.run.files import append_jsonl

    run = train_run(tmp_path / "r18")
    answers = {"val": {"top1": 0.5, "loss": 1.0}, "train": {"top1": 1.0, "loss": 0.01, "n": 100}}
    append_jsonl(run.metrics, {"step": 56, "progress": 1.0, "epoch": 12.0, "loss": 0.5, **answers})
    page = write_report(run).read_text()
    assert "Overfitting: the network gets right" in page
    assert "training, as they are" in page
