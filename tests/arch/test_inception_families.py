"""What sets the Inceptions apart: modules that shrink the map, classifiers for training, kernels side by side."""

from dataclasses import replace

import pytest
from cutting import halved
from hypothesis import given, settings
from hypothesis import strategies as st

from netsmith.arch import graph as g
from netsmith.arch.blocks.branches import BranchesBlock
from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout, layout_from_json, layout_graph, layout_to_json
from netsmith.arch.lower import lower
from netsmith.arch.names import find_layout, find_spec, list_models
from netsmith.arch.published import PUBLISHED
from netsmith.arch.scale import for_size, scale
from netsmith.arch.select import select
from netsmith.arch.spec import spec_from_json, spec_to_json
from netsmith.errors import InputError

NAMES = ["googlenet", *list_models("inception*")]
PUBLISHED_NAMES = [name for name in NAMES if name in PUBLISHED]


def maps(layout: Layout) -> list[g.Shape]:
    """Shapes after every stage."""
    graph = layout_graph(layout)
    shapes = g.shapes(graph)
    return [shapes[op] for op in graph.taps.values()]


def block_names(layout: Layout) -> list[str]:
    return [block.name for stage in layout.stages for block in stage.blocks]


def test_maps_have_the_papers_sizes():
    """Szegedy et al. 2015, table 1; 2016, table 1; 2017, figures 3 and 9, and 15."""
    assert maps(find_layout("googlenet")) == [(480, 28, 28), (832, 14, 14), (1024, 7, 7)]
    assert maps(find_layout("inception_v3")) == [(288, 35, 35), (768, 17, 17), (2048, 8, 8)]
    assert maps(find_layout("inception_v4")) == [(192, 71, 71), (384, 35, 35), (1024, 17, 17), (1536, 8, 8)]
    assert maps(find_layout("inception_resnet_v2")) == [(320, 35, 35), (1088, 17, 17), (1536, 8, 8)]


def test_googlenet_without_its_classifiers_for_training_has_the_published_size():
    layout = find_layout("googlenet")
    assert cost(replace(layout, auxiliary=())).params == 6_624_904
    assert [(each.name, each.after, each.weight) for each in layout.auxiliary] == [
        ("aux1", "inception4a", 0.3),
        ("aux2", "inception4d", 0.3),
    ]
    assert [(each.name, each.after, each.weight) for each in find_layout("inception_v3").auxiliary] == [
        ("aux", "Mixed_6e", 0.4)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_classifiers_for_training_have_the_networks_classes(name: str):
    layout = find_layout(name, num_classes=7, in_channels=1)
    chosen = select(find_layout(name), {layout.head.logits: [None] * 7}).layout
    for changed in (layout, chosen):
        assert {each.head.classes for each in changed.auxiliary} <= {7}
        shapes = g.shapes(layout_graph(changed))
        assert {shapes[op] for op in g.classifiers(layout_graph(changed)).values()} == {(7,)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [28, 32, 33, 48, 75, 96, 160, 229])
def test_pictures_of_any_size_leave_four_positions(name: str, size: int):
    layout = find_layout(name, img_size=size)
    assert min(maps(layout)[-1][1:]) >= 4
    blocks = [block for block in block_names(layout) if "pool" not in block]
    published = [block for block in block_names(find_layout(name)) if "pool" not in block]
    assert blocks == published  # what is left out has no weights
    assert cost(layout).macs < 2.5 * cost(find_layout(name)).macs


def test_a_small_picture_costs_less_than_a_large_one():
    for name in NAMES:
        assert cost(find_layout(name, img_size=32)).macs < cost(find_layout(name)).macs


def test_modules_that_shrink_the_map_or_belong_to_the_stem_do_not_repeat():
    layout = lower(scale(find_spec("inception_v4"), depth=2.0))
    names = block_names(layout)
    assert [block.name for block in layout.stages[0].blocks] == ["Mixed_3a", "Mixed_4a"]
    assert [sum(name.startswith(row) for name in names) for row in ("Mixed_5a", "Mixed_6a", "Mixed_7a")] == [1, 1, 1]
    assert [sum(name.startswith(row) for name in names) for row in ("Mixed_5b", "Mixed_6b", "Mixed_7b")] == [8, 14, 6]
    deeper = block_names(lower(scale(find_spec("inception_resnet_v2"), depth=1.5)))
    assert [sum(name.startswith(row) for name in deeper) for row in ("Mixed_5b", "Block35", "Block17")] == [1, 15, 30]
    assert deeper[-2:] == ["Block8_last", "Conv2d_7b_1x1.conv"]
    v3 = lower(scale(find_spec("inception_v3"), depth=2.0))
    assert v3.auxiliary[0].after == "Mixed_6e_1"  # behind the last module of its row


def test_average_pools_count_their_padding_in_version_three_only():
    for name, counts in (("inception_v3", {True}), ("inception_v4", {False}), ("inception_resnet_v2", {False})):
        pools = [op for op in layout_graph(find_layout(name)).ops if isinstance(op, g.Pool) and op.reduce == "avg"]
        inside = [op for op in pools if not op.name.startswith("AuxLogits")]
        assert {op.count_padding for op in inside} == counts


def test_residual_modules_scale_their_branches():
    blocks = [block for stage in find_layout("inception_resnet_v2").stages for block in stage.blocks]
    joins = [block.join for block in blocks if isinstance(block, BranchesBlock) and block.join is not None]
    assert [(join.scale, join.activation) for join in joins] == [
        *[(0.17, "relu")] * 10, *[(0.1, "relu")] * 20, *[(0.2, "relu")] * 9, (1.0, None),
    ]  # fmt: skip


def test_reductions_make_the_same_outputs_several_times_cheaper():
    naive, reduced = find_layout("inception_naive"), find_layout("inception_reduced")
    assert maps(naive) == maps(reduced) == [(128, 28, 28), (256, 14, 14), (512, 7, 7)]
    assert 3.5 * cost(reduced).macs < cost(naive).macs

    def kernels(layout: Layout) -> list[set[int]]:
        """Kernels larger than 1 in every module."""
        return [
            {op.kernel[0] for op in layout_graph(layout).ops if isinstance(op, g.Conv) and op.name.startswith(name)}
            for name in block_names(layout)
            if name.startswith("inception")
        ]

    assert kernels(naive) == kernels(reduced) == [{1, 3, 5, 7}] * 8
    for kernel in (3, 5, 7):
        assert kernels(find_layout(f"inception_naive_k{kernel}")) == [{kernel}] * 8
        assert kernels(find_layout(f"inception_reduced_k{kernel}")) == [{1, kernel}] * 8
        assert maps(find_layout(f"inception_naive_k{kernel}")) == maps(naive)


@pytest.mark.parametrize("name", PUBLISHED_NAMES)
def test_half_of_every_tied_class_can_go(name: str):
    """The records follow a graph whose channels were cut (`select` compares the two itself)."""
    layout = lower(scale(find_spec(name), width=0.25, depth=0.1))
    smaller = halved(layout)
    assert [out for out, *_ in maps(smaller)] == [out // 2 for out, *_ in maps(layout)]
    assert layout_from_json(layout_to_json(smaller)) == smaller


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    width=st.floats(0.1, 2.0),
    depth=st.floats(0.1, 2.0),
    size=st.integers(28, 300),
)
def test_scaled_ones_lower_and_round_trip(name: str, width: float, depth: float, size: int):
    spec = for_size(scale(find_spec(name), width=width, depth=depth), size)
    layout = lower(spec)
    assert spec_from_json(spec_to_json(spec)) == spec
    assert layout_from_json(layout_to_json(layout)) == layout
    assert cost(layout).params > 0
    assert min(maps(layout)[-1][1:]) >= 4


def test_bad_input_says_what_is_wrong():
    with pytest.raises(InputError, match="did you mean inception_v4"):
        find_spec("inception_v5")
    with pytest.raises(InputError, match="did you mean googlenet"):
        find_spec("goglenet")
    with pytest.raises(InputError, match="below 4 pixels"):
        find_layout("inception_v3", img_size=3)
