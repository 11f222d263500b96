"""What a range test suggests, and that it leaves everything as it was."""

import numpy as np
import pytest
import torch
from tiny_training import tiny_data, tiny_network, tiny_recipe, weights_hash
from torch import Tensor, nn

from netsmith.errors import CheckError
from netsmith.train.range_test import STEPS, judge, range_test

RATES = np.logspace(-6, 1, STEPS).tolist()


def test_the_suggestion_is_where_the_loss_falls_steepest_and_not_where_it_is_lowest() -> None:
    places = np.log10(RATES)
    noise = np.random.default_rng(0).normal(0.0, 0.02, STEPS)
    losses = 2.3 - 1.5 / (1 + np.exp(-4 * (places + 2.5))) + np.exp(3 * (places - 0.3)) + noise  # falls at 10^-2.5
    found = judge(RATES, losses.tolist(), exploded=True)
    assert found.suggestion is not None
    assert np.log10(found.suggestion) == pytest.approx(-2.5, abs=0.2)
    assert -2.0 < np.log10(found.lowest) < 0.0
    assert found.losses == tuple(losses.tolist())
    assert np.abs(np.diff(found.smoothed)).max() < np.abs(np.diff(losses)).max()


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.03, STEPS)
    assert judge(RATES, (2.3 + noise).tolist(), exploded=False).suggestion is None
    assert judge(RATES, np.linspace(2.3, 9.0, STEPS).tolist(), exploded=True).suggestion is None


@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_a_copy_is_trained_and_the_same_comes_out_again(opt: str) -> None:
    network = tiny_network()
    before = weights_hash(network)
    recipe = tiny_recipe(opt=opt, batch_size=16, grad_accum=2)
    found = range_test(network, tiny_data(), recipe)
    assert weights_hash(network) == before
    assert all(parameter.grad is None for parameter in network.parameters())
    assert found.suggestion is not None
    assert 1e-4 < found.suggestion < 3.0
    assert found == range_test(network, tiny_data(), recipe)


class Breaks(nn.Module):
    """NaN once its weights have moved far, and too little memory for more than four pictures."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.inner, self.limit = tiny_network(), limit

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        bias = self.inner[9].bias  # pyright: ignore
        return self.inner(x) * (float("nan") if float(bias.detach().abs().max()) > self.limit else 1.0)


def test_what_explodes_ends_the_test() -> None:
    found = range_test(Breaks(1.0), tiny_data(), tiny_recipe(lr=1.0))
    assert found.exploded
    assert len(found.rates) < STEPS
    assert all(np.isfinite(found.losses))
    with pytest.raises(CheckError, match="explodes at learning rates as low as 1e-06"):
        range_test(Breaks(0.0), tiny_data(), tiny_recipe())
