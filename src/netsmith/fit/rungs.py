"""The rungs of a ladder of `quantize` in its ledger: what became of them, and which of them a session tries anew."""

from collections.abc import Sequence
from dataclasses import asdict

from netsmith.compress.quantize.ladder import Rung, Tried, disturbed
from netsmith.run.ledger import Ledger, LedgerRow

STAGE, RUNG = "quantize", "rung"
"""Stages of the ledger's rows: of the outcome, and of every rung before it."""


def settled(own: Sequence[LedgerRow]) -> LedgerRow | None:
    """The row of the outcome; None where there is none, or a rung came after it.

    Args:
        own: rows of the run, oldest first.
    """
    newest = next((row for row in reversed(own) if row.stage in (STAGE, RUNG)), None)
    return newest if newest is not None and newest.stage == STAGE else None


def standing(own: Sequence[LedgerRow], *, trains: bool) -> list[LedgerRow]:
    """The newest row of every rung but those that this session tries anew.

    Those are what only a disturbed measurement speaks against, and a training that broke down, where training was asked
    for again: it may be carried out in another way.

    Args:
        own: rows of the run, oldest first.
        trains: whether this session was given a length of training.
    """
    newest = {tried(row).rung: row for row in own if row.stage == RUNG}
    anew = {*disturbed([tried(row) for row in newest.values()])}
    if trains:
        anew |= {rung for rung, row in newest.items() if broke_down(row)}
    return [row for rung, row in newest.items() if rung not in anew]


def tried(row: LedgerRow) -> Tried:
    """What became of a rung."""
    after = row.after
    score = float("-inf") if broke_down(row) else (after.get("top1") or after["map"])["value"]
    fate = {name: after.get(name, False) for name in ("drops", "slow", "over")}
    return Tried(rung=Rung(**after["rung"]), score=score, **fate)


def broke_down(row: LedgerRow) -> bool:
    """Whether a rung's training made nothing."""
    return row.output is None


def enter_breakdown(ledger: Ledger, rung: Rung, why: str, *, artifact: str) -> LedgerRow:
    """Append the row of a rung whose training broke down.

    Args:
        ledger: of the run.
        rung: it.
        why: as the training said.
        artifact: that it began with.
    """
    return ledger.add(
        RUNG,
        verdict="refused",
        reason=f"{rung}: {why}",
        inputs=[artifact],
        after={"rung": asdict(rung), "excluded": [], "drops": True, "slow": False},
        splits_read=["train", "val"],
    )


def nearest(rows: Sequence[LedgerRow]) -> tuple[LedgerRow, str]:
    """The rung that was kept, or the one that came nearest: a faster one, then one that breaks no limit, then by what
    they score; and that in words, with what else may be done.

    Args:
        rows: of rungs, at least one that made something.
    """

    def nearness(row: LedgerRow) -> tuple[bool, bool, bool, float]:
        found = tried(row)
        return row.verdict == "kept", not found.slow, not found.over, found.score

    best = max(rows, key=nearness)
    count = f"{len(rows)} rung{'s' if len(rows) > 1 else ''}"
    if best.verdict == "kept":
        return best, f"{best.reason}; of {count} tried"
    parts = [
        f"none of {count} will do",
        f"the nearest, {best.reason}",
        *(row.reason for row in rows if broke_down(row)),
    ]
    parts += [
        f"{rung} answers well enough, and only a disturbed measurement speaks against it: --resume measures it anew"
        for rung in disturbed([tried(row) for row in rows])
    ]
    return best, "; ".join(parts)
