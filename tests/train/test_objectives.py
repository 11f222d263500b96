"""The loss against a plain version of itself."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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
