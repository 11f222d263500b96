"""Whether what an artifact or a run says about itself holds: checked against its files, its data and this machine,
never trusted.

An artifact: files against their hashes, golden examples through both halves (preprocessing to the bit, probabilities
within a tolerance), activation and temperature, layout. A run: besides, every number of `results.json` (see
`netsmith.artifact.verify_run`). Nothing is written.

Tolerances of probabilities: 1e-4 for float32 (other kernels sum in another order), 0.02 for the precisions whose
rounding depends on the processor; a float32 graph in a runtime that computes in bfloat16 is of those. A runtime that
the artifact was judged in is held against its own answers of then, any other against ONNX Runtime's.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact import process
from netsmith.artifact.bundle import CONFIG, WEIGHTS, Bundle, file_hashes, find_artifact, load_bundle
from netsmith.artifact.latency import refuse_seconds
from netsmith.artifact.runtimes import Session, open_session, precision_in, refuse_runtime
from netsmith.data.prepare import prepare
from netsmith.errors import InputError
from netsmith.run.clock import SystemClock
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.progress import Progress, silent

Value = str | float | int | None
PROBABILITY_TOLERANCE = {"float32": 1e-4, "float16": 1e-4, "bfloat16": 0.02, "int8": 0.02}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        expected: what is claimed or required.
        found: what was found.
        ok: whether it holds; None where it could not be checked here, `note` says why.
        note: one sentence, or "".
    """

    name: str
    expected: Value
    found: Value
    ok: bool | None
    note: str = ""


@dataclass(frozen=True)
class Verification:
    """All checks of one artifact or run."""

    path: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(check.ok is not False for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if check.ok is False)


Report = Callable[[Check], None]


def verify_fresh(
    path: Path, *, seconds: float = 2.0, runtime: str | None = None, progress: Progress = silent
) -> Verification:
    """`verify` in a fresh process, which knows nothing of what this one has in memory; arguments and errors as
    there."""
    refuse_seconds(seconds)
    checks: list[Check] = []

    def on_row(row: dict[str, Any]) -> None:
        if "progress" in row:
            progress(*row["progress"])
        else:
            checks.append(Check(**row))

    request = {"path": str(path), "seconds": seconds, "runtime": runtime}
    process.call("verify", request, what=f"verifying {path}", deadline_s=24 * 3600, on_row=on_row)
    return Verification(str(path), tuple(checks))


def verify(
    path: Path,
    *,
    seconds: float = 2.0,
    runtime: str | None = None,
    on_check: Report | None = None,
    progress: Progress = silent,
) -> Verification:
    """Check an artifact, or a run with all numbers it recorded.

    Args:
        path: the folder of an artifact or of a finished run.
        seconds: of one latency measurement; repeated up to three times where it does not agree.
        runtime: that gives the answers; None is the artifact's own. The latency of a run is that of the runtime which
            its results name.
        on_check: is given every check as it is made.
        progress: is told how far the longer ones are.

    Returns:
        All checks, also those after a failed one.

    Raises:
        InputError: `path` is no artifact and no finished run; a runtime that is unknown or cannot run here.
    """
    checks: list[Check] = []

    def report(check: Check) -> None:
        checks.append(check)
        if on_check is not None:
            on_check(check)

    run = RunFolder(path)
    if run.marker.exists() and not run.finished:
        raise InputError(_without_result(run))
    folder = run.model if run.finished else find_artifact(path)
    if runtime is not None:
        refuse_runtime(runtime)
    bundle, session = check_artifact(folder, report, runtime=runtime)
    if run.finished:
        from netsmith.artifact.verify_run import check_run

        check_run(run, bundle, session, report, asked=runtime is not None, seconds=seconds, progress=progress)
    return Verification(str(path), tuple(checks))


def _without_result(run: RunFolder) -> str:
    """Why a run cannot be verified, and what can be done about it."""
    verb = "".join(run.command[:1])
    row = Ledger(run.ledger, clock=SystemClock()).newest(verb) if verb else None
    if row is not None and row.verdict == "refused":
        return f"{run.path} holds a {verb} that was refused and ships no model; {run.ledger} says why"
    return f"{run.path} holds a run that did not finish; go on with --resume, then verify it"


def check_artifact(folder: Path, report: Report, *, runtime: str | None = None) -> tuple[Bundle | None, Session | None]:
    """Check a model folder by itself, in `runtime` or its own; gives what could be opened of it."""
    try:
        bundle = load_bundle(folder)
    except InputError as error:
        report(Check(str(folder.name), "an artifact", "damaged", False, str(error)))
        return None, None
    _check_files(bundle, report)
    try:
        layout = bundle.layout
        found = f"{layout.resolution[0]} pixels, {layout.num_classes} classes"
    except InputError as error:
        report(Check("layout", "a network", "damaged", False, str(error)))
    else:
        expected = f"{bundle.config.preprocess.size} pixels, {len(bundle.config.labels)} classes"
        report(Check("layout", expected, found, expected == found))
    try:
        session = open_session(
            bundle, runtime=runtime, warn=lambda message: report(Check("runtime", None, None, None, message))
        )
    except InputError as error:
        report(Check("model.onnx", "a model that runs", "damaged", False, str(error)))
        return bundle, None
    _check_golden(bundle, session, report)
    return bundle, session


def _check_files(bundle: Bundle, report: Report) -> None:
    for name, found in file_hashes(bundle.folder, bundle.config):
        expected = bundle.config.files[name]
        if found is None and name == WEIGHTS:
            report(Check(f"hash of {name}", expected[:12], None, None, "not shipped, which is allowed"))
        else:
            report(Check(f"hash of {name}", expected[:12], (found or "")[:12], found == expected))
    others = sorted({path.name for path in bundle.folder.iterdir()} - {*bundle.config.files, CONFIG})
    if others:
        report(Check("other files", None, ", ".join(others), None, f"{CONFIG} says nothing about them"))


def _check_golden(bundle: Bundle, session: Session, report: Report) -> None:
    config = bundle.config
    try:
        golden = bundle.golden()
        pixels = np.stack([prepare(picture, config.preprocess) for picture in golden.encoded])
    except InputError as error:
        report(Check("golden.npz", "examples of this model", "damaged", False, str(error)))
        return
    different = int(np.count_nonzero(np.any(pixels != golden.pixels, axis=(1, 2, 3))))
    report(Check("golden pixels", "0 pictures differ", f"{different} of {len(pixels)} differ", different == 0))
    outputs = session.run(golden.pixels)
    tolerance = PROBABILITY_TOLERANCE[precision_in(bundle, session.runtime)]
    for name, expected in (
        ("golden probabilities", golden.of(session.runtime)),
        ("activation and temperature", activate(outputs.logits, config.activation, config.temperature)),
    ):
        gap = float(np.max(np.abs(outputs.probabilities - expected)))
        report(Check(name, f"within {tolerance:g}", f"{gap:.2g}", gap <= tolerance))


def activate(logits: NDArray[np.float32], activation: str, temperature: float) -> NDArray[np.float64]:
    """Probabilities float64 [N,C] of logits [N,C], as `config.json` defines them."""
    cooled = logits.astype(np.float64) / temperature
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-cooled))
    exponentials = np.exp(cooled - cooled.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def as_document(verification: Verification) -> dict[str, Any]:
    """JSON values: {"path", "ok", "checks": [{"name", "expected", "found", "ok", "note"}]}."""
    return {
        "path": verification.path,
        "ok": verification.ok,
        "checks": [asdict(check) for check in verification.checks],
    }
