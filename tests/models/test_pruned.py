"""Networks without some of their channels: what does not matter can go, the rest is there, again and again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from kinds_of_networks import EVERY_KIND, SIDE, settled, small
from torch import Tensor

from netsmith.arch.layout import Layout
from netsmith.arch.names import list_models
from netsmith.artifact.runtimes import open_session
from netsmith.compress.prune.choice import Losses, choose
from netsmith.compress.prune.importance import norms
from netsmith.compress.prune.pools import find_pools
from netsmith.compress.prune.spending import Spending, spent
from netsmith.export.network import export_network, normalised
from netsmith.models.build import load_model, load_weights
from netsmith.models.extend import TOLERANCE, logit_difference
from netsmith.models.network import Network
from netsmith.models.pruned import prune_network
from netsmith.run.preprocess import Preprocess


def images(layout: Layout) -> Tensor:
    shape = (2, layout.input.channels, *layout.resolution)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def silenced_and_pruned(network: Network, *, share: float = 0.6) -> tuple[Network, Network, Network]:
    """The least important channels, their weights at zero: the network so, it without them, and it without them when
    their weights were left as they are."""
    layout = network.layout
    pools = find_pools(layout, round_to=2)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    losses, spending = Losses(pools, norms(pools, weights, order=2)), Spending.of(pools, "params")
    most = max(int(share * spent(layout, "params")), spending.total(pools.least))
    drop = losses.drop(choose(losses, spending, most=most, measure="params"))
    assert drop
    state, slots = {name: tensor.clone() for name, tensor in network.state_dict().items()}, pools.ties.slots()
    for slot in (slot for number in drop for slot in slots[number] if slot.axis == 0):
        state[slot.parameter][slot.position] = 0
    quiet, keep = load_weights(layout, state, where="silenced"), pools.ties.keep(drop)
    return quiet, prune_network(quiet, keep), prune_network(network, keep)


def check(network: Network) -> Network:
    quiet, pruned, control = silenced_and_pruned(network)
    assert sum(each.numel() for each in pruned.parameters()) == spent(pruned.layout, "params")
    assert sum(each.numel() for each in pruned.parameters()) < sum(each.numel() for each in network.parameters())
    assert logit_difference(quiet, pruned, images(network.layout)) < TOLERANCE / 10
    assert logit_difference(network, control, images(network.layout)) > 100 * TOLERANCE  # they did matter
    return pruned


@pytest.mark.parametrize("name", EVERY_KIND)
def test_channels_that_are_zero_can_go_from_the_network(name: str) -> None:
    pruned = check(settled(small(name)))
    assert pruned.layout.name.endswith("+pruned")
    if name == "efficientnet_b0":  # prunable again
        assert check(pruned).layout.name == pruned.layout.name


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_channels_that_are_zero_can_go_from_every_network(name: str) -> None:
    check(settled(small(name, width=0.2)))


@pytest.mark.parametrize("name", ["resnext50_32x4d", "vgg11"])
def test_a_pruned_network_is_shipped_and_loaded_like_any_other(name: str, tmp_path: Path) -> None:
    network = settled(small(name))
    _, _, pruned = silenced_and_pruned(network)
    sizes: list[int] = []
    for each, folder in ((network, tmp_path / "whole"), (pruned, tmp_path / "pruned")):
        bundle = export_network(each, folder, labels=list("abcde"), preprocess=Preprocess(size=SIDE))
        sizes.append(bundle.size_bytes)
    assert sizes[1] < 0.75 * sizes[0]
    loaded = load_model(tmp_path / "pruned")
    assert loaded.layout == pruned.layout
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = loaded(normalised(pixels, Preprocess(size=SIDE))).numpy()
    found = open_session(bundle).run(pixels).logits
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
