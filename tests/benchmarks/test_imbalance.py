"""`benchmarks/imbalance.py`: which photos its sets are made of, and what it counts."""

import csv
import json
import sys
from collections import Counter
from pathlib import Path

import imbalance
import numpy as np
import pytest
from imbalance import VALIDATION, accuracies, ahead, class_of, pairs, rare_classes, unequal, write_pairs
from pictures import encoded, noise

from netsmith.artifact.predictions import Predictions
from netsmith.data.sources import open_source

CLASSES = ("a", "b", "c", "d")
PHOTOS = {
    f"{split}/{kind}/{number}.jpg": f"{split} {kind} {number}".encode()
    for split, count in (("train", 2 * VALIDATION), ("val", 5))
    for number in range(count)
    for kind in CLASSES
}


def test_rare_classes_keep_a_tenth_to_train_on_and_all_to_be_tested_on() -> None:
    assert rare_classes(PHOTOS) == ["b", "d"]
    left = Counter(name.split("/")[0] + class_of(name) for name in unequal(PHOTOS))
    few = VALIDATION // 5
    assert left == {"traina": 10 * few, "trainb": few, "trainc": 10 * few, "traind": few} | {
        f"val{kind}": 5 for kind in CLASSES
    }


def test_no_photo_is_in_pictures_of_two_splits() -> None:
    shown = Counter((split, name) for split, *both in pairs(PHOTOS) for name in both)
    assert len({name for _, name in shown}) == len(shown) == len(PHOTOS)
    times = Counter((split, count) for (split, _), count in shown.items())
    assert times == {("train", 2): 4 * VALIDATION, ("val", 2): 4 * VALIDATION, ("test", 1): 20}
    assert all((split == "test") == name.startswith("val/") for split, name in shown)


def test_netsmith_reads_the_pairs_with_both_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imbalance, "VALIDATION", 1)
    photos = {name: encoded(noise(seed, 224, 224), "JPEG") for seed, name in enumerate(list(PHOTOS)[-40:])}
    table = write_pairs(photos, tmp_path)
    source = open_source(table)
    assert source.classes == CLASSES
    written = {row["image_path"]: row["labels"].split(";") for row in csv.DictReader(table.read_text().splitlines())}
    for entry, (_, left, right) in zip(source.entries, pairs(photos), strict=True):
        labels = sorted({class_of(left), class_of(right)})
        assert written[entry.name] == labels
        assert [CLASSES[label] for label in entry.labels] == labels


def test_kept_runs_keep_the_commit_they_were_made_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.with_name(f"{folder.name}.begun").write_text(
            json.dumps({"asked": {}, "made": [{"date": "2026-11-01", "commit": folder.name}]})
        )

    monkeypatch.setenv("NETSMITH_COMMIT", "now")
    monkeypatch.setattr(imbalance, "run", run)
    monkeypatch.setattr(imbalance, "photos_of", lambda archive: PHOTOS)
    monkeypatch.setattr(imbalance, "columns", lambda result: {})
    monkeypatch.setattr(imbalance, "macro", lambda folder, rare: {"macro": 0.5})
    words = f"x --data {tmp_path} -o {tmp_path} --sets unequal --seeds 2 --results {tmp_path / 'results.csv'}"
    monkeypatch.setattr(sys, "argv", words.split())
    imbalance.main()
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [row["commit"] for row in rows[:3]] == ["unequal-none-0", "unequal-sampling-0", "unequal-loss-0"]
    none = "unequal-none-0 unequal-none-1"
    assert [row["commit"] for row in rows[6:8]] == [none, f"unequal-sampling-0 unequal-sampling-1 {none}"]


def test_accuracy_is_counted_class_by_class(tmp_path: Path) -> None:
    targets = np.array([0, 0, 0, 1, 2, 2])
    answers = np.array([0, 0, 1, 1, 0, 0])
    keys = tuple(f"{number:064}" for number in range(6))
    (tmp_path / "predictions").mkdir()
    Predictions(keys, targets, np.eye(3, dtype=np.float32)[answers]).save(tmp_path / "predictions" / "test.npz")
    assert accuracies(tmp_path).tolist() == pytest.approx([2 / 3, 1.0, 0.0])
    ours, theirs = [{"macro": 0.5}, {"macro": 0.7}], [{"macro": 0.4}, {"macro": 0.4}]
    assert ahead(ours, theirs) == "macro +20.0 points from none, standard error 10.0"
