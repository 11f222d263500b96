"""Tags in training: the loss against plain versions, batches, and learning from real pictures of unequal tags.

The real set: clothes of Fashion-MNIST, none to three of different kinds in the quarters of one picture, whose tags
are those kinds. The last three kinds are rare.
"""

import gzip
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import tiny_network, tiny_recipe
from torch import Tensor, nn
from torch.nn import functional as F

from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.tagging import average_precision, probabilities_of
from netsmith.train.class_weights import MOST_POSITIVE_WEIGHT, positive_weights
from netsmith.train.evaluate import Evaluation
from netsmith.train.feed import Feed, TrainingData
from netsmith.train.objectives import Classify, Tag, objective_of
from netsmith.train.trainer import Trainer

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
KINDS = 6
RARE = slice(3, 6)


class Given(nn.Module):
    """Answers with logits of its own."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits


def loss_of(logits: Tensor, targets: Tensor, **options: Any) -> Tensor:
    objective = Tag(Given(logits), mean=MEAN, std=STD, **options)
    return objective(torch.zeros(len(logits), 3, 4, 4, dtype=torch.uint8), targets).loss.detach()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_every_tag_by_itself_summed(smoothing: float) -> None:
    draw = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(5, 4, generator=draw), torch.rand(5, 4, generator=draw).round()
    present = targets * (1 - smoothing / 2) + (1 - targets) * smoothing / 2
    chance = torch.sigmoid(logits)
    plain = -(present * chance.log() + (1 - present) * (1 - chance).log()).sum(1).mean()
    assert loss_of(logits, targets, smoothing=smoothing) == pytest.approx(float(plain), rel=1e-5)
    halves = (loss_of(logits[:2], targets[:2]) * 2 + loss_of(logits[2:], targets[2:]) * 3) / 5
    assert loss_of(logits, targets) == pytest.approx(float(halves), rel=1e-6)


def test_weights_let_both_answers_of_a_tag_count_alike_and_a_picture_one() -> None:
    labels = np.random.default_rng(0).random((400, 3)) < [0.5, 0.1, 0.004]
    labels[0] = True
    negative, positive = np.array(positive_weights(labels))
    counts = labels.sum(axis=0)
    np.testing.assert_allclose((positive * counts + negative * (400 - counts)) / 400, 1.0)
    np.testing.assert_allclose((positive * counts)[:2], (negative * (400 - counts))[:2])
    assert positive[2] / negative[2] == pytest.approx(MOST_POSITIVE_WEIGHT)
    logits, targets = torch.randn(6, 3), torch.from_numpy(labels[:6]).float()
    ratio = torch.from_numpy(positive / negative).float()
    torchs = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=ratio, reduction="none")
    expected = float((torchs * torch.from_numpy(negative).float()).sum(1).mean())
    assert loss_of(logits, targets, weights=[negative.tolist(), positive.tolist()]) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(positive_weights(np.array([[True, False], [True, False]]))).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_mixed_picture_has_the_weighted_losses_of_its_halves_in_their_shares(smoothing: float) -> None:
    draw = torch.Generator().manual_seed(0)
    logits, one, other = (torch.randn(5, 4, generator=draw) for _ in range(3))
    one, other = (one > 0).float(), (other > 0).float()
    options: dict[str, Any] = {"smoothing": smoothing, "weights": [[0.5] * 4, [10.0, 4.0, 1.0, 0.2]]}
    halves = 0.7 * loss_of(logits, one, **options) + 0.3 * loss_of(logits, other, **options)
    assert loss_of(logits, 0.7 * one + 0.3 * other, **options) == pytest.approx(float(halves), rel=1e-5)


def test_the_objective_follows_the_labels() -> None:
    recipe, preprocess = tiny_recipe(class_balance="loss"), Preprocess(size=8)
    tags = objective_of(tiny_network(), recipe, preprocess, labels=np.eye(3, dtype=bool))
    assert isinstance(tags, Tag)
    assert tags.weights is not None
    assert isinstance(objective_of(tiny_network(), recipe, preprocess, labels=np.arange(3)), Classify)


def tagged(pixels: np.ndarray, labels: np.ndarray, val: int = 0) -> TrainingData:
    split = len(pixels) - val
    size = pixels.shape[1]
    return TrainingData(
        pixels[:split], labels[:split], pixels[split:], labels[split:], Preprocess(size=size), "tagged"
    )  # fmt: skip


def test_batches_hold_tags_as_numbers_and_mixtures_their_shares() -> None:
    pixels = np.zeros((12, 8, 8, 3), np.uint8)
    labels = np.random.default_rng(0).random((12, 5)) < 0.4
    plain = Feed.of(tagged(pixels, labels), tiny_recipe(), batch_size=4)
    batch = plain.batch(1)
    assert (batch.targets.dtype, batch.targets.shape) == (torch.float32, (4, 5))
    np.testing.assert_array_equal(batch.targets.numpy(), labels[plain.order(0)[4:8]])
    mixed = Feed.of(tagged(pixels, labels), tiny_recipe(mixup=0.4), batch_size=4).batch(1).targets
    pairs = torch.stack([batch.targets, batch.targets.roll(1, 0)])
    share = ((mixed - pairs[1]) / (pairs[0] - pairs[1]))[pairs[0] != pairs[1]]
    assert share.std() < 1e-6
    assert 0 < float(share[0]) < 1


@pytest.fixture(scope="module")
def clothes(test_data: Path) -> TrainingData:
    """2,000 pictures of 28 x 28 with pieces of Fashion-MNIST's test set at half size, a quarter of them to judge by."""
    folder = test_data / "fashion-mnist"
    packed = lzma.decompress((folder / "t10k-images-idx3-ubyte.xz").read_bytes())
    images = np.frombuffer(packed, np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    kinds = [np.flatnonzero(labels == kind) for kind in (1, 7, 8, 0, 9, 5)]  # trouser, sneaker, bag, T-shirt, ...
    draw = np.random.default_rng(0)
    chances = np.array([1, 1, 1, 0.12, 0.12, 0.12])
    pixels, tags = np.zeros((2000, 28, 28, 3), np.uint8), np.zeros((2000, KINDS), bool)
    for picture, has in zip(pixels, tags, strict=True):
        shown = draw.choice(KINDS, size=draw.integers(0, 4), replace=False, p=chances / chances.sum())
        for place, kind in zip(draw.permutation(4), shown, strict=False):
            top, left = 14 * (place // 2), 14 * (place % 2)
            picture[top : top + 14, left : left + 14] = images[draw.choice(kinds[kind])][::2, ::2, None]
            has[kind] = True
    return tagged(pixels, tags, val=500)


def trained(data: TrainingData, folder: Path, **changes: object) -> Evaluation:
    recipe = tiny_recipe(
        img_size=28, epochs=6.0, batch_size=32, lr=0.05, smoothing=0.0, flip=False, crop_scale=None, ema=None, **changes
    )
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, KINDS),
    )  # fmt: skip
    plan = Plan(folder / f"{len(changes)}.jsonl")
    trainer = Trainer(network, data, recipe, plan=plan, clock=SystemClock(), metrics=folder / f"{len(changes)}.metrics")
    trainer.advance()
    found = trainer.evaluate()
    assert found is not None
    return found


def test_tags_of_real_pictures_are_learned_rare_ones_too_when_they_count_as_much(
    clothes: TrainingData, tmp_path: Path
) -> None:
    plain, balanced = trained(clothes, tmp_path), trained(clothes, tmp_path, class_balance="loss")
    assert isinstance(clothes.val_labels, np.ndarray)
    chance = clothes.val_labels.mean(axis=0)
    assert chance[RARE].max() < 0.15
    for found in (plain, balanced):
        assert found.headline.low > chance.mean() + 0.3
        assert (average_precision(found.logits, clothes.val_labels.astype(bool)) > 1.5 * chance).all()
    recalls: list[float] = []
    for found in (plain, balanced):
        given = probabilities_of(found.logits)[:, RARE] >= 0.5
        recalls.append(float(given[clothes.val_labels[:, RARE]].mean()))
    assert recalls[1] > recalls[0] + 0.1
    assert plain.shown.startswith("mAP ")
    assert plain.thresholds is not None
    assert len(plain.thresholds) == KINDS
