"""The rungs of a ladder of `quantize` in its ledger: what became of them, and which of them a session tries anew."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from netsmith.compress.quantize.ladder import BFLOAT16, Rung, Tried, disturbed
from netsmith.run.ledger import Ledger, LedgerRow
from netsmith.run.scores import POINTS

STAGE, RUNG = "quantize", "rung"
"""Stages of the ledger's rows: of the outcome, and of every rung before it."""


def settled(own: Sequence[LedgerRow]) -> LedgerRow | None:
    """The row of the outcome; None where there is none, or a rung came after it.

    Args:
        own: rows of the run, oldest first.
    """
    newest = next((row for row in reversed(own) if row.stage in (STAGE, RUNG)), None)
    return newest if newest is not None and newest.stage == STAGE else None


def standing(
    own: Sequence[LedgerRow], *, trains: bool, int8_in: Sequence[str], bfloat16_in: Sequence[str]
) -> list[LedgerRow]:
    """The newest row of every rung but those that this session tries anew.

    Those are what only a disturbed measurement speaks against; a training that broke down, where training was asked
    for again: it may be carried out in another way; and what was refused without a runtime that can be had now.
    One that was there and failed is asked again only where the ladder had come to its end, or a ladder that is stopped
    often would never come to it.

    Args:
        own: rows of the run, oldest first.
        trains: whether this session was given a length of training.
        int8_in, bfloat16_in: runtimes that rungs are judged in and that can run here.
    """
    newest = {tried(row).rung: row for row in own if row.stage == RUNG}
    anew = {*disturbed([tried(row) for row in newest.values()])}
    if trains:
        anew |= {rung for rung, row in newest.items() if broke_down(row)}
    ended = settled(own) is not None
    for rung, row in newest.items():
        if row.verdict == "refused" and not broke_down(row):
            asked = _judged_in(row) if ended else _judged_in(row) | {*row.after.get("without", {})}
            if not asked.issuperset(bfloat16_in if rung == BFLOAT16 else int8_in):
                anew.add(rung)
    return [row for rung, row in newest.items() if rung not in anew]


def _judged_in(row: LedgerRow) -> set[str]:
    """Runtimes that a rung was judged in."""
    return {each["runtime"] for each in (row.after, *row.after.get("elsewhere", ()))}


def tried(row: LedgerRow) -> Tried:
    """What became of a rung; its score is that of the worse of the runtime that it is known by and the one that stands
    in for it, because both have to answer well."""
    after = row.after
    score = float("-inf") if broke_down(row) else headline(row.before) - loses(row) / POINTS
    fate = {name: after.get(name, False) for name in ("drops", "slow", "over")}
    return Tried(rung=Rung(**after["rung"]), score=score, **fate)


def loses(row: LedgerRow) -> float:
    """Points that a limit would have to allow, by the row of a rung or of an outcome."""
    return row.after.get("loses", POINTS * (headline(row.before) - headline(row.after)))


def headline(record: Mapping[str, Any]) -> float:
    """The headline of one side of a row."""
    return float((record.get("top1") or record["map"])["value"])


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
