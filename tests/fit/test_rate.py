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
            ["pictures had 128 of 192 pixels, as they have at 25% of training, where that rate is highest"],
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
