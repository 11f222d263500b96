"""The ResNets beyond torchvision's: figures worked out from the papers, shortcuts, and a thousand layers."""

import time
from dataclasses import replace

import pytest

from netsmith.arch import graph as g
from netsmith.arch.blocks.cardinal import Cardinal, CardinalBlock
from netsmith.arch.blocks.residual import Basic, BasicBlock, Bottleneck, BottleneckBlock
from netsmith.arch.blocks.shortcuts import Identity, PooledProjection, Projection, Shortcut, ZeroPad
from netsmith.arch.cost import cost, parts
from netsmith.arch.layout import Layout, StageLayout, layout_from_json, layout_graph, layout_to_json
from netsmith.arch.names import find_layout
from netsmith.arch.select import select
from netsmith.arch.spec import Input
from netsmith.arch.ties import ties
from netsmith.errors import InputError


def shortcuts(layout: Layout) -> list[Shortcut]:
    found: list[Shortcut] = []
    for stage in layout.stages:
        for block in stage.blocks:
            assert isinstance(block, BasicBlock | BottleneckBlock | CardinalBlock)
            found.append(block.shortcut)
    return found


def weighted_layers(layout: Layout) -> int:
    """As the papers count: convolutions and linear layers of the main path."""
    ops = layout_graph(layout).ops
    return sum(isinstance(op, g.Conv | g.Linear) and not {"downsample", "se"} & {*op.name.split(".")} for op in ops)


# Figures of networks that no other library has, from the papers' tables


@pytest.mark.parametrize(("depth", "published"), [(50, 3.8), (101, 7.6), (152, 11.3)])
def test_the_papers_stride_has_the_papers_macs(depth: int, published: float):
    """He et al. 2016, table 1, which cuts or rounds to tenths: those figures are of the stride on the first 1x1."""
    v1, v15 = (find_layout(f"resnet{depth}{version}") for version in ("_v1", ""))
    assert abs(cost(v1).macs / 1e9 - published) < 0.06
    assert cost(v1).params == cost(v15).params
    assert list(g.state(layout_graph(v1))) == list(g.state(layout_graph(v15)))
    # The first 1x1 of the three striding blocks computes a quarter of its positions.
    spared = sum((side**2 - (side // 2) ** 2) * 2 * c * c for side, c in ((56, 128), (28, 256), (14, 512)))
    assert cost(v15).macs - cost(v1).macs == spared


def test_figures_of_the_shortcut_options():
    """He et al. 2016, section 4.1: A adds no parameters to the plain twin, B three projections, C sixteen."""
    plain, a, b, c = (find_layout(f"{name}") for name in ("plain34", *(f"resnet34_shortcut_{o}" for o in "abc")))
    assert cost(a).params == cost(plain).params
    assert cost(a).macs == cost(plain).macs == cost(b).macs - 3 * 28**2 * 64 * 128
    projections = [(64, 128), (128, 256), (256, 512)]
    assert cost(b).params - cost(a).params == sum(into * out + 2 * out for into, out in projections)
    everywhere = sum(n * (out * out + 2 * out) for n, out in ((3, 64), (3, 128), (5, 256), (2, 512)))
    assert cost(c).params - cost(b).params == everywhere
    assert [type(shortcut) for shortcut in shortcuts(a)].count(ZeroPad) == 3
    assert [type(shortcut) for shortcut in shortcuts(c)] == [Projection] * 16
    assert shortcuts(plain) == [None] * 16
    assert find_layout("resnet34").stages == b.stages


def test_figures_of_the_cardinal_network():
    """Sixteen blocks of 3x3 to 2c, 1x1 to c / 4, 3x3 to c, as many MACs as ResNet-50 to a hundredth."""
    layout = find_layout("resnet50_cardinal")
    params, into = 3 * 64 * 49 + 128 + 512 * 1000 + 1000, 64
    for c, n in zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True):
        for _ in range(n):
            params += 9 * into * 2 * c + 2 * c * c // 4 + 9 * c // 4 * c + 2 * (2 * c + c // 4 + c)
            params += 0 if into == c else into * c + 2 * c
            into = c
    assert cost(layout).params == params
    assert cost(layout).macs == pytest.approx(cost(find_layout("resnet50")).macs, rel=0.01)
    assert weighted_layers(layout) == 50
    blocks = [block for stage in layout.stages for block in stage.blocks]
    assert [len(stage.blocks) for stage in layout.stages] == [3, 4, 6, 3]
    for block in blocks:
        assert isinstance(block, CardinalBlock)
        assert block.expand > block.out > block.compress
    assert [type(shortcut) for shortcut in shortcuts(layout)].count(Identity) == 13


def test_a_cardinal_block_counted_by_hand():
    """8 channels of 6x6 to 3x3: 3x3 to 16, 1x1 to 4, 3x3 to 12, projection 8 -> 12."""
    layout = find_layout("resnet50_cardinal")
    block = CardinalBlock(
        name="layer1.0", expand=16, compress=4, out=12, stride=2, shortcut=Projection(), activation="relu"
    )
    stem = replace(layout.stem[0], out=8, stride=1, kernel=3)
    small = replace(
        layout, input=Input(size=(6, 6)), stem=(stem,), stages=(StageLayout(name="stage1", blocks=(block,)),)
    )
    body = parts(small)[1]
    assert body.shape == (12, 3, 3)
    assert body.cost.macs == 9 * (8 * 16 * 9 + 16 * 4 + 4 * 12 * 9 + 8 * 12)
    assert body.cost.params == 8 * 16 * 9 + 16 * 4 + 4 * 12 * 9 + 8 * 12 + 2 * (16 + 4 + 12 + 12)


# Layers and maps


DEPTHS = {
    "plain18": 18, "plain34": 34, "resnet34_shortcut_a": 34, "resnet34_shortcut_c": 34, "resnet152_v1": 152,
    "seresnet50": 50, "resnet18d": 18 + 2, "resnet50d": 50 + 2, "resnet1202_cifar": 1202, "plain110_cifar": 110,
}  # fmt: skip


@pytest.mark.parametrize("name", DEPTHS)
def test_networks_have_the_layers_of_their_names(name: str):
    """The deep stem has two more."""
    assert weighted_layers(find_layout(name)) == DEPTHS[name]


def test_resnet_d_has_a_deep_stem_and_averages_before_it_projects():
    layout = find_layout("resnet50d")
    shapes = g.shapes(layout_graph(layout))
    assert [shapes[f"conv1.{i}"] for i in (0, 3, 6)] == [(32, 112, 112), (32, 112, 112), (64, 112, 112)]
    assert [type(shortcut) for shortcut in shortcuts(layout)].count(PooledProjection) == 4
    pools = [op for op in layout_graph(layout).ops if isinstance(op, g.Pool) and op.reduce == "avg"]
    assert [op.name for op in pools] == [f"layer{stage}.0.downsample.0" for stage in (2, 3, 4)]
    assert len(find_layout("resnet50d", img_size=32).stem) == 3


@pytest.mark.parametrize("side", [5, 6, 7])
def test_pooled_shortcuts_of_odd_maps_have_the_branchs_size(side: int):
    shapes = g.shapes(layout_graph(find_layout("resnet18d", img_size=4 * side)))
    for stage in (2, 3, 4):
        assert shapes[f"layer{stage}.0.downsample.1"] == shapes[f"layer{stage}.0.conv2"]


def test_the_squeeze_is_a_sixteenth_rounded_to_eight():
    for name, squeezes in (("seresnet50", [16, 32, 64, 128]), ("seresnet50@0.1", [8, 8, 8, 16])):
        found: list[int | None] = []
        for stage in find_layout(name).stages:
            block = stage.blocks[0]
            assert isinstance(block, BottleneckBlock)
            found.append(block.squeeze)
        assert found == squeezes


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (lambda: Basic(out=64, squeeze=0.0), "squeeze is 0; it must be above 0"),
        (lambda: Bottleneck(width=64, out=64, squeeze=1.5), r"squeeze is 1\.5"),
        (lambda: Cardinal(expand=0, compress=8, out=8), "a width of 0 is outside"),
        (lambda: Basic(out=-1), "a width of -1 is outside"),
    ],
)
def test_blocks_that_no_network_has_are_refused(block: object, says: str):
    assert callable(block)
    with pytest.raises(InputError, match=says):
        block()


def test_a_fault_of_a_shortcut_names_its_place():
    document = layout_to_json(find_layout("resnet20_cifar"))
    document["stages"][0]["blocks"][0]["shortcut"] = {"kind": "zero_pad", "front": -1, "back": 1}
    with pytest.raises(InputError, match=r"stages\[0\]\.blocks\[0\]\.shortcut: a zero-padded shortcut adds -1"):
        layout_from_json(document)


# Pre-activation


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("preresnet110_cifar", "1.7"), ("preresnet164_cifar", "1.7"), ("preresnet1001_cifar", "10.3"),
        ("wrn16_4_cifar", "2.7"), ("wrn40_4_cifar", "8.9"), ("wrn28_10_cifar", "36.5"),
    ],
)  # fmt: skip
def test_pre_activation_networks_have_the_papers_size(name: str, millions: str):
    """He et al. 2016, table 4 (with projections where it has 10.2); Zagoruyko and Komodakis 2016, table 5."""
    assert f"{cost(find_layout(name)).params / 1e6:.1f}" == millions


@pytest.mark.parametrize("depth", [20, 56, 110])
def test_pre_activation_moves_norms_and_adds_none(depth: int):
    """As many parameters and MACs as the twin: every norm only stands elsewhere."""
    twin, pre = find_layout(f"resnet{depth}_cifar"), find_layout(f"preresnet{depth}_cifar")
    assert (cost(pre).params, cost(pre).macs) == (cost(twin).params, cost(twin).macs)
    assert weighted_layers(pre) == depth


def test_nothing_but_sums_lies_between_pre_activation_blocks():
    """From the first convolution to the last norm a path of additions alone, where shapes do not change."""
    layout = find_layout("preresnet20_cifar")
    reads = {op.name: g.sources(op) for op in layout_graph(layout).ops}
    for stage in (1, 2, 3):
        for index in (1, 2):
            assert reads[f"layer{stage}.{index}.add"][1] == f"layer{stage}.{index - 1}.add"
    assert reads["layer1.0.add"][1] == "layer1.0.relu1"  # section 3.2: the first block's shortcut is activated
    assert reads["layer2.0.subsample"] == ("layer2.0.relu1",)
    assert reads["bn"] == ("layer3.2.add",)
    assert reads["layer1.0.bn1"] == ("conv1",)
    bottleneck = {op.name: g.sources(op) for op in layout_graph(find_layout("resnetv2_50")).ops}
    assert bottleneck["layer2.0.downsample.0"] == ("layer2.0.relu1",)
    assert bottleneck["layer2.0.add"] == ("layer2.0.conv3", "layer2.0.downsample.0")


# A thousand layers


@pytest.mark.parametrize(("name", "blocks"), [("resnet1202_cifar", 600), ("preresnet1001_cifar", 333)])
def test_a_thousand_layers_are_built_counted_tied_and_cut_in_seconds(name: str, blocks: int):
    """Nothing recurses and nothing is quadratic: hundreds of blocks take seconds of the processor at most."""
    began = time.process_time()
    layout = find_layout(name, num_classes=7)
    assert len(parts(layout)) == 2 + blocks
    assert cost(layout).macs > 0
    found = ties(layout_graph(layout))
    cut = select(layout, found.keep({found.channels["layer3.99.conv1"][5]}))
    assert layout_from_json(layout_to_json(cut.layout)) == cut.layout
    assert time.process_time() - began < 20
