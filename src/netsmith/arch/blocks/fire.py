"""Fire: SqueezeNet's block (Iandola et al. 2016, arXiv 1602.07360, figure 1).

Deliberate choices: parameter names are torchvision's.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Draft, Widths
from netsmith.arch.blocks.place import Place
from netsmith.arch.limits import check_name, check_widths
from netsmith.arch.widths import Width, paper_width


@dataclass(frozen=True, kw_only=True)
class FireBlock:
    """1x1 to `squeeze` channels, then 1x1 to `expand1x1` and 3x3 to `expand3x3`, concatenated; with biases."""

    kind: ClassVar[str] = "fire"
    name: str
    squeeze: int
    expand1x1: int
    expand3x3: int
    activation: g.Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.squeeze, self.expand1x1, self.expand3x3)

    def add(self, draft: Draft, source: str) -> str:
        """Append the block's operations; the name of its output is returned."""

        def layer(name: str, source: str, out: int, *, kernel: int = 1) -> str:
            x = draft.conv(f"{self.name}.{name}", source, out, kernel=kernel, bias=True)
            return draft.activate(f"{self.name}.{name}_activation", x, self.activation)

        x = layer("squeeze", source, self.squeeze)
        parts = layer("expand1x1", x, self.expand1x1), layer("expand3x3", x, self.expand3x3, kernel=3)
        return draft.add(g.Concat(name=f"{self.name}.concat", sources=parts))

    def resized(self, widths: Widths) -> "FireBlock":
        """The record of this block in a graph whose channels were cut."""
        squeeze, left, right = (widths.out(f"{self.name}.{name}") for name in ("squeeze", "expand1x1", "expand3x3"))
        return replace(self, squeeze=squeeze, expand1x1=left, expand3x3=right)


@dataclass(frozen=True, kw_only=True)
class Fire:
    """A row of table 1: `squeeze` channels, then `expand` channels of 1x1 and as many of 3x3."""

    kind: ClassVar[str] = "fire"
    squeeze: Width
    expand: Width

    reduction: ClassVar[bool] = False
    layers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_widths(self.kind, paper_width(self.squeeze), paper_width(self.expand))

    def paper_out(self, paper_in: int) -> int:
        """Channels of the output on the paper's scale."""
        return 2 * paper_width(self.expand)

    def lower(self, place: Place) -> FireBlock:
        """Every width written out."""
        expand = place.width(self.expand)
        return FireBlock(
            name=place.name, squeeze=place.width(self.squeeze), expand1x1=expand, expand3x3=expand,
            activation=place.activation,
        )  # fmt: skip
