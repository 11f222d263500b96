"""Casts of weights that are made again: the same gradients, and nothing kept."""

import copy
import weakref

import pytest
import torch
from tiny_training import tiny_network
from torch import Tensor, nn

from netsmith.train.recasting import recast


def gradients(network: nn.Module, *, enabled: bool = True, lose: bool = False) -> list[Tensor]:
    """Of the network's parameters; with `lose` its matrices are 0 by the time of the backward pass."""
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)  # dropout
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        loss = network(x).float().square().sum()
    if lose:
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.data.zero_()
    network.zero_grad()
    loss.backward()
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("enabled", [True, False])
def test_gradients_have_the_same_bits(enabled: bool) -> None:
    network = tiny_network()
    again = copy.deepcopy(network)
    recast(again)
    expected, found = gradients(network, enabled=enabled), gradients(again, enabled=enabled)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert len(found) == len(list(network.parameters()))
    assert again.state_dict().keys() == network.state_dict().keys()


def test_no_cast_is_kept_for_the_backward_pass() -> None:
    """A layer's input gradient is a product with its weight: 0 if that is what it is by then."""
    plain, again = tiny_network(), tiny_network()
    recast(again)
    assert float(gradients(plain, lose=True)[0].abs().max()) > 0
    assert float(gradients(again, lose=True)[0].abs().max()) == 0
    casts: list[weakref.ref[Tensor]] = []
    layer = nn.Linear(3, 2)
    recast(layer)
    layer.register_forward_pre_hook(lambda module, inputs: casts.append(weakref.ref(vars(module)["weight"])))
    with torch.autocast("cpu", torch.bfloat16):
        loss = layer(torch.ones(1, 3)).sum()
    assert casts[0]() is None
    loss.backward()


def test_a_failed_call_leaves_the_layer_as_it_was() -> None:
    layer = nn.Linear(3, 2)
    recast(layer)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError):
        layer(torch.ones(1, 5))
    assert isinstance(layer.weight, nn.Parameter)
    assert layer(torch.ones(1, 3)).dtype == torch.float32
