"""A run takes another runtime: its artifact, results, ledger and report say so together, or nothing changes."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifact_models import colour_model, write_colour_run, write_colours
from kept_word import MEASURED_AGAIN

from netsmith.artifact.bundle import Preferred, artifact_hash, load_bundle, write_preferred
from netsmith.artifact.comparison import Choice
from netsmith.artifact.latency import Measurement
from netsmith.artifact.runtimes import REFERENCE, RUNTIMES
from netsmith.artifact.verify import Check, Verification, verify, verify_fresh
from netsmith.errors import CheckError, InputError
from netsmith.fit import finish, preferring
from netsmith.fit.preferring import open_to_prefer, prefer
from netsmith.run.clock import SystemClock
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.plan import Plan
from netsmith.run.result import Result

MEASURED = Measurement(
    p50_ms=10.0, p90_ms=11.0, low=10.8, high=11.2, noise=0.02, peak_memory_bytes=10**8, threads=1, runtime=REFERENCE,
    warmup=3, runs=100, resize_ms=None,
)  # fmt: skip
PRESENT = Preferred(runtime=REFERENCE, threads=1)
# What this machine can run other than what it runs now.
OTHER = Preferred(runtime=REFERENCE if RUNTIMES["openvino"].obstacle() else "openvino", threads=2)
FASTER = replace(MEASURED, runtime=OTHER.runtime, threads=OTHER.threads, p50_ms=5.0, p90_ms=5.5, low=5.4, high=5.6)
KEPT = Choice(verdict="kept", preferred=OTHER, before=MEASURED, after=FASTER, reason="2.00 times as fast")
REFUSED = replace(KEPT, verdict="refused", preferred=PRESENT, reason="the gain is within the noise")
COMMAND = ["bench", "run", "--write"]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write_colour_run(tmp_path, latency=MEASURED, budget="latency=1s")


def content(run: RunFolder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (run.model / "config.json", run.results)}


def stages(run: RunFolder) -> list[tuple[str, str]]:
    return [(row.stage, row.verdict) for row in Ledger(run.ledger, clock=SystemClock()).rows]


def test_a_run_keeps_its_word_with_another_runtime(run, monkeypatch):
    def verified(path: Path, **more: Any) -> Verification:
        found = verify_fresh(path, **more)
        return replace(found, checks=tuple(each for each in found.checks if each.name not in MEASURED_AGAIN))

    monkeypatch.setattr(finish, "verify_fresh", verified)
    before = Result.load(run.results)
    prefer(open_to_prefer(run.path), KEPT, command=COMMAND, seconds=0.2)
    assert load_bundle(run.model, check_hashes=True).config.preferred == OTHER
    result = Result.load(run.results)
    assert (result.final.runtime, result.final.threads) == (OTHER.runtime, OTHER.threads)
    assert result.final.latency_ms != before.final.latency_ms
    assert result.artifact == artifact_hash(run.model) != before.artifact
    assert result.final.top1 == before.final.top1
    assert [row.measured for row in result.budget] == [result.final.latency_ms.high]
    assert result.commands == ["netsmith fit", "netsmith bench run --write"]
    assert stages(run) == [("runtime", "kept"), ("verify", "done")]
    row = Ledger(run.ledger, clock=SystemClock()).rows[0]
    assert row.inputs == [before.artifact]
    assert row.reason == f"{KEPT.reason}; {preferring.UNASKED}"
    assert (row.before["runtime"], row.after["latency_ms"]["p90"]) == (REFERENCE, 5.5)
    assert (row.before["memory_bytes"], row.before["top1"]) == (10**8, before.final.top1.model_dump()["val"])
    assert row.after.keys() == row.before.keys() - {"top1"}
    assert 20e6 < result.final.memory_bytes < 10**9
    assert OTHER.runtime in run.report.read_text()


@pytest.fixture
def timed(monkeypatch):
    """Latencies without measuring."""
    monkeypatch.setattr(preferring, "measure", lambda folder, **more: FASTER)


@pytest.mark.usefixtures("timed")
def test_what_does_not_hold_is_taken_back(run, monkeypatch):
    before = content(run)
    monkeypatch.setattr(preferring, "verified", lambda *args, **more: ["top1 test"])
    with pytest.raises(CheckError, match=r"does not keep its word in .* \(top1 test\); it prefers what it did before"):
        prefer(open_to_prefer(run.path), KEPT, command=COMMAND, seconds=0.1)
    assert content(run) == before
    assert stages(run) == [("runtime", "kept"), ("runtime", "refused")]

    monkeypatch.setattr(preferring, "verified", interrupted)
    with pytest.raises(KeyboardInterrupt, match="is as it was; type the same command to do it again"):
        prefer(open_to_prefer(run.path), KEPT, command=COMMAND, seconds=0.1)
    assert content(run) == before
    assert stages(run)[2:] == [("runtime", "kept"), ("runtime", "refused")]
    last = Ledger(run.ledger, clock=SystemClock()).rows[-1]
    assert last.reason == f"stopped before {OTHER} was verified; it prefers what it did before"
    assert last.inputs == [artifact_hash(run.model)]


@pytest.mark.usefixtures("timed")
def test_a_latency_is_measured_again_where_only_it_does_not_hold(run, monkeypatch):
    answers = iter([["latency p90 ms"], []])
    monkeypatch.setattr(preferring, "verified", lambda *args, **more: next(answers))
    prefer(open_to_prefer(run.path), KEPT, command=COMMAND, seconds=0.1)
    assert load_bundle(run.model).config.preferred == OTHER
    assert next(answers, None) is None


@pytest.mark.usefixtures("timed")
def test_a_budget_that_was_met_is_met_afterwards_or_nothing_changes(run):
    document = json.loads(run.results.read_text())
    document["budget"][0] |= {"limit": 1e-6, "measured": 1e-7, "met": True}
    run.results.write_text(json.dumps(document))
    before = content(run)
    with pytest.raises(CheckError, match="latency 5.6ms of"):
        prefer(open_to_prefer(run.path), KEPT, command=COMMAND, seconds=0.1)
    assert content(run) == before


def test_a_refusal_is_a_row_and_changes_nothing(run):
    before = content(run)
    with pytest.raises(CheckError, match="the gain is within the noise; .* keeps preferring what it does"):
        prefer(open_to_prefer(run.path), REFUSED, command=COMMAND)
    assert content(run) == before
    assert stages(run) == [("runtime", "refused")]
    prefer(open_to_prefer(run.path), replace(KEPT, verdict="unchanged", preferred=PRESENT), command=COMMAND)
    assert content(run) == before
    assert len(stages(run)) == 1


@pytest.mark.usefixtures("timed")
@pytest.mark.parametrize("where", ["its row", "the plan"])
def test_what_quantize_measured_and_refused_is_not_preferred(run, monkeypatch, where):
    """Golden pictures are too few to tell. How much may be lost is in the row, which the folder of a step need not
    outlive; of older runs in the plan."""
    monkeypatch.setattr(preferring, "verified", lambda *args, **more: [])
    ledger = Ledger(run.ledger, clock=SystemClock())
    before, made = content(run), artifact_hash(run.model)
    Plan(run.plan).record("asked", {"--max-drop": 0.5 if where == "the plan" else 9.0}, at=0, why="as typed")
    allowed = {"max_drop": 0.5} if where == "its row" else {}

    def judged(found: float) -> None:
        after = {**PRESENT.model_dump(), "top1": {"value": 0.9}, **allowed}
        elsewhere = [{**OTHER.model_dump(), "top1": {"value": found}}]
        ledger.add(
            "quantize", verdict="kept", reason="faster", output=made, before={"top1": {"value": 0.9}},
            after={**after, "elsewhere": elsewhere},
        )  # fmt: skip

    judged(0.87)
    with pytest.raises(CheckError, match=r"to lose 3\.00 points on validation, more than the 0\.5 that it was allowed"):
        prefer(open_to_prefer(run.path), KEPT, command=COMMAND, seconds=0.1)
    assert content(run) == before
    assert stages(run)[-1] == ("runtime", "refused")
    judged(0.896)
    prefer(open_to_prefer(run.path), KEPT, command=COMMAND, seconds=0.1)
    assert load_bundle(run.model).config.preferred == OTHER
    assert "to lose 0.40 points on validation" in Ledger(run.ledger, clock=SystemClock()).rows[-1].reason


def test_a_kill_between_the_two_files_is_mended(run):
    before = content(run)
    write_preferred(load_bundle(run.model), OTHER)
    assert open_to_prefer(run.path / "model").config.preferred == PRESENT
    assert content(run) == before


def interrupted(*args: object, **more: object) -> list[str]:
    raise KeyboardInterrupt


def killed_while_verified(run: RunFolder, monkeypatch: pytest.MonkeyPatch, choice: Choice = KEPT) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(preferring, "_taken_back", lambda *paths: nullcontext())
        patch.setattr(preferring, "verified", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prefer(open_to_prefer(run.path), choice, command=COMMAND, seconds=0.1)
    first, *_ = run.ledger.read_text().splitlines(keepends=True)
    run.ledger.write_text(first)  # who is killed has no last word
    assert load_bundle(run.model).config.preferred == OTHER


@pytest.mark.usefixtures("timed")
@pytest.mark.parametrize(("failed", "preferred"), [([], OTHER), (["top1 val"], PRESENT)])
@pytest.mark.parametrize("choice", [KEPT, replace(KEPT, before=None)], ids=["measured", "could not run"])
def test_a_change_that_was_killed_before_it_was_verified_is_verified_or_undone(
    run, monkeypatch, failed, preferred, choice
):
    answers = iter([failed, []])
    killed_while_verified(run, monkeypatch, choice)
    monkeypatch.setattr(preferring, "verified", lambda *args, **more: next(answers))
    assert open_to_prefer(run.path).config.preferred == load_bundle(run.model).config.preferred == preferred
    final = Result.load(run.results)
    assert (final.final.runtime, final.artifact) == (preferred.runtime, artifact_hash(run.model))
    assert [*answers] == ([] if failed else [[]]), "verified once, or once more as it was before"


@pytest.mark.usefixtures("timed")
@pytest.mark.parametrize("at", ["_in_run", "_result"], ids=["killed", "Ctrl-C"])
def test_an_undoing_that_is_stopped_leaves_nothing_settled(run, monkeypatch, at):
    killed_while_verified(run, monkeypatch)

    def verify_fresh(path: Path, **more: Any) -> Verification:
        holds = load_bundle(path).config.preferred == PRESENT
        return Verification(str(path), (Check("top1 val", None, None, holds),))

    monkeypatch.setattr(finish, "verify_fresh", verify_fresh)
    with monkeypatch.context() as patch:
        patch.setattr(preferring, at, interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_to_prefer(run.path)
    assert load_bundle(run.model).config.preferred == OTHER
    assert open_to_prefer(run.path).config.preferred == load_bundle(run.model).config.preferred == PRESENT
    asked = len(stages(run))
    assert open_to_prefer(run.path).config.preferred == PRESENT
    assert len(stages(run)) == asked, "verified as it is now, so nothing is asked"


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(run, monkeypatch):
    monkeypatch.setattr(preferring.os, "access", lambda path, mode: path != run.path)
    with pytest.raises(InputError, match="cannot be written, so it cannot prefer another runtime"):
        open_to_prefer(run.path)


def test_a_model_that_is_not_the_runs_is_refused(run):
    write_colours(run.model, model=colour_model(work=1), overwrite=True)
    before = content(run)
    with pytest.raises(InputError, match=r"is not the model of .*results\.json"):
        open_to_prefer(run.path)
    assert content(run) == before
    run.results.unlink()
    with pytest.raises(InputError, match="is not finished; go on with --resume"):
        open_to_prefer(run.path)


def test_a_folder_without_a_run_prefers_and_is_verified(tmp_path):
    write_colours(tmp_path / "model")
    bundle = prefer(open_to_prefer(tmp_path / "model"), KEPT, command=COMMAND)
    assert bundle.config.preferred == OTHER
    assert verify(bundle.folder).ok
    damaged = bundle.folder / "golden.npz"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole + b" ")
    with pytest.raises(InputError, match="is not the file that config.json describes"):
        open_to_prefer(bundle.folder)
    damaged.write_bytes(whole)
    with pytest.raises(CheckError, match="within the noise"):
        prefer(bundle, REFUSED, command=COMMAND)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
