"""A finished model takes the runtime that was fastest here as the one it prefers, and keeps its word with it.

Where the model is a run's, the run says so everywhere: the ledger has a row before anything is changed, `results.json`
gets the runtime, the latency measured with it and the artifact's new hash, the report is written again, and a fresh
process verifies all of it; recorded accuracy stays, and is held against the answers of the new runtime. What does not
hold is taken back. Killed between its two files or before it was verified, the run is mended by the next call.
"""

import os
import shlex
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from netsmith.artifact.bundle import CONFIG, Bundle, Preferred, artifact_hash, load_bundle, write_preferred
from netsmith.artifact.comparison import Choice
from netsmith.artifact.latency import Measurement
from netsmith.artifact.measure import measure
from netsmith.artifact.validate import run_of
from netsmith.artifact.verify import verify_fresh
from netsmith.errors import CheckError, InputError
from netsmith.fit.explaining import explain
from netsmith.fit.finish import ATTEMPTS, verified
from netsmith.fit.judged import as_latency
from netsmith.fit.rungs import headline
from netsmith.fit.stage import begun_with
from netsmith.fit.steps import FOLDER
from netsmith.run.budget import BudgetRow
from netsmith.run.clock import SystemClock
from netsmith.run.files import write_bytes
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger, LedgerRow
from netsmith.run.machine import machine, versions
from netsmith.run.plan import Plan
from netsmith.run.progress import Progress, silent
from netsmith.run.result import Final, Result
from netsmith.run.scores import POINTS, SCORE_NAMES

STAGE = "runtime"
"""Of the rows in the ledger."""
UNASKED = "accuracy is not measured anew, the verification holds its answers to the recorded one"


def open_to_prefer(path: Path, *, seconds: float = 2.0, progress: Progress = silent) -> Bundle:
    """Open an artifact whose preference may be changed, and mend a run in which a change was killed half way.

    Args:
        path: of the artifact or its run.
        seconds, progress: as `prefer`, for a change that was not verified.

    Raises:
        InputError: no artifact, files that are not those it describes, a folder that cannot be written, a run that is
            not finished, in use, or whose results are of another model.
        CheckError: the run keeps its word neither with a change that was killed nor as it was before.
    """
    bundle = load_bundle(path, check_hashes=True)
    run = _run_with(bundle)
    for folder in [bundle.folder] if run is None else [bundle.folder, run.path]:
        if not os.access(folder, os.W_OK):
            raise InputError(
                f"{folder} cannot be written, so it cannot prefer another runtime; copy it, or give no --write"
            )
    if run is None:
        return bundle
    if not run.finished:
        raise InputError(f"{run.path} is not finished; go on with --resume, then measure its runtimes")
    result = Result.load(run.results)
    if result.artifact == artifact_hash(bundle.folder):
        return _settled(run, bundle, seconds=seconds, progress=progress)
    with _locked(run), _taken_back(bundle.folder / CONFIG):
        recorded = Preferred(runtime=result.final.runtime, threads=result.final.threads)
        mended = write_preferred(bundle, recorded)
        if artifact_hash(mended.folder) != result.artifact:
            raise InputError(
                f"{bundle.folder} is not the model of {run.results}; netsmith verify {run.path} says what differs"
            )
        return mended


def _settled(run: RunFolder, bundle: Bundle, *, seconds: float, progress: Progress) -> Bundle:
    """The artifact, verified where the change that led to it was stopped before that; one that does not hold is undone.

    An undoing may be stopped too, so only a verification of this very artifact, after that change, settles it.
    """
    ledger, here = Ledger(run.ledger, clock=SystemClock()), [artifact_hash(bundle.folder)]
    rows = ledger.own
    changes = [at for at, row in enumerate(rows) if row.stage == STAGE and row.verdict == "kept" and row.inputs != here]
    if not changes:
        return bundle
    since = rows[changes[-1] + 1 :]
    if [row.verdict for row in since if row.stage == "verify" and row.inputs == here][-1:] == ["done"]:
        return bundle
    with _locked(run):
        failed = verified(run, ledger, here[0], seconds=seconds, progress=progress)
        if not failed:
            explain(run)
            return bundle
        before = rows[changes[-1]].before
        killed, back = bundle.config.preferred, Preferred(runtime=before["runtime"], threads=before["threads"])
        reason = f"back to {back}: a change to {killed} was killed, and does not hold ({', '.join(failed)})"
        ledger.add(STAGE, verdict="kept", reason=reason, inputs=here, before=killed.model_dump())
        choice = Choice(verdict="kept", preferred=back, before=None, after=None, reason=reason)
        command = ["bench", str(run.path), "--write"]
        return _in_run(run, ledger, bundle, choice, command=command, seconds=seconds, progress=progress)


def prefer(
    bundle: Bundle, choice: Choice, *, command: Sequence[str], seconds: float = 2.0, progress: Progress = silent
) -> Bundle:
    """Enter a choice that was kept into an artifact, and into its run if it has one.

    Args:
        bundle: from `open_to_prefer`.
        choice: from `Comparison.choose`; one that is unchanged changes nothing.
        command: what was typed, verb first.
        seconds: of one latency measurement.
        progress: told how far the verification is.

    Returns:
        The artifact as it is now.

    Raises:
        CheckError: the choice was refused, or the artifact does not keep its word with it; everything is as before.
        InputError: its run is in use.
    """
    run = _run_with(bundle)
    if run is None:
        _refuse(choice, bundle.folder)
        return bundle if choice.verdict == "unchanged" else _alone(bundle, choice, seconds=seconds, progress=progress)
    if choice.verdict == "unchanged":
        return bundle
    final = Result.load(run.results).final
    with _locked(run):
        ledger = Ledger(run.ledger, clock=SystemClock())
        choice = _as_judged(choice, run, ledger, bundle)
        ledger.add(
            STAGE,
            verdict="kept" if choice.verdict == "kept" else "refused",
            reason=f"{choice.reason}; {UNASKED}" if choice.verdict == "kept" else choice.reason,
            inputs=[artifact_hash(bundle.folder)],
            before=_before(final, bundle.config.preferred, choice),
            after=_record(final, choice.after),
        )
        _refuse(choice, bundle.folder)
        return _in_run(run, ledger, bundle, choice, command=command, seconds=seconds, progress=progress)


def _as_judged(choice: Choice, run: RunFolder, ledger: Ledger, bundle: Bundle) -> Choice:
    """The choice, with what `quantize` found of that runtime on the validation pictures; refused where that is more
    than was allowed to be lost, because golden pictures are too few to tell."""
    changes = [row for row in ledger.own if row.stage == STAGE and row.verdict == "kept"]
    made = changes[0].inputs if changes else [artifact_hash(bundle.folder)]  # as it was before its first change
    row = next((row for row in reversed(ledger.own) if row.stage == "quantize" and [row.output] == made), None)
    if choice.verdict != "kept" or row is None:
        return choice
    name = choice.preferred.runtime
    there = next((each for each in (row.after, *row.after.get("elsewhere", ())) if each.get("runtime") == name), None)
    if there is None:
        return choice
    lost = POINTS * (headline(row.before) - headline(there))
    reason = f"{choice.reason}; quantize found it to lose {lost:.2f} points on validation"
    allowed = row.after["max_drop"] if "max_drop" in row.after else _asked(run, row)
    if allowed is None or lost <= allowed + 1e-9:
        return replace(choice, reason=reason)
    return replace(
        choice, verdict="refused", preferred=bundle.config.preferred,
        reason=f"{reason}, more than the {allowed:g} that it was allowed",
    )  # fmt: skip


def _asked(run: RunFolder, row: LedgerRow) -> float | None:
    """Points that `quantize` was allowed to lose, of a run whose rows do not say it: by the plan of the step or the
    run, where that is still there."""
    folder = RunFolder(run.path / FOLDER / row.after["step"]) if "step" in row.after else run
    return begun_with(Plan(folder.plan)).get("--max-drop")


def _refuse(choice: Choice, folder: Path) -> None:
    if choice.verdict == "refused":
        raise CheckError(f"{choice.reason}; {folder} keeps preferring what it does")


def _run_with(bundle: Bundle) -> RunFolder | None:
    """The run whose artifact this is."""
    run = run_of(bundle.folder)
    return run if run is not None and run.model.resolve() == bundle.folder.resolve() else None


@contextmanager
def _locked(run: RunFolder) -> Generator[None]:
    with RunFolder.create(run.path, command=run.command, resume=True):
        try:
            yield
        except KeyboardInterrupt as error:  # the folder's own advice is for trainings
            raise KeyboardInterrupt(f"{run.path} is as it was; type the same command to do it again") from error


def _alone(bundle: Bundle, choice: Choice, *, seconds: float, progress: Progress) -> Bundle:
    """An artifact without a run."""
    with _taken_back(bundle.folder / CONFIG):
        changed = write_preferred(bundle, choice.preferred)
        failed = verify_fresh(bundle.folder, seconds=seconds, progress=progress).failed
        if failed:
            raise _broken(bundle.folder, choice, [check.name for check in failed])
    return changed


def _in_run(
    run: RunFolder,
    ledger: Ledger,
    bundle: Bundle,
    choice: Choice,
    *,
    command: Sequence[str],
    seconds: float,
    progress: Progress,
) -> Bundle:
    before = Result.load(run.results)
    try:
        with _taken_back(bundle.folder / CONFIG, run.results):
            changed = write_preferred(bundle, choice.preferred)
            problems: list[str] = []
            for _ in range(ATTEMPTS):
                result = _result(before, changed, command=command, seconds=seconds, progress=progress)
                result.save(run.results)
                problems = _missed(before, result)
                problems = problems or verified(run, ledger, result.artifact, seconds=seconds, progress=progress)
                if not all(name.startswith("latency") for name in problems):
                    break  # only a latency may differ because the machine did
                if not problems:
                    explain(run)
                    return changed
            raise _broken(run.path, choice, problems)
    except BaseException as error:  # Ctrl-C too: the last word on what was taken back is never that it was kept
        reason = str(error) or f"stopped before {choice.preferred} was verified; it prefers what it did before"
        ledger.add(STAGE, verdict="refused", reason=reason, inputs=[artifact_hash(bundle.folder)])
        raise


def _missed(before: Result, after: Result) -> list[str]:
    """Limits that were met and are not any more."""
    rows = zip(before.budget, after.budget, strict=True)
    return [str(now) for was, now in rows if was.met and not now.met]


def _result(before: Result, changed: Bundle, *, command: Sequence[str], seconds: float, progress: Progress) -> Result:
    """What `results.json` says with the new preference."""
    found = measure(changed.folder, seconds=seconds, progress=progress)
    latency, preferred, size = as_latency(found), changed.config.preferred, changed.size_bytes
    final = before.final.model_copy(
        update={
            "runtime": preferred.runtime,
            "threads": preferred.threads,
            "latency_ms": latency,
            "size_bytes": size,
            "memory_bytes": found.peak_memory_bytes,
        }
    )
    measured = {"latency_ms": latency.high, "size_bytes": size, "macs": final.macs, "params": final.params}
    budget = [
        BudgetRow(name=row.name, limit=row.limit, measured=measured[row.name], met=measured[row.name] <= row.limit)
        for row in before.budget
    ]
    return before.model_copy(
        update={
            "final": final,
            "budget": budget,
            "machine": machine(),
            "versions": versions(),
            "commands": [*before.commands, shlex.join(["netsmith", *command])],
            "artifact": artifact_hash(changed.folder),
        }
    )


@contextmanager
def _taken_back(*paths: Path) -> Generator[None]:
    """What fails or is stopped in here leaves these files as they were."""
    contents = [path.read_bytes() for path in paths]
    try:
        yield
    except BaseException:
        for path, content in zip(paths, contents, strict=True):
            write_bytes(path, content)
        raise


def _broken(path: Path, choice: Choice, problems: Sequence[str]) -> CheckError:
    preferred = choice.preferred
    return CheckError(
        f"{path} does not keep its word in {preferred.runtime} with {preferred.threads} threads "
        f"({', '.join(problems)}); it prefers what it did before"
    )


def _before(final: Final, preferred: Preferred, choice: Choice) -> dict[str, Any]:
    """The model as it is preferred, with its accuracy; runtime and threads alone where that could not run."""
    measured = choice.before
    same = measured is not None and (measured.runtime, measured.threads) == (preferred.runtime, preferred.threads)
    if not same:
        return preferred.model_dump()
    recorded = final.headline.val
    return _record(final, measured) | ({} if recorded is None else {final.metric: recorded.model_dump()})


def _record(final: Final, measured: Measurement | None) -> dict[str, Any]:
    """The model as it was measured, as ledgers have it."""
    if measured is None:
        return {}
    found = {
        "runtime": measured.runtime,
        "threads": measured.threads,
        "latency_ms": as_latency(measured),
        "memory_bytes": measured.peak_memory_bytes,
    }
    return final.model_copy(update=found).model_dump(exclude={*SCORE_NAMES})
