"""What a range test suggests, and that it leaves everything as it was."""

import numpy as np
import pytest
import torch
from tiny_training import SIZE, tiny_data, tiny_network, tiny_recipe, weights_hash
from torch import Tensor, nn

from netsmith.arch.names import find_layout
from netsmith.errors import CheckError
from netsmith.models.build import build
from netsmith.run.preprocess import Preprocess
from netsmith.train.feed import TrainingData
from netsmith.train.range_test import STEPS, Moment, judge, range_test
from netsmith.train.schedules import rate_factor

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


def watched(network: nn.Module, first: str) -> list[tuple[int, bool, int]]:
    """Of each call of a copy: side of the pictures, whether the first layer learns, threads."""
    seen: list[tuple[int, bool, int]] = []

    def look(module: nn.Module, given: tuple[Tensor]) -> None:
        learns = module.get_submodule(first).weight.requires_grad
        seen.append((given[0].shape[-1], bool(learns), torch.get_num_threads()))

    network.register_forward_pre_hook(look)  # a copy has it too
    return seen


@pytest.mark.parametrize(("head_first", "learns"), [(0.0, True), (0.3, True), (1.0, False)])
def test_what_learns_and_with_how_many_threads_is_as_in_the_run(head_first: float, learns: bool) -> None:
    network, threads = tiny_network(), torch.get_num_threads()
    seen = watched(network, "0")
    try:
        range_test(network, tiny_data(), tiny_recipe(head_first=head_first, threads=3), steps=30)
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {(SIZE, learns, 3)}
    assert all(weight.requires_grad for weight in network.parameters())


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.4])
@pytest.mark.parametrize("sched", ["constant", "step", "cosine", "onecycle"])
def test_it_stands_for_the_moment_of_the_highest_rate(sched: str, warmup: float) -> None:
    recipe = tiny_recipe(sched=sched, warmup=warmup)
    highest = max(rate_factor(recipe, place / 1000) for place in range(1001))
    assert rate_factor(recipe, Moment.of(recipe, tiny_network()).progress) == highest


def test_pictures_that_grow_have_the_side_of_that_moment() -> None:
    side = 32
    network = build(find_layout("resnet8_cifar@0.25", num_classes=3, img_size=side))
    growing = {"img_size": side, "progressive": (0.5, 0.75), "sched": "onecycle", "warmup": 0.25}
    assert Moment.of(tiny_recipe(**growing), network) == Moment(0.25, 20, head_only=False)  # of 16, 20, 24, 28, 32
    assert Moment.of(tiny_recipe(**growing, head_first=0.6), network) == Moment(0.6, 28, head_only=False)
    assert Moment.of(tiny_recipe(**growing, head_first=1.0), network) == Moment(0.25, 20, head_only=True)
    pixels = np.random.default_rng(0).integers(0, 256, (12, side, side, 3), dtype=np.uint8)
    labels = np.arange(12, dtype=np.int64) % 3
    data = TrainingData(pixels, labels, pixels[:0], labels[:0], Preprocess(size=side), "growing")
    seen = watched(network, "conv1")
    range_test(network, data, tiny_recipe(**growing), steps=30)
    assert {side for side, *_ in seen} == {20}
