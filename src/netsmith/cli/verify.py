"""`netsmith verify`: whether a run or an artifact keeps what it promises, found out in a fresh process."""

from pathlib import Path
from typing import TYPE_CHECKING

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.errors import CheckError

if TYPE_CHECKING:
    from netsmith.artifact.verify import Check

EXAMPLES = """\
Examples:

  netsmith verify runs/pets           every number of a run, measured again
  netsmith verify runs/pets/model     a model folder by itself
  netsmith verify runs/pets --runtime openvino   whether its numbers hold there too
  netsmith verify runs/pets --json    the checks as JSON; exit 1 if one fails
"""


def verify(path: Path, /, *, seconds: float = 2.0, runtime: str | None = None, output: Output = PLAIN) -> None:
    """Check everything that a run or an artifact says about itself.

    Files against their hashes, golden examples, size, parameters, MACs,
    latency and budget on this machine, accuracy from the recorded predictions
    and, where the data is still there, from the pictures. Exit 1 if a number
    does not hold. Nothing is written.

    Args:
        path: Folder of a finished run, or of a model.
        seconds: Time of one latency measurement.
        runtime: What gives the answers: onnxruntime, openvino, openvino-bf16; what the model prefers if not given.
    """
    from netsmith.artifact.verify import as_document, verify_fresh

    with Console(output) as console:
        found = verify_fresh(path, seconds=seconds, runtime=runtime, progress=console.progress)
        console.result(as_document(found), _table(found.checks))
        if not found.ok:
            names = ", ".join(check.name for check in found.failed)
            raise CheckError(f"{len(found.failed)} of {len(found.checks)} checks of {path} do not hold: {names}")


def _table(checks: "tuple[Check, ...]") -> str:
    rows = [("", "check", "expected", "found")]
    for check in checks:
        state = {True: "ok", False: "FAILED", None: "not checked"}[check.ok]
        rows.append((state, check.name, _shown(check.expected), _shown(check.found)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    notes = [f"{check.name}: {check.note}" for check in checks if check.note]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _shown(value: str | float | int | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
