"""A deep plain network against its residual twin on real pictures: the gradients that each layer gets."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netsmith.arch.names import find_layout
from netsmith.models.build import build
from netsmith.run.clock import SystemClock
from netsmith.run.files import read_jsonl
from netsmith.run.gradients import GradientRow, ends, in_words
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.feed import TrainingData
from netsmith.train.trainer import Trainer


def cifar(folder: Path, count: int) -> TrainingData:
    """The first pictures of CIFAR-10's first batch."""
    sheet = np.asarray(Image.open(folder / "cifar10/data_batch_1.webp").convert("RGB"))
    pixels = sheet.reshape(100, 32, 100, 32, 3).swapaxes(1, 2).reshape(10000, 32, 32, 3)[:count]
    with gzip.open(folder / "cifar10/labels.csv.gz", "rt") as handle:
        labels = [int(row["label"]) for row in csv.DictReader(handle) if row["batch"] == "data_batch_1"]
    targets = np.array(labels[:count], dtype=np.int64)
    return TrainingData(pixels, targets, pixels[:0], targets[:0], Preprocess(size=32), "cifar")


def gradients(model: str, data: TrainingData, folder: Path, *, steps: int) -> list[GradientRow]:
    folder.mkdir()
    epochs = steps * 32 / len(data.labels)
    recipe = Recipe(
        model=model, img_size=32, epochs=epochs, batch_size=32, lr=0.01, crop_scale=None, threads=1, dtype="float32"
    )
    trainer = Trainer(
        build(find_layout(model, num_classes=10, img_size=32), seed=0),
        data,
        recipe,
        plan=Plan(folder / "plan.jsonl"),
        clock=SystemClock(),
        metrics=folder / "metrics.jsonl",
        warn=lambda text: None,
    )
    trainer.advance()
    return [GradientRow.model_validate(row) for row in read_jsonl(folder / "gradients.jsonl")]


@pytest.mark.slow
def test_a_plain_network_of_56_layers_and_its_residual_twin(test_data: Path, tmp_path: Path) -> None:
    data = cifar(test_data, 320)
    plain, residual = (gradients(name, data, tmp_path / name, steps=10) for name in ("plain56_cifar", "resnet56_cifar"))
    begun = ends(plain[:1])
    assert begun is not None
    assert begun[0] > 300 * begun[1]
    assert "exploding gradients at the beginning" in (in_words(plain) or "")
    for row in residual:
        found = ends([row])
        assert found is not None
        assert 0.1 < found[0] / found[1] < 10
    assert in_words(residual) is None
