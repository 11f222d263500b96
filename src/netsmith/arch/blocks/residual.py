"""Residual blocks: the basic and the bottleneck block of He et al. 2016, figure 5, with ResNeXt's groups.

Deliberate choices: parameter names are torchvision's; the kind of shortcut is decided on the paper's widths.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Draft, Widths
from netsmith.arch.blocks.place import Place
from netsmith.arch.limits import MAX_WIDTH, check_name, check_widths, check_window
from netsmith.arch.widths import Width, paper_width
from netsmith.errors import InputError

ShortcutOption = Literal["A", "B", "C", "none"]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The shortcut is the block's input."""

    kind: ClassVar[str] = "identity"


@dataclass(frozen=True, kw_only=True)
class Projection:
    """The shortcut is a strided 1x1 convolution and norm."""

    kind: ClassVar[str] = "projection"


@dataclass(frozen=True, kw_only=True)
class ZeroPad:
    """Option A: the shortcut takes every stride-th position and adds zero channels before and behind."""

    kind: ClassVar[str] = "zero_pad"
    front: int
    back: int

    def __post_init__(self) -> None:
        if not (0 <= self.front <= MAX_WIDTH and 0 <= self.back <= MAX_WIDTH):
            raise InputError(
                f"a zero-padded shortcut adds {self.front} and {self.back} channels; both must be within 0..{MAX_WIDTH}"
            )


Shortcut = Identity | Projection | ZeroPad | None


@dataclass(frozen=True, kw_only=True)
class BasicBlock:
    """3x3 (stride), 3x3, shortcut. `shortcut` None is the plain twin."""

    kind: ClassVar[str] = "basic"
    name: str
    width: int
    out: int
    stride: int
    shortcut: Shortcut
    activation: g.Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.width, self.out)
        check_window(self.name, kernel=3, stride=self.stride)

    def add(self, draft: Draft, source: str) -> str:
        """Append the block's operations; the name of its output is returned."""
        name = self.name
        x = draft.norm(f"{name}.bn1", draft.conv(f"{name}.conv1", source, self.width, kernel=3, stride=self.stride))
        x = draft.activate(f"{name}.relu1", x, self.activation)
        x = draft.norm(f"{name}.bn2", draft.conv(f"{name}.conv2", x, self.out, kernel=3))
        return _join(draft, self, source, x)

    def resized(self, widths: Widths) -> "BasicBlock":
        """The record of this block in a graph whose channels were cut."""
        return replace(
            self,
            width=widths.out(f"{self.name}.conv1"),
            out=widths.out(f"{self.name}.conv2"),
            shortcut=_resized_shortcut(self, widths),
        )


@dataclass(frozen=True, kw_only=True)
class BottleneckBlock:
    """1x1, 3x3 in groups, 1x1, shortcut."""

    kind: ClassVar[str] = "bottleneck"
    name: str
    reduce: int
    width: int
    out: int
    groups: int
    stride: int
    stride_at: Literal["1x1", "3x3"]
    shortcut: Shortcut
    activation: g.Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.reduce, self.width, self.out, self.groups)
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
        return _join(draft, self, source, x)

    def resized(self, widths: Widths) -> "BottleneckBlock":
        """The record of this block in a graph whose channels were cut."""
        return replace(
            self,
            reduce=widths.out(f"{self.name}.conv1"),
            width=widths.out(f"{self.name}.conv2"),
            out=widths.out(f"{self.name}.conv3"),
            groups=widths.conv(f"{self.name}.conv2").groups,
            shortcut=_resized_shortcut(self, widths),
        )


def _join(draft: Draft, block: BasicBlock | BottleneckBlock, source: str, x: str) -> str:
    name = block.name
    match block.shortcut:
        case Identity():
            x = draft.total(f"{name}.add", x, source)
        case Projection():
            projected = draft.conv(f"{name}.downsample.0", source, block.out, stride=block.stride)
            x = draft.total(f"{name}.add", x, draft.norm(f"{name}.downsample.1", projected))
        case ZeroPad(front=front, back=back):
            taken = draft.subsample(f"{name}.subsample", source, stride=block.stride)
            pad = g.Pad(name=f"{name}.pad", source=taken, front=front, back=back)
            x = draft.total(f"{name}.add", x, draft.add(pad))
        case None:
            pass
    return draft.activate(f"{name}.relu", x, block.activation)


def _resized_shortcut(block: BasicBlock | BottleneckBlock, widths: Widths) -> Shortcut:
    if not isinstance(block.shortcut, ZeroPad):
        return block.shortcut
    pad = widths.pad(f"{block.name}.pad")
    return ZeroPad(front=pad.front, back=pad.back)


@dataclass(frozen=True, kw_only=True)
class Basic:
    """Two 3x3 convolutions around a shortcut (He et al. 2016, figure 5 left)."""

    kind: ClassVar[str] = "basic"
    out: Width
    shortcut: ShortcutOption = "B"

    reduction: ClassVar[bool] = False
    layers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_widths(self.kind, paper_width(self.out))

    def paper_out(self, paper_in: int) -> int:
        """Channels of the output on the paper's scale."""
        return paper_width(self.out)

    def lower(self, place: Place) -> BasicBlock:
        """Every width and decision written out."""
        out = place.width(self.out)
        return BasicBlock(
            name=place.name, width=out, out=out, stride=place.stride, activation=place.activation,
            shortcut=_lower_shortcut(self.shortcut, place, same=place.keeps_shape(self.out), out=out),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """1x1, 3x3, 1x1 around a shortcut (He et al. 2016, figure 5 right); groups > 1 is ResNeXt's aggregated block.

    `width` is the 3x3's number of channels over all groups. `stride_at` names the convolution that strides: "3x3"
    (v1.5) or "1x1" (v1).
    """

    kind: ClassVar[str] = "bottleneck"
    width: Width
    out: Width
    groups: int = 1
    shortcut: ShortcutOption = "B"
    stride_at: Literal["1x1", "3x3"] = "3x3"

    reduction: ClassVar[bool] = False
    layers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_widths(self.kind, paper_width(self.width), paper_width(self.out), self.groups)
        if paper_width(self.width) % self.groups:
            raise InputError(
                f"{self.kind}: a width of {paper_width(self.width)} does not split in {self.groups} groups"
            )

    def paper_out(self, paper_in: int) -> int:
        """Channels of the output on the paper's scale."""
        return paper_width(self.out)

    def lower(self, place: Place) -> BottleneckBlock:
        """Every width and decision written out."""
        out, width = place.width(self.out), place.width(self.width, groups=self.groups)
        return BottleneckBlock(
            name=place.name, reduce=width, width=width, out=out, groups=self.groups, stride=place.stride,
            stride_at=self.stride_at, activation=place.activation,
            shortcut=_lower_shortcut(self.shortcut, place, same=place.keeps_shape(self.out), out=out),
        )  # fmt: skip


def _lower_shortcut(option: ShortcutOption, place: Place, *, same: bool, out: int) -> Shortcut:
    match option:
        case "none":
            return None
        case "C":
            return Projection()
        case "B":
            return Identity() if same else Projection()
        case "A":
            added = out - place.channels
            return Identity() if same else ZeroPad(front=added // 2, back=added - added // 2)
