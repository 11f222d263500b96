"""The loss against a plain version of itself."""

import sys
import types

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from netsmith.errors import InputError
from netsmith.train.class_weights import balanced_weights
from netsmith.train.objectives import Classify, Normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images(count: int = 4) -> Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


class Branched(nn.Module):
    """A network with an auxiliary classifier, whose plain forward does not compute it."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.side = nn.Linear(108, 5), nn.Linear(108, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x.flatten(1))

    def forward_all(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.main(x.flatten(1)), "aux": self.side(x.flatten(1)), "stage1": x}


def test_normalisation_is_the_textbook_one_and_keeps_the_layout() -> None:
    pixels = images()
    expected = (pixels.double().numpy() / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    got = Normalize(MEAN, STD)(pixels)
    assert got.dtype == torch.float32
    assert got.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-6)
    np.testing.assert_allclose(Normalize(MEAN, STD)(pixels.float()).numpy(), expected, atol=2e-6)


def test_float_pictures_are_not_changed_in_place() -> None:
    pixels = images().float()
    before = pixels.clone()
    Normalize(MEAN, STD)(pixels)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_smoothed_cross_entropy(smoothing: float) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 5))
    targets = torch.tensor([0, 4, 2, 2])
    outcome = Classify(network, mean=MEAN, std=STD, smoothing=smoothing)(images(), targets)
    logits = network(Normalize(MEAN, STD)(images())).detach().double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    wanted = np.full((4, 5), smoothing / 5)
    wanted[np.arange(4), targets.numpy()] += 1 - smoothing
    assert outcome.loss.item() == pytest.approx(-(wanted * log_p).sum(axis=1).mean(), rel=1e-5)
    np.testing.assert_allclose(outcome.logits.detach().numpy(), logits, rtol=1e-5, atol=1e-6)


def test_auxiliary_losses_are_added_with_their_weight_and_train_their_branch() -> None:
    torch.manual_seed(0)
    network = Branched()
    targets = torch.tensor([0, 4, 2, 2])
    x = Normalize(MEAN, STD)(images())
    main = nn.functional.cross_entropy(network.main(x.flatten(1)), targets)
    side = nn.functional.cross_entropy(network.side(x.flatten(1)), targets)
    outcome = Classify(network, mean=MEAN, std=STD, auxiliary={"aux": 0.4})(images(), targets)
    assert outcome.loss.item() == pytest.approx((main + 0.4 * side).item(), rel=1e-6)
    outcome.loss.backward()
    assert network.side.weight.grad is not None
    alone = Classify(network, mean=MEAN, std=STD)(images(), targets)
    assert alone.loss.item() == pytest.approx(main.item(), rel=1e-6)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 5))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_shares_of_classes_are_the_losses_in_their_shares(smoothing: float) -> None:
    objective = Classify(linear(), mean=MEAN, std=STD, smoothing=smoothing)
    one, other = torch.tensor([0, 4, 2, 2]), torch.tensor([1, 1, 2, 3])
    mixed = 0.3 * nn.functional.one_hot(one, 5) + 0.7 * nn.functional.one_hot(other, 5)
    expected = 0.3 * objective(images(), one).loss + 0.7 * objective(images(), other).loss
    assert objective(images(), mixed).loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_weights_make_classes_count_alike_and_a_picture_one() -> None:
    labels = np.array([0] * 90 + [1] * 9 + [2])
    weights = np.array(balanced_weights(labels))
    np.testing.assert_allclose(np.bincount(labels) * weights, 100 / 3)
    assert weights[labels].mean() == pytest.approx(1.0)
    assert balanced_weights(np.array([0, 1, 2, 2, 1, 0])) == [1.0, 1.0, 1.0]
    for lacking, classes in ((np.array([0, 2]), 3), (np.array([0, 1]), 3)):
        with pytest.raises(InputError, match=r"class number \d has none; add some"):
            balanced_weights(lacking, classes=classes)


def test_weights_without_smoothing_are_torchs_over_the_batch_size() -> None:
    network, targets = linear(), torch.tensor([0, 4, 2, 2])
    weights = [0.2, 1.0, 3.0, 1.0, 0.7]
    outcome = Classify(network, mean=MEAN, std=STD, class_weights=weights)(images(), targets)
    theirs = nn.functional.cross_entropy(outcome.logits, targets, weight=torch.tensor(weights), reduction="sum") / 4
    assert outcome.loss.item() == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_weighted_loss_is_that_of_balanced_sampling(smoothing: float) -> None:
    """All pictures once with weights, every class equally often without: the same loss and the same gradient."""
    pixels, targets = images(6), torch.tensor([0, 0, 0, 1, 1, 2])
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 3))
    weights = balanced_weights(targets.numpy())
    weighted = Classify(network, mean=MEAN, std=STD, smoothing=smoothing, class_weights=weights)(pixels, targets).loss
    chosen = torch.tensor([0, 1, 2, 0, 1, 2, 3, 4, 3, 4, 3, 4, 5, 5, 5, 5, 5, 5])
    sampled = Classify(network, mean=MEAN, std=STD, smoothing=smoothing)(pixels[chosen], targets[chosen]).loss
    assert weighted.item() == pytest.approx(sampled.item(), rel=1e-5)
    ours, theirs = (torch.autograd.grad(loss, network[1].weight)[0] for loss in (weighted, sampled))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_of_parts_and_of_mixtures(smoothing: float) -> None:
    network, targets = linear(), torch.tensor([0, 4, 2, 2])
    objective = Classify(network, mean=MEAN, std=STD, smoothing=smoothing, class_weights=[0.2, 1.0, 3.0, 1.0, 0.7])
    whole = objective(images(), targets).loss
    halves = [objective(images()[part], targets[part]).loss for part in (slice(0, 2), slice(2, 4))]
    assert whole.item() == pytest.approx(sum(halves).item() / 2, rel=1e-6), "accumulation is the large batch"
    mixed = 0.4 * nn.functional.one_hot(targets, 5) + 0.6 * nn.functional.one_hot(targets.roll(1), 5)
    expected = 0.4 * whole + 0.6 * objective(images(), targets.roll(1)).loss
    assert objective(images(), mixed).loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_loss_is_that_of_every_class_by_itself(smoothing: float, threshold: float | None) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 5))
    mixed = torch.tensor([[1.0, 0, 0, 0, 0], [0.15, 0, 0.85, 0, 0], [0, 0, 0.6, 0.4, 0], [0, 0, 0, 0, 1.0]])
    for targets in (torch.tensor([0, 4, 2, 2]), mixed):
        objective = Classify(network, mean=MEAN, std=STD, smoothing=smoothing, binary=True, threshold=threshold)
        outcome = objective(images(), targets)
        logits = outcome.logits.detach().double().numpy()
        wanted = np.eye(5)[targets.numpy()] if targets.ndim == 1 else targets.double().numpy()
        wanted = wanted * (1 - smoothing) + smoothing / 5
        wanted = (wanted > threshold).astype(float) if threshold else wanted
        plain = wanted * np.log1p(np.exp(-logits)) + (1 - wanted) * np.log1p(np.exp(logits))
        assert outcome.loss.item() == pytest.approx(plain.mean(), rel=1e-5)
        weights = [0.5, 2.0, 1.0, 1.5, 0.1]
        weighed = Classify(
            network, mean=MEAN, std=STD, smoothing=smoothing, binary=True, threshold=threshold, class_weights=weights
        )
        shares = np.eye(5)[targets.numpy()] if targets.ndim == 1 else targets.double().numpy()
        expected = (plain.mean(axis=1) * (shares @ weights)).mean()
        assert weighed(images(), targets).loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.reference
@pytest.mark.parametrize("threshold", [None, 0.2])
def test_binary_loss_is_timms(threshold: float | None) -> None:
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("absent"))
    loss = pytest.importorskip("timm.loss").BinaryCrossEntropy(smoothing=0.1, target_threshold=threshold)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 5))
    targets = torch.tensor([0, 4, 2, 2])
    outcome = Classify(network, mean=MEAN, std=STD, smoothing=0.1, binary=True, threshold=threshold)(images(), targets)
    torch.testing.assert_close(outcome.loss, loss(outcome.logits, targets))
