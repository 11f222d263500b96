"""Residual blocks: the basic and the bottleneck block of He et al. 2016, figure 5, with ResNeXt's groups, and with
squeeze-excitation at the branch's end (Hu et al. 2018, arXiv 1709.01507, figure 3).

Deliberate choices: parameter names are torchvision's, those of the squeeze-excitation (`se.fc1`, `se.fc2`) timm's.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Draft, Widths
from netsmith.arch.blocks.place import Place
from netsmith.arch.blocks.shortcuts import Shortcut, ShortcutOption, add_shortcut, lower_shortcut, resized_shortcut
from netsmith.arch.blocks.single import Single
from netsmith.arch.codec import added
from netsmith.arch.limits import check_name, check_share, check_widths, check_window
from netsmith.arch.widths import Width, paper_width, round_channels
from netsmith.errors import InputError


@dataclass(frozen=True, kw_only=True)
class BasicBlock:
    """3x3 (stride), 3x3, shortcut. `shortcut` None is the plain twin; `squeeze` None has no squeeze-excitation."""

    kind: ClassVar[str] = "basic"
    name: str
    width: int
    out: int
    stride: int
    squeeze: int | None = added(None)
    shortcut: Shortcut
    activation: g.Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.width, self.out, self.squeeze)
        check_window(self.name, kernel=3, stride=self.stride)

    def add(self, draft: Draft, source: str) -> str:
        """Append the block's operations; the name of its output is returned."""
        name = self.name
        x = draft.norm(f"{name}.bn1", draft.conv(f"{name}.conv1", source, self.width, kernel=3, stride=self.stride))
        x = draft.activate(f"{name}.relu1", x, self.activation)
        x = draft.norm(f"{name}.bn2", draft.conv(f"{name}.conv2", x, self.out, kernel=3))
        return _finish(draft, self, source, x)

    def resized(self, widths: Widths) -> "BasicBlock":
        """The record of this block in a graph whose channels were cut."""
        return replace(
            self,
            width=widths.out(f"{self.name}.conv1"),
            out=widths.out(f"{self.name}.conv2"),
            squeeze=None if self.squeeze is None else widths.out(f"{self.name}.se.fc1"),
            shortcut=resized_shortcut(self.shortcut, widths, name=self.name),
        )


@dataclass(frozen=True, kw_only=True)
class BottleneckBlock:
    """1x1, 3x3 in groups, 1x1, shortcut; `squeeze` None has no squeeze-excitation."""

    kind: ClassVar[str] = "bottleneck"
    name: str
    reduce: int
    width: int
    out: int
    groups: int
    stride: int
    stride_at: Literal["1x1", "3x3"]
    squeeze: int | None = added(None)
    shortcut: Shortcut
    activation: g.Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.reduce, self.width, self.out, self.groups, self.squeeze)
        check_window(self.name, kernel=3, stride=self.stride)

    def add(self, draft: Draft, source: str) -> str:
        """Append the block's operations; the name of its output is returned."""
        name = self.name
        first, second = (self.stride, 1) if self.stride_at == "1x1" else (1, self.stride)
        x = draft.norm(f"{name}.bn1", draft.conv(f"{name}.conv1", source, self.reduce, stride=first))
        x = draft.activate(f"{name}.relu1", x, self.activation)
        x = draft.conv(f"{name}.conv2", x, self.width, kernel=3, stride=second, groups=self.groups)
        x = draft.activate(f"{name}.relu2", draft.norm(f"{name}.bn2", x), self.activation)
        x = draft.norm(f"{name}.bn3", draft.conv(f"{name}.conv3", x, self.out))
        return _finish(draft, self, source, x)

    def resized(self, widths: Widths) -> "BottleneckBlock":
        """The record of this block in a graph whose channels were cut."""
        return replace(
            self,
            reduce=widths.out(f"{self.name}.conv1"),
            width=widths.out(f"{self.name}.conv2"),
            out=widths.out(f"{self.name}.conv3"),
            groups=widths.conv(f"{self.name}.conv2").groups,
            squeeze=None if self.squeeze is None else widths.out(f"{self.name}.se.fc1"),
            shortcut=resized_shortcut(self.shortcut, widths, name=self.name),
        )


def _finish(draft: Draft, block: BasicBlock | BottleneckBlock, source: str, x: str) -> str:
    if block.squeeze is not None:
        x = draft.squeeze_excite(f"{block.name}.se", x, block.squeeze, block.activation)
    x = add_shortcut(
        draft, block.shortcut, name=block.name, source=source, branch=x, out=block.out, stride=block.stride
    )
    return draft.activate(f"{block.name}.relu", x, block.activation)


@dataclass(frozen=True, kw_only=True)
class Basic(Single):
    """Two 3x3 convolutions around a shortcut (He et al. 2016, figure 5 left); `squeeze` is a share of `out`."""

    kind: ClassVar[str] = "basic"
    out: Width
    shortcut: ShortcutOption = "B"
    squeeze: float | None = added(None)

    def __post_init__(self) -> None:
        check_widths(self.kind, paper_width(self.out))
        check_share(self.kind, "squeeze", self.squeeze)

    def lower(self, place: Place) -> BasicBlock:
        """Every width and decision written out."""
        out = place.width(self.out)
        return BasicBlock(
            name=place.name, width=out, out=out, stride=place.stride, squeeze=_squeezed(self.squeeze, out),
            shortcut=lower_shortcut(self.shortcut, place, out=self.out), activation=place.activation,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bottleneck(Single):
    """1x1, 3x3, 1x1 around a shortcut (He et al. 2016, figure 5 right); groups > 1 is ResNeXt's aggregated block.

    `width` is the 3x3's number of channels over all groups. `stride_at` names the convolution that strides: "3x3"
    (v1.5) or "1x1" (v1). `squeeze` is a share of `out`.
    """

    kind: ClassVar[str] = "bottleneck"
    width: Width
    out: Width
    groups: int = 1
    shortcut: ShortcutOption = "B"
    stride_at: Literal["1x1", "3x3"] = "3x3"
    squeeze: float | None = added(None)

    def __post_init__(self) -> None:
        check_share(self.kind, "squeeze", self.squeeze)
        check_widths(self.kind, paper_width(self.width), paper_width(self.out), self.groups)
        if paper_width(self.width) % self.groups:
            raise InputError(
                f"{self.kind}: a width of {paper_width(self.width)} does not split in {self.groups} groups"
            )

    def lower(self, place: Place) -> BottleneckBlock:
        """Every width and decision written out."""
        out, width = place.width(self.out), place.width(self.width, groups=self.groups)
        return BottleneckBlock(
            name=place.name, reduce=width, width=width, out=out, groups=self.groups, stride=place.stride,
            stride_at=self.stride_at, squeeze=_squeezed(self.squeeze, out),
            shortcut=lower_shortcut(self.shortcut, place, out=self.out), activation=place.activation,
        )  # fmt: skip


def _squeezed(share: float | None, out: int) -> int | None:
    """Channels of the squeeze, a multiple of 8 as timm's."""
    return None if share is None else round_channels(out * share)
