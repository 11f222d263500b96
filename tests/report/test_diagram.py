"""The picture of a network: whole, readable, and for any layout; letters are measured with a real font."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, Section, layout_graph
from netsmith.arch.lower import lower
from netsmith.arch.names import MODELS, find_layout
from netsmith.arch.scale import scale
from netsmith.arch.select import select
from netsmith.arch.ties import ties
from netsmith.report.canvas import text_width
from netsmith.report.diagram import network_svg
from netsmith.report.outline import Fork, count_ops, outline, section_form
from netsmith.report.outline import Path as Steps

DOCS = Path(__file__).resolve().parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Box:
    """Where something is drawn."""

    what: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


@cache
def face(bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans at 100 pixels, which matplotlib ships."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, 100)


def width(content: str, size: float, bold: bool) -> float:
    """Of a text in a real font, pixels."""
    return face(bold).getlength(content) * size / 100


def texts(root: ElementTree.Element) -> list[Box]:
    found: list[Box] = []
    for text in root.iter(f"{SVG}text"):
        size, content = float(text.get("font-size", "")), text.text or ""
        wide = width(content, size, text.get("font-weight") is not None)
        left = float(text.get("x", "")) - wide * {"middle": 0.5, "end": 1.0}.get(text.get("text-anchor", ""), 0.0)
        base = float(text.get("y", ""))
        found.append(Box(content, left, base - 0.76 * size, left + wide, base + 0.2 * size))
    return found


def drawn(layout: Layout) -> ElementTree.Element:
    """The picture, after all that must hold for every picture."""
    svg = network_svg(layout)
    root = ElementTree.fromstring(svg)
    assert len(svg) < 100_000
    assert root.find(f"{SVG}title") is not None
    assert root.find(f"{SVG}desc") is not None
    rows = [group for group in root.iter(f"{SVG}g") if group.get("class") == "row"]
    assert sum(int(row.get("data-ops", "")) for row in rows) == len(layout_graph(layout).ops)
    assert sum(int(row.get("data-blocks", "")) for row in rows) == sum(len(stage.blocks) for stage in layout.stages)
    left, top, wide, high = (float(number) for number in root.get("viewBox", "").split())
    written = texts(root)
    for text in written:
        assert left < text.left, text
        assert text.right < left + wide, text
        assert top < text.top, text
        assert text.bottom < top + high, text
    for one, other in combinations(written, 2):
        assert not one.meets(other), f"{one} lies on {other}"
    return root


def said(root: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("name", MODELS)
def test_every_network_is_drawn_whole(name):
    drawn(find_layout(name))


def test_a_picture_says_what_the_network_is():
    root = drawn(find_layout("resnet50"))
    words = said(root)
    assert words[:2] == ["resnet50", "224×224, 3 channels in, 1,000 classes, 25,557,032 parameters, 4,089,184,256 MACs"]
    for line in (
        "conv 7×7, stride 2, norm, relu",
        "max pool 3×3, stride 2",
        "5 × bottleneck 3×3",
        "14×14, 1,024 channels",
    ):
        assert line in words
    assert "conv 1×1, stride 2" in words  # the shortcut of the opened block that strides
    assert [word for word in words if word in ("A", "B", "C")] == ["A", "B"] * 4 + ["A", "B"]
    about = root.findtext(f"{SVG}desc") or ""
    assert "stage3: 5 × bottleneck 3×3 to 14×14, 1,024 channels" in about


def test_groups_depthwise_and_squeeze_are_said():
    assert "bottleneck 3×3, 32 groups, stride 2" in said(drawn(find_layout("resnext50_32x4d")))
    words = said(drawn(find_layout("efficientnet_b0")))
    assert "depthwise 3×3, stride 2" in words
    assert {"global average", "24 → 144", "144 → 6", "6 → 144", "silu", "sigmoid", "×", "+"} <= set(words)


def test_depth_costs_no_space():
    deep, shallow = (network_svg(find_layout(f"resnet20_cifar@depth={depth}")) for depth in (100, 1))
    assert len(deep) < 1.05 * len(shallow)
    assert "300 × basic 3×3" in deep


def test_the_same_layout_gives_the_same_bytes():
    assert network_svg(find_layout("mobilenet_v2")) == network_svg(find_layout("mobilenet_v2"))


def test_names_from_strangers_are_escaped_and_cut():
    layout = find_layout("resnet8_cifar")
    for name in ('<script>alert("1")</script>&', "\x00\x1b[31m\u202eevil", "W" * 500, ""):
        root = drawn(replace(layout, name=name))
        assert root.find(f".//{SVG}script") is None
        assert len(said(root)[0]) <= 120


@pytest.mark.parametrize(("size", "side"), [((50,), "50, 3 channels"), ((8, 12, 16), "8×12×16, 3 channels")])
def test_one_and_three_dimensions(size, side):
    layout = find_layout("resnet8_cifar")
    assert side in said(drawn(replace(layout, input=replace(layout.input, size=size))))


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(["resnet18", "resnet56_cifar", "resnext50_32x4d", "mobilenet_v2", "efficientnet_b0"]),
    width=st.floats(0.05, 4),
    depth=st.floats(0.3, 4),
)
def test_scaled_networks(name, width, depth):
    drawn(lower(scale(MODELS[name], width=width, depth=depth)))


@settings(max_examples=8, deadline=None)
@given(name=st.sampled_from(["resnet14_cifar", "mobilenet_v2"]), data=st.data())
def test_cut_networks(name, data):
    layout = find_layout(name)
    found = ties(layout_graph(layout))
    free = sorted({tie for row in found.channels.values() for tie in row} - set(found.frozen))
    gone = data.draw(st.sets(st.sampled_from(free), max_size=40))
    drawn(select(layout, found.keep(gone)).layout)


def inception(*, residual: bool) -> Section:
    """Branches as in the last modules of Inception-v3 and Inception-ResNet: they part again, one reads a pool."""
    ops: list[g.Op] = []

    def conv(name: str, source: str, into: int, out: int, *kernel: int) -> str:
        ops.append(
            g.Conv(
                name=name,
                source=source,
                in_channels=into,
                out_channels=out,
                kernel=kernel,
                stride=(1, 1),
                padding=(),
            )
        )
        ops.append(g.Activate(name=f"{name}.relu", source=name, function="relu"))
        return f"{name}.relu"

    parted = conv("b", "input", 16, 24, 1, 1)
    ways = [
        conv("a", "input", 16, 8, 1, 1), conv("b1", parted, 24, 8, 1, 3), conv("b2", parted, 24, 8, 3, 1),
    ]  # fmt: skip
    ops.append(g.Pool(name="pool", source="input", reduce="avg", kernel=(3, 3), stride=(1, 1), padding=()))
    ways.append(conv("c", "pool", 16, 8, 1, 1))
    ops.append(g.Concat(name="cat", sources=tuple(ways)))
    if residual:
        up = g.Conv(
            name="up", source="cat", in_channels=32, out_channels=16, kernel=(1, 1), stride=(1, 1),
            padding=(),
        )  # fmt: skip
        ops += [up, g.Add(name="add", sources=("up", "input"))]
    return Section(stage="s", name="mixed", kind="branches", source="input", ops=tuple(ops))


def opened(path: Steps) -> list[object]:
    """A path as nested lists of titles."""
    shown: list[object] = []
    for item in path:
        if isinstance(item, Fork):
            shown.append([opened(branch) for branch in item.branches])
            shown += [item.join.title] if item.join is not None else []
        else:
            shown.append(item.title)
    return shown


def test_branches_stand_side_by_side_and_a_shortcut_goes_around_them():
    branches = [["conv 1×1", [["conv 1×3"], ["conv 3×1"]]], ["conv 1×1"], ["average 3×3", "conv 1×1"]]
    for residual, expected in (
        (False, [branches, "concat"]),
        (True, [[[branches, "concat", "conv 1×1"], []], "+"]),
    ):
        section = inception(residual=residual)
        shapes = dict.fromkeys(["input", *(op.name for op in section.ops)], (16, 8, 8))
        form = section_form(section, shapes)
        assert opened(form.path) == expected
        assert count_ops(form.path) == len(section.ops)


def test_no_operation_of_an_opened_block_is_lost():
    for name in ("resnet50", "efficientnet_b0", "mobilenet_v2"):
        layout = find_layout(name)
        sizes = {form.name: count_ops(form.path) for form in outline(layout).forms}
        names = [op.name for op in layout_graph(layout).ops]
        for block, ops in sizes.items():
            assert ops == sum(name.startswith(f"{block}.") for name in names)


def test_letters_are_measured_wide_enough():
    for content in ("conv 7×7, stride 2, norm, relu", "ILil|.,", "WWMM@", "0123456789", "a → b", "mbconv_{}~"):
        for bold in (False, True):
            assert text_width(content, 12, bold=bold) >= width(content, 12, bold)


def test_the_pages_pictures_are_the_codes():
    page = (DOCS / "networks.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^]]+\]\(networks/(.+?)\.svg\)", page)
    assert len(set(shown)) == len(shown)
    assert sorted(shown) == sorted(path.stem for path in (DOCS / "networks").iterdir())
    for name in shown:
        kept = (DOCS / "networks" / f"{name}.svg").read_text(encoding="utf-8")
        assert kept == f"{network_svg(find_layout(name))}\n", f"{name}.svg is stale: make pictures"
    assert {find_layout(name).family for name in shown} == {spec.family for spec in MODELS.values()}
