"""What sets the mobile families apart: parts that never scale, widths by hand, names in other libraries."""

from dataclasses import replace

import pytest
from cutting import halved

from netsmith.arch.blocks.inverted import FusedMBConv, FusedMBConvBlock, InvertedResidualBlock, MBConvBlock
from netsmith.arch.blocks.separable import SeparableBlock
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.lower import lower
from netsmith.arch.names import find_layout, find_spec, list_models
from netsmith.arch.scale import compound, scale
from netsmith.errors import InputError


def repeats(layout: Layout) -> list[int]:
    return [len(stage.blocks) for stage in layout.stages]


def outs(layout: Layout) -> list[int]:
    """Channels after every stage."""
    graph = layout_graph(layout)
    names = {op.name: op for op in graph.ops}
    assert set(graph.taps.values()) <= set(names)
    return [stage.blocks[-1].out for stage in layout.stages]


@pytest.mark.parametrize("phi", [-4.0, -1.0, 1.0, 3.0])
def test_lite_keeps_its_ends_however_it_is_scaled(phi: float):
    layout = lower(compound(find_spec("efficientnet_lite0"), phi))
    base = find_layout("efficientnet_lite0")
    assert layout.stem == base.stem
    assert layout.head == base.head
    assert (repeats(layout)[0], repeats(layout)[-1]) == (1, 1)
    assert outs(layout) != outs(base)


def test_lite_has_neither_squeeze_excitation_nor_silu():
    for name in list_models("efficientnet_lite*"):
        blocks = [block for stage in find_layout(name).stages for block in stage.blocks]
        assert {(type(block), block.activation) for block in blocks} == {(MBConvBlock, "relu6")}
        assert all(isinstance(block, MBConvBlock) and block.squeeze is None for block in blocks)


def test_the_large_efficientnets_have_the_papers_widths_and_repeats():
    """Tan and Le 2019: B0's rows times (2.2, 3.6) and (4.3, 5.3), widths to multiples of 8, repeats up."""
    b8, l2 = find_layout("efficientnet_b8"), find_layout("efficientnet_l2")
    assert (outs(b8), repeats(b8)) == ([32, 56, 88, 176, 248, 424, 704], [4, 8, 8, 11, 11, 15, 4])
    assert (outs(l2), repeats(l2)) == ([72, 104, 176, 344, 480, 824, 1376], [6, 11, 11, 16, 16, 22, 6])


def test_version_two_is_its_table():
    """Tan and Le 2021, table 4: stages 0 to 2 are fused; the first has no expansion, only one convolution."""
    layout = find_layout("efficientnet_v2_s")
    kinds = [{type(block) for block in stage.blocks} for stage in layout.stages]
    assert kinds == [{FusedMBConvBlock}] * 3 + [{MBConvBlock}] * 3
    assert (outs(layout), repeats(layout)) == ([24, 48, 64, 128, 160, 256], [2, 4, 4, 6, 9, 15])
    first, second = layout.stages[0].blocks[0], layout.stages[1].blocks[0]
    assert isinstance(first, FusedMBConvBlock)
    assert isinstance(second, FusedMBConvBlock)
    assert (first.expand, first.skip, second.expand, second.skip) == (None, True, 96, False)


@pytest.mark.parametrize("width", [0.5, 0.75, 1.3])
def test_mnasnet_scales_to_torchvisions_widths(width: float):
    """torchvision names its other widths; scaling the base by name gives the same networks. The head stays."""
    named, scaled = find_layout(f"mnasnet{width}".replace(".", "_")), find_layout(f"mnasnet1_0@{width}")
    assert replace(scaled, name=named.name) == named
    assert named.head == find_layout("mnasnet1_0").head


def test_mobilenet_halves_the_map_four_times_after_the_stem():
    layout = find_layout("mobilenet_v1")
    assert [block.stride for stage in layout.stages for block in stage.blocks] == [
        1,
        2,
        1,
        2,
        1,
        2,
        1,
        1,
        1,
        1,
        1,
        2,
        1,
    ]
    assert {type(block) for stage in layout.stages for block in stage.blocks} == {SeparableBlock}
    assert outs(find_layout("mobilenet_v1@0.25")) == [16, 32, 64, 128, 256]


@pytest.mark.parametrize("name", ["efficientnet_v2_s", "efficientnet_lite2", "mnasnet1_0", "efficientnet_b8"])
@pytest.mark.parametrize("width", [0.08, 0.31, 0.77, 1.9])
def test_expansions_and_skips_are_decided_on_the_papers_widths(name: str, width: float):
    def decisions(layout: Layout) -> list[tuple[bool, bool]]:
        blocks = [block for stage in layout.stages for block in stage.blocks]
        known = (InvertedResidualBlock, MBConvBlock, FusedMBConvBlock)
        return [(block.expand is None, block.skip) for block in blocks if isinstance(block, known)]

    spec = find_spec(name)
    assert decisions(lower(scale(spec, width=width / spec.width))) == decisions(lower(spec))


@pytest.mark.parametrize("name", ["efficientnet_v2_s", "mobilenet_v1"])
def test_half_of_every_tied_class_can_go(name: str):
    """The records follow a graph whose channels were cut (`select` compares the two itself)."""
    layout = lower(scale(find_spec(name), width=0.25, depth=0.1))
    smaller = halved(layout)
    assert outs(smaller) == [out // 2 for out in outs(layout)]


def test_bad_rows_say_what_is_wrong():
    with pytest.raises(InputError, match=r"expand is 0\.5"):
        FusedMBConv(out=24, expand=0.5)
    with pytest.raises(InputError, match="a kernel of 4"):
        FusedMBConv(out=24, expand=4.0, kernel=4)
    with pytest.raises(InputError, match="did you mean"):
        find_spec("efficientnet_light0")
