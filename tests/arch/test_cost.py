"""Cost: whole equals parts, and small networks counted by hand."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsmith.arch import graph as g
from netsmith.arch.blocks.inverted import MBConvBlock
from netsmith.arch.blocks.kinds import Block
from netsmith.arch.blocks.pieces import ConvBlock
from netsmith.arch.blocks.residual import BasicBlock, BottleneckBlock
from netsmith.arch.blocks.shortcuts import Identity, Projection, ZeroPad
from netsmith.arch.cost import Cost, cost, parts
from netsmith.arch.heads import PooledHead
from netsmith.arch.layout import Layout, StageLayout, layout_graph
from netsmith.arch.lower import lower
from netsmith.arch.names import MODELS, find_layout
from netsmith.arch.scale import for_size, scale
from netsmith.arch.spec import Input
from netsmith.errors import InputError


def small_layout(*blocks: Block, side: int, stem: int, classes: int) -> Layout:
    """One 3x3 stem convolution, the blocks, a linear layer."""
    conv = ConvBlock(conv="conv1", norm="bn1", out=stem, kernel=3, stride=1, activation="relu")
    return Layout(
        family="resnet", name="small", input=Input(size=(side, side)), stem=(conv,),
        stages=(StageLayout(name="stage1", blocks=blocks),),
        head=PooledHead(conv=None, linear="fc", classes=classes, dropout=0.0),
        norm_eps=1e-5, norm_momentum=0.1, drop_path=0.0,
    )  # fmt: skip


def test_a_basic_block_counted_by_hand():
    """3x8x8 -> 4 channels, a basic block with identity shortcut, 2 classes.

    Bytes while the block's operations run: the shortcut, an input and an output of 4 * 8 * 8 * 4 = 1024 bytes each.
    """
    block = BasicBlock(name="layer1.0", width=4, out=4, stride=1, shortcut=Identity(), activation="relu")
    layout = small_layout(block, side=8, stem=4, classes=2)
    stem, body, head = parts(layout)
    assert stem.cost == Cost(params=3 * 4 * 9 + 8, macs=64 * 3 * 4 * 9, activations=256, peak_bytes=2048)
    assert body.cost == Cost(params=2 * (4 * 4 * 9 + 8), macs=2 * 64 * 4 * 4 * 9, activations=512, peak_bytes=3072)
    assert head.cost == Cost(params=4 * 2 + 2, macs=8, activations=2, peak_bytes=1024 + 16)
    assert cost(layout) == Cost(params=430, macs=25_352, activations=770, peak_bytes=3072)
    assert [part.shape for part in (stem, body, head)] == [(4, 8, 8), (4, 8, 8), (2,)]
    assert [(part.stage, part.name, part.kind) for part in (stem, body, head)] == [
        ("stem", "stem", "stem"), ("stage1", "layer1.0", "basic"), ("head", "head", "head"),
    ]  # fmt: skip


def test_a_grouped_bottleneck_counted_by_hand():
    """8 channels of 6x6; 1x1 to 4, 3x3 in 2 groups with stride 2 to 3x3, 1x1 to 16; projection 8 -> 16."""
    block = BottleneckBlock(
        name="layer1.0", reduce=4, width=4, out=16, groups=2, stride=2, stride_at="3x3",
        shortcut=Projection(), activation="relu",
    )  # fmt: skip
    body = parts(small_layout(block, side=6, stem=8, classes=2))[1]
    macs = 36 * 8 * 4 + 9 * 4 * 2 * 9 + 9 * 4 * 16 + 9 * 8 * 16
    params = 8 * 4 + 8 + 4 * 2 * 9 + 8 + 4 * 16 + 32 + 8 * 16 + 32
    assert (body.cost.macs, body.cost.params, body.shape) == (macs, params, (16, 3, 3))
    assert body.cost.activations == 36 * 4 + 9 * 4 + 9 * 16 + 9 * 16
    at_first = parts(small_layout(replace(block, stride_at="1x1"), side=6, stem=8, classes=2))[1]
    assert at_first.cost.macs == macs - 27 * 8 * 4
    assert at_first.cost.params == params


def test_a_squeezed_inverted_residual_counted_by_hand():
    """8 channels of 6x6 expand to 48, 5x5 depthwise with stride 2, squeeze 2, project to 16."""
    block = MBConvBlock(
        name="features.1.0", expand=48, kernel=5, squeeze=2, out=16, stride=2, skip=False, activation="silu"
    )
    body = parts(small_layout(block, side=6, stem=8, classes=2))[1]
    assert body.cost.macs == 36 * 8 * 48 + 9 * 48 * 25 + 48 * 2 + 2 * 48 + 9 * 48 * 16
    assert body.cost.params == (384 + 96) + (1200 + 96) + (96 + 2) + (96 + 48) + (768 + 32)
    assert body.cost.activations == 36 * 48 + 9 * 48 + 2 + 48 + 9 * 16


def test_a_zero_padded_shortcut_costs_nothing():
    """The pool with kernel 1 and the padding have no parameters and no MACs, and the map is halved."""
    block = BasicBlock(name="layer1.0", width=8, out=8, stride=2, shortcut=ZeroPad(front=1, back=3), activation="relu")
    layout = small_layout(block, side=7, stem=4, classes=2)
    body = parts(layout)[1]
    assert body.shape == (8, 4, 4)
    assert body.cost.macs == 16 * 4 * 8 * 9 + 16 * 8 * 8 * 9
    assert g.shapes(layout_graph(layout))["layer1.0.pad"] == (8, 4, 4)
    assert [(op.front, op.back) for op in layout_graph(layout).ops if isinstance(op, g.Pad)] == [(1, 3)]


def test_published_zero_padding_is_the_same_on_both_sides():
    """As in the published CIFAR-10 checkpoints: half of the added channels before, half behind."""
    pads = [op for op in layout_graph(find_layout("resnet20_cifar")).ops if isinstance(op, g.Pad)]
    assert [(pad.front, pad.back) for pad in pads] == [(8, 8), (16, 16)]


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(sorted(MODELS)),
    width=st.floats(0.1, 2.0),
    depth=st.floats(0.1, 1.5),
    size=st.integers(16, 256),
)
def test_parts_sum_to_the_whole(name: str, width: float, depth: float, size: int):
    layout = lower(for_size(scale(MODELS[name], width=width, depth=depth), size))
    whole, found = cost(layout), [part.cost for part in parts(layout)]
    assert sum(part.params for part in found) == whole.params
    assert sum(part.macs for part in found) == whole.macs
    assert sum(part.activations for part in found) == whole.activations
    assert max(part.peak_bytes for part in found) == whole.peak_bytes
    blocks = sum(len(stage.blocks) for stage in layout.stages)
    assert len(found) == bool(layout.stem) + blocks + len(layout.auxiliary) + 1


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0"])
def test_macs_grow_with_the_positions(name: str):
    """At a side where every map halves evenly, twice the side is four times the MACs of every map."""
    small, large = (cost(find_layout(name, img_size=side)) for side in (224, 448))
    linear = next(op for op in layout_graph(find_layout(name)).ops if isinstance(op, g.Linear))
    fixed = linear.in_features * linear.out_features
    squeezes = sum(
        math.prod((op.in_channels, op.out_channels))
        for op in layout_graph(find_layout(name)).ops
        if isinstance(op, g.Conv) and op.bias
    )
    assert large.macs - fixed - squeezes == 4 * (small.macs - fixed - squeezes)
    assert large.params == small.params


# Shapes of single operations


def pool(side: int, kernel: int, stride: int, padding: int, *, ceil: bool) -> int:
    op = g.Pool(
        name="pool",
        source="input",
        reduce="max",
        kernel=(kernel,),
        stride=(stride,),
        padding=((padding, padding),),
        ceil=ceil,
    )
    return g.shape_of(op, ((1, side),))[1]


@settings(deadline=None)
@given(
    side=st.integers(1, 40), kernel=st.integers(1, 7), stride=st.integers(1, 5), padding=st.data(), ceil=st.booleans()
)
def test_pooled_sizes_equal_counted_windows(side: int, kernel: int, stride: int, padding: st.DataObject, ceil: bool):
    """Windows counted one by one; a ceiling window may hang over the end but starts inside the map or before it."""
    pad = padding.draw(st.integers(0, kernel // 2))
    if side + 2 * pad < kernel:
        with pytest.raises(InputError, match="smaller than a kernel"):
            pool(side, kernel, stride, pad, ceil=ceil)
        return
    count, start = 0, -pad
    while start + kernel <= side + pad or (ceil and count and start < side and start - stride + kernel < side + pad):
        count, start = count + 1, start + stride
    assert pool(side, kernel, stride, pad, ceil=ceil) == count


def test_concat_gate_flatten_and_what_does_not_fit():
    concat = g.Concat(name="join", sources=("a", "b"))
    assert g.shape_of(concat, ((3, 4, 5), (2, 4, 5))) == (5, 4, 5)
    assert g.shape_of(g.Flatten(name="flat", source="a"), ((3, 4, 5),)) == (60,)
    assert g.shape_of(g.Gate(name="gate", source="a", gate="b"), ((3, 4, 5), (3, 1, 1))) == (3, 4, 5)
    faults: list[tuple[g.Op, tuple[g.Shape, ...], str]] = [
        (concat, ((3, 4, 5), (2, 4, 4)), "join: cannot concatenate"),
        (g.Gate(name="gate", source="a", gate="b"), ((3, 4, 5), (2, 1, 1)), "gate: a gate of shape"),
        (g.Linear(name="fc", source="a", in_features=9, out_features=2), ((8,),), "fc: shape"),
        (g.Norm(name="bn", source="a", channels=4, eps=1.0, momentum=0.1), ((3, 1, 1),), "bn: 3 channels"),
        (g.Add(name="sum", sources=("a", "b")), ((3, 1, 1), (3, 2, 1)), "sum: cannot add"),
    ]
    for op, shapes, says in faults:
        with pytest.raises(InputError, match=says):
            g.shape_of(op, shapes)
