"""Losses of distillation against the papers' formulas in numpy; the objective against its parts."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from netsmith.arch.layout import at_size
from netsmith.arch.names import find_layout
from netsmith.data.items import UNLABELLED
from netsmith.errors import InputError
from netsmith.models.build import Network, build
from netsmith.run.clock import FakeClock, SystemClock
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train import remembered
from netsmith.train.augment.mixing import Mixture, mixed_targets
from netsmith.train.distill import Distill, Teaching
from netsmith.train.distill_losses import (
    averaged,
    averaged_tags,
    correlated,
    decoupled,
    hinted,
    soft_tags,
    soft_targets,
)
from netsmith.train.feed import TrainingData
from netsmith.train.objectives import Normalize, objective_of
from netsmith.train.teachers import Knowledge, Teacher
from netsmith.train.trainer import Trainer

Floats = NDArray[np.float64]
HEAT = 3.0
NAME = "resnet20_cifar@width=0.25,depth=0.5"


def answers(seed: int, *shape: int) -> Tensor:
    return 3.0 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def plain(tensor: Tensor | None) -> Floats:
    assert tensor is not None
    return tensor.detach().double().numpy()


def close(found: Tensor, expected: float) -> None:
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("teachers", [1, 3])
def test_soft_targets_are_hintons(teachers: int) -> None:
    student, taught = answers(0, 6, 5), answers(1, teachers, 6, 5)
    q, p = softmax(plain(taught) / HEAT).mean(axis=0), softmax(plain(student) / HEAT)
    expected = HEAT**2 * (q * (np.log(q) - np.log(p))).sum(axis=1).mean()
    close(soft_targets(student, averaged(taught, HEAT), temperature=HEAT), expected)
    student.requires_grad_(True)
    soft_targets(student, averaged(taught, HEAT), temperature=HEAT).backward()
    np.testing.assert_allclose(plain(student.grad), HEAT * (p - q) / 6, atol=1e-6)


def test_soft_tags_are_those_of_every_tag() -> None:
    student, taught = answers(0, 6, 5), answers(1, 2, 6, 5)
    q = (1 / (1 + np.exp(-plain(taught) / HEAT))).mean(axis=0)
    p = 1 / (1 + np.exp(-plain(student) / HEAT))
    each = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    close(soft_tags(student, averaged_tags(taught, HEAT), temperature=HEAT), HEAT**2 * each.sum(axis=1).mean())


@pytest.mark.parametrize("sure", [1.0, 40.0])
def test_decoupled_is_the_papers_two_terms(sure: float) -> None:
    student, taught = answers(0, 6, 5), answers(1, 1, 6, 5)
    classes = torch.tensor([0, 1, 2, 3, 4, 0])
    taught[0, torch.arange(6), classes] += sure  # of which nothing must be left among the others
    q, p = softmax(plain(taught[0]) / HEAT), softmax(plain(student) / HEAT)
    total = 0.0
    for row, target in enumerate(classes.tolist()):
        others = [each for each in range(5) if each != target]
        rest = [(softmax(plain(z)[row, others] / HEAT)) for z in (taught[0], student)]
        pairs = [np.array([z[row, target], 1 - z[row, target]]) for z in (q, p)]
        tckd = (pairs[0] * np.log(pairs[0] / pairs[1])).sum()
        nckd = (rest[0] * np.log(rest[0] / rest[1])).sum()
        total += 0.7 * tckd + 8.0 * nckd
        hinton = (q[row] * np.log(q[row] / p[row])).sum()
        assert hinton == pytest.approx(tckd + (1 - q[row, target]) * nckd), "equation 6"
    found = decoupled(student, averaged(taught, HEAT), classes, temperature=HEAT, alpha=0.7, beta=8.0)
    close(found, HEAT**2 * total / 6)


def test_correlations_are_pearsons_over_classes_and_over_pictures() -> None:
    student, taught = answers(0, 6, 5), answers(1, 1, 6, 5)
    q, p = softmax(plain(taught[0]) / HEAT), softmax(plain(student) / HEAT)
    inter = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    found = correlated(student, averaged(taught, HEAT), temperature=HEAT, alpha=2.0, beta=0.5)
    close(found, HEAT**2 * float(2.0 * inter + 0.5 * intra))
    flat = torch.zeros(3, 5, requires_grad=True)  # has no correlation with anything
    correlated(flat, averaged(taught[:, :3], HEAT), temperature=HEAT, alpha=1.0, beta=1.0).backward()
    assert flat.grad is not None
    assert bool(torch.isfinite(flat.grad).all())


def test_hints_are_distances_as_shares_of_the_teachers_map() -> None:
    ours, theirs = answers(0, 2, 3, 4, 4), answers(1, 2, 3, 2, 2)
    small = plain(ours).reshape(2, 3, 2, 2, 2, 2).mean(axis=(3, 5))
    far = ((small - plain(theirs)) ** 2).mean(axis=(1, 2, 3)) / (plain(theirs) ** 2).mean(axis=(1, 2, 3))
    close(hinted(ours, theirs), float(far.mean()))


# The objective

STUDENT = Preprocess(size=16)


def tiny(seed: int, *, width: float = 0.25, size: int = 16) -> Network:
    layout = find_layout(f"resnet20_cifar@width={width},depth=0.5", num_classes=3, img_size=16)
    return build(at_size(layout, size), seed=seed)


def knowledge(seed: int = 1, *, size: int = 16, places: tuple[int, ...] = (0, 1, 2)) -> Knowledge:
    preprocess = Preprocess(size=size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    network = tiny(seed, width=0.5, size=size)
    with torch.no_grad():
        network(answers(seed, 8, 3, size, size))  # running statistics that are not those of the start
    return Knowledge(network=network, name="t", sha256=f"{seed:064x}", places=places, preprocess=preprocess)


def recipe(**changes: object) -> Recipe:
    plainly: dict[str, object] = {"model": NAME, "img_size": 16, "epochs": 2.0, "batch_size": 8, "threads": 1}
    still = {"flip": False, "crop_scale": None, "smoothing": 0.0}
    return Recipe.model_validate(plainly | still | changes)


def data(*, labels: NDArray[np.int64] | None = None) -> TrainingData:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (36, 16, 16, 3), dtype=np.uint8)
    known = np.arange(36, dtype=np.int64) % 3
    return TrainingData(pixels[:24], known[:24] if labels is None else labels, pixels[24:], known[24:], STUDENT, "d")


def unheard(text: str) -> None:
    """Says nothing."""


def teaching(of: TrainingData, *taught: Knowledge, plan: Path = Path("no plan"), **changes: Any) -> Teaching:
    told: dict[str, Any] = {"look": "as drawn", "clock": FakeClock(), "say": unheard, "warn": unheard} | changes
    keys = [f"{i}" for i in range(24)]
    return Teaching(knowledge=taught or (knowledge(),), images=of.images, keys=keys, plan=Plan(plan), **told)


def batch() -> tuple[Tensor, Tensor]:
    shown = torch.from_numpy(data().val_pixels[:6].copy()).permute(0, 3, 1, 2)
    return shown, torch.tensor([0, 1, 2, 0, 1, 2])


def made(of: Recipe, *taught: Knowledge, labels: NDArray[np.int64] | None = None) -> Distill:
    given = data(labels=labels)
    return teaching(given, *taught)(tiny(0), of, STUDENT, labels=given.labels).eval()


def test_the_loss_is_labels_and_teachers_with_their_weights() -> None:
    taught = knowledge(places=(2, 0, 1))
    of = recipe(label_weight=0.3, alpha=0.6, temperature=2.0, flip=True)
    objective, (images, targets) = made(of, taught), batch()
    outcome = objective(images, targets)
    logits = taught.network(Normalize(taught.preprocess.mean, taught.preprocess.std)(images))[:, [2, 0, 1]]
    labels = objective_of(objective.network, of, STUDENT, labels=targets.numpy())(images, targets)
    expected = 0.3 * labels.loss + 0.6 * soft_targets(labels.logits, averaged(logits[None], 2.0), temperature=2.0)
    close(outcome.loss, expected.item())
    assert torch.equal(outcome.logits, labels.logits)
    objective.train()
    assert not taught.network.training
    assert not any(parameter.requires_grad for parameter in taught.network.parameters())
    assert copy.deepcopy(objective).teachers is objective.teachers


def test_a_teacher_for_another_side_sees_things_in_proportion() -> None:
    larger = Teacher(knowledge(size=32), side=16)
    images, _ = batch()
    assert [larger.side_for(side) for side in (16, 12)] == [32, 24]
    wide = larger.prepared(images)
    assert wide.shape[2:] == (32, 32)
    reference = nn.functional.interpolate(images.float(), scale_factor=2.0, mode="bilinear", antialias=True)
    expected = (reference / 255 - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[
        :, None, None
    ]
    torch.testing.assert_close(wide, expected)
    same = Teacher(knowledge(), side=16)
    assert torch.equal(same.prepared(images), same.normalize(images)), "the very batch"


@pytest.mark.parametrize("loss", ["kd", "dkd"])
def test_pictures_without_a_label_have_the_teachers_term_only(loss: str) -> None:
    labels = np.array([0, 1, 2, UNLABELLED] * 6)
    of = recipe(distill_loss=loss, label_weight=1.0, flip=True)
    images, targets = batch()
    some = targets.clone()
    some[2:4] = UNLABELLED
    both = made(of, labels=labels)
    alone = made(of.model_copy(update={"label_weight": 0.0}), labels=labels)
    known = torch.tensor([0, 1, 4, 5])
    of_labels = objective_of(both.network, of, STUDENT, labels=labels[labels >= 0])(images[known], targets[known])
    close(both(images, some).loss, (alone(images, some).loss + of_labels.loss * 4 / 6).item())
    none = torch.full_like(targets, UNLABELLED)
    close(both(images, none).loss, alone(images, none).loss.item())


def test_tags_are_taught_one_by_one() -> None:
    """Labels and answers of every tag by itself, as `Tag` sums them."""
    tags = np.random.default_rng(0).random((24, 3)) < 0.4
    taught, of = knowledge(), recipe(label_weight=0.5, alpha=0.5, temperature=2.0, flip=True)
    objective = teaching(data(), taught)(tiny(0), of, STUDENT, labels=tags).eval()
    images, wanted = batch()[0], torch.from_numpy(tags[:6]).float()
    outcome = objective(images, wanted)
    theirs = taught.network(Normalize(taught.preprocess.mean, taught.preprocess.std)(images))
    of_tags = soft_tags(outcome.logits, averaged_tags(theirs[None], 2.0), temperature=2.0)
    of_labels = nn.functional.binary_cross_entropy_with_logits(outcome.logits, wanted, reduction="sum") / 6
    close(outcome.loss, (0.5 * of_labels + 0.5 * of_tags).item())


def test_a_mixture_with_a_picture_without_label_has_no_whole_label() -> None:
    shares = mixed_targets(np.array([0, UNLABELLED, 2]), Mixture(0.75, None), classes=3)
    torch.testing.assert_close(shares, torch.tensor([[0.75, 0, 0.25], [0.25, 0, 0], [0, 0, 0.75]]))


def test_hints_train_layers_of_their_own_that_are_in_checkpoints_and_do_not_ship(tmp_path: Path) -> None:
    of, given = recipe(hints=("stage1", "stage2:stage3"), ema=0.9, flip=True), data()

    def trainer() -> Trainer:
        return Trainer(
            tiny(0),
            given,
            of,
            plan=Plan(tmp_path / "plan.jsonl"),
            clock=SystemClock(),
            objective=teaching(given),
            checkpoints=tmp_path / "checkpoints",
        )

    whole = trainer()
    first = whole.objective.beside.state_dict()["0.weight"].clone()
    whole.advance(until=4)
    moved = whole.objective.beside.state_dict()["0.weight"].clone()
    assert not torch.equal(first, moved)
    whole.save()
    whole.advance()
    assert set(whole.network.state_dict()) == set(tiny(0).state_dict())
    torch.manual_seed(5)
    again = trainer()
    assert torch.equal(again.objective.beside.state_dict()["0.weight"], first)
    assert again.resume()
    assert torch.equal(again.objective.beside.state_dict()["0.weight"], moved)
    again.advance()
    for ours, theirs in ((whole.network, again.network), (whole.objective.beside, again.objective.beside)):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name


def test_of_several_teachers_the_first_gives_the_maps_and_all_answer() -> None:
    taught, (images, targets) = (knowledge(1), knowledge(2, size=32, places=(1, 2, 0))), batch()
    whole = made(recipe(hints=("stage2",)), *taught)
    logits, maps = whole.taught(images)
    assert torch.equal(logits, whole.teachers(images)), "of all, as without hints"
    _, firsts = Teacher(taught[0], side=16).all_outputs(images)
    assert torch.equal(maps["stage2"], firsts["stage2"])
    without = made(recipe(flip=True), *taught)(images, targets)
    ours = whole.regressors[0](whole.answer(images, features=True)["stage2"])
    close(whole(images, targets).loss, (without.loss + hinted(ours, maps["stage2"])).item())
    with pytest.raises(InputError, match="has no stage 'stage9'"):
        made(recipe(hints=("stage1:stage9",)), *taught)


def test_answers_on_fixed_views_are_computed_once_and_are_the_teachers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETSMITH_CACHE", str(tmp_path))
    taught, given, warned = (knowledge(1), knowledge(2, places=(1, 2, 0))), data(), list[str]()

    def objective(changes: Recipe | None = None, *, look: str = "as drawn") -> Distill:
        makes = teaching(given, *taught, plan=tmp_path / "plan.jsonl", look=look, warn=warned.append)
        return makes(tiny(0), changes or recipe(), STUDENT, labels=given.labels)

    def kept() -> list[Path]:
        return list((tmp_path / "teachers").iterdir())

    first = objective()
    assert len(kept()) == 2
    images = torch.from_numpy(np.stack([given.images[index] for index in (5, 3, 20)])).permute(0, 3, 1, 2)
    asked = first.teachers(images)
    with monkeypatch.context() as patch:
        for teacher in first.teachers:
            patch.setattr(teacher, "forward", lambda images: pytest.fail("the teacher is asked again"))
        found, _ = first.taught(images)
    torch.testing.assert_close(found, asked)
    assert torch.equal(objective().taught(images.contiguous())[0], found)
    for file in kept():
        file.write_bytes(file.read_bytes()[:-9])
    assert torch.equal(objective().taught(images)[0], found)
    objective(recipe(pad=1))
    assert len(kept()) == 2, "views that change are not remembered"
    objective(recipe(epochs=1.0))
    assert not warned
    changed = 255 - images
    assert torch.equal(first.taught(changed)[0], first.taught(changed)[0])
    assert len(warned) == 1, "said once"
    assert "3 pictures of a batch look otherwise" in warned[0]
    objective(look="decoded by another library")
    assert len(kept()) == 4, "of pictures that look otherwise answers are others"


def test_answers_are_not_remembered_where_that_takes_more_than_half_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But a plan that says that they are is obeyed."""
    monkeypatch.setenv("NETSMITH_CACHE", str(tmp_path))
    given, said = data(), list[str]()

    def rows(plan: str, time_s: float, *, ticking: float) -> dict[str, Any]:
        clock, path = FakeClock(advance=ticking), tmp_path / plan
        teaching(given, plan=path, clock=clock, say=said.append)(
            tiny(0), recipe(epochs=None, time_s=time_s), STUDENT, labels=given.labels
        )
        return {row.kind: row.value for row in Plan(path).rows}

    assert rows("slow", 2.0, ticking=1.0) == {"answers": "asked"}
    assert not list((tmp_path / "teachers").iterdir())
    assert "would take more than 0.5 of the time" in said[-1]
    assert rows("slow", 100.0, ticking=0.0) == {"answers": "asked"}
    assert "would take more than 0.5 of the time" in said[-1]
    assert rows("quick", 100.0, ticking=1.0) == {"answers": "remembered"}
    assert "computed once and remembered" in said[-1]
    for file in (tmp_path / "teachers").iterdir():
        file.unlink()
    assert rows("quick", 2.0, ticking=1.0) == {"answers": "remembered"}
    assert len(list((tmp_path / "teachers").iterdir())) == 1


def test_there_has_to_be_time_for_the_teachers_still_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of which each takes 3 s: that both do not fit into 5 is known before the first has answered all."""
    monkeypatch.setenv("NETSMITH_CACHE", str(tmp_path))
    monkeypatch.setattr(remembered, "AT_ONCE", 8)
    given, taught = data(), (knowledge(1), knowledge(2))
    for time_s, found, files in ((10.0, "asked", 0), (12.0, "remembered", 2)):  # half of which is for the answers
        path = tmp_path / f"{time_s}.jsonl"
        makes = teaching(given, *taught, plan=path, clock=FakeClock(advance=1.0))
        makes(tiny(0), recipe(epochs=None, time_s=time_s), STUDENT, labels=given.labels)
        assert Plan(path).value("answers", 0) == found
        assert len(list((tmp_path / "teachers").iterdir())) == files
