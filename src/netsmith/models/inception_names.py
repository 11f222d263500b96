"""Names that timm gives the layers of Inception-v4 and Inception-ResNet-v2.

Inside a module the names are the same as here; the tables below are of what stands before them.
"""

from collections.abc import Mapping

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph

RESNET_V2 = {
    "Conv2d_1a_3x3": "conv2d_1a",
    "Conv2d_2a_3x3": "conv2d_2a",
    "Conv2d_2b_3x3": "conv2d_2b",
    "Conv2d_3b_1x1": "conv2d_3b",
    "Conv2d_4a_3x3": "conv2d_4a",
    "Mixed_5b": "mixed_5b",
    "Mixed_6a": "mixed_6a",
    "Mixed_7a": "mixed_7a",
    "Block8_last": "block8",
    "Conv2d_7b_1x1": "conv2d_7b",
    "fc": "classif",
}
REPEATED = {"Block35": "repeat", "Block17": "repeat_1", "Block8": "repeat_2"}
"""Rows of blocks, which timm numbers from 0."""


def timm_inception_v4(layout: Layout) -> list[str]:
    """timm's names: modules in one long sequence, the stem's convolutions among them."""
    modules = dict.fromkeys(
        layer.partition(".")[0] for layer in g.layers(layout_graph(layout)) if layer != layout.head.logits
    )
    table = {module: f"features.{place}" for place, module in enumerate(modules)}
    return _renamed(layout, table | {layout.head.logits: "last_linear"})


def timm_inception_resnet_v2(layout: Layout) -> list[str]:
    """timm's names: modules by the paper's code, rows of blocks numbered."""
    table = dict(RESNET_V2)
    for stage in layout.stages:
        names = [block.name for block in stage.blocks if block.name.partition("_")[0] in REPEATED]
        row = [name for name in names if name not in table]
        table |= {name: f"{REPEATED[name.partition('_')[0]]}.{place}" for place, name in enumerate(row)}
    return _renamed(layout, table)


def _renamed(layout: Layout, table: Mapping[str, str]) -> list[str]:
    """The layers in graph order, the part of the name before the first dot replaced."""
    parts = (layer.partition(".") for layer in g.layers(layout_graph(layout)))
    return [f"{table[module]}{dot}{inside}" for module, dot, inside in parts]
