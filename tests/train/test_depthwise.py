"""Depthwise convolutions whose gradients have dtypes of their own."""

import copy
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from netsmith.run.clock import FakeClock, SystemClock
from netsmith.train.depthwise import Float32Parts, is_depthwise, kinds_of, use

KINDS = [(3, 1), (3, 2), (5, 1), (5, 2)]
NOTHING = Float32Parts(frozenset(), frozenset())


def depthwise(side: int, stride: int, channels: int = 8) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, side, stride=stride, padding=side // 2, groups=channels, bias=False)


def gradients(layer: nn.Conv2d, x: Tensor, *, mixed: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Output, gradient of the input and of the weight, for an output whose every position has a loss of its own."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        out = layer(x)
    loss = (out.float() * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum()
    of_x, of_weight = torch.autograd.grad(loss, [x, layer.weight])
    return out.detach(), of_x, of_weight


@pytest.mark.parametrize(("side", "stride"), KINDS)
@pytest.mark.parametrize(("of_input", "of_weight"), list(product([False, True], repeat=2)))
def test_gradients_are_those_of_float32_to_bfloat16_s_precision(side, stride, of_input, of_weight) -> None:
    torch.manual_seed(0)
    layer, kinds = depthwise(side, stride), frozenset({(side, stride)})
    x = torch.randn(4, 8, 12, 12).contiguous(memory_format=torch.channels_last)
    expected = gradients(layer, x, mixed=False)
    use(layer, Float32Parts(kinds if of_input else frozenset(), kinds if of_weight else frozenset()))
    found = gradients(layer, x, mixed=True)
    assert found[0].dtype == torch.bfloat16
    assert found[1].dtype == found[2].dtype == torch.float32
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours.float() - theirs).abs().max() / theirs.abs().max()) < 0.02


def test_a_float32_gradient_of_the_weight_sums_without_rounding() -> None:
    """A sum of ten thousand ones is not lost to eight bits."""
    layer, x = depthwise(3, 1), torch.ones(4, 8, 50, 50)
    use(layer, Float32Parts(frozenset(), frozenset({(3, 1)})))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    out.backward(torch.ones_like(out))
    assert layer.weight.grad is not None
    assert layer.weight.grad[0, 0, 1, 1] == 10_000


def test_without_autocast_and_without_parts_nothing_changes() -> None:
    layer, x = depthwise(3, 2), torch.randn(2, 8, 9, 9)
    expected = layer(x)
    use(layer, NOTHING)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
    use(layer, None)
    assert "forward" not in vars(layer)


def test_a_copy_computes_with_its_own_weights() -> None:
    layer, x = depthwise(3, 1), torch.randn(2, 8, 9, 9)
    use(layer, NOTHING)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.weight.zero_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not bool(twin(x).any())
        assert bool(layer(x).any())


def test_only_plain_depthwise_convolutions_are_meant() -> None:
    network = nn.Sequential(
        depthwise(3, 2), depthwise(5, 1), depthwise(3, 2), nn.Conv2d(8, 8, 3, groups=4), nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 8, 3, groups=8, bias=True), nn.Conv2d(8, 8, (1, 3), groups=8, bias=False), nn.Linear(8, 8),
    )  # fmt: skip
    assert [is_depthwise(layer) for layer in network] == [True, True, True, False, False, False, False, False]
    assert kinds_of(network) == [(3, 2), (5, 1)]


def test_the_rule_is_strided_inputs_and_weights_of_large_kernels() -> None:
    found = Float32Parts.by_rule(nn.Sequential(*(depthwise(*kind) for kind in KINDS)))
    assert found.input == {(3, 2), (5, 2)}
    assert found.weight == {(5, 1), (5, 2)}


def test_measuring_finds_only_kinds_of_the_network_and_nothing_where_all_take_as_long() -> None:
    network = nn.Sequential(depthwise(3, 1), depthwise(3, 2))
    assert Float32Parts.measured(network, clock=FakeClock()) == NOTHING
    found = Float32Parts.measured(network, clock=SystemClock())
    assert found.input | found.weight <= {(3, 1), (3, 2)}


kinds = st.frozensets(st.tuples(st.integers(1, 9), st.integers(1, 4)), max_size=4)


@given(parts=st.builds(Float32Parts, kinds, kinds))
def test_a_plan_row_holds_all_of_it(parts: Float32Parts) -> None:
    assert Float32Parts.from_plan(parts.to_plan()) == parts
