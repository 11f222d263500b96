"""The cardinal block: a 3x3 that expands, a 1x1 that compresses, a 3x3 that restores, and the identity path around
them. It is the bottleneck turned inside out: space is mixed where the block is wide and where it widens again, and the
narrow middle only mixes channels.

Deliberate choices: norm and activation stand where a bottleneck has them, the first convolution strides, the shortcut
is the identity wherever the shape stays (option B of He et al. 2016), and names are those of a bottleneck.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Draft, Widths
from netsmith.arch.blocks.place import Place
from netsmith.arch.blocks.shortcuts import Shortcut, ShortcutOption, add_shortcut, lower_shortcut, resized_shortcut
from netsmith.arch.blocks.single import Single
from netsmith.arch.limits import check_name, check_widths, check_window
from netsmith.arch.widths import Width, paper_width


@dataclass(frozen=True, kw_only=True)
class CardinalBlock:
    """3x3 (stride) to `expand`, 1x1 to `compress`, 3x3 to `out`, shortcut."""

    kind: ClassVar[str] = "cardinal"
    name: str
    expand: int
    compress: int
    out: int
    stride: int
    shortcut: Shortcut
    activation: g.Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.expand, self.compress, self.out)
        check_window(self.name, kernel=3, stride=self.stride)

    def add(self, draft: Draft, source: str) -> str:
        """Append the block's operations; the name of its output is returned."""
        name = self.name
        x = draft.norm(f"{name}.bn1", draft.conv(f"{name}.conv1", source, self.expand, kernel=3, stride=self.stride))
        x = draft.activate(f"{name}.relu1", x, self.activation)
        x = draft.norm(f"{name}.bn2", draft.conv(f"{name}.conv2", x, self.compress))
        x = draft.activate(f"{name}.relu2", x, self.activation)
        x = draft.norm(f"{name}.bn3", draft.conv(f"{name}.conv3", x, self.out, kernel=3))
        x = add_shortcut(draft, self.shortcut, name=name, source=source, branch=x, out=self.out, stride=self.stride)
        return draft.activate(f"{name}.relu", x, self.activation)

    def resized(self, widths: Widths) -> "CardinalBlock":
        """The record of this block in a graph whose channels were cut."""
        return replace(
            self,
            expand=widths.out(f"{self.name}.conv1"),
            compress=widths.out(f"{self.name}.conv2"),
            out=widths.out(f"{self.name}.conv3"),
            shortcut=resized_shortcut(self.shortcut, widths, name=self.name),
        )


@dataclass(frozen=True, kw_only=True)
class Cardinal(Single):
    """3x3 to `expand`, 1x1 to `compress`, 3x3 to `out` around a shortcut."""

    kind: ClassVar[str] = "cardinal"
    expand: Width
    compress: Width
    out: Width
    shortcut: ShortcutOption = "B"

    def __post_init__(self) -> None:
        check_widths(self.kind, *map(paper_width, (self.expand, self.compress, self.out)))

    def lower(self, place: Place) -> CardinalBlock:
        """Every width and decision written out."""
        return CardinalBlock(
            name=place.name, expand=place.width(self.expand), compress=place.width(self.compress),
            out=place.width(self.out), stride=place.stride,
            shortcut=lower_shortcut(self.shortcut, place, out=self.out), activation=place.activation,
        )  # fmt: skip
