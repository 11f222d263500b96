"""Orders of stages: which are tried, which are left out and why, and what time each of their steps has."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsmith.search.orders import FIRST, LAST, Agenda, Form, Order, Reach, agenda, most, timetable

HOUR = 3600.0


def reach(share: float, **changes: object) -> Reach:
    whole = Reach(kept=round(1e6 * share), share=share, student="small", larger="middle", obstacles={})
    return replace(whole, **changes)


def names(found: Agenda) -> list[str]:
    return [order.name for order in found.orders]


def test_an_order_is_known_by_its_name_and_its_last_verb_says_the_form() -> None:
    for form, last in LAST.items():
        for first in FIRST:
            assert Order((*first, *last)).form == form
    assert Order(("quantize",)).form == "int8"
    assert Order(("prune", "bfloat16")).name == "prune+bfloat16"
    assert Order(("distill", "prune", "distill", "quantize")).step(1) == "distill+prune+distill+quantize/2-prune"


def test_the_form_that_keeps_more_of_the_model_comes_first_and_the_other_one_follows() -> None:
    found = agenda({"float32": reach(0.4, student="tiny"), "int8": reach(0.7)}, seconds=100 * HOUR)
    assert names(found) == [
        "prune+quantize", "prune", "prune+distill+quantize", "distill+quantize", "distill",
        "distill+prune+distill+quantize",
    ]  # fmt: skip
    assert found.left_out == {}
    slower = agenda({"float32": reach(0.8), "int8": reach(0.7)}, seconds=100 * HOUR)
    assert names(slower)[:3] == ["prune", "prune+quantize", "prune+distill"]
    assert slower.left_out["distill+quantize"] == "the same network is made for distill"
    counted = agenda({"float32": reach(0.7), "int8": reach(0.7)}, seconds=100 * HOUR)
    assert counted.left_out["prune"] == "the same network is made for prune+quantize", "where only MACs are limited"


def test_what_keeps_far_less_what_cannot_fit_and_what_has_no_time_is_left_out_with_the_reason() -> None:
    found = agenda({"float32": reach(0.2), "int8": reach(0.7)}, seconds=100 * HOUR)
    assert found.left_out["prune"] == "float32 fits with 20% of the model where int8 fits with 70%"
    unreachable = reach(0.0, kept=None, obstacles={"prune": "the least takes 3 ms"}, larger=None)
    found = agenda({"int8": unreachable}, seconds=100 * HOUR)
    assert names(found) == ["distill+quantize"]
    assert found.left_out["prune+quantize"] == found.left_out["prune+distill+quantize"] == "the least takes 3 ms"
    assert "no network between" in found.left_out["distill+prune+distill+quantize"]
    nothing = replace(unreachable, student=None, obstacles={"prune": "no", "distill": "never"})
    assert names(agenda({"int8": nothing}, seconds=HOUR)) == []
    assert agenda({"int8": nothing}, seconds=HOUR).left_out["distill+prune+distill+quantize"] == "never"
    fits = {"prune": "it fits", "distill": "it fits"}
    whole = reach(1.0, kept=None, student=None, larger=None, obstacles=fits, whole=True)
    found = agenda({"int8": whole, "float32": reach(0.6)}, seconds=HOUR)
    assert names(found) == ["quantize", "prune", "distill"]
    assert found.left_out["prune+quantize"] == "it fits"
    assert timetable(found.orders, 70.0) == {
        "quantize/1-quantize": 20.0,
        "prune/1-prune": 20.0,
        "distill/1-distill": 30.0,
    }
    slow = agenda({"float32": reach(0.7)}, {"int8": "it is slower"}, seconds=HOUR)
    assert [slow.left_out[name] for name in ("prune+quantize", "distill+quantize")] == ["it is slower"] * 2
    short = agenda({"int8": reach(0.7)}, seconds=60.0)
    assert names(short) == ["prune+quantize", "prune+distill+quantize"]
    assert "enough for 2 of 4 orders; a longer --time" in short.left_out["distill+quantize"]
    assert names(agenda({"int8": reach(0.7)}, seconds=0.5)) == ["prune+quantize"], "never none"
    assert most(60.0, before=10.0) == 12, "each as long as half of the model's own training"
    assert most(60.0, before=HOUR) == 2
    assert [most(seconds) for seconds in (10, 60, 600, 1800, HOUR, 8 * HOUR)] == [1, 2, 3, 4, 4, 5]


@given(
    seconds=st.floats(0.1, 1e6),
    shares=st.dictionaries(st.sampled_from(list(LAST)), st.floats(0.01, 1.0), min_size=1),
)
def test_the_time_is_given_out_exactly_to_all_that_trains(seconds: float, shares: dict[Form, float]) -> None:
    orders = agenda({form: reach(share) for form, share in shares.items()}, seconds=seconds).orders
    found = timetable(orders, seconds)
    assert sum(found.values()) == pytest.approx(seconds)
    assert min(found.values()) > 0
    for order in orders:
        trained = [step for step in found if step.startswith(f"{order.name}/")]
        assert len(trained) == order.steps.count("distill") + (
            order.steps[0] == "prune" and "distill" not in order.steps
        )
    assert timetable((), seconds) == {}
