"""What came of the faults, in words."""

from faults import Blow
from watched import ORDER


def word(wrong: list[str], *, good: str = "well") -> str:
    """What is wrong, if anything."""
    return "; ".join(wrong) if wrong else good


def table(blows: list[Blow]) -> str:
    """Faults by kind and phase, how many went well of how many."""
    kinds = list(dict.fromkeys(blow.kind for blow in blows))
    rows = list(dict.fromkeys(sorted((blow.phase for blow in blows), key=_place)))
    widths = [max(len(kind), 5) for kind in kinds]
    left = max([18, *map(len, rows)])
    lines = ["  ".join(["phase".ljust(left), *(kind.rjust(width) for kind, width in zip(kinds, widths, strict=True))])]
    for phase in [*rows, "all"]:
        cells: list[str] = []
        for kind, width in zip(kinds, widths, strict=True):
            met = [blow for blow in blows if blow.kind == kind and phase in (blow.phase, "all")]
            good = sum(not blow.wrong for blow in met)
            cells.append((f"{good}/{len(met)}" if met else "").rjust(width))
        lines.append("  ".join([phase.ljust(left), *cells]))
    return "\n".join(line.rstrip() for line in lines)


def _place(phase: str) -> tuple[str, int]:
    verb, _, name = phase.rpartition(": ")
    return verb, ORDER.index(name) if name in ORDER else len(ORDER)
