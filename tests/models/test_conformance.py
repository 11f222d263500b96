"""What every network promises, shown on small versions of all of them."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from netsmith.arch import graph as g
from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout, layout_from_json, layout_graph, layout_to_json
from netsmith.arch.lower import lower
from netsmith.arch.names import find_layout, find_spec, list_models
from netsmith.arch.scale import for_size, scale
from netsmith.arch.spec import with_channels, with_classes
from netsmith.models.build import build, construct, create_model, load_weights
from netsmith.models.network import Network

SMALL_SIDE, CLASSES, CHANNELS = 28, 7, 5


@cache
def small(name: str) -> Layout:
    """A narrow, shallow version for 28 pixels, odd numbers of classes and channels; large ones are cut to the same."""
    spec = find_spec(name)
    spec = scale(spec, width=0.25 / max(1.0, spec.width), depth=0.34 / max(1.0, spec.depth))
    return lower(for_size(with_channels(with_classes(spec, CLASSES), CHANNELS), SMALL_SIDE))


def on_meta(layout: Layout) -> Network:
    with torch.device("meta"):
        return construct(layout)


def expected_state(layout: Layout) -> dict[str, g.Shape]:
    return {name: shape for name, shape, _ in g.state(layout_graph(layout))}


def state_shapes(network: nn.Module) -> dict[str, g.Shape]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def macs(layout: Layout) -> int:
    channels, *size = layout_graph(layout).input
    network = on_meta(layout).eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, channels, *size, device="meta"))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", list_models())
def test_state_is_the_graphs(name: str) -> None:
    for layout in (find_layout(name), find_layout(name, num_classes=3, in_channels=1, img_size=28), small(name)):
        network = on_meta(layout)
        assert state_shapes(network) == expected_state(layout)
        assert {name for name, _ in network.named_parameters()} == dict(g.parameters(layout_graph(layout))).keys()


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "resnet50", "resnext50_32x4d", "resnet20_cifar"),
        *("mobilenet_v1", "mobilenet_v2", "mnasnet0_5", "efficientnet_b0", "efficientnet_lite1", "efficientnet_v2_s"),
    ],
)
def test_macs_are_torchs_count(name: str) -> None:
    assert macs(find_layout(name)) == cost(find_layout(name)).macs


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(list_models()),
    width=st.floats(0.1, 1.6),
    depth=st.floats(0.1, 1.0),
    size=st.integers(28, 70),
    classes=st.integers(1, 30),
    channels=st.integers(1, 4),
)
def test_scaled_networks_are_their_graphs(
    name: str, width: float, depth: float, size: int, classes: int, channels: int
) -> None:
    spec = scale(find_spec(name), width=width, depth=depth)
    layout = lower(for_size(with_channels(with_classes(spec, classes), channels), size))
    network = on_meta(layout)
    assert state_shapes(network) == expected_state(layout)
    assert sum(parameter.numel() for parameter in network.parameters()) == cost(layout).params
    assert macs(layout) == cost(layout).macs


@pytest.mark.parametrize("name", list_models())
def test_forward_all_agrees_with_forward_and_the_graphs_shapes(name: str) -> None:
    layout = small(name)
    network = build(layout).eval()
    images = torch.randn(2, CHANNELS, SMALL_SIDE, SMALL_SIDE)
    with torch.no_grad():
        logits, outputs = network(images), network.forward_all(images)
    graph = layout_graph(layout)
    shapes = g.shapes(graph)
    assert set(outputs) == {*graph.taps, *graph.auxiliary, "logits"}
    assert torch.equal(outputs["logits"], logits)
    for name in ("logits", *graph.auxiliary):
        assert outputs[name].shape == (2, CLASSES)
        assert outputs[name].isfinite().all()
    for tap, op in graph.taps.items():
        assert tuple(outputs[tap].shape[1:]) == shapes[op]


@pytest.mark.parametrize("name", list_models())
def test_every_parameter_gets_a_gradient_and_statistics_move(name: str) -> None:
    network = build(small(name), dropout=0.0, drop_path=0.0)
    outputs = network.forward_all(torch.randn(4, CHANNELS, SMALL_SIDE, SMALL_SIDE))
    classified = ("logits", *layout_graph(network.layout).auxiliary)
    torch.cat([outputs[output] for output in classified]).square().sum().backward()
    silent = [
        key for key, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert not silent
    assert all(buffer == 1 for key, buffer in network.named_buffers() if key.endswith("num_batches_tracked"))


@pytest.mark.parametrize("name", list_models())
def test_saved_and_loaded_it_computes_the_same(name: str) -> None:
    network = build(small(name), seed=3)
    images = torch.randn(3, CHANNELS, SMALL_SIDE, SMALL_SIDE)
    network(images)  # moves the statistics
    layout = layout_from_json(layout_to_json(network.layout))
    again = load_weights(layout, network.state_dict(), where="a copy")
    with torch.no_grad():
        assert torch.equal(again(images), network.eval()(images))


@pytest.mark.parametrize("name", ["resnet18", "resnet20_cifar", "mobilenet_v2", "efficientnet_b0"])
@pytest.mark.parametrize("size", [28, 31, 64])
def test_created_for_small_pictures(name: str, size: int) -> None:
    network = create_model(name, num_classes=11, in_channels=1, img_size=size).eval()
    with torch.no_grad():
        outputs = network.forward_all(torch.randn(1, 1, size, size))
    *maps, logits = outputs.values()
    assert logits.shape == (1, 11)
    assert min(maps[-1].shape[2:]) >= 4


@pytest.mark.parametrize("name", ["resnet20_cifar", "resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0"])
def test_channels_last_computes_the_same(name: str) -> None:
    network = build(small(name)).eval()
    images = torch.randn(2, CHANNELS, SMALL_SIDE, SMALL_SIDE)
    with torch.no_grad():
        plain = network(images)
        last = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-5)


def test_plain_twins_and_other_shortcuts_build() -> None:
    """A shortcut that a layout leaves out, or projects everywhere, is built so."""
    layout = small("resnet20_cifar")
    first = layout.stages[0].blocks[0]
    plain = replace(layout, stages=(replace(layout.stages[0], blocks=(replace(first, shortcut=None),)),))
    network = build(plain)
    assert network.get_submodule("layer1.0").downsample is None
    assert network(torch.randn(2, CHANNELS, SMALL_SIDE, SMALL_SIDE)).shape == (2, CLASSES)
