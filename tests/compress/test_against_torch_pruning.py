"""Classes of tied channels are the groups that Torch-Pruning finds by tracing the network (Fang et al. 2023, DepGraph).

It takes zero padding for an element-wise operation, so behind a shortcut that pads, its groups are not what the network
adds up: networks with such shortcuts are compared at widths where nothing is padded.
"""

import warnings
from typing import Any

import pytest
import torch
from kinds_of_networks import EVERY_KIND, settled, small
from torch import nn

from netsmith.arch import graph as g
from netsmith.compress.prune.pools import Pool, find_pools
from netsmith.models.network import Network

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]
Member = tuple[str, int, int]
"""Layer, 0 for its outputs and 1 for its inputs, the position; of a grouped convolution's inputs that in the group."""


@pytest.fixture(scope="module")
def reference() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch_pruning", reason="torch-pruning is not installed; pip install torch-pruning")


def theirs(reference: Any, traced: Any, network: Network, layer: str, channels: list[int]) -> set[Member]:
    """What leaves with some outputs of a layer."""
    names = {module: name for name, module in network.named_modules()}
    module = network.get_submodule(layer)
    linear = isinstance(module, nn.Linear)
    prune = reference.prune_linear_out_channels if linear else reference.prune_conv_out_channels
    if isinstance(module, nn.Conv2d) and module.groups == module.out_channels > 1:
        prune = reference.prune_depthwise_conv_out_channels
    found: set[Member] = set()
    for dependency, positions in traced.get_pruning_group(module, prune, idxs=channels):
        target = dependency.target.module
        if target not in names:
            continue  # an operation without weights
        axis = 1 if "in_channels" in dependency.handler.__name__ else 0
        columns = target.weight.shape[1] if axis == 1 else len(target.weight)
        found |= {(names[target], axis, int(getattr(each, "idx", each)) % columns) for each in positions}
    return found


def ours(slots: tuple[Any, ...]) -> set[Member]:
    return {(slot.parameter.rpartition(".")[0], slot.axis, slot.position) for slot in slots}


def layer_of(pool: Pool, ops: dict[str, g.Op]) -> str:
    return next(name for name in pool.counts if isinstance(ops.get(name), g.Conv | g.Linear))


@pytest.mark.parametrize("name", EVERY_KIND)
def test_groups_are_those_of_torch_pruning(reference: Any, name: str) -> None:
    network = settled(small(name, width=0.125))
    layout = network.layout
    picture = torch.zeros(1, layout.input.channels, *layout.resolution)
    traced = reference.DependencyGraph().build_dependency(network, picture)
    seen = {layer for layer, module in network.named_modules() if module in traced.module2node}
    pools = find_pools(layout, round_to=1)
    ops = {op.name: op for op in pools.ties.graph.ops}
    slots, compared = pools.ties.slots(), 0
    for pool in pools.pools:
        layer = layer_of(pool, ops)
        if layer not in seen:
            continue  # of a classifier for training, which a forward pass does not reach
        for number in {pool.classes[0], pool.classes[len(pool.classes) // 2], pool.classes[-1]}:
            channels = [at for at, other in enumerate(pools.ties.channels[layer]) if other == number]
            expected = {member for member in ours(slots[number]) if member[0] in seen}
            assert theirs(reference, traced, network, layer, channels) == expected, (pool.name, number)
            compared += 1
    assert compared >= len(pools.pools)
