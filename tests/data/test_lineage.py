"""What descendants of a model must know of pictures that are not theirs."""

import json
from pathlib import Path

import pytest

from netsmith.data.lineage import add_lineage, most_used, read_lineage
from netsmith.errors import InputError

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def test_what_was_trained_on_once_is_for_training_whoever_says_otherwise() -> None:
    assert most_used({A: "test", B: "val"}, {A: "train", B: "test", C: "test"}) == {A: "train", B: "val", C: "test"}


def test_a_record_only_grows_and_is_not_there_where_there_is_nothing_to_say(tmp_path: Path) -> None:
    path = tmp_path / "lineage.json"
    add_lineage(path, {})
    assert not path.exists()
    assert read_lineage(path) == {}
    add_lineage(path, {B: "val", A: "train"})
    add_lineage(path, {B: "test", C: "test"})
    assert read_lineage(path) == {A: "train", B: "val", C: "test"}
    assert json.loads(path.read_text()) == {"format": 1, "splits": {"train": [A], "val": [B], "test": [C]}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 2, "splits": {}}',
        '{"format": 1, "splits": {"seen": []}}',
        '{"format": 1, "splits": {"val": [1]}}',
    ],
)
def test_what_is_no_record_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "lineage.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"lineage\.json cannot be read \(.*\); restore it or make the run again"):
        read_lineage(path)
