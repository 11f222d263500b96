"""What the rows of a ladder say of its rungs, and which of them are tried anew."""

from dataclasses import asdict
from typing import Any

import pytest

from netsmith.artifact.runtimes import REFERENCE
from netsmith.compress.quantize.ladder import BFLOAT16, Rung
from netsmith.fit.rungs import loses, standing, tried
from netsmith.run.ledger import LedgerRow, Verdict

MINMAX = Rung(calibration="minmax")
BOTH = [REFERENCE, "openvino"]


def row(
    rung: Rung = MINMAX, *, stage: str = "rung", runtimes: tuple[str, ...] = (REFERENCE,), score: float = 0.9,
    verdict: Verdict = "refused", **more: Any,
) -> LedgerRow:  # fmt: skip
    """Of a rung that was judged in some runtimes, of a model that scores 0.95."""
    numbers = {"top1": {"value": score}, "drops": True, "slow": False, "over": False}
    elsewhere = [{"runtime": name} for name in runtimes[1:]]
    after = {"rung": asdict(rung), "runtime": runtimes[0], "elsewhere": elsewhere, **numbers, **more}
    before = {"top1": {"value": 0.95}}
    return LedgerRow(
        time="", stage=stage, output="0" * 64, before=before, after=after, verdict=verdict, reason="because"
    )


def test_a_rung_is_known_by_what_a_limit_has_to_allow() -> None:
    assert (tried(row()).score, loses(row())) == (0.9, pytest.approx(5.0)), "as older rows have it"
    worse = row(loses=7.0)
    assert (tried(worse).score, loses(worse)) == (pytest.approx(0.88), 7.0)


def left(rows: list[LedgerRow], int8_in: list[str]) -> list[LedgerRow]:
    return standing(rows, trains=False, int8_in=int8_in, bfloat16_in=[REFERENCE, "openvino-bf16"])


def test_what_was_refused_without_a_runtime_that_is_here_now_is_tried_anew() -> None:
    rows = [row(), row(BFLOAT16, runtimes=(REFERENCE, "openvino-bf16"))]
    assert left(rows, [REFERENCE]) == rows
    assert left(rows, BOTH) == rows[1:]
    assert left([*rows[:1], row(BFLOAT16)], [REFERENCE]) == rows[:1]
    rows[0] = row(runtimes=("openvino", REFERENCE))
    assert left(rows, BOTH) == rows
    rows[0] = row(verdict="kept")
    assert left(rows, BOTH) == rows


def test_a_runtime_that_failed_is_asked_again_once_the_ladder_has_ended() -> None:
    """Before that it would be begun anew by every session."""
    rows = [row(without={"openvino": "it was ended"})]
    assert left(rows, BOTH) == rows
    assert not left([*rows, row(stage="quantize")], BOTH)
