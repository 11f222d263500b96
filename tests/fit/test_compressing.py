"""`compress` from the opened model to the shipped one, and what it does where nothing fits; latencies are made up."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from striped import Weights, neighbours, solved, stripes, write_solved, write_stripes

from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout
from netsmith.arch.names import find_layout, find_spec
from netsmith.arch.scale import for_size
from netsmith.arch.spec import with_classes
from netsmith.artifact.bundle import (
    Bundle,
    Preferred,
    Provenance,
    artifact_hash,
    load_bundle,
    write_bundle,
    write_preferred,
)
from netsmith.artifact.evaluate import Evaluation
from netsmith.artifact.latency import Measurement, ThreadChoice
from netsmith.artifact.runtimes import REFERENCE, RUNTIMES, open_model
from netsmith.artifact.verify import Verification
from netsmith.cli.main import run
from netsmith.compress.quantize.graph import Graph, write_model
from netsmith.compress.quantize.half import Half, halve
from netsmith.errors import CheckError, Diverged, InputError
from netsmith.export.repack import repack
from netsmith.fit import compressing, doing, finish, forecast, quantizing, stage, trying
from netsmith.fit.compressing import compress_run
from netsmith.fit.distilling import DistillJob
from netsmith.fit.doing import CompressJob, Finalist
from netsmith.fit.forecast import Forecast, cut_to_fit, students_that_fit
from netsmith.fit.judged import Found, Judged
from netsmith.fit.parent import open_parent
from netsmith.fit.quantizing import QuantizeJob
from netsmith.fit.session import Session
from netsmith.fit.stage import Stage, run_stage
from netsmith.models.build import load_model
from netsmith.run.budget import Budget, BudgetRow
from netsmith.run.clock import FakeClock
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger, LedgerRow
from netsmith.run.plan import Plan
from netsmith.run.result import Result
from netsmith.search.orders import Form

NETWORK = "resnet20_cifar@0.5,depth=0.34"
needs_bfloat16 = pytest.mark.skipif(
    RUNTIMES["openvino-bf16"].obstacle() is not None, reason=f"openvino-bf16 {RUNTIMES['openvino-bf16'].obstacle()}"
)
QUICK: dict[str, Any] = {"batch_size": 40, "threads": 1, "dtype": "float32", "lr": 0.01}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`stripes.npz`, and `model`, which tells them apart."""
    root = tmp_path_factory.mktemp("compressing")
    write_stripes(root / "stripes.npz")
    write_solved(root / "model", *solved(NETWORK))
    return root


def made_up(ms: float) -> Measurement:
    return Measurement(
        p50_ms=ms, p90_ms=ms, low=ms, high=ms, noise=0.0, peak_memory_bytes=10**7, threads=1, runtime="onnxruntime",
        warmup=1, runs=40, resize_ms=None,
    )  # fmt: skip


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million MACs take a millisecond, in int8 half of that, computed in bfloat16 two thirds; every verification
    holds."""
    monkeypatch.setattr(quantizing, "INT8_IN", (REFERENCE,))

    def takes(folder: Path) -> Measurement:
        bundle = load_bundle(folder)
        times = {"int8": 2.0, "openvino-bf16": 1.5}
        fastest = max(times.get(each, 1.0) for each in (bundle.config.precision, bundle.config.preferred.runtime))
        return made_up(cost(bundle.layout).macs / 1e6 / fastest)

    monkeypatch.setattr(stage, "measure_many", lambda models, **_: [takes(model.parent) for model in models])
    monkeypatch.setattr(stage, "measure", lambda folder, **_: takes(folder))
    monkeypatch.setattr(finish, "measure", lambda folder, **_: takes(folder))
    monkeypatch.setattr(finish, "preferred_threads", lambda *_, **__: ThreadChoice(threads=1, measurements=()))
    monkeypatch.setattr(finish, "verify_fresh", lambda path, **_: Verification(str(path), ()))


def compress(ground: Path, out: Path, budget: Budget, *, said: list[str] | None = None, **asked: Any) -> Result:
    command = ["compress", str(ground / "model"), "--budget", str(budget), "-o", str(out)]
    words = said if said is not None else []
    session = Session(data=str(ground / "stripes.npz"), output=out, command=command, say=words.append)
    job = CompressJob(source=ground / "model", budget=budget, flags=QUICK, measure_s=0.2)
    return compress_run(replace(job, **asked), session)


def stopped(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def rows_of(folder: Path, stage: str | None = None) -> list[LedgerRow]:
    rows = Ledger(RunFolder(folder).ledger, clock=FakeClock()).own
    return [row for row in rows if stage in (None, row.stage)]


@pytest.mark.usefixtures("unmeasured")
def test_where_int8_alone_fits_nothing_is_trained(ground: Path, tmp_path: Path) -> None:
    before, out = artifact_hash(ground / "model"), tmp_path / "out"
    whole = load_bundle(ground / "model")
    said: list[str] = []
    budget, more = Budget(size_bytes=whole.size_bytes * 3 // 5), tmp_path / "more"
    more.mkdir()
    (more / "broken.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"none of its 1 pictures is of use \(1 cannot be read\)"):
        compress(ground, out, budget, time_s=60.0, unlabelled=more)
    assert not out.exists()
    Image.fromarray(stripes(1, seed=7)[0][0]).save(more / "one.png")
    result = compress(ground, out, budget, said=said, time_s=60.0, unlabelled=more)
    assert f"nothing is trained: {more} is not used" in said
    assert artifact_hash(ground / "model") == before, "the input is never written to"
    assert result.final.precision in ("int8", "float16")
    assert all(row.met for row in result.budget)
    (left_out,) = rows_of(out, "order")
    assert left_out.reason in said
    assert left_out.reason.startswith("all that trains: not tried, ")
    assert left_out.reason.endswith(" fits and is as good within chance")
    assert {path.name for path in (out / "stages").iterdir()} == {"quantize", "halve"}

    finalists = rows_of(out, "finalist")
    assert [row.after["order"] for row in finalists] == ["as-it-is", "quantize", "halve"]
    assert finalists[0].verdict == "refused", "the model as it is misses the size"
    (won,) = [row for row in finalists if row.after["won"]]
    (outcome,) = rows_of(out, "compress")
    assert outcome.output == won.output == result.artifact
    assert (outcome.verdict, outcome.before["size_bytes"]) == ("kept", whole.size_bytes)
    rungs = rows_of(out, "rung")
    assert rungs, "what a step tried is in the one ledger"
    assert all("max_drop" in row.after for row in [*rungs, *rows_of(out, "quantize")]), "stages/ may be removed"
    assert {row.after["step"] for row in rungs} <= {"quantize/1-quantize", "quantize/1-loosely-quantize"}

    reads = [row for row in rows_of(out) if "test" in row.splits_read]
    assert [row.inputs for row in reads] == [[result.artifact]], "once, by the winner"
    for step in (out / "stages").glob("*/*"):
        assert not any("test" in row.splits_read for row in rows_of(step))
        assert not (step / "predictions" / "test.npz").exists()
    page = (out / "report.html").read_text()
    assert "What was tried" in page
    assert "Before and after" in page
    assert {"run.json", "results.json", "plan.jsonl", "ledger.jsonl"} <= {path.name for path in out.iterdir()}


@pytest.mark.usefixtures("unmeasured")
def test_a_stopped_run_goes_on_with_what_it_began_to_try(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    budget = Budget(macs=round(0.7 * cost(load_bundle(ground / "model").layout).macs))

    class Interrupted(list[str]):
        def append(self, text: str, /) -> None:
            if "not tried" in text:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=rf"^{out} keeps what was done; type the same command with --resume"):
        compress(ground, out, budget, said=Interrupted(), time_s=1.0)
    assert len(rows_of(out, "order")) == 1

    def busy(*_: Any, **__: Any) -> Any:
        raise CheckError("it was not measured in time; close other programs and go on (--resume)")

    with monkeypatch.context() as patch:
        patch.setattr(doing, "prune_run", busy)
        with pytest.raises(CheckError, match="close other programs"):
            compress(ground, out, budget, time_s=1.0, resume=True)
    assert not rows_of(out, "prune"), "what passes says nothing about an order"
    rounded: list[Path] = []
    quantize_run = doing.quantize_run

    def counted(job: Any, session: Session) -> Result:
        rounded.append(session.output.relative_to(out / "stages"))
        return quantize_run(job, session)

    monkeypatch.setattr(doing, "quantize_run", counted)
    result = compress(ground, out, budget, time_s=1.0, resume=True)
    assert rounded, "the pruned network is rounded"
    assert {path.parts[0] for path in rounded} == {"prune+quantize"}, "what was finished is not done again"
    assert result.final.macs <= (budget.macs or 0)

    orders = {row.after["order"]: row for row in rows_of(out, "order")}
    assert [name for name, row in orders.items() if row.verdict == "done"] == ["prune+quantize"]
    assert "the time is enough for 1 of" in orders["distill+quantize"].reason
    assert Plan(RunFolder(out).plan).value("compress.seconds", 0) == {"prune+quantize/1-prune": 1.0}
    finalists = {row.after["order"]: row for row in rows_of(out, "finalist")}
    assert finalists["quantize"].verdict == "refused", "rounding leaves as many MACs"
    assert finalists["prune+quantize/1-prune"].verdict == "kept", "what was made on the way may win too"
    (cut,) = rows_of(out, "cut")
    assert cut.after["step"] == "prune+quantize/1-prune"
    assert cut.after["macs"] <= (budget.macs or 0)
    assert RunFolder(out).recipe.exists(), "how the winner was trained"
    assert RunFolder(out).metrics.exists()


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, bool]]:
    """int8 is made up: it loses two pictures of eighty, 2.5 points, and none where it may train; what was asked."""
    asked: list[tuple[str, float, bool]] = []

    def rounded(job: QuantizeJob, session: Session) -> Result:
        asked.append((job.precision, job.max_drop, "time_s" in job.training))

        def work(at: Stage) -> Result:
            before, after = at.judge(at.parent.bundle, at.parent.bundle)
            lost = 0.0 if job.training else 0.025
            after = replace(after, score=after.score.model_copy(update={"value": before.score.value - lost}))
            found = Found(job.precision == "int8" and 100 * lost <= job.max_drop, f"it loses {100 * lost:.2f} points")
            at.enter(before, after, found, stage="rung", more={"slow": False})
            at.enter(before, after, found)
            if not found.kept:
                raise CheckError(found.reason)
            origin = Provenance(data=at.dataset.fingerprint, weights=f"rounded, {len(asked)}")
            return at.ship(repack(at.parent.bundle, at.candidate("int8"), provenance=origin))

        return run_stage("quantize", open_parent(job.source), session, work, resume=True, measure_s=0.2)

    monkeypatch.setattr(doing, "quantize_run", rounded)
    return asked


@pytest.fixture
def int8_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ladder of int8 is made up; the rest of `quantize` is not."""
    quantize_run = doing.quantize_run

    def slow(job: QuantizeJob, session: Session) -> Result:
        if job.precision != "int8":
            return quantize_run(job, session)

        def work(at: Stage) -> Result:
            before, after = at.judge(at.parent.bundle, at.parent.bundle)
            at.enter(before, after, Found(False, "it is not faster"), stage="rung", more={"slow": True})
            at.enter(before, after, Found(False, "it is not faster"))
            raise CheckError("it is not faster")

        return run_stage("quantize", open_parent(job.source), session, work, resume=True, measure_s=0.2)

    monkeypatch.setattr(doing, "quantize_run", slow)


def mistakes(model: bytes, lift: float = 0.0) -> int:
    """How many of the 80 validation pictures a model answers wrong, with so much more on the first class."""
    pixels, labels = (each[160:240] for each in stripes(280, seed=0))
    logits = open_model(model).run(pixels).logits
    logits[:, 0] += lift
    return int((logits.argmax(axis=1) != labels).sum())


def answering(model: bytes, *, wrong: int) -> bytes:
    """A model with more on the first class, so that it answers so many validation pictures wrong."""
    logits = open_model(model).run(stripes(280, seed=0)[0][160:240]).logits
    behind = np.unique(logits.max(axis=1) - logits[:, 0])
    lift = next(lift for lift in (behind[1:] + behind[:-1]) / 2 if mistakes(model, lift) == wrong)
    graph = Graph(model)
    name = f"{graph.layers()[-1]}.bias"
    bias = graph.constants[name].copy()
    bias[0] += lift
    return write_model(graph.proto, graph.nodes, {**graph.constants, name: bias})


@pytest.mark.usefixtures("unmeasured", "int8_is_slow")
@pytest.mark.parametrize(
    ("lost", "max_drop", "allowed"), [(2, None, 5.0), (2, 2.5, 2.5), (2, 2.0, None), (5, None, None)]
)
def test_half_the_bytes_cost_what_the_budget_and_max_drop_allow(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int, max_drop: float | None,
    allowed: float | None,
) -> None:  # fmt: skip
    """More than the half point of `quantize`, and at most five. Two of eighty pictures are 2.5 points."""

    def lossy(graph: Graph, kind: Half) -> bytes:
        return halve(Graph(answering(graph.model, wrong=mistakes(graph.model) + lost)), kind)

    monkeypatch.setattr(quantizing, "halve", lossy)
    out, budget = tmp_path / "out", Budget(size_bytes=load_bundle(ground / "model").size_bytes * 3 // 5)
    if allowed is None:
        with pytest.raises(CheckError, match="nothing fits the budget"):
            compress(ground, out, budget, time_s=0.0, max_drop=max_drop)
        return
    assert compress(ground, out, budget, time_s=0.0, max_drop=max_drop).final.precision == "float16"
    row = rows_of(out, "quantize")[-1]
    assert (row.verdict, row.after["max_drop"], row.after["loses"]) == ("kept", allowed, pytest.approx(2.5))


def beyond_float16(layout: Layout, weights: Weights) -> None:
    """A layer's weights become huge, and those of the next as small: the function stays."""
    _, norm, second = neighbours(layout)
    for entry in ("weight", "bias"):
        weights[f"{norm}.{entry}"] *= 1e7
    weights[f"{second}.weight"] /= 1e7


@pytest.mark.usefixtures("unmeasured", "int8_is_slow")
def test_weights_that_float16_cannot_hold_fail_that_order_alone(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the run goes on; what is trained then aims at another form."""
    place, out, said = tmp_path / "ground", tmp_path / "out", list[str]()
    place.mkdir()
    shutil.copy(ground / "stripes.npz", place)
    whole = write_solved(place / "model", *solved(NETWORK, beyond_float16))
    monkeypatch.setattr(doing, "prune_run", stopped)
    for resume in (False, True):
        with pytest.raises(KeyboardInterrupt):
            compress(place, out, Budget(size_bytes=whole.size_bytes * 3 // 5), said=said, time_s=1.0, resume=resume)
        (row,) = [row for row in rows_of(out, "quantize") if row.verdict == "failed"]
        assert row.reason.startswith("halve/1-halve: ")
        assert row.reason.endswith("holds weights beyond 65504, which float16 ends at")
    assert Plan(RunFolder(out).plan).value("compress.seconds", 0) == {"prune/1-prune": 1.0}
    assert "prune+halve: not tried, the whole model was refused in it" in said


@needs_bfloat16
@pytest.mark.usefixtures("unmeasured", "int8_is_slow")
def test_bfloat16_is_what_fits_a_latency_where_int8_is_slow(ground: Path, tmp_path: Path) -> None:
    whole = cost(load_bundle(ground / "model").layout).macs / 1e6
    result = compress(ground, tmp_path / "out", Budget(latency_ms=0.7 * whole), time_s=60.0)
    assert (result.final.precision, result.final.runtime) == ("bfloat16", "openvino-bf16")
    finalists = {row.after["order"]: row.verdict for row in rows_of(tmp_path / "out", "finalist")}
    assert finalists == {"as-it-is": "refused", "bfloat16": "kept"}


@needs_bfloat16
@pytest.mark.usefixtures("unmeasured", "int8_is_slow")
def test_what_was_made_for_a_runtime_that_is_gone_is_neither_forgotten_nor_shipped_as_anothers(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cost(load_bundle(ground / "model").layout).macs / 1e6
    out, budget = tmp_path / "out", Budget(latency_ms=0.7 * whole)
    with monkeypatch.context() as patch:
        patch.setattr(compressing, "_keep_record", stopped)
        with pytest.raises(KeyboardInterrupt):
            compress(ground, out, budget, time_s=60.0)
    with monkeypatch.context() as patch:
        patch.setitem(RUNTIMES, "openvino-bf16", replace(RUNTIMES["openvino-bf16"], package="nobody_has_this"))
        with monkeypatch.context() as lost:
            lost.setattr(trying.Trying, "_in_bfloat16", lambda _: [])
            with pytest.raises(InputError, match="chose bfloat16 in an earlier session, and that is not there any"):
                compress(ground, out, budget, time_s=60.0, resume=True)
        with pytest.raises(InputError, match="was judged in openvino-bf16, which is not installed"):
            compress(ground, out, budget, time_s=60.0, resume=True)
    assert not RunFolder(out).finished
    assert compress(ground, out, budget, time_s=60.0, resume=True).final.runtime == "openvino-bf16"
    assert [row.after["order"] for row in rows_of(out, "order")] == ["all that trains"]
    assert Plan(RunFolder(out).plan).value("compress.untrained", 0)["runs_in"] == {
        "int8": {"runtime": REFERENCE, "threads": 1}, "bfloat16": {"runtime": "openvino-bf16", "threads": 1},
    }  # fmt: skip


@pytest.mark.usefixtures("unmeasured")
def test_the_model_as_it_is_prefers_what_it_is_judged_in(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what it preferred cannot run here."""
    (tmp_path / "ground").mkdir()
    shutil.copytree(ground / "model", tmp_path / "ground" / "model")
    write_preferred(load_bundle(tmp_path / "ground" / "model"), Preferred(runtime="openvino", threads=1))
    shutil.copy(ground / "stripes.npz", tmp_path / "ground")
    monkeypatch.setitem(RUNTIMES, "openvino", replace(RUNTIMES["openvino"], package="nobody_has_this"))
    monkeypatch.setattr(doing, "quantize_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        compress(tmp_path / "ground", tmp_path / "out", Budget(params=10**9), time_s=0.0)
    made = load_bundle(RunFolder(tmp_path / "out").candidates / "as-it-is")
    assert made.config.preferred == Preferred(runtime=REFERENCE, threads=1)


@needs_bfloat16
@pytest.mark.usefixtures("unmeasured", "int8_is_slow")
def test_what_has_to_shrink_further_aims_at_bfloat16_and_not_at_float32(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because every network is faster in it; how far is measured in the runtime that will serve it."""
    out, whole = tmp_path / "out", load_bundle(ground / "model")
    ms, asked = cost(whole.layout).macs / 1e6, set[str]()

    def timed(models: Sequence[bytes], *, runtime: str, **_: Any) -> list[Measurement]:
        asked.add(runtime)
        return [made_up(ms * len(models[0]) / whole.size_bytes)]  # half the bytes, half the time

    monkeypatch.setattr(forecast, "measure_many", timed)
    monkeypatch.setattr(doing, "prune_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        compress(ground, out, Budget(latency_ms=0.4 * ms), time_s=1.0)
    assert asked == {"openvino-bf16"}
    assert Plan(RunFolder(out).plan).value("compress.seconds", 0) == {"prune+bfloat16/1-prune": 1.0}
    orders = {row.after["order"]: row.reason for row in rows_of(out, "order")}
    assert orders["prune"] == "prune: not tried, the same network is faster in bfloat16"


@pytest.fixture
def worse_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bfloat16 computes the answers are those of the whole model, but for two of eighty that are wrong."""
    evaluate, whole = stage.evaluate, list[Evaluation]()

    def other(session: Any, pixels: Any, labels: Any, **more: Any) -> Evaluation:
        found = evaluate(session, pixels, labels, **more)
        whole.append(found)  # which is the first that is asked
        if session.runtime != "openvino-bf16":
            return found
        logits = whole[0].logits.copy()
        logits[np.flatnonzero(logits.argmax(axis=1) == labels)[:2]] *= -1
        return replace(found, logits=logits)

    monkeypatch.setattr(stage, "evaluate", other)


@needs_bfloat16
@pytest.mark.usefixtures("unmeasured", "int8_is_slow", "worse_in_bfloat16")
def test_bfloat16_that_answers_worse_serves_where_only_it_fits_and_nothing_forbids_it(
    ground: Path, tmp_path: Path
) -> None:
    budget = Budget(latency_ms=0.7 * cost(load_bundle(ground / "model").layout).macs / 1e6)
    result = compress(ground, tmp_path / "out", budget, time_s=0.0)
    assert (result.final.precision, result.final.runtime) == ("bfloat16", "openvino-bf16")
    with pytest.raises(CheckError, match="nothing fits the budget"):
        compress(ground, tmp_path / "strict", budget, time_s=0.0, max_drop=1.0)


@needs_bfloat16
@pytest.mark.usefixtures("unmeasured", "int8_is_slow", "worse_in_bfloat16")
def test_where_bfloat16_answers_worse_what_is_trained_aims_at_float32_too(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "out", load_bundle(ground / "model")
    ms = cost(whole.layout).macs / 1e6

    def timed(models: Sequence[bytes], *, runtime: str, **_: Any) -> list[Measurement]:
        slower = 4 / 3 if runtime == "openvino-bf16" else 1.0  # by its bytes, of which it has half
        return [made_up(slower * ms * len(models[0]) / whole.size_bytes)]

    monkeypatch.setattr(forecast, "measure_many", timed)
    monkeypatch.setattr(doing, "prune_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        compress(ground, out, Budget(latency_ms=0.6 * ms), time_s=60.0)
    trained = Plan(RunFolder(out).plan).value("compress.seconds", 0)
    assert {*trained} == {"prune+bfloat16/1-prune", "prune/1-prune"}


@pytest.mark.usefixtures("unmeasured", "int8_is_slow")
def test_where_bfloat16_cannot_run_here_that_is_said(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNTIMES, "openvino-bf16", replace(RUNTIMES["openvino-bf16"], package="nobody_has_this"))
    said: list[str] = []
    with pytest.raises(CheckError, match="nothing fits"):
        compress(ground, tmp_path / "out", Budget(latency_ms=0.01), said=said, time_s=0.0)
    assert "bfloat16: not tried, openvino-bf16 is not installed (pip install 'netsmith[openvino]')" in said


@pytest.mark.usefixtures("unmeasured", "lossy")
def test_pictures_without_labels_reach_what_is_distilled(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where nothing is distilled, that is said."""
    more = tmp_path / "more"
    more.mkdir()
    Image.fromarray(stripes(1, seed=7)[0][0]).save(more / "one.png")
    jobs: list[Any] = []

    def taught(job: Any, session: Session, **_: Any) -> Any:
        jobs.append(job)
        raise Diverged("as far as it goes here", "there is no checkpoint yet")

    monkeypatch.setattr(doing, "distill_run", taught)
    monkeypatch.setattr(doing, "prune_run", taught)
    budget, said = Budget(macs=round(0.7 * cost(load_bundle(ground / "model").layout).macs)), list[str]()
    for name, seconds in (("short", 1.0), ("long", 600.0)):
        with pytest.raises(CheckError, match="nothing fits"):
            compress(ground, tmp_path / name, budget, said=said, time_s=seconds, unlabelled=more)
        unused = f"no order that is tried learns from a teacher: {more} is not used"
        assert (unused in said) == (name == "short")
        said.clear()
    distilled = [job for job in jobs if isinstance(job, DistillJob)]
    assert distilled
    assert {job.unlabelled for job in distilled} == {more}


@pytest.mark.usefixtures("unmeasured", "lossy")
def test_an_order_that_diverges_is_left_with_the_reason(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*_: Any, **__: Any) -> Any:
        raise Diverged("the loss is not finite at step 3", "there is no checkpoint yet")

    monkeypatch.setattr(doing, "prune_run", diverges)
    budget = Budget(macs=round(0.7 * cost(load_bundle(ground / "model").layout).macs))
    with pytest.raises(CheckError, match="nothing fits"):
        compress(ground, tmp_path / "out", budget, time_s=1.0)
    (row,) = rows_of(tmp_path / "out", "prune")
    why = "the loss is not finite at step 3; there is no checkpoint yet"
    assert (row.verdict, row.reason) == ("failed", f"prune+quantize/1-prune: {why}")


@pytest.mark.usefixtures("unmeasured", "lossy")
def test_int8_that_was_made_and_misses_is_not_believed_to_fit(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the forecast says; made up it is as large as float."""

    out, size = tmp_path / "out", load_bundle(ground / "model").size_bytes
    monkeypatch.setattr(doing, "prune_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        compress(ground, out, Budget(size_bytes=size * 3 // 5), time_s=1.0)
    assert Plan(RunFolder(out).plan).value("compress.seconds", 0) == {"prune+quantize/1-prune": 1.0}
    reach = Plan(RunFolder(out).plan).value("compress.int8", 0)["reach"]
    assert (reach["whole"], reach["obstacles"]) == (False, {})


@pytest.mark.usefixtures("unmeasured", "lossy")
def test_a_recipe_file_holds_for_all_that_is_trained(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the flags, and but for what the orders decide; rounding has its own use for it."""
    file, jobs = tmp_path / "mine.yaml", list[Any]()
    file.write_text(
        "model: resnet18\nimg_size: 64\ntrain_size: 48\nepochs: 30\nopt: adamw\nlr: 0.002\n"
        "distill_loss: kd\nalpha: 3.0\n"
    )

    def asked(job: Any, session: Session, **_: Any) -> Result:
        jobs.append(job)
        raise KeyboardInterrupt

    whole = load_bundle(ground / "model")
    flags = {name: value for name, value in QUICK.items() if name != "lr"}
    budget = Budget(macs=round(0.7 * cost(whole.layout).macs))
    with monkeypatch.context() as patch:
        patch.setattr(doing, "prune_run", asked)
        with pytest.raises(KeyboardInterrupt):
            compress(ground, tmp_path / "out", budget, time_s=1.0, config=file, flags=flags)
    assert jobs[0].flags == {**flags, "opt": "adamw", "lr": 0.002, "time_s": 1.0}
    with pytest.raises(InputError, match=r"was begun with the recipe \{.*'lr': 0\.002.*\}, not \{.*'lr': 0\.01"):
        compress(ground, tmp_path / "out", budget, time_s=1.0, config=file, resume=True)
    file.write_text("learning_rate: 0.1\n")
    with pytest.raises(InputError, match=r"mine\.yaml has the unknown key 'learning_rate'"):
        compress(ground, tmp_path / "other", budget, config=file)
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("unmeasured", "lossy")
def test_a_step_that_was_begun_with_fewer_points_goes_on_with_them(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps were once given other points than now, and a step is held to what it was begun with."""
    out, rounded, points = tmp_path / "out", doing.quantize_run, list[float]()
    step = RunFolder(out / "stages" / "halve" / "1-halve")

    def stopped(job: QuantizeJob, session: Session) -> Result:
        if job.precision == "int8":
            return rounded(job, session)
        points.append(job.max_drop)
        raise KeyboardInterrupt

    monkeypatch.setattr(doing, "quantize_run", stopped)
    budget = Budget(size_bytes=load_bundle(ground / "model").size_bytes * 3 // 5)
    with pytest.raises(KeyboardInterrupt):
        compress(ground, out, budget, time_s=0.0)
    step.path.mkdir(parents=True, exist_ok=True)
    Plan(step.plan).add("asked", {"--max-drop": 0.5}, at=0, why="as typed")
    with pytest.raises(KeyboardInterrupt):
        compress(ground, out, budget, time_s=0.0, resume=True)
    assert points == [5.0, 0.5]


def test_a_model_that_its_runtime_does_not_open_is_told_before_there_is_a_folder(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unlike who predicts, who compresses has it judged and timed in that runtime."""
    place = tmp_path / "ground"
    shutil.copytree(ground, place)
    write_preferred(load_bundle(place / "model"), Preferred(runtime="openvino", threads=1))

    def refuses(model: Path | bytes, threads: int) -> Any:
        raise InputError("it is refused by OpenVINO")

    monkeypatch.setitem(RUNTIMES, "openvino", replace(RUNTIMES[REFERENCE], open=refuses))
    with pytest.raises(InputError, match="refused by OpenVINO"):
        compress(place, tmp_path / "out", Budget(params=10**9), time_s=0.0)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("unmeasured")
def test_what_is_only_late_on_a_busy_machine_is_measured_again_on_resume(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "out", cost(load_bundle(ground / "model").layout).macs / 1e6
    times: list[float] = [1.0]
    judged = trying.Trying.judged

    def slowed(self: trying.Trying, found: Sequence[Finalist]) -> tuple[Judged, list[Judged]]:
        before, after = judged(self, found)
        factor = times.pop() if times else 1.9
        late = [each.latency.model_copy(update={"high": factor * each.latency.high}) for each in after]
        return before, [replace(each, latency=one) for each, one in zip(after, late, strict=True)]

    budget = Budget(latency_ms=0.6 * whole)
    with monkeypatch.context() as patch:
        patch.setattr(trying.Trying, "judged", slowed)
        with pytest.raises(CheckError, match="nothing fits the budget .* measure again with --resume when the machine"):
            compress(ground, out, budget, time_s=0.0)
    assert not rows_of(out, "compress")
    assert not rows_of(out, "finalist")
    assert compress(ground, out, budget, time_s=0.0, resume=True).final.precision == "int8"


@pytest.mark.usefixtures("unmeasured")
def test_where_the_ladder_refuses_for_some_points_the_budget_decides(
    ground: Path, tmp_path: Path, lossy: list[tuple[str, float, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says so where it needs torch, which is not there."""
    out, size = tmp_path / "out", load_bundle(ground / "model").size_bytes
    compress(ground, out, Budget(size_bytes=2 * size), time_s=0.0)
    assert lossy == [("int8", 0.5, False), ("int8", 2.5, False)]
    assert [row.verdict for row in rows_of(out, "quantize")] == ["refused", "kept"]
    assert [row.after["step"] for row in rows_of(out, "rung")] == ["quantize/1-quantize", "quantize/1-loosely-quantize"]
    lossy.clear()
    monkeypatch.setattr(compressing, "find_spec", lambda name: None)
    with pytest.raises(CheckError, match=r"nothing fits .* or let it train \(torch is not installed, pip install"):
        compress(ground, tmp_path / "strict", Budget(size_bytes=size // 9), time_s=60.0, max_drop=1.0)
    assert lossy == [("int8", 0.5, False), ("float16", 1.0, False)], "--max-drop forbids more"


@pytest.mark.usefixtures("unmeasured")
def test_where_int8_fits_and_only_answers_worse_it_is_trained_with_rounding(
    ground: Path, tmp_path: Path, lossy: list[tuple[str, float, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded files are made up, as large as float, so here they fit until the finished one is measured."""
    whole, out = load_bundle(ground / "model"), tmp_path / "out"
    missed = trying.Trying.missed

    def of_the_model_itself(self: trying.Trying, judged: Judged) -> list[BudgetRow]:
        made = [artifact_hash(folder) for folder in out.glob("stages/*/*/model")]
        return [] if judged.artifact in made else missed(self, judged)

    monkeypatch.setattr(trying.Trying, "missed", of_the_model_itself)
    judged, answered = trying.Trying.judged, [True, False, True]

    def stopped(self: trying.Trying, found: Sequence[Finalist]) -> tuple[Judged, list[Judged]]:
        if not answered.pop(0):
            raise KeyboardInterrupt
        return judged(self, found)

    monkeypatch.setattr(trying.Trying, "judged", stopped)
    asked: dict[str, Any] = {"budget": Budget(size_bytes=whole.size_bytes * 3 // 5), "time_s": 1.0}
    with pytest.raises(KeyboardInterrupt):
        compress(ground, out, **asked)
    with pytest.raises(CheckError, match="the finished model misses its budget: size"):
        compress(ground, out, **asked, resume=True)
    assert lossy == [("int8", 0.5, False), ("int8", 2.5, False), ("float16", 5.0, False), ("int8", 0.5, True)]
    finalists = {row.after["order"]: row.output for row in rows_of(out, "finalist")}
    assert [*finalists] == ["as-it-is", "quantize", "quantize, trained"]
    assert len({*finalists.values()}) == 3, "training did not take the place of what was made without"
    assert Plan(RunFolder(out).plan).value("compress.seconds", 0) == {"quantize/1-quantize": 1.0}
    assert (load_bundle(out).config.provenance.weights or "").startswith("rounded, ")
    left_out = (out / "report.html").read_text().partition("not there because")[2].partition("</table>")[0]
    assert "prune" in left_out
    assert "quantize/1-quantize" not in left_out, "which others took the place of"


@pytest.mark.usefixtures("unmeasured")
def test_where_nothing_can_fit_the_nearest_is_named_and_nothing_is_trained(ground: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "out", [""]
    with pytest.raises(CheckError) as told:
        compress(ground, out, Budget(params=100), said=said, time_s=60.0)
    words = str(told.value)
    assert words.startswith("nothing fits the budget params=100; the nearest is ")
    assert "raise the limits or drop one" in words
    assert sum("not tried" in text for text in said) == len(rows_of(out, "order")) > 0
    assert {path.name for path in (out / "stages").iterdir()} == {"quantize"}
    assert not (out / "model").exists()
    assert rows_of(out)[-1].verdict == "refused"
    with pytest.raises(CheckError) as again:
        compress(ground, out, Budget(params=100), time_s=60.0, resume=True)
    assert str(again.value) == words


@pytest.mark.usefixtures("unmeasured")
def test_without_training_what_fits_too_dearly_is_refused_with_the_loss(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because --max-drop says so, and here every loss is a point."""
    whole = load_bundle(ground / "model")
    monkeypatch.setattr(trying.Trying, "refusal", lambda *_: "it loses 1.00 points, more than the 0 allowed")
    monkeypatch.setattr(trying.Trying, "missed", lambda *_: [])
    with pytest.raises(CheckError, match=r"loses too much; the nearest is .*: it loses 1\.00 points.*--time is 0"):
        compress(ground, tmp_path / "out", Budget(params=10 * cost(whole.layout).params), time_s=0.0, max_drop=0.0)


def ships(verb: str, made: Bundle) -> Callable[..., Result]:
    """A stage that makes an artifact without ado."""

    def work(at: Stage) -> Result:
        origin = Provenance(data=at.dataset.fingerprint, weights="made up")
        return at.ship(repack(made, at.candidate("made"), provenance=origin))

    def carried_out(job: Any, session: Session, **_: Any) -> Result:
        source = Path(job.student) if isinstance(job, DistillJob) else job.source
        return run_stage(verb, open_parent(source), session, work, resume=True, measure_s=0.2)

    return carried_out


@pytest.mark.usefixtures("unmeasured", "int8_is_slow")
def test_what_loses_more_than_max_drop_allows_is_no_result(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here what is pruned loses two of eighty pictures, 2.5 points, and what is taught none."""
    whole = load_bundle(ground / "model")
    budget = Budget(macs=round(0.9 * cost(whole.layout).macs))
    layout, weights = solved("resnet20_cifar@0.4,depth=0.34")
    taught = write_solved(tmp_path / "taught", layout, weights)
    worse = answering(taught.model_path.read_bytes(), wrong=mistakes(whole.model_path.read_bytes()) + 2)
    golden, labels, preprocess = taught.golden(), taught.config.labels, taught.config.preprocess
    pruned = write_bundle(
        tmp_path / "pruned", model=worse, layout=layout, labels=labels, preprocess=preprocess, golden=golden
    )
    monkeypatch.setattr(doing, "prune_run", ships("prune", pruned))
    with pytest.raises(CheckError) as told:
        compress(ground, tmp_path / "nothing", budget, time_s=1.0, max_drop=1.0)
    assert str(told.value).startswith(
        f"what fits the budget {budget} loses too much; the nearest is prune: it loses 2.50 points, more than the 1 "
        "allowed: allow more with --max-drop"
    )
    assert compress(ground, tmp_path / "allowed", budget, time_s=1.0, max_drop=2.5).final.model == layout.name

    monkeypatch.setattr(doing, "distill_run", ships("distill", taught))
    compress(ground, tmp_path / "other", budget, time_s=60.0, max_drop=1.0)
    rows = {row.after["order"]: row for row in rows_of(tmp_path / "other", "finalist")}
    assert {name: (row.verdict, row.after["won"]) for name, row in rows.items()} == {
        "as-it-is": ("refused", False), "prune": ("refused", False), "prune+distill": ("kept", True),
    }  # fmt: skip
    assert rows["prune"].reason.startswith("prune: it loses 2.50 points, more than the 1 allowed: top-1 ")


@pytest.mark.usefixtures("unmeasured")
def test_a_model_that_fits_as_it_is_may_still_get_smaller_and_what_cannot_be_trained_is_said(
    ground: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here one that is shipped without its weights, typed as a person types it."""
    light, out = tmp_path / "light", tmp_path / "out"
    repack(load_bundle(ground / "model"), light, with_weights=False)
    typed = ["compress", str(light), "--data", str(ground / "stripes.npz"), "--budget", "size=1MB", "-o", str(out)]
    assert run([*typed, "--json"]) == 0
    shown = capsys.readouterr()
    assert f"all that trains: not tried, {light} fits the budget as it is" in shown.err
    assert json.loads(shown.out)["budget"][0]["met"]
    assert load_bundle(out).size_bytes < load_bundle(light).size_bytes
    assert run(typed) == 2
    assert "holds a finished run of" in capsys.readouterr().err


@pytest.mark.slow
def test_digits_as_typed_fit_in_a_third_of_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured, with a model too large for int8 alone; every order gets a few seconds."""
    monkeypatch.chdir(tmp_path)
    quick = ["--threads", "1", "--quiet"]
    assert run(["train", "digits", "--model", "resnet14_cifar@0.5", "--epochs", "8", "-o", "whole", *quick]) == 0
    assert run(["compress", "whole", "--budget", "size=60kB", "--time", "90s", "-o", "fits", *quick]) == 0
    assert run(["verify", "fits", "--quiet"]) == 0
    result = Result.load(RunFolder(Path("fits")).results)
    assert result.final.top1 is not None
    assert result.final.top1.test is not None
    assert result.final.top1.test.value > 0.95
    assert result.final.size_bytes <= 60_000
    trained = Plan(RunFolder(Path("fits")).plan).value("compress.seconds", 0)
    spent = [
        json.loads((Path("fits/stages") / step / "metrics.jsonl").read_text().splitlines()[-1])["seconds"]
        for step in trained
    ]
    assert sum(trained.values()) == pytest.approx(90.0)
    assert sum(spent) <= 1.05 * 90.0


def forecast_of(bundle: Bundle, budget: Budget) -> Forecast:
    return Forecast(model=bundle, budget=budget, runs_in={"float32": Preferred(runtime="onnxruntime", threads=1)})


@pytest.mark.parametrize(("form", "share"), [("float32", 0.6), ("int8", 0.25)])
def test_a_cut_and_a_student_are_the_largest_that_fit_in_their_form(ground: Path, form: Form, share: float) -> None:
    bundle = load_bundle(ground / "model")
    limit = round(share * bundle.size_bytes)
    held = forecast_of(bundle, Budget(size_bytes=limit))
    network = load_model(bundle.folder)
    cut = cut_to_fit(network, held, form, measure="params")
    assert cut.kept is not None
    assert 0 < cut.share < 1
    more = forecast_of(bundle, Budget(size_bytes=limit + limit // 3))
    assert (cut_to_fit(network, more, form, measure="params").kept or 0) > cut.kept
    spec = for_size(with_classes(find_spec(NETWORK), 4), 16)
    found = students_that_fit(spec, held, form, measure="params")
    assert found.fits is not None
    assert not held.missed(find_layout(found.fits, num_classes=4, img_size=16), form)
    if found.larger is not None:
        assert held.missed(find_layout(found.larger, num_classes=4, img_size=16), form)
    nothing = forecast_of(bundle, Budget(size_bytes=1000))
    assert cut_to_fit(network, nothing, form, measure="params").kept is None
    assert students_that_fit(spec, nothing, form, measure="params").fits is None


def test_what_is_taught_and_then_cut_costs_less_than_its_teacher(tmp_path: Path) -> None:
    """The family's table, by which it is made, may be that of a network that the teacher was itself cut down from."""
    name = "resnet20_cifar@1.0,depth=0.34"
    whole = write_solved(tmp_path / "whole", *solved(name))
    budget = Budget(params=round(0.3 * cost(whole.layout).params))
    spec = for_size(with_classes(find_spec(name), 4), 16)
    found = students_that_fit(spec, forecast_of(whole, budget), "float32", measure="params")
    assert found.fits is not None
    assert found.larger is not None
    cut = write_solved(tmp_path / "cut", *solved(found.larger))
    again = students_that_fit(spec, forecast_of(cut, budget), "float32", measure="params")
    assert (again.fits, again.larger) == (found.fits, None)


def test_a_latency_keeps_headroom_and_is_asked_only_where_counting_rules_nothing_out(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(ground / "model")
    asked: list[int] = []

    def timed(ms: float) -> Callable[..., list[Measurement]]:
        def measure_many(models: Sequence[bytes], **_: Any) -> list[Measurement]:
            asked.append(len(models[0]))
            return [made_up(ms)]

        return measure_many

    monkeypatch.setattr(forecast, "measure_many", timed(0.9))
    assert not forecast_of(bundle, Budget(latency_ms=1.0)).missed(bundle.layout, "float32")
    assert len(asked) == 1
    assert forecast_of(bundle, Budget(latency_ms=1.0, params=10)).missed(bundle.layout, "float32")
    assert len(asked) == 1
    monkeypatch.setattr(forecast, "measure_many", timed(0.95))
    held = forecast_of(bundle, Budget(latency_ms=1.0))
    (row,) = held.missed(bundle.layout, "float32")
    assert row.measured == pytest.approx(0.95 / 0.93)
    held.missed(bundle.layout, "float32")
    assert len(asked) == 1 + forecast.TRIES, "each network once"


def test_the_wishes_of_a_run_are_in_its_plan(ground: Path) -> None:
    flags = {"lr": 0.1, "scale": (0.5, 1.0), "threads": 2}
    more = Path("more")
    job = CompressJob(source=ground / "model", budget=Budget(latency_ms=5.0), time_s=60.0, flags=flags, unlabelled=more)
    assert json.loads(json.dumps(job.wishes())) == job.wishes() == {
        "--budget": "latency=5ms", "--time": 60.0, "--max-drop": None, "the recipe": {"lr": 0.1, "scale": [0.5, 1.0]},
        "--unlabelled": "more",
    }  # fmt: skip
