"""Text tables and short numbers for people; `--json` carries the exact ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from netsmith.run.scores import SCORE_NAMES

if TYPE_CHECKING:
    from netsmith.run.metrics import Interval
    from netsmith.run.result import Result


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns aligned over a header: the first `left` to the left, the others, which hold numbers, to the right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(aligned).rstrip()

    return "\n".join(map(line, lines))


def short(count: float) -> str:
    """A count or a number of bytes to four digits: "950", "12.35k", "4.000G"."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{count / factor:#.4g}{unit}"
    return f"{count:.4g}"


def outcome(result: "Result", folder: Path) -> str:
    """The outcome of a run as a small table."""
    final = result.final
    latency = final.latency_ms
    rows = [
        ("model", f"{final.model}, {final.params:,} parameters, {final.macs / 1e6:,.1f} M MACs"),
        ("size", f"{final.size_bytes / 1e6:,.3f} MB"),
        *([("memory", f"{final.memory_bytes / 1e6:,.0f} MB at most")] if final.memory_bytes is not None else []),
        (
            "latency",
            f"p50 {latency.p50:.3f} ms, p90 {latency.p90:.3f} ms (at most {latency.high:.3f}), {final.threads} threads",
        ),
    ]
    rows += [
        (f"{SCORE_NAMES[name]} {split}", share(interval))
        for split in ("val", "test")
        for name, interval in final.scores(split).items()
    ]
    rows += [("budget", f"{row}: {'met' if row.met else 'MISSED'}") for row in result.budget]
    rows.append(("artifact", str(folder / "model")))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def share(interval: "Interval") -> str:
    """A proportion with its bounds: "93.20% (91.10% to 94.90%, n 600)"."""
    return f"{interval.value:.2%} ({interval.low:.2%} to {interval.high:.2%}, n {interval.n:,})"
