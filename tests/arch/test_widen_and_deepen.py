"""widen and deepen: a grown network computes what the old one did, and looks like one that was built so large."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_forward import Array, forward, random_weights
from test_ties_and_select import GRAPHS, LAYOUTS, take

from netsmith.arch import graph as g
from netsmith.arch.blocks.residual import Basic, Bottleneck
from netsmith.arch.deepen import Deepening, deepen, deeper_counts, growth_obstacle
from netsmith.arch.layout import Layout, layout_from_json, layout_graph, layout_to_json
from netsmith.arch.lower import lower
from netsmith.arch.names import MODELS
from netsmith.arch.scale import for_size, scale
from netsmith.arch.select import cut_graph
from netsmith.arch.ties import ties
from netsmith.arch.widen import copies, held, widen
from netsmith.errors import InputError


def plain(name: str, **changes: object) -> Layout:
    """A network without shortcuts."""
    spec = MODELS[name]
    stages = tuple(
        replace(stage, rows=tuple(replace(row, block=without_shortcut(row.block)) for row in stage.rows))
        for stage in spec.stages
    )
    return lower(scale(replace(spec, stages=stages, **changes), width=0.25, resolution=0.25))


def without_shortcut(block: object) -> Basic | Bottleneck:
    assert isinstance(block, Basic | Bottleneck)
    return replace(block, shortcut="none")


PLAIN = {
    "plain": plain("resnet8_cifar"),
    "plain, bounded": plain("resnet8_cifar", activation="relu6"),
}


JOINED = {
    "joined branches": lower(for_size(scale(MODELS["inception_resnet_v2"], width=0.05, depth=0.1), 16)),
}


@pytest.mark.parametrize("name", GRAPHS)
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 10**6), most=st.integers(2, 3))
def test_copied_channels_do_not_move_the_logits(name: str, seed: int, most: int):
    graph, rng = GRAPHS[name], np.random.default_rng(seed)
    found = ties(graph)
    free = sorted(set(range(found.count)) - held(found))
    wider = cut_graph(graph, found.take({number: int(rng.integers(1, most + 1)) for number in free}))
    weights, image = random_weights(graph, rng), rng.standard_normal(graph.input)
    grown = take(weights, wider.slices)
    assert {entry: value.shape for entry, value in grown.items()} == {
        entry: shape for entry, shape, _ in g.state(wider.graph) if shape
    }
    assert np.allclose(forward(wider.graph, grown, image), forward(graph, weights, image), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAYOUTS)
@settings(deadline=None, max_examples=5)
@given(factor=st.floats(1.2, 3.5), seed=st.integers(0, 99))
def test_widening_a_layout(name: str, factor: float, seed: int):
    layout = LAYOUTS[name]
    wider = widen(layout, factor, seed=seed)
    assert layout_from_json(layout_to_json(wider.layout)) == wider.layout
    assert wider.slices == widen(layout, factor, seed=seed).slices
    before, after = ({op.name: op for op in layout_graph(each).ops} for each in (layout, wider.layout))
    # A sum with joined branches has their width, and every branch is rounded by itself.
    parts = max((len(op.sources) for op in before.values() if isinstance(op, g.Concat)), default=1)
    for op in before.values():
        now = after[op.name]
        if isinstance(op, g.Conv) and isinstance(now, g.Conv):
            assert op.out_channels <= now.out_channels <= op.out_channels * factor + 8 * parts
            assert now.groups == (now.out_channels if 1 < op.groups == op.in_channels else op.groups)


@pytest.mark.parametrize(
    ("name", "width", "factor"),
    [
        ("resnet20_cifar", 1.0, 1.25),
        ("resnet20_cifar", 1.0, 1.5),
        ("resnet18", 0.25, 1.5),
        ("resnext50_32x4d", 0.5, 2.0),
    ],
)
def test_as_wide_as_a_network_that_is_scaled(name: str, width: float, factor: float):
    """Residual networks: their widths have no other rule than the multiplier."""
    before, after = (lower(scale(MODELS[name], width=multiplier)) for multiplier in (width, width * factor))
    assert channels(widen(before, factor).layout) == channels(after)


def channels(layout: Layout) -> dict[str, tuple[int, int]]:
    """Outputs and groups of every convolution."""
    return {op.name: (op.out_channels, op.groups) for op in layout_graph(layout).ops if isinstance(op, g.Conv)}


def test_channels_are_copied_in_turn_and_by_seed():
    found = ties(layout_graph(lower(scale(MODELS["resnet18"], width=0.25))))
    times = copies(found, 2.5)
    stream = [times.get(number, 1) for number in found.channels["conv1"]]
    assert sum(stream) == 40
    assert {*stream} == {2, 3}, "none is copied twice before all are copied once"
    chosen = [{n for n in found.channels["conv1"] if copies(found, 1.5, seed=seed).get(n)} for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_what_cannot_be_copied_is_left():
    found = ties(GRAPHS["odd"])
    # "b" has two outputs for each channel of "a", which the concatenation and the first sum pass on.
    assert {*found.channels["a"], *found.channels["b"], *found.channels["input"]} <= held(found)
    assert not {*found.channels["hidden"]} & held(found)


# Deeper


@pytest.mark.parametrize(
    "name", ["resnet20_cifar", "resnet50", "mobilenet_v1", "mobilenet_v2", "mnasnet0_5", "efficientnet_b0"]
)
def test_as_deep_as_a_network_that_is_scaled(name: str):
    spec = MODELS[name]
    for factor in (1.5, 2.2):
        layout, scaled = lower(spec), lower(scale(spec, depth=factor))
        assert deeper_counts(layout, factor) == [len(stage.blocks) for stage in scaled.stages]
        deeper = deepen(layout, deeper_counts(layout, factor))
        assert deeper.layout == replace(scaled, name=name)
        assert sorted(deeper.names.values()) == sorted(op.name for op in layout_graph(layout).ops)


def test_rows_of_names_go_on_counting():
    """As lowering names them: NAME, NAME_1, NAME_2; the others keep their names."""
    layout = JOINED["joined branches"]
    names = [[block.name for block in stage.blocks] for stage in layout.stages]
    deeper = deepen(layout, [len(stage) + 2 for stage in names]).layout
    more = [
        [block.name for block in stage.blocks if block.name not in names[i]] for i, stage in enumerate(deeper.stages)
    ]
    assert more == [["Block35_1", "Block35_2"], ["Block17_2", "Block17_3"], ["Block8_last_1", "Block8_last_2"]]
    assert all(
        set(old) <= {block.name for block in stage.blocks} for old, stage in zip(names, deeper.stages, strict=True)
    )


@pytest.mark.parametrize("name", [*LAYOUTS, *PLAIN, *JOINED])
@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_new_blocks_do_not_move_the_logits(name: str, seed: int, data: st.DataObject):
    layout, rng = (LAYOUTS | PLAIN | JOINED)[name], np.random.default_rng(seed)
    now = [len(stage.blocks) for stage in layout.stages]
    more = data.draw(st.lists(st.integers(0, 2), min_size=len(now), max_size=len(now)).filter(any))
    counts = [count + add for count, add in zip(now, more, strict=True)]
    if any(growth_obstacle(layout, stage) for stage, add in enumerate(more) if add):
        assert name in ("inception", "fire"), "all others grow"
        with pytest.raises(InputError, match="joins branches"):
            deepen(layout, counts)
        return
    deeper = deepen(layout, counts)
    assert layout_from_json(layout_to_json(deeper.layout)) == deeper.layout
    graph = layout_graph(layout)
    weights, image = random_weights(graph, rng), rng.standard_normal(graph.input)
    grown = started(deeper, weights, rng)
    assert np.allclose(forward(layout_graph(deeper.layout), grown, image), forward(graph, weights, image))


def started(deeper: Deepening, weights: dict[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """The old weights, with what `deeper` says about new layers, which are random elsewhere."""
    graph = layout_graph(deeper.layout)
    grown = random_weights(graph, rng)
    for op in graph.ops:
        for entry in [entry for entry in grown if entry.rpartition(".")[0] == op.name]:
            kind = entry.rpartition(".")[2]
            if op.name in deeper.names:
                grown[entry] = weights[f"{deeper.names[op.name]}.{kind}"]
            elif op.name in deeper.zero and kind in ("weight", "bias"):
                grown[entry] = 0 * grown[entry]
        if op.name in deeper.identity and isinstance(op, g.Conv):
            weight = 0 * grown[f"{op.name}.weight"]
            for row in range(len(weight)):
                weight[(row, row % weight.shape[1], *(before for before, _ in op.padding))] = 1
            grown[f"{op.name}.weight"] = weight
        elif op.name in deeper.identity and isinstance(op, g.Norm):
            grown[f"{op.name}.weight"] = np.sqrt(grown[f"{op.name}.running_var"] + op.eps)
            grown[f"{op.name}.bias"] = grown[f"{op.name}.running_mean"]
    return grown


def test_which_layers_of_a_new_block_start_how():
    deeper = deepen(
        LAYOUTS["squeezed"], [count + 1 for count in map(len, (s.blocks for s in LAYOUTS["squeezed"].stages))]
    )
    norms = {op.name for op in layout_graph(deeper.layout).ops if isinstance(op, g.Norm)}
    assert deeper.zero <= norms - set(deeper.names)
    assert len(deeper.zero) == len(LAYOUTS["squeezed"].stages), "the last norm of each"
    assert not any(
        isinstance(op, g.Conv | g.Norm) for op in layout_graph(deeper.layout).ops if op.name in deeper.identity
    )
    layout = PLAIN["plain"]
    deeper = deepen(layout, [len(stage.blocks) + 2 for stage in layout.stages])
    assert not deeper.zero
    # The second new block passes on what the first one does: the old block's output.
    assert deeper.identity["layer2.2.bn1"] == deeper.identity["layer2.1.bn1"] == "layer2.0.relu"


# Refusals


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (
            plain("resnet8_cifar", activation="silu"),
            "a block like layer1.0 cannot start as the identity: .* silu, which changes",
        ),
        (
            lower(MODELS["squeezenet1_1"]),
            r"a block like features.4 cannot start as the identity: features.4.concat joins branches",
        ),
        (
            plain("resnet50"),
            r"a block like layer1.2 cannot start as the identity: layer1.2.conv3 does not keep the shape",
        ),
    ],
)
def test_blocks_that_cannot_be_the_identity(layout: Layout, says: str):
    with pytest.raises(InputError, match=says):
        deepen(layout, [len(layout.stages[0].blocks) + 1, *(len(stage.blocks) for stage in layout.stages[1:])])
    assert growth_obstacle(layout, 0)
    with pytest.raises(InputError, match="cannot be made deeper without changing what it computes"):
        deeper_counts(layout, 2.0)


@pytest.mark.parametrize("factor", [1.0, 0.5, -1.0, 101.0, float("nan"), float("inf")])
def test_factors_that_do_not_grow(factor: float):
    layout = LAYOUTS["basic"]
    with pytest.raises(InputError, match="widths are multiplied by .*; give a number above 1"):
        widen(layout, factor)
    with pytest.raises(InputError, match="depth is multiplied by .*; give a number above 1"):
        deeper_counts(layout, factor)


def test_what_adds_nothing():
    layout = LAYOUTS["basic"]
    now = [len(stage.blocks) for stage in layout.stages]
    with pytest.raises(InputError, match="adds no channel to any layer"):
        widen(lower(scale(MODELS["resnet18"], width=0.25)), 1.01)
    with pytest.raises(InputError, match="blocks already; ask for more"):
        deepen(layout, now)
    for counts in (now[:-1], [*now[:-1], now[-1] - 1], [*now, 1]):
        with pytest.raises(InputError, match="give a count for every stage, none below what it has"):
            deepen(layout, counts)


def test_copies_of_frozen_channels_are_refused():
    found = ties(layout_graph(LAYOUTS["basic"]))
    for name in ("input", "fc"):
        with pytest.raises(InputError, match="cannot be copied"):
            found.take({found.channels[name][0]: 2})
