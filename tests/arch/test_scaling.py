"""Scaling and lowering: the papers' rounding, composition, decisions that stay, small pictures."""

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsmith.arch import graph as g
from netsmith.arch.blocks.branches import BranchesBlock
from netsmith.arch.blocks.fire import FireBlock
from netsmith.arch.blocks.inverted import InvertedResidualBlock, MBConvBlock
from netsmith.arch.blocks.kinds import Block
from netsmith.arch.blocks.pieces import ConvBlock, LocalNorm, LocalNormBlock, PieceSpec, Pool
from netsmith.arch.blocks.residual import Basic, BasicBlock, BottleneckBlock
from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout, layout_from_json, layout_graph, layout_to_json
from netsmith.arch.lower import lower, spread_repeats
from netsmith.arch.names import MODELS, find_layout
from netsmith.arch.scale import SMALLEST_MAP, compound, for_size, scale
from netsmith.arch.spec import Row, Spec, Stage, spec_from_json, spec_to_json
from netsmith.arch.widths import AtLeast, Fixed, round_channels, scaled_width
from netsmith.errors import InputError

some = settings(deadline=None, max_examples=60)
NAMES = st.sampled_from(sorted(MODELS))


def last_map(spec: Spec) -> int:
    return last_map_of(lower(spec))


def last_map_of(layout: Layout) -> int:
    graph = layout_graph(layout)
    return min(g.shapes(graph)[list(graph.taps.values())[-1]][1:])


# Rounding


@some
@given(width=st.integers(1, 4000), percent=st.integers(5, 500), multiple=st.sampled_from([8, 32, 64]))
def test_rounding_is_the_papers(width: int, percent: int, multiple: int):
    """Tan and Le 2019, section 3.3's code, said in other words and computed in fractions."""
    exact = Fraction(width * percent, 100)
    nearest = max(multiple, *(m for m in range(multiple, 30000, multiple) if 2 * abs(m - exact) <= multiple), 0)
    if nearest < exact * Fraction(9, 10):
        nearest += multiple
    assert round_channels(width * percent / 100, multiple=multiple) in {
        nearest,
        *((nearest - multiple, nearest + multiple) if _on_an_edge(exact, multiple) else ()),
    }


def _on_an_edge(exact: Fraction, multiple: int) -> bool:
    """Where binary fractions may fall on the other side: halves between multiples, and 90 % to the digit."""
    below = exact // multiple * multiple
    return abs(exact - below - multiple / 2) < 1e-9 or abs(float(exact) * 0.9 - below) < 1e-9


@pytest.mark.parametrize(
    ("width", "rounded"),
    [(0.1, 8), (8, 8), (11.9, 16), (12, 16), (19, 24), (17, 16), (35.2, 32), (38.4, 40), (1280 * 1.1, 1408)],
)
def test_rounding_of_widths_seen_in_the_networks(width: float, rounded: int):
    assert round_channels(width) == rounded


def test_published_widths_of_scaled_networks():
    """EfficientNet-B4's widths and repeats, as its published checkpoint has them."""
    layout = find_layout("efficientnet_b4")
    assert isinstance(layout.stem[0], ConvBlock)
    assert layout.stem[0].out == 48
    assert [stage.blocks[0].out for stage in layout.stages] == [24, 32, 56, 112, 160, 272, 448]
    assert [len(stage.blocks) for stage in layout.stages] == [2, 4, 4, 6, 6, 8, 2]
    assert layout.head.conv is not None
    assert layout.head.conv.out == 1792


def test_mobilenet_v2_keeps_its_last_convolution_when_it_shrinks():
    for multiplier, out in ((0.35, 1280), (1.0, 1280), (1.4, 1792)):
        head = find_layout(f"mobilenet_v2@{multiplier}").head.conv
        assert head is not None
        assert head.out == out


def test_kinds_of_width():
    assert [scaled_width(Fixed(20), m) for m in (0.1, 1.0, 3.0)] == [20, 20, 20]
    assert [scaled_width(AtLeast(20), m) for m in (0.1, 1.0, 3.0)] == [20, 20, 64]
    assert [scaled_width(20, m) for m in (0.1, 1.0, 3.0)] == [8, 20, 64]
    assert scaled_width(AtLeast(96), 1.1, groups=32) % 32 == 0


# Depth


@some
@given(
    free=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    fixed=st.lists(st.integers(1, 9), max_size=2),
    multiplier=st.floats(0.01, 8.0),
)
def test_repeats_sum_to_the_scaled_stage(free: list[int], fixed: list[int], multiplier: float):
    rows = tuple(Row(block=Basic(out=8), repeats=n) for n in (*free, *map(Fixed, fixed)))
    counts = spread_repeats(rows, multiplier)
    assert counts[len(free) :] == fixed
    scaled = counts[: len(free)]
    total = sum(free) * multiplier
    assert sum(scaled) == max(len(free), math.ceil(total - 1e-8))
    assert min(scaled) >= 1
    for count, repeats in zip(scaled, free, strict=True):  # a row gets its share, give or take what the least forces
        assert count <= max(1, math.ceil(repeats * sum(scaled) / sum(free)))


def test_repeats_of_one_row_round_up_as_in_the_paper():
    assert [spread_repeats((Row(block=Basic(out=8), repeats=n),), 1.1)[0] for n in (1, 2, 3, 4, 10)] == [2, 3, 4, 5, 11]


def test_a_long_row_gives_way_to_the_least_of_the_others():
    rows = tuple(Row(block=Basic(out=8), repeats=n) for n in (10, 1, 1, 1))
    assert spread_repeats(rows, 0.4) == [3, 1, 1, 1]
    assert spread_repeats(rows, 1.0) == [10, 1, 1, 1]


def test_too_many_blocks_are_refused_before_they_are_made():
    spec = MODELS["resnet18"]
    stage = Stage(rows=(Row(block=Basic(out=8), repeats=4096),))
    with pytest.raises(InputError, match="more than the 4096"):
        lower(replace(spec, stages=(stage, stage), depth=100.0))


# Scaling


@some
@given(name=NAMES)
def test_scaling_by_one_changes_nothing(name: str):
    assert scale(MODELS[name]) == MODELS[name]
    assert compound(MODELS[name], 0.0) == MODELS[name]


@some
@given(name=NAMES, first=st.floats(0.2, 3.0), second=st.floats(0.2, 3.0))
def test_scaling_composes(name: str, first: float, second: float):
    spec = MODELS[name]
    twice = scale(scale(spec, width=first, depth=second), width=second, depth=first)
    once = scale(spec, width=first * second, depth=first * second)
    assert twice.width == pytest.approx(once.width)
    assert twice.depth == pytest.approx(once.depth)
    assert replace(twice, width=1.0, depth=1.0) == replace(once, width=1.0, depth=1.0)


@some
@given(
    name=NAMES,  # a thousand layers may become four thousand, not sixteen
    exponents=st.tuples(st.integers(-2, 2), st.integers(-2, 2)).filter(lambda both: sum(both) <= 2),
)
def test_scaling_by_powers_of_two_composes_exactly(name: str, exponents: tuple[int, int]):
    first, second = (2.0**exponent for exponent in exponents)
    spec = MODELS[name]
    twice = lower(scale(scale(spec, width=first, depth=first), width=second, depth=second))
    assert twice == lower(scale(spec, width=first * second, depth=first * second))


@some
@given(
    name=NAMES,
    width=st.floats(0.001, 200.0),
    depth=st.floats(0.001, 4.0),
    size=st.integers(1, 400),
)
def test_any_scaled_network_lowers_and_round_trips_or_is_refused(name: str, width: float, depth: float, size: int):
    try:
        spec = for_size(scale(MODELS[name], width=width, depth=depth), size)
        layout = lower(spec)
    except InputError:
        return
    assert spec_from_json(spec_to_json(spec)) == spec
    assert layout_from_json(layout_to_json(layout)) == layout
    assert cost(layout).macs > 0


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_b0", "resnext50_32x4d"])
def test_compound_scaling_is_monotone_in_cost(name: str):
    costs = [cost(lower(compound(MODELS[name], phi / 4))) for phi in range(-20, 13)]
    for smaller, larger in pairwise(costs):
        assert smaller.params <= larger.params
        assert smaller.macs <= larger.macs
        assert smaller.activations <= larger.activations
    assert costs[20 + 4].macs == pytest.approx(2 * costs[20].macs, rel=0.35)  # phi = 1 about doubles the MACs


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("axis", ["depth", "width", "resolution"])
def test_multipliers_that_are_none(axis: str, multiplier: float):
    with pytest.raises(InputError, match=f"resnet18: {axis} is multiplied by"):
        scale(MODELS["resnet18"], **{axis: multiplier})


def test_resolutions_out_of_range_are_refused():
    with pytest.raises(InputError, match="sides of 1"):
        scale(MODELS["resnet18"], resolution=1e300)
    with pytest.raises(InputError, match="sides of 1"):
        compound(MODELS["resnet18"], 64)
    assert scale(MODELS["resnet18"], resolution=1e-9).input.size == (1, 1)


# Decisions


def decisions(layout: Layout) -> list[tuple[object, ...]]:
    """All that a layout decides apart from its widths."""
    found: list[tuple[object, ...]] = []
    for block in (block for stage in layout.stages for block in stage.blocks):
        match block:
            case BasicBlock() | BottleneckBlock():
                found.append((block.name, block.stride, type(block.shortcut)))
            case InvertedResidualBlock():
                found.append((block.name, block.stride, block.kernel, block.expand is None, block.skip))
            case MBConvBlock():
                squeezed = block.squeeze is None
                found.append((block.name, block.stride, block.kernel, block.expand is None, block.skip, squeezed))
    return found


@some
@given(name=NAMES, width=st.floats(0.01, 6.0))
def test_decisions_do_not_depend_on_the_width(name: str, width: float):
    spec = MODELS[name]
    assert decisions(lower(replace(spec, width=width))) == decisions(lower(spec))


@some
@given(name=NAMES, width=st.floats(0.05, 4.0), depth=st.floats(0.1, 2.0))
def test_depth_keeps_the_first_block_of_every_stage(name: str, width: float, depth: float):
    spec = MODELS[name]
    published, scaled = lower(spec), lower(replace(spec, depth=spec.depth * depth, width=spec.width * width))
    for before, after in zip(published.stages, scaled.stages, strict=True):
        assert stride(after.blocks[0]) == stride(before.blocks[0])
        assert all(stride(block) == 1 for block in after.blocks[1:])


def stride(block: Block) -> int:
    if isinstance(block, LocalNormBlock | FireBlock):
        return 1
    if isinstance(block, BranchesBlock):
        return max(getattr(piece, "stride", 1) for branch in block.branches for piece in branch)
    return block.stride


@some
@given(name=st.sampled_from([n for n in MODELS if n.startswith("resnext")]), width=st.floats(0.01, 4.0))
def test_grouped_widths_stay_multiples_of_the_groups(name: str, width: float):
    for stage in lower(scale(MODELS[name], width=width)).stages:
        for block in stage.blocks:
            assert isinstance(block, BottleneckBlock)
            assert block.width % block.groups == 0
            assert block.width % 8 == 0
            assert block.groups in (32, 64)


# Small pictures


KINDS = {(spec.family, *(stage.stride for stage in spec.stages)): spec for spec in MODELS.values()}
"""A network of every family and order of strides."""


@pytest.mark.parametrize("spec", KINDS.values(), ids=lambda spec: spec.name)
def test_the_last_map_keeps_four_positions_at_every_size(spec: Spec):
    spec = replace(spec, depth=0.01)
    for size in (*range(8, 40), *range(41, 321, 17)):  # also halves and quarters of every remainder
        assert last_map(for_size(spec, size)) >= SMALLEST_MAP, size


@pytest.mark.parametrize("name", MODELS)
def test_every_network_is_usable_from_28_pixels_up(name: str):
    larger = cost(find_layout(name, img_size=320, num_classes=10)).macs
    for size in (28, 32, 96):
        layout = find_layout(name, img_size=size, num_classes=10)
        assert layout.resolution == (size, size)
        assert last_map_of(layout) >= SMALLEST_MAP
        assert cost(layout).macs <= larger


@pytest.mark.parametrize("name", MODELS)
def test_a_size_that_fits_leaves_the_network_alone(name: str):
    spec = MODELS[name]
    assert for_size(spec, spec.input.size[0]) == spec
    larger = 2 * spec.input.size[0]
    assert replace(for_size(spec, larger), input=spec.input) == spec


@pytest.mark.parametrize("spec", KINDS.values(), ids=lambda spec: spec.name)
def test_strides_are_dropped_earliest_first_and_only_as_needed(spec: Spec):
    spec = replace(spec, depth=0.01)
    for size in range(8, 321, 13):
        sized = replace(spec, input=replace(spec.input, size=(size, size)))
        small = replace(sized, stem=spec.small_stem)
        tried = [sized, *(without_strides(small, count) for count in range(len(spec.small_stem) + len(spec.stages)))]
        assert for_size(spec, size) == next(each for each in tried if fits(each)), size


def without_strides(spec: Spec, count: int) -> Spec:
    """The first `count` strides left out, pools with theirs."""
    stem: list[PieceSpec] = []
    for piece in spec.stem:
        drop = count > 0 and not isinstance(piece, LocalNorm) and piece.stride > 1
        count -= drop
        if not (drop and isinstance(piece, Pool)):
            stem.append(replace(piece, stride=1) if drop else piece)
    stages: list[Stage] = []
    for stage in spec.stages:
        drop = count > 0 and stage.stride > 1
        count -= drop
        stages.append(replace(stage, stride=1) if drop else stage)
    return replace(spec, stem=tuple(stem), stages=tuple(stages))


def fits(spec: Spec) -> bool:
    try:
        return last_map(spec) >= SMALLEST_MAP
    except InputError:
        return False


def test_resnets_small_stem_is_one_3x3_convolution():
    for size, stride in ((64, 2), (32, 1), (28, 1)):
        stem = find_layout("resnet50", img_size=size).stem
        assert [type(piece) for piece in stem] == [ConvBlock]
        assert isinstance(stem[0], ConvBlock)
        assert (stem[0].kernel, stem[0].stride, stem[0].out) == (3, stride, 64)
    assert len(find_layout("resnet50", img_size=97).stem) == 2  # 97 / 32 still gives 4 positions


@pytest.mark.parametrize("size", [3, 0, -1])
def test_sizes_below_four_pixels_are_refused(size: int):
    with pytest.raises(InputError, match="--img-size"):
        for_size(MODELS["resnet18"], size)
