"""Pre-activation blocks (He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv 1603.05027, figure 4e).
Norm and activation stand before each convolution, so that nothing but sums lies between the blocks.

Deliberate choices: where the shape changes the shortcut starts behind the first activation, which it shares with the
branch, and its projection has no norm, as in the authors' code and timm's. `shared` says so of an identity too: the
paper's section 3.2 wants it of a network's first block.
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
class PreBasicBlock:
    """Norm, activation, 3x3 (stride), norm, activation, 3x3, shortcut; `shared` as above."""

    kind: ClassVar[str] = "pre_basic"
    name: str
    width: int
    out: int
    stride: int
    shared: bool
    shortcut: Shortcut
    activation: g.Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.width, self.out)
        check_window(self.name, kernel=3, stride=self.stride)

    def add(self, draft: Draft, source: str) -> str:
        """Append the block's operations; the name of its output is returned."""
        first = _norm_act(draft, self, 1, source)
        x = draft.conv(f"{self.name}.conv1", first, self.width, kernel=3, stride=self.stride)
        x = draft.conv(f"{self.name}.conv2", _norm_act(draft, self, 2, x), self.out, kernel=3)
        return _finish(draft, self, first if self.shared else source, x)

    def resized(self, widths: Widths) -> "PreBasicBlock":
        """The record of this block in a graph whose channels were cut."""
        return replace(
            self,
            width=widths.out(f"{self.name}.conv1"),
            out=widths.out(f"{self.name}.conv2"),
            shortcut=resized_shortcut(self.shortcut, widths, name=self.name),
        )


@dataclass(frozen=True, kw_only=True)
class PreBottleneckBlock:
    """Norm, activation and convolution three times (1x1, 3x3 with the stride, 1x1), shortcut; `shared` as above."""

    kind: ClassVar[str] = "pre_bottleneck"
    name: str
    reduce: int
    width: int
    out: int
    stride: int
    shared: bool
    shortcut: Shortcut
    activation: g.Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.reduce, self.width, self.out)
        check_window(self.name, kernel=3, stride=self.stride)

    def add(self, draft: Draft, source: str) -> str:
        """Append the block's operations; the name of its output is returned."""
        first = _norm_act(draft, self, 1, source)
        x = draft.conv(f"{self.name}.conv1", first, self.reduce)
        x = draft.conv(f"{self.name}.conv2", _norm_act(draft, self, 2, x), self.width, kernel=3, stride=self.stride)
        x = draft.conv(f"{self.name}.conv3", _norm_act(draft, self, 3, x), self.out)
        return _finish(draft, self, first if self.shared else source, x)

    def resized(self, widths: Widths) -> "PreBottleneckBlock":
        """The record of this block in a graph whose channels were cut."""
        return replace(
            self,
            reduce=widths.out(f"{self.name}.conv1"),
            width=widths.out(f"{self.name}.conv2"),
            out=widths.out(f"{self.name}.conv3"),
            shortcut=resized_shortcut(self.shortcut, widths, name=self.name),
        )


def _norm_act(draft: Draft, block: PreBasicBlock | PreBottleneckBlock, number: int, source: str) -> str:
    x = draft.norm(f"{block.name}.bn{number}", source)
    return draft.activate(f"{block.name}.relu{number}", x, block.activation)


def _finish(draft: Draft, block: PreBasicBlock | PreBottleneckBlock, source: str, x: str) -> str:
    return add_shortcut(
        draft, block.shortcut, name=block.name, source=source, branch=x, out=block.out, stride=block.stride, norm=False
    )


@dataclass(frozen=True, kw_only=True)
class PreBasic(Single):
    """Two 3x3 convolutions, each behind norm and activation, around a shortcut."""

    kind: ClassVar[str] = "pre_basic"
    out: Width
    shortcut: ShortcutOption = "B"
    shared: bool = False

    def __post_init__(self) -> None:
        check_widths(self.kind, paper_width(self.out))

    def lower(self, place: Place) -> PreBasicBlock:
        """Every width and decision written out."""
        out = place.width(self.out)
        return PreBasicBlock(
            name=place.name, width=out, out=out, stride=place.stride,
            shared=self.shared or not place.keeps_shape(self.out),
            shortcut=lower_shortcut(self.shortcut, place, out=self.out), activation=place.activation,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PreBottleneck(Single):
    """1x1, 3x3, 1x1, each behind norm and activation, around a shortcut."""

    kind: ClassVar[str] = "pre_bottleneck"
    width: Width
    out: Width
    shortcut: ShortcutOption = "B"
    shared: bool = False

    def __post_init__(self) -> None:
        check_widths(self.kind, paper_width(self.width), paper_width(self.out))

    def lower(self, place: Place) -> PreBottleneckBlock:
        """Every width and decision written out."""
        width = place.width(self.width)
        return PreBottleneckBlock(
            name=place.name, reduce=width, width=width, out=place.width(self.out), stride=place.stride,
            shared=self.shared or not place.keeps_shape(self.out),
            shortcut=lower_shortcut(self.shortcut, place, out=self.out), activation=place.activation,
        )  # fmt: skip
