"""`benchmarks/finetune_flowers.py`: what is held out of every fold, and what its rows say of finished runs."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import results
from finetune_flowers import (
    FOLDS,
    SCRATCH,
    TUNED,
    chosen_on_validation,
    deal,
    photos_of,
    pooled_rows,
    write_folds,
)
from hypothesis import given
from hypothesis import strategies as st
from pictures import class_files

from netsmith.artifact.predictions import Predictions
from netsmith.data.sources import open_source


@given(counts=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 23), min_size=1), order=st.randoms())
def test_folds_are_stratified_and_hold_out_every_photo_once(counts: dict[str, int], order) -> None:
    photos = {f"{name}/{index}": f"{name} {index}".encode() for name, count in counts.items() for index in range(count)}
    folds = deal(photos)
    assert len(folds) == FOLDS
    assert sorted(name for fold in folds for name in fold) == sorted(photos)
    for name, count in counts.items():
        sizes = [sum(photo.startswith(f"{name}/") for photo in fold) for fold in folds]
        assert {count // FOLDS, -(-count // FOLDS)} >= set(sizes)
    shuffled = list(photos)
    order.shuffle(shuffled)
    assert list(map(set, deal({name: photos[name] for name in shuffled}))) == list(map(set, folds))


def test_netsmith_reads_the_folds_as_train_and_test(tmp_path: Path) -> None:
    photos = class_files({"daisy": 10, "tulips": 5})
    folds = write_folds(photos, tmp_path)
    assert write_folds(photos, tmp_path) == folds  # again, as after an interruption
    held_out: Counter[str] = Counter()
    for fold in folds:
        entries = open_source(fold).entries
        assert Counter(entry.split for entry in entries) == {"train": 12, "test": 3}
        held_out.update(entry.name.partition("/")[2] for entry in entries if entry.split == "test")
    assert held_out == dict.fromkeys(photos, 1)


def test_the_hundred_photos(test_data: Path) -> None:
    photos = photos_of(test_data / "flowers-sample" / "flowers-sample.zip")
    assert len(set(photos.values())) == 100
    for fold in deal(photos):
        assert Counter(name.partition("/")[0] for name in fold) == dict.fromkeys(
            ("daisy", "dandelion", "roses", "sunflowers", "tulips"), 4
        )


def write_answers(folder: Path, *, right: list[bool], split: str = "test", sure: float = 1.0) -> Path:
    """A run's answers on pictures with hashes 0, 1, ...: class 0 is right, `sure` is the distance of the logits."""
    logits = np.array([[0.0, -sure] if answer else [-sure, 0.0] for answer in right], np.float32)
    keys = tuple(f"{index:064x}" for index in range(len(right)))
    order = np.random.default_rng(0).permutation(len(right))  # rows of a file come in no order
    shuffled = tuple(keys[index] for index in order)
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    Predictions(shuffled, np.zeros(len(right), np.int64), logits[order]).save(folder / "predictions" / f"{split}.npz")
    return folder


def test_rows_over_all_folds_pair_the_same_photos(tmp_path: Path) -> None:
    tuned = [[True] * 9 + [False], [True] * 10]
    scratch = [[True] + [False] * 8 + [True], [True] * 5 + [False] * 5]
    runs = {
        way: [write_answers(tmp_path / f"{way} {fold}", right=right) for fold, right in enumerate(answers)]
        for way, answers in ((TUNED, tuned), (SCRATCH, scratch))
    }
    first, second = pooled_rows({"date": "2026-11-22"}, runs)
    assert (first["subject"], first["test_top1"], first["n"], first["note"]) == (TUNED, 0.95, 20, "2 folds")
    assert (second["subject"], second["test_top1"]) == (SCRATCH, 0.35)
    assert second["test_low"] < 0.35 < second["test_high"]
    # Only fine-tuning is right on 8 + 5 photos, only scratch on 1: p = 2 (1 + 14) / 2^14.
    assert second["note"] == "2 folds; fine-tuned is +60 points from it, McNemar p 0.00183"
    results.append(tmp_path / "results.csv", [first])
    results.append(tmp_path / "results.csv", [second])
    with (tmp_path / "results.csv").open() as file:
        assert [row["subject"] for row in csv.DictReader(file)] == [TUNED, SCRATCH]


@pytest.mark.parametrize("better", ["more are right", "as many, with a smaller loss"])
def test_the_rate_is_chosen_on_validation_alone(tmp_path: Path, better: str) -> None:
    more = better == "more are right"
    one = write_answers(tmp_path / "one", right=[True, False, False], split="val")
    other = write_answers(tmp_path / "other", right=[True, more, False], split="val", sure=3.0 if more else 0.5)
    write_answers(one, right=[True] * 3)
    write_answers(other, right=[False] * 3)
    assert chosen_on_validation([one, other]) == other
