"""Cost on the graph equals what the built network counts, for random scaled and selected networks of every family."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.lower import lower
from netsmith.arch.names import MODELS
from netsmith.arch.scale import for_size, scale
from netsmith.arch.select import select
from netsmith.arch.spec import with_channels, with_classes
from netsmith.arch.ties import ties
from netsmith.models.build import construct

FAMILIES = list(dict.fromkeys(spec.family for spec in MODELS.values()))
SMALLEST = {
    family: min((s for s in MODELS.values() if s.family == family), key=lambda s: s.depth) for family in FAMILIES
}


def check(layout: Layout) -> None:
    """Parameters and torch's count of the operations, on the meta device: nothing is allocated or computed."""
    with torch.device("meta"):
        network = construct(layout).eval()
        images = torch.empty(1, layout.input.channels, *layout.resolution)
    with FlopCounterMode(display=False) as counter:
        network(images)
    counted = cost(layout)
    assert counted.params == sum(parameter.numel() for parameter in network.parameters())
    assert 2 * counted.macs == counter.get_total_flops()


def scaled(
    name: str, *, width: float, depth: float, resolution: float, side: int | None, classes: int, channels: int
) -> Layout:
    """At the network's own resolution times `resolution` and with its own stem, or for small pictures of `side`."""
    spec = with_channels(with_classes(scale(MODELS[name], width=width, depth=depth), classes), channels)
    return lower(scale(spec, resolution=resolution) if side is None else for_size(spec, side))


def selected(layout: Layout, *, share: float, seed: int) -> Layout:
    """Without a random share of the channels that may go, never all of an operation's."""
    found, draw = ties(layout_graph(layout), grouped="group"), random.Random(seed)
    drop = {number for number in range(found.count) if number not in found.frozen and draw.random() < share}
    for classes in found.channels.values():
        if drop.issuperset(classes):
            drop.discard(draw.choice(classes))
    return select(layout, found.keep(drop)).layout


@pytest.mark.parametrize("family", FAMILIES)
def test_one_of_every_family(family: str):
    """A fixed small example each, at the network's own resolution; the slow test draws them."""
    layout = scaled(SMALLEST[family].name, width=0.4, depth=0.4, resolution=1.0, side=None, classes=11, channels=2)
    check(layout)
    check(selected(layout, share=0.3, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25)
@given(data=st.data())
def test_random_scaled_and_selected_networks(family: str, data: st.DataObject):
    layout = scaled(
        data.draw(st.sampled_from([name for name, spec in MODELS.items() if spec.family == family])),
        width=data.draw(st.floats(0.1, 1.5)),
        depth=data.draw(st.floats(0.1, 1.3)),
        resolution=data.draw(st.floats(0.6, 1.4)),
        side=data.draw(st.none() | st.integers(28, 200)),
        classes=data.draw(st.integers(1, 40)),
        channels=data.draw(st.integers(1, 4)),
    )
    check(layout)
    check(selected(layout, share=data.draw(st.floats(0.0, 0.9)), seed=data.draw(st.integers(0, 2**32))))
