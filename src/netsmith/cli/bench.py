"""`netsmith bench`: how fast an artifact is on this machine, and how far that number can be trusted."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsmith.cli.console import PLAIN, Console, Output

if TYPE_CHECKING:
    from netsmith.artifact.latency import Measurement

EXAMPLES = """\
Examples:

  netsmith bench runs/pets/model             latency, memory, best number of threads
  netsmith bench runs/pets --threads 2       with two threads only
  netsmith bench model --seconds 10 --json   a longer measurement, as JSON
"""


def bench(
    artifact: Path,
    /,
    *,
    threads: int | None = None,
    runtime: str | None = None,
    seconds: float = 2.0,
    output: Output = PLAIN,
) -> None:
    """Measure the latency of an artifact in a fresh process.

    One prepared picture per call; the time to prepare it is shown apart.
    Noise is how uneven the machine was while measuring: 0.05 is quiet, above
    0.5 the numbers hold little.

    Args:
        artifact: Folder of a model, or of a run.
        threads: Measure this number only; without it the preferred one, then 1 to the physical cores.
        runtime: What runs the model; what it prefers if not given.
        seconds: Time of the measurement, warm-up excluded.
    """
    from dataclasses import asdict

    from netsmith.artifact.bundle import load_bundle
    from netsmith.artifact.measure import measure, preferred_threads
    from netsmith.run.machine import machine

    with Console(output) as console:
        bundle = load_bundle(artifact)
        found = measure(
            artifact,
            threads=threads,
            runtime=runtime,
            seconds=seconds,
            warn=console.warn,
            progress=console.progress,
        )
        choice = None
        if threads is None:
            choice = preferred_threads(
                bundle.model_path, seconds_each=seconds / 2, runtime=found.runtime, progress=console.progress
            )
        document: dict[str, Any] = {
            "artifact": str(bundle.folder),
            "size_bytes": bundle.size_bytes,
            "measurement": asdict(found),
            "threads": [asdict(row) for row in choice.measurements] if choice else [],
            "best_threads": choice.threads if choice else None,
            "machine": machine().model_dump(mode="json"),
        }
        lines = [
            f"{bundle.folder}: {bundle.size_bytes / 1e6:.2f} MB, {found.runtime}, {_threads(found.threads)}",
            f"latency  p50 {found.p50_ms:.3f} ms  p90 {found.p90_ms:.3f} ms  (95 %: {found.low:.3f}-{found.high:.3f})",
            f"resize   {found.resize_ms:.3f} ms per picture, not in the latency",
            f"memory   {found.peak_memory_bytes / 1e6:.0f} MB at most" if found.peak_memory_bytes else "",
            f"runs     {found.runs} after {found.warmup} to warm up; noise of the machine {found.noise:.2f}",
        ]
        if choice is not None:
            best = f"; {_threads(choice.threads)} is fastest, or the fewest that cannot be told from it"
            lines += ["", f"threads  {'p50 ms':>9} {'p90 ms':>9} {'low':>9} {'high':>9}"]
            lines += [_row(row) for row in choice.measurements]
            lines.append(f"noise {choice.measurements[0].noise:.2f}{best}")
        console.result(document, "\n".join(line for line in lines))


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _row(row: "Measurement") -> str:
    return f"{row.threads:>7}  {row.p50_ms:9.3f} {row.p90_ms:9.3f} {row.low:9.3f} {row.high:9.3f}"
