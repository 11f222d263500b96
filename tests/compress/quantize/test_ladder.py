"""The ladder as a function of what became of the rungs before."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from netsmith.compress.quantize.ladder import BFLOAT16, Rung, Tried, disturbed, next_rung

Fate = Callable[[Rung], tuple[float, bool, bool]]


def climbed(fate: Fate, *, layers: int = 9, trains: bool = False, bfloat16: bool = False, most: int = 9) -> list[str]:
    """The rungs that are tried where `fate` gives each one's score, and whether it drops and is slow; the limits allow
    `most` layers in float."""
    tried: list[Tried] = []
    while rung := next_rung(tried, layers=layers, trains=trains, bfloat16=bfloat16):
        score, drops, slow = fate(rung)
        tried.append(Tried(rung=rung, score=score, drops=drops, slow=slow, over=rung.excluded > most))
    return [str(each.rung) for each in tried]


def test_the_first_that_will_do_ends_it():
    assert climbed(lambda rung: (1.0, False, False)) == ["per channel, minmax"]
    assert climbed(lambda rung: (1.0, rung.calibration != "percentile", False)) == [
        *("per channel, minmax", "per channel, entropy", "per channel, percentile")
    ]


def test_accuracy_that_nothing_mends_is_looked_for_everywhere_in_order():
    scores = {"minmax": 0.3, "entropy": 0.7, "percentile": 0.5}
    assert climbed(lambda rung: (scores[rung.calibration], True, False)) == [
        *("per channel, minmax", "per channel, entropy", "per channel, percentile", "per tensor, entropy"),
        *(f"per channel, entropy, {count} layers in float" for count in (1, 2, 4)),
        "per channel, entropy, equalized, biases corrected",
        *(f"per channel, entropy, equalized, biases corrected, {count} layers in float" for count in (1, 2, 4)),
    ]


def test_speed_is_not_looked_for_where_it_cannot_be():
    assert climbed(lambda rung: (1.0, False, True)) == ["per channel, minmax", "per tensor, minmax"]
    assert climbed(lambda rung: (1.0, False, rung.per_channel)) == ["per channel, minmax", "per tensor, minmax"]
    # Layers in float: the more, the slower.
    assert climbed(lambda rung: (1.0, True, rung.excluded >= 2), layers=20)[4:] == [
        *(f"per channel, minmax, {count} layers in float" for count in (1, 2)),
        "per channel, minmax, equalized, biases corrected",
        *(f"per channel, minmax, equalized, biases corrected, {count} layers in float" for count in (1, 2)),
    ]


def test_layers_are_left_in_float_as_far_as_the_limits_allow():
    found = climbed(lambda rung: (1.0, not (rung.excluded or rung.equalized), False), most=0)
    assert found[4:] == ["per channel, minmax, 1 layers in float", "per channel, minmax, equalized, biases corrected"]
    assert climbed(lambda rung: (1.0, rung.excluded < 4, False), layers=20, most=2)[4:] == [
        *(f"per channel, minmax, {count} layers in float" for count in (1, 2, 4)),
        "per channel, minmax, equalized, biases corrected",
        *(f"per channel, minmax, equalized, biases corrected, {count} layers in float" for count in (1, 2, 4)),
    ]


def test_where_only_one_scale_per_layer_is_fast_the_rest_is_tried_with_that():
    found = climbed(lambda rung: (1.0, not rung.equalized, rung.per_channel), layers=4)
    assert found == [
        *("per channel, minmax", "per tensor, minmax", "per tensor, minmax, 1 layers in float"),
        *("per tensor, minmax, 2 layers in float", "per tensor, minmax, equalized, biases corrected"),
    ]


def test_training_comes_last_and_only_where_it_can_mend_what_is_wrong():
    drops = climbed(lambda rung: (1.0, not rung.trained, False), trains=True)
    assert drops == [*climbed(lambda rung: (1.0, True, False)), "per channel, minmax, trained with rounding"]
    slow = climbed(lambda rung: (1.0, True, rung.per_channel), trains=True)
    assert slow[-1] == "per tensor, minmax, trained with rounding"
    assert climbed(lambda rung: (1.0, True, True), trains=True) == ["per channel, minmax", "per tensor, minmax"]


def test_bfloat16_comes_after_all_that_is_int8_and_says_nothing_about_it():
    """It is twice as large. That it is faster than float does not make a way of rounding faster."""
    held = climbed(lambda rung: (1.0, False, False), bfloat16=True)
    assert held == ["per channel, minmax"]
    slow = climbed(lambda rung: (1.0, False, rung != BFLOAT16), bfloat16=True)
    assert slow == ["per channel, minmax", "per tensor, minmax", "bfloat16 in OpenVINO"]
    drops = climbed(lambda rung: (1.0, rung != BFLOAT16, False), trains=True, bfloat16=True)
    assert drops[-2:] == ["per channel, minmax, trained with rounding", "bfloat16 in OpenVINO"]
    worse = [
        Tried(rung=Rung(calibration="minmax"), score=0.9, drops=False, slow=True),
        Tried(rung=Rung(calibration="minmax", per_channel=False), score=0.9, drops=False, slow=True),
        Tried(rung=BFLOAT16, score=0.5, drops=True, slow=False),
    ]
    assert next_rung(worse, layers=9, trains=True, bfloat16=True) is None
    assert not disturbed(worse)


@pytest.mark.parametrize("noisy", ["entropy", "percentile", "per tensor", "equalized"])
def test_one_disturbed_measurement_ends_nothing(noisy):
    """What rounds in the same way takes the same time, and the first rung was fast."""
    quiet = climbed(lambda rung: (1.0, not rung.trained, False), trains=True)

    def fate(rung: Rung) -> tuple[float, bool, bool]:
        return 1.0, not rung.trained, noisy in str(rung) and not rung.excluded

    assert climbed(fate, trains=True) == quiet


def test_what_only_a_disturbed_measurement_speaks_against_is_told():
    first, second = Rung(calibration="minmax"), Rung(calibration="entropy")
    fast = Tried(rung=first, score=0.5, drops=True, slow=False)
    late = Tried(rung=second, score=0.9, drops=False, slow=True)
    assert disturbed([fast, late]) == [second]
    assert not disturbed([late]), "nothing says that it is fast"
    assert not disturbed([fast, replace(late, drops=True)])
    assert not disturbed([fast, replace(late, rung=replace(second, excluded=2))]), "which takes longer"
    assert not disturbed([fast, replace(late, rung=replace(second, per_channel=False))])
