"""What `--find-lr` says of the rate that it found."""

import json
from typing import Any

import pytest

from netsmith.fit.rate import FoundRate
from netsmith.run.recipe import Recipe
from netsmith.train.range_test import Moment, RangeTest

TEST = RangeTest((0.01, 0.1, 1.0), (2.0, 1.0, 9.0), (2.0, 1.0, 9.0), exploded=True, suggestion=0.05, lowest=0.1)


def found(moment: Moment, **fields: Any) -> FoundRate:
    values: dict[str, Any] = {"model": "resnet18", "img_size": 224, "epochs": 1.0, "lr": 0.05}
    return FoundRate(Recipe(**(values | fields)), moment, TEST, None)


def test_of_a_run_that_stays_the_same_only_the_rate_is_said() -> None:
    assert str(found(Moment(0.05, None, head_only=False))).splitlines() == [
        "learning rate 0.05: there the loss of resnet18 falls steepest with sgd and batches of 64; it is lowest at 0.1 "
        "and explodes above 1",
        "the recipe's 0.05 is about the same",
    ]


@pytest.mark.parametrize(
    ("moment", "fields", "lines"),
    [
        (
            Moment(0.2, None, head_only=False),
            {"head_first": 0.2},
            [
                "all layers learned: the rate is for what follows the first 20% of training, in which only the "
                "classifier does"
            ],
        ),
        (
            Moment(0.05, None, head_only=True),
            {"head_first": 1.0},
            ["only the classifier learned, as in the run (--head-first 1)"],
        ),
        (
            Moment(0.25, 128, head_only=False),
            {"progressive": (0.5, 0.75), "train_size": 192},
            ["pictures had 128 of 192 pixels, as they have at 25% of training, where all layers begin to learn"],
        ),
    ],
)
def test_which_stretch_of_a_run_it_is_for_is_said(moment: Moment, fields: dict[str, Any], lines: list[str]) -> None:
    answer = found(moment, **fields)
    assert str(answer).splitlines()[2:] == lines
    document = json.loads(json.dumps(answer.document()))
    assert {name: document[name] for name in ("progress", "side", "head_only")} == {
        "progress": moment.progress,
        "side": moment.side,
        "head_only": moment.head_only,
    }


def test_where_the_schedule_has_come_down_by_then_the_rate_to_give_is_higher_than_the_one_that_was_tried() -> None:
    """Halfway after the warm-up a cosine to 0 has half of its rate left."""
    fields: dict[str, Any] = {"sched": "cosine", "warmup": 0.0, "final_lr_ratio": 0.0, "head_first": 0.5}
    moment = Moment(0.5, None, head_only=False)
    answer = found(moment, **fields, lr=0.1)
    assert str(answer).splitlines()[1] == "the recipe's 0.1, of which 50% is left by then, is about the same"
    assert answer.document()["suggestion"] == 0.05
    assert answer.document()["suggested_lr"] == pytest.approx(0.1)
    lower = str(found(moment, **fields, lr=0.05)).splitlines()[1]
    assert lower == "the recipe's 0.05, of which 50% is left by then, is 2 times lower; give --lr 0.1 to try the other"
