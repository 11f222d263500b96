"""Classes of unequal size on real pictures: digits of which half the classes keep a few pictures only."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import tiny_network, tiny_recipe

from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.train.evaluate import evaluate_network
from netsmith.train.feed import TrainingData
from netsmith.train.trainer import Trainer

RARE, FEW, MANY = range(5, 10), 4, 100


@pytest.fixture(scope="module")
def digits() -> TrainingData:
    """Half of the digits to train on, the other half, as equal as they come, to judge by."""
    images, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    pixels = np.repeat((images.reshape(-1, 8, 8, 1) * 15.9).astype(np.uint8), 3, axis=3)
    half = len(labels) // 2
    kept = [np.flatnonzero(labels[:half] == label)[: FEW if label in RARE else MANY] for label in range(10)]
    train = np.concatenate(kept)
    preprocess = Preprocess(size=8)
    return TrainingData(pixels[train], labels[train], pixels[half:], labels[half:], preprocess, "unequal digits")


def balanced_accuracy(data: TrainingData, balance: str, folder: Path) -> float:
    """Mean accuracy per class after a short training."""
    torch.manual_seed(0)
    recipe = tiny_recipe(
        epochs=10.0, batch_size=32, class_balance=balance, flip=False, crop_scale=None, pad=1, ema=None
    )
    trainer = Trainer(
        tiny_network(width=16, classes=10), data, recipe, plan=Plan(folder / f"{balance}.jsonl"), clock=SystemClock()
    )
    trainer.advance()
    mean, std = data.preprocess.mean, data.preprocess.std
    answers = evaluate_network(trainer.network, data.val_pixels, data.val_labels, mean=mean, std=std)
    right = answers.logits.argmax(axis=1) == answers.targets
    return float(np.mean([right[answers.targets == label].mean() for label in range(10)]))


@pytest.fixture(scope="module")
def as_they_are(digits: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> float:
    return balanced_accuracy(digits, "none", tmp_path_factory.mktemp("plan"))


@pytest.mark.parametrize("balance", ["sampling", "loss"])
def test_rare_classes_are_learned(digits: TrainingData, as_they_are: float, balance: str, tmp_path: Path) -> None:
    assert balanced_accuracy(digits, balance, tmp_path) > as_they_are + 0.05
