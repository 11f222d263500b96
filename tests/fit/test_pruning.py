"""`prune` from the opened model to the shipped one; latencies are made up but for the slow test, which types it."""

import gc
import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from kept_word import broken
from kinds_of_networks import settled
from torch.nn import functional as F

from netsmith.arch.cost import cost
from netsmith.arch.names import find_layout
from netsmith.arch.scale_to import Times
from netsmith.arch.select import select
from netsmith.artifact import verify_run
from netsmith.artifact.bundle import Preferred, artifact_hash, load_bundle, write_preferred
from netsmith.artifact.latency import Measurement, ThreadChoice
from netsmith.artifact.runtimes import REFERENCE, RUNTIMES, OnnxRuntimeSession
from netsmith.artifact.verify import Verification, as_document, verify
from netsmith.compress.prune.choice import path
from netsmith.compress.prune.spending import Spending
from netsmith.errors import CheckError, Diverged, InputError
from netsmith.export.network import export_network, normalised
from netsmith.export.repack import repack
from netsmith.fit import cutting, distilling, finish, going_on, pruning, stage
from netsmith.fit.cutting import LatencyLimit, Milliseconds, Wish, all_alike, arrays_of
from netsmith.fit.distilling import DistillJob, _Lesson, distill_run
from netsmith.fit.field import HEADROOM
from netsmith.fit.finish import Finisher
from netsmith.fit.going_on import Round, Training
from netsmith.fit.job import TrainJob
from netsmith.fit.judged import Found, Judged
from netsmith.fit.lengths import enter_time, time_of
from netsmith.fit.parent import Parent, open_parent
from netsmith.fit.prune_job import PruneJob
from netsmith.fit.pruning import prune_run
from netsmith.fit.session import Session
from netsmith.fit.teaching import OurTeacher
from netsmith.models.build import Network, load_model
from netsmith.run.clock import FakeClock
from netsmith.run.files import sha256_file
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger, LedgerRow
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.run.result import Result

SIDE, NAME = 16, "resnet14_cifar"
CLASSES = ("red", "green", "blue")
MEASURED = Measurement(
    p50_ms=1.0, p90_ms=1.0, low=1.0, high=1.0, noise=0.0, peak_memory_bytes=None, threads=1, runtime="onnxruntime",
    warmup=1, runs=40, resize_ms=None,
)  # fmt: skip
QUICK: dict[str, Any] = {"epochs": 1.0, "batch_size": 20, "threads": 1, "dtype": "float32"}
NOISY = 0.1
"""Noise of a measurement from which on a missed latency says nothing."""


class Another(OnnxRuntimeSession):
    """The reference by another name."""

    runtime = "another"


ANOTHER = replace(RUNTIMES[REFERENCE], open=lambda model, threads: Another(model, threads=threads))


def colours(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pixels, labels = rng.integers(0, 170, (count, SIDE, SIDE, 3), dtype=np.uint8), np.arange(count) % len(CLASSES)
    for image, label in zip(pixels, labels, strict=True):
        image[3:13, 3:13, label] = 255
    return pixels, labels


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`, a network that learned a little, and `data.npz`, what it learned from."""
    root = tmp_path_factory.mktemp("pruning")
    pixels, labels = colours(60 + 30 + 30, seed=0)
    split = np.array(["train"] * 60 + ["val"] * 30 + ["test"] * 30)
    np.savez(root / "data.npz", images=pixels, labels=labels, split=split, classes=np.array(CLASSES))
    network = settled(find_layout(NAME, num_classes=len(CLASSES), img_size=SIDE)).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    preprocess = Preprocess(size=SIDE)
    for _ in range(6):
        optimizer.zero_grad()
        F.cross_entropy(network(normalised(pixels[:60], preprocess)), torch.from_numpy(labels[:60])).backward()
        optimizer.step()
    export_network(network.eval(), root / "model", labels=CLASSES, preprocess=preprocess)
    return root


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fresh processes: every latency is 1 ms, and every verification holds."""

    def measure_many(models: Sequence[Any], **_: Any) -> list[Measurement]:
        return [MEASURED for _ in models]

    def measure(*_: Any, **__: Any) -> Measurement:
        return MEASURED

    def preferred_threads(*_: Any, **__: Any) -> ThreadChoice:
        return ThreadChoice(threads=1, measurements=())

    def verify_fresh(path: Path, **_: Any) -> Verification:
        return Verification(str(path), ())

    monkeypatch.setattr(stage, "measure_many", measure_many)
    monkeypatch.setattr(stage, "measure", measure)
    for fake in (measure, preferred_threads, verify_fresh):
        monkeypatch.setattr(finish, fake.__name__, fake)


def half(**changes: Any) -> Wish:
    return replace(Wish(measure="macs", target=Times(0.5)), **changes)


def prune(ground: Path, out: Path, *, source: str = "model", said: list[str] | None = None, **asked: Any) -> Result:
    words = said if said is not None else []
    session = Session(
        data=str(ground / "data.npz"), output=out, command=["prune", source, "-o", str(out)], say=words.append,
        warn=words.append,
    )  # fmt: skip
    job = PruneJob(source=ground / source, wish=half(), flags=QUICK, twin=False, max_drop=100.0)
    return prune_run(replace(job, **asked), session)


def rows_of(out: Path) -> tuple[LedgerRow, ...]:
    return Ledger(RunFolder(out).ledger, clock=FakeClock()).rows


def test_half_the_work_in_two_rounds_beside_a_twin(
    unmeasured: None, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is unless asked otherwise; ranked by pictures among which not every class is; classes weigh as in all
    that is trained on."""
    monkeypatch.setattr(going_on, "SAMPLE", 2)
    weighed = {**QUICK, "class_balance": "loss"}
    before = artifact_hash(ground / "model")
    whole = load_bundle(ground / "model")
    said: list[str] = []
    wish = half(importance="hessian")
    result = prune(ground, tmp_path / "out", said=said, steps=2, twin=None, flags=weighed, wish=wish)
    assert any("is trained for comparison, for the compute of both" in line for line in said)
    assert artifact_hash(ground / "model") == before
    made = load_bundle(tmp_path / "out" / "model", check_hashes=True)
    assert made.layout.name == f"{NAME}+pruned"
    assert cost(made.layout).macs <= cost(whole.layout).macs // 2
    assert made.size_bytes < 0.8 * whole.size_bytes
    assert load_model(tmp_path / "out").layout == made.layout
    assert made.config.provenance.weights == f"{NAME} of artifact {before}, pruned"
    assert [(row.name, row.met) for row in result.budget] == [("macs", True)]
    rows = {row.stage: row for row in rows_of(tmp_path / "out")}
    stages = [row.stage for row in rows_of(tmp_path / "out")]
    assert stages == ["parent", "session", "audit", "split", "cut", "cut", "baseline", "prune", "test", "verify"]
    first, second = (row for row in rows_of(tmp_path / "out") if row.stage == "cut")
    assert first.before["macs"] > first.after["macs"] == second.before["macs"] > second.after["macs"]
    twin = rows["baseline"]
    work = 0.5 * (first.after["macs"] + second.after["macs"])  # an epoch, half of it in either round
    assert Recipe.load(tmp_path / "out" / "twin" / "recipe.yaml").epochs == pytest.approx(work / twin.after["macs"])
    assert twin.after["model"].startswith(f"{NAME}@width=")
    assert twin.after["macs"] <= cost(made.layout).macs
    assert "its parent was trained is not known" in twin.reason
    assert rows["prune"].after["macs"] == cost(made.layout).macs
    assert rows["prune"].before["macs"] == cost(whole.layout).macs
    assert not (tmp_path / "out" / "candidates").exists()
    # Once more, by parameters and without training: a model like any other.
    said.clear()
    shutil.copy(ground / "data.npz", tmp_path)
    wish = Wish(measure="params", target=cost(made.layout).params - 1, importance="bn", spread="per-layer")
    again = prune(tmp_path, tmp_path / "again", source="out", said=said, flags={"threads": 1}, twin=None, wish=wish)
    assert again.final.params < cost(made.layout).params
    assert any("statistics were taken again" in line for line in said)
    left_out = {row.stage: row for row in rows_of(tmp_path / "again")}["baseline"].reason
    assert "left out, because nothing is trained here; --baseline trains one" in left_out
    assert [row.stage for row in rows_of(tmp_path / "again")].count("parent") == 2  # the whole story
    assert not (tmp_path / "again" / "recipe.yaml").exists()


@pytest.mark.parametrize(("asked", "step", "named", "says"), [
    ({"twin": False}, False, NAME, "left out (--no-baseline)"),
    ({}, True, NAME, "left out, because whole orders are compared"),
    ({"wish": None, "sparsity": 0.5}, False, NAME, "left out, because single weights make nothing smaller"),
    ({}, False, "mine", "left out, because only networks of netsmith models can be scaled down, and mine is none"),
    ({}, False, NAME, ""),
    ({"twin": True, "flags": {}}, False, NAME, ""),
])  # fmt: skip
def test_why_nothing_is_trained_beside_is_said(
    ground: Path, asked: dict[str, Any], step: bool, named: str, says: str
) -> None:
    parent = open_parent(ground / "model")
    config = parent.bundle.config
    config = config.model_copy(update={"layout": {**config.layout, "name": named}})
    parent = replace(parent, bundle=replace(parent.bundle, config=config))
    job = replace(PruneJob(source=ground / "model", wish=half(), flags=QUICK), **asked)
    at_work: Any = SimpleNamespace(session=SimpleNamespace(is_step=step), parent=parent)
    nothing: Any = None
    assert pruning._Pruning(job, nothing)._left_out(at_work) == says


def test_a_twin_that_breaks_down_takes_nothing_from_the_pruned_one(
    unmeasured: None, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose verdict was drawn before, and is obeyed by a run that goes on where it is slower."""
    train, broken = Training.train, "the loss is not finite at step 3: its logits are finite; largest norms head 9"
    ends: list[BaseException] = [KeyboardInterrupt(), Diverged(broken, "nothing is kept, try a smaller --lr")]

    def only_the_pruned_one(self: Training, *of: Any, recipe: Recipe | None = None, **more: Any) -> Any:
        if recipe is not None:
            raise ends.pop(0)
        return train(self, *of, **more)

    monkeypatch.setattr(Training, "train", only_the_pruned_one)
    with pytest.raises(KeyboardInterrupt):
        prune(ground, tmp_path / "out", twin=None)
    monkeypatch.setattr(stage, "measure_many", lambda models, **_: [replace(MEASURED, p50_ms=9.0) for _ in models])
    said: list[str] = []
    result = prune(ground, tmp_path / "out", twin=None, resume=True, said=said)
    *_, baseline, kept, _, _ = rows_of(tmp_path / "out")
    reason = "a natively scaled-down network for comparison was left out, because its training broke down: "
    assert (baseline.stage, baseline.reason, baseline.after) == ("baseline", reason + broken, {})
    assert baseline.reason in said
    assert (kept.stage, kept.verdict, kept.output) == ("prune", "kept", result.artifact)
    assert kept.after["latency_ms"]["p50"] == 1.0
    assert "p50 1 -> 1 ms" in kept.reason


def test_what_ends_the_comparison_says_how_to_ship_without_it(
    unmeasured: None, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it comes from the training of the other network or from measuring it."""
    train, said, way_out = Training.train, list[str](), "--resume --no-baseline goes by that"

    def without_memory(self: Training, *of: Any, recipe: Recipe | None = None, **more: Any) -> Any:
        if recipe is not None:
            raise CheckError("there is no memory for the optimizer's step")
        return train(self, *of, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "train", without_memory)
        with pytest.raises(CheckError, match=rf"^there is no memory for the optimizer's step; .*{way_out}"):
            prune(ground, tmp_path / "out", twin=None, said=said)
    assert sum(line.startswith("if the pruned network is kept, a network scaled") for line in said) == 1
    with monkeypatch.context() as patch:
        patch.setattr(stage, "measure_many", lambda models, **_: [*[MEASURED] * (len(models) - 1), None])
        with pytest.raises(CheckError, match=rf"was not measured in time; .*{way_out}"):
            prune(ground, tmp_path / "out", twin=None, resume=True)
    result = prune(ground, tmp_path / "out", twin=False, resume=True)
    *_, baseline, kept, _, _ = rows_of(tmp_path / "out")
    assert baseline.reason.endswith("left out (--no-baseline)")
    assert (kept.stage, kept.verdict, kept.output) == ("prune", "kept", result.artifact)


def test_a_run_that_was_stopped_between_its_rounds_goes_on(
    unmeasured: None, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = prune(ground, tmp_path / "straight", steps=2)
    train, calls = Training.train, [0]

    def stopped(self: Training, *given: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return train(self, *given, **more)

    monkeypatch.setattr(Training, "train", stopped)
    with pytest.raises(KeyboardInterrupt, match="with --resume to go on"):
        prune(ground, tmp_path / "stopped", steps=2)
    with pytest.raises(InputError, match=r"begun with --round-to 8, not 4"):
        prune(ground, tmp_path / "stopped", steps=2, resume=True, wish=half(round_to=4))
    with pytest.raises(InputError, match=r"begun with lr 0\.02, not 0\.03"):
        prune(ground, tmp_path / "stopped", steps=2, resume=True, flags={**QUICK, "lr": 0.03})
    resumed = prune(ground, tmp_path / "stopped", steps=2, resume=True)
    assert calls[0] == 3, "the first round is not trained again"
    assert resumed.artifact == straight.artifact
    assert [row.stage for row in rows_of(tmp_path / "stopped")].count("cut") == 2


def test_single_weights_become_zero_and_nothing_gets_smaller(unmeasured: None, ground: Path, tmp_path: Path) -> None:
    result = prune(ground, tmp_path / "out", wish=None, sparsity=0.8, max_drop=None)
    whole, made = load_model(ground / "model"), load_model(tmp_path / "out")
    assert made.layout == whole.layout
    layers = [tensor for name, tensor in made.state_dict().items() if name.endswith("weight") and tensor.dim() > 1]
    share = 1 - sum(int(each.count_nonzero()) for each in layers) / sum(each.numel() for each in layers)
    assert share == pytest.approx(0.8, abs=1e-3)
    assert any(not torch.equal(a, b) for a, b in zip(whole.parameters(), made.parameters(), strict=True))
    assert result.final.size_bytes == pytest.approx(load_bundle(ground / "model").size_bytes, rel=0.01)


def test_what_was_cut_without_training_on_other_pictures_keeps_its_word(
    unmeasured: None, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures of its record are those that it was judged on, not those that its parent was trained on."""
    parent = load_bundle(ground / "model")
    repack(parent, tmp_path / "model", provenance=parent.config.provenance.model_copy(update={"data": "0" * 64}))
    shutil.copy(ground / "data.npz", tmp_path)
    prune(tmp_path, tmp_path / "out", wish=half(importance="l1"), flags={"threads": 1})
    monkeypatch.setattr(verify_run, "measure", lambda *_, **__: MEASURED)
    assert broken(as_document(verify(tmp_path / "out"))) == []


def test_what_loses_too_much_is_refused_until_it_may(
    unmeasured: None, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is trained to compare it with, nor again when it is judged by another `--max-drop`."""
    out = tmp_path / "out"
    wish, flags = half(target=Times(0.05), round_to=1, importance="l1"), {**QUICK, "lr": 1e-6}
    asked: dict[str, Any] = {"wish": wish, "flags": flags}
    with pytest.raises(CheckError, match=r"prune is refused, it loses [\d.]+ points, more than the 0 allowed") as told:
        prune(ground, out, **asked, twin=None, max_drop=0.0)
    assert str(told.value).endswith(f"what is refused lies in {out / 'candidates' / 'pruned'}")
    assert "nothing was trained" not in str(told.value)
    assert not RunFolder(out).model.exists()
    *_, baseline, refused = rows_of(out)
    assert baseline.reason.endswith("because the pruned one is refused; --baseline trains one all the same")
    assert refused.verdict == "refused"
    assert load_bundle(out / "candidates" / "pruned").config.labels == CLASSES
    with pytest.raises(CheckError, match="more than the 0 allowed"):
        prune(ground, out, **asked, twin=None, max_drop=0.0, resume=True)
    assert [row.stage for row in rows_of(out)].count("prune") == 1, "by the same limit it is not judged again"

    def trained(*_: Any, **__: Any) -> Any:
        raise AssertionError("there is nothing to train")

    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "train", trained)
    with pytest.raises(CheckError, match=r"more than the 0\.5 allowed"):
        prune(ground, out, **asked, max_drop=0.5, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(Finisher, "complete", killed)
        with pytest.raises(KeyboardInterrupt):
            prune(ground, out, **asked, resume=True)
    with pytest.raises(InputError, match="was judged by another --max-drop"):
        prune(ground, out, **asked, max_drop=0.0, resume=True)
    assert prune(ground, out, **asked, resume=True).artifact == refused.output
    verdicts = [(row.verdict, row.output) for row in rows_of(out) if row.stage == "prune"]
    assert verdicts == [("refused", refused.output)] * 2 + [("kept", refused.output)]


def test_what_was_only_cut_and_refused_is_trained_where_that_is_allowed(
    unmeasured: None, ground: Path, tmp_path: Path
) -> None:
    mend = "nothing was trained after the cut: give --time such as 10m, or --epochs, with --resume"
    for flags, said in (({"threads": 1}, True), (QUICK, False), ({"threads": 1}, False)):
        with pytest.raises(CheckError, match="more than the -100 allowed") as told:
            prune(ground, tmp_path / "out", flags=flags, max_drop=-100.0, resume=True)
        assert (mend in str(told.value)) == said
    with pytest.raises(InputError, match="was begun with --time or --epochs; type that again"):
        prune(ground, tmp_path / "out", flags={"threads": 1}, max_drop=100.0, resume=True)
    cut, trained = (row for row in rows_of(tmp_path / "out") if row.stage == "prune")
    assert cut.output != trained.output
    assert [row.stage for row in rows_of(tmp_path / "out")].count("cut") == 1
    assert (tmp_path / "out" / "metrics.jsonl").exists()


def test_a_model_that_cannot_run_is_refused_before_anything_is_trained(ground: Path, tmp_path: Path) -> None:
    shutil.copytree(ground / "model", tmp_path / "model")
    shutil.copy(ground / "data.npz", tmp_path)
    model, record = tmp_path / "model" / "model.onnx", tmp_path / "model" / "config.json"
    graph = onnx.load(model)
    graph.graph.node[0].op_type = "Unheard"
    onnx.save(graph, model)
    config = json.loads(record.read_text())
    config["files"]["model.onnx"] = sha256_file(model)
    record.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"model\.onnx is refused by ONNX Runtime"):
        prune(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("asked", "says"), [
    ({"wish": half(target=Times(0.01))}, r"no pruning brings resnet14_cifar to [\d,]+ MACs; the least is [\d,]+, 0"),
    ({"wish": half(target=10**9)}, r"within 1,000,000,000 already"),
    ({"wish": half(round_to=0)}, "--round-to is 0"),
    ({"wish": None, "sparsity": 1.5}, r"--unstructured is 1\.5"),
    ({"steps": 2, "flags": {}}, "--steps cuts little by little"),
    ({"twin": True, "flags": {}}, "--baseline trains for as long as"),
    ({"flags": {**QUICK, "opt": "muon"}, "wish": None, "sparsity": 0.5}, "muon turns zeros"),
    ({"flags": {**QUICK, "teachers": ("0" * 64,)}}, "nobody teaches here"),
])  # fmt: skip
def test_bad_input_is_told_before_anything_is_written(
    ground: Path, tmp_path: Path, asked: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        prune(ground, tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_a_latency_is_found_by_halving(ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With files as fast as they are small, the largest network that fits is the one of that size."""
    network, whole = load_model(ground / "model"), load_bundle(ground / "model")

    def by_size(models: Sequence[bytes], **_: Any) -> list[Measurement]:
        return [replace(MEASURED, p50_ms=len(each) / 1e5, high=len(each) / 1e5) for each in models]

    monkeypatch.setattr(cutting, "measure_many", by_size)
    wish = Wish(measure="latency", target=Times(0.6), round_to=4)
    pools = wish.pools(network.layout, arrays_of(network))
    losses = all_alike(pools)
    way = [each.tolist() for each in path(losses, Spending.of(pools, "macs"), spread="global")]

    def milliseconds(kept: list[int]) -> float:
        layout = select(network.layout, pools.ties.keep(losses.drop(np.array(kept)))).layout
        return LatencyLimit(whole, Times(0.6)).timed(layout)[1].p50_ms

    for limit, most in ((Times(0.6), 0.6 * milliseconds(way[0])), (Milliseconds(1.5), HEADROOM * 1.5)):
        kept, shown = LatencyLimit(whole, limit).choose(losses, "global")
        place = way.index(kept.tolist())
        assert milliseconds(way[place]) <= most < milliseconds(way[place - 1])
        assert f"p50 {milliseconds(way[place]):.3g} ms" in shown
    with pytest.raises(InputError, match="the least, measured here, is p50"):
        LatencyLimit(whole, Times(0.01)).refuse(pools)
    with pytest.raises(InputError, match="within --latency already"):
        LatencyLimit(whole, Milliseconds(100.0)).refuse(pools)
    LatencyLimit(whole, Milliseconds(1.02 * milliseconds(way[0]))).refuse(pools)  # too near to be sure of
    least = milliseconds(way[-1]) / HEADROOM
    with pytest.raises(InputError, match=f"for 100us in the end; .*ask for no less than {least:.3g}ms"):
        LatencyLimit(whole, Milliseconds(0.1)).refuse(pools)


def test_a_finished_network_is_held_to_the_latency_that_was_asked_for(
    unmeasured: None, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that it was chosen by were faster than it turned out."""

    def halves(models: Sequence[Any], **_: Any) -> list[Measurement]:
        return [MEASURED, replace(MEASURED, p50_ms=0.5)]

    def finished(models: Sequence[Any], **_: Any) -> list[Measurement]:
        return [MEASURED, replace(MEASURED, p50_ms=0.8, low=0.8)]

    monkeypatch.setattr(cutting, "measure_many", halves)
    monkeypatch.setattr(stage, "measure_many", finished)
    with pytest.raises(CheckError, match=r"it takes 0\.80 of the time, more than the 0\.6 asked for"):
        prune(ground, tmp_path / "out", wish=half(measure="latency", target=Times(0.6)), flags={"threads": 1})


def test_what_is_late_is_refused_before_the_test_pictures_are_read(
    unmeasured: None, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is trained beside it; another session measures again, and may find it in time."""
    quick = replace(MEASURED, p50_ms=0.5, p90_ms=0.5, low=0.5, high=0.5)
    asked: list[int] = []

    def late(models: Sequence[Any], **_: Any) -> list[Measurement]:
        asked.append(len(models))
        return [MEASURED, replace(quick, high=0.9)]

    monkeypatch.setattr(cutting, "measure_many", lambda models, **_: [MEASURED, quick])
    monkeypatch.setattr(stage, "measure_many", late)
    out, wish = tmp_path / "out", half(measure="latency", target=Milliseconds(0.7))
    missed = "prune is refused, it misses latency 900us of 700us: .*; measure again with --resume when the machine is q"
    with pytest.raises(CheckError, match=missed):
        prune(ground, out, wish=wish, twin=None)
    rows = {row.stage: row for row in rows_of(out)}
    assert "left out, because the pruned one is refused" in rows["baseline"].reason
    assert (rows["prune"].verdict, asked) == ("refused", [2, 2, 2]), "measured as often as a finished model is"
    assert rows["prune"].before["latency_ms"]["high"] > rows["prune"].after["latency_ms"]["high"] == 0.9
    assert not any("test" in row.splits_read for row in rows.values())
    assert not RunFolder(out).model.exists()
    with pytest.raises(CheckError, match=missed):
        prune(ground, out, wish=wish, resume=True)
    monkeypatch.setattr(stage, "measure_many", lambda models, **_: [MEASURED, quick])
    monkeypatch.setattr(finish, "measure", lambda *_, **__: quick)
    result = prune(ground, out, wish=wish, resume=True)
    assert (result.artifact, [row.met for row in result.budget]) == (rows["prune"].output, [True])


@pytest.mark.parametrize("runs", [True, False])
def test_what_is_made_prefers_the_runtime_of_the_whole_network_in_which_it_was_probed_and_judged(
    unmeasured: None, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    """Where that runs here; else the one that stands in for it."""
    shutil.copytree(ground / "model", tmp_path / "model")
    shutil.copy(ground / "data.npz", tmp_path)
    write_preferred(load_bundle(tmp_path / "model"), Preferred(runtime="another", threads=1))
    if runs:
        monkeypatch.setitem(RUNTIMES, "another", ANOTHER)
    seen: list[Any] = []

    def timed(models: Sequence[Any], *, runtime: Any, threads: Any, **_: Any) -> list[Measurement]:
        seen.extend(zip(runtime, threads, strict=True) if isinstance(runtime, list) else [(runtime, threads)] * 2)
        return [MEASURED, replace(MEASURED, p50_ms=0.5)]

    monkeypatch.setattr(cutting, "measure_many", timed)
    monkeypatch.setattr(stage, "measure_many", timed)
    said: list[str] = []
    wish = half(measure="latency", target=Times(0.6))
    prune(tmp_path, tmp_path / "out", said=said, wish=wish, flags={"threads": 1})
    expected = "another" if runs else REFERENCE
    assert set(seen) == {(expected, 1)}
    assert len(seen) > 4, "probed and judged"
    assert load_bundle(tmp_path / "out").config.preferred == Preferred(runtime=expected, threads=1)
    plan = Plan(tmp_path / "out" / "plan.jsonl")
    assert plan.value("artifact.runtime", 0) == expected
    assert any("prefers the runtime 'another', which this netsmith does not know" in line for line in said) != runs


def test_the_twin_has_the_time_that_was_planned_with_and_what_is_not_counted_is_said(
    ground: Path, tmp_path: Path
) -> None:
    plans = [Plan(tmp_path / name) for name in ("first", "last")]
    for plan, seconds in zip(plans, (10.0, 20.0), strict=True):
        enter_time(plan, seconds)
        plan.record("total_steps", 100, at=0, why="")
        enter_time(plan, seconds)
        assert len(plan.rows) == 2
        enter_time(plan, 99.0)
        assert time_of(plan) == seconds, "typed anew after the last plan"
    plans[1].record("total_steps", 200, at=50, why="")
    enter_time(plans[1], 5.0)
    assert time_of(plans[1]) == 99.0
    rounds = [Round(share=0.5, macs=macs, plan=plan) for plan, macs in zip(plans, (30, 10), strict=True)]
    parent = open_parent(ground / "model")
    recipe = Recipe(model=NAME, img_size=SIDE, time_s=5.0)
    of: Any = SimpleNamespace(recipe=recipe)
    told = going_on.announcement(parent, of, asked=False)
    assert told.startswith("if the pruned network is kept, a network scaled down natively is trained")
    assert "for 5.0s: the 5.0s of the pruned one and what its parent took, a time that is not known" in told
    length, said = going_on._length(parent, of, rounds, macs=5)
    assert length == {"time_s": 10.0 + 99.0}
    assert said.startswith("1m49s, the time of both trainings")
    assert "how long its parent was trained is not known and not counted" in said
    of.recipe = recipe.model_copy(update={"time_s": None, "epochs": 2.0})
    assert going_on._length(parent, of, rounds, macs=5)[0] == {"epochs": (0.5 * 30 + 0.5 * 10) * 2 / 5}
    origin = parent.bundle.config.provenance.model_copy(update={"weights": f"resnet8 of artifact {'0' * 64}, pruned"})
    config = parent.bundle.config.model_copy(update={"provenance": origin})
    (tmp_path / "metrics.jsonl").write_text('{"seconds": 7.0, "epoch": 3.0}\n')
    known = Parent(parent.path, replace(parent.bundle, config=config), RunFolder(tmp_path))
    told = going_on.announcement(known, of, asked=True)
    assert told.startswith("a network scaled down natively is trained for comparison, for the compute of both")
    length, said = going_on._length(known, of, [], macs=cost(parent.bundle.layout).macs)
    assert length == {"epochs": 3.0}
    assert said.endswith("; what was trained before its parent's last training, from resnet8 on, is not counted")
    recipe.model_copy(update={"teachers": ("0" * 64,)}).save(tmp_path / "recipe.yaml")
    assert going_on._length(known, of, [], macs=1)[1].endswith("what its parent's teachers computed is not counted")
    of.recipe = recipe  # of a distillation
    lesson = _Lesson(
        DistillJob(student=NAME, teachers=[], train=TrainJob(flags={})),
        Session(data="", output=tmp_path, command=[]),
        [],
    )
    at: Any = SimpleNamespace(opened=of, finisher=SimpleNamespace(plan=plans[1]))
    assert lesson._twin_recipe(at, 1).time_s == 99.0


def test_a_recipe_file_is_held_to_what_flags_are_held_to(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "recipe.yaml"

    def refused(text: str, **flags: Any) -> str:
        file.write_text(text)
        with pytest.raises(InputError) as told:
            prune(ground, tmp_path / "out", config=file, flags=flags)
        assert not (tmp_path / "out").exists()
        return str(told.value)

    assert f"{file}: img_size cannot change here: the network keeps its own, 16" in refused("img_size: 32")
    assert f"{file}: drop_rate cannot change here" in refused("drop_rate: 0.5")
    assert f"{file}: drop_path cannot change here" in refused("drop_path: 0.1")
    assert "--img-size cannot change here" in refused("lr: 0.1", img_size=32)
    assert f"{file}: seed is 'x'" in refused("seed: x")
    assert "give --epochs or --time and not both" in refused("epochs: 1.0\ntime_s: 5.0")
    seeds: list[int] = []

    def opened(*_: Any, seed: int, **__: Any) -> Result:
        seeds.append(seed)
        raise InputError("opened")

    monkeypatch.setattr(pruning, "run_stage", opened)
    assert refused("img_size: 16\nseed: 7\ndrop_rate: 0.0\nepochs: 1.0") == "opened"
    assert refused("seed: 7", seed=8) == "opened"
    assert seeds == [7, 8], "by which pictures are split"


def test_a_pruned_network_learns_on_from_the_one_it_came_from(
    unmeasured: None, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a twin that begins with the same weights, when the teacher is gone; one whose training breaks down judges
    nothing. The runtime is the pruned one's."""
    prune(ground, tmp_path / "cut", flags={"threads": 1})
    monkeypatch.setitem(RUNTIMES, "another", ANOTHER)
    write_preferred(load_bundle(tmp_path / "cut"), Preferred(runtime="another", threads=1))
    network, alone = OurTeacher.network, _Lesson._alone
    teachers: list[weakref.ref[Network]] = []
    twins: list[Recipe] = []
    breaks = [Diverged("the loss is not finite", "nothing is kept")]

    def taught(self: OurTeacher) -> Network:
        found = network(self)
        teachers.append(weakref.ref(found))
        return found

    def compared(self: _Lesson, at: Any, folder: RunFolder, recipe: Recipe) -> Any:
        gc.collect()
        assert {each() for each in teachers} == {None}
        if breaks:
            raise breaks.pop()
        twins.append(recipe)
        return alone(self, at, folder, recipe)

    def kept(before: Judged, after: Judged, **_: Any) -> Found:
        return Found(True, "whatever came of it")

    monkeypatch.setattr(OurTeacher, "network", taught)
    monkeypatch.setattr(_Lesson, "_alone", compared)
    monkeypatch.setattr(distilling, "verdict", kept)
    job = DistillJob(student=str(tmp_path / "cut"), teachers=[str(ground / "model")], train=TrainJob(flags=QUICK))
    session = Session(data=str(ground / "data.npz"), output=tmp_path / "out", command=["distill"])
    with pytest.raises(CheckError, match=r"cannot judge the student: the loss is not finite; go on with --resume and"):
        distill_run(job, session)
    job = replace(job, train=TrainJob(flags=QUICK, resume=True))
    shutil.copytree(tmp_path / "out", tmp_path / "unjudged")
    unjudged = distill_run(replace(job, twin=False), replace(session, output=tmp_path / "unjudged"))
    assert not twins
    *_, entered, trained = (row for row in rows_of(tmp_path / "unjudged") if row.stage == "train")
    assert (entered.output, trained.output) == (None, unjudged.artifact), "with the numbers of what is shipped"
    assert trained.inputs == [artifact_hash(tmp_path / "cut" / "model")], "beside what it went on with"
    teachers.clear()
    result = distill_run(job, session)
    recipe = Recipe.load(tmp_path / "out" / "recipe.yaml")
    cut = artifact_hash(tmp_path / "cut" / "model")
    assert (recipe.parent, recipe.model, recipe.teachers) == (cut, f"{NAME}+pruned", (artifact_hash(ground / "model"),))
    assert [(each.parent, each.teachers) for each in twins] == [(cut, ())]
    assert load_model(tmp_path / "out").layout == load_model(tmp_path / "cut").layout
    assert result.final.macs < cost(load_model(ground / "model").layout).macs
    assert result.final.runtime == "another"
    stages = [row.stage for row in rows_of(tmp_path / "out")]
    assert stages.index("prune") < stages.index("distill"), "one story"


@pytest.mark.slow
def test_pruned_as_typed(ground: Path, tmp_path: Path) -> None:
    """Measured, and verified in a fresh process; of a network that is much faster with fewer channels, so that only a
    busy machine excuses a refusal."""
    network, out = settled(find_layout(NAME, num_classes=len(CLASSES), img_size=32)).eval(), tmp_path / "out"
    export_network(network, tmp_path / "model", labels=CLASSES, preprocess=Preprocess(size=32))
    command = ["prune", str(tmp_path / "model"), "--data", str(ground / "data.npz"), "--latency", "0.6"]
    command += ["--epochs", "1", "--threads", "1", "--no-baseline", "--max-drop", "100", "-o", str(out), "--json", "-q"]
    done = subprocess.run([sys.executable, "-m", "netsmith", *command], capture_output=True, text=True)
    if done.returncode == 1:
        row = rows_of(out)[-1]
        noise = max(side["latency_ms"]["noise"] for side in (row.before, row.after))
        if noise > NOISY:
            pytest.skip(f"other work on the machine, noise {noise:.0%}: {row.reason}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["final"]["model"] == f"{NAME}+pruned"
    verify = [sys.executable, "-m", "netsmith", "verify", str(tmp_path / "out"), "--json"]
    assert not broken(json.loads(subprocess.run(verify, capture_output=True, text=True).stdout))
