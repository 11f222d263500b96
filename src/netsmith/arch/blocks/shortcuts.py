"""Shortcuts: what a residual block adds to its branch.

Options A, B and C are He et al. 2016 (arXiv 1512.03385), section 4.1; D is ResNet-D of He et al. 2019 (arXiv
1812.01187), figure 2c.

Deliberate choices: which kind a block gets is decided on the paper's widths; the names (`downsample`) are torchvision's
and, for D, timm's; a window of D's pool that hangs over the end averages what is there.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Draft, Widths
from netsmith.arch.blocks.place import Place
from netsmith.arch.limits import MAX_WIDTH
from netsmith.arch.widths import Width
from netsmith.errors import InputError

ShortcutOption = Literal["A", "B", "C", "D", "none"]
"""A: identity, zero-padded where shapes change. B: identity, projected where shapes change. C: projected everywhere.
D: as B, but the projection strides by an average pool before it. none: the plain twin."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The shortcut is the block's input."""

    kind: ClassVar[str] = "identity"


@dataclass(frozen=True, kw_only=True)
class Projection:
    """The shortcut is a strided 1x1 convolution and norm (no norm in pre-activation blocks)."""

    kind: ClassVar[str] = "projection"


@dataclass(frozen=True, kw_only=True)
class PooledProjection:
    """The shortcut is an average pool that strides, a 1x1 convolution and norm, so that no position is skipped."""

    kind: ClassVar[str] = "pooled_projection"


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


Shortcut = Identity | Projection | PooledProjection | ZeroPad | None


def lower_shortcut(option: ShortcutOption, place: Place, *, out: Width) -> Shortcut:
    """The shortcut of a block that puts out `out` channels on the paper's scale."""
    same = place.keeps_shape(out)
    match option:
        case "none":
            return None
        case "C":
            return Projection()
        case _ if same:
            return Identity()
        case "A":
            added = place.width(out) - place.channels
            return ZeroPad(front=added // 2, back=added - added // 2)
        case "B":
            return Projection()
        case "D":
            return PooledProjection()


def add_shortcut(
    draft: Draft, shortcut: Shortcut, *, name: str, source: str, branch: str, out: int, stride: int, norm: bool = True
) -> str:
    """Append a block's shortcut and the sum with its branch; the name of the output is returned.

    Args:
        draft: the graph in the making.
        shortcut: the record; None leaves the branch alone.
        name: prefix of the block's parameters.
        source: what the shortcut reads.
        branch: what the branch puts out, `out` channels.
        out, stride: of the block.
        norm: whether projections end in a norm.
    """
    match shortcut:
        case None:
            return branch
        case Identity():
            x = source
        case Projection():
            x = draft.conv(f"{name}.downsample.0", source, out, stride=stride)
            x = draft.norm(f"{name}.downsample.1", x) if norm else x
        case PooledProjection():
            x = source
            if stride > 1:
                x = draft.pool(f"{name}.downsample.0", x, "avg", kernel=stride, stride=stride, padding=0, ceil=True)
            x = draft.conv(f"{name}.downsample.1", x, out)
            x = draft.norm(f"{name}.downsample.2", x) if norm else x
        case ZeroPad(front=front, back=back):
            x = draft.subsample(f"{name}.subsample", source, stride=stride)
            x = draft.add(g.Pad(name=f"{name}.pad", source=x, front=front, back=back))
    return draft.total(f"{name}.add", branch, x)


def resized_shortcut(shortcut: Shortcut, widths: Widths, *, name: str) -> Shortcut:
    """The record of the shortcut of block `name` in a graph whose channels were cut."""
    if not isinstance(shortcut, ZeroPad):
        return shortcut
    pad = widths.pad(f"{name}.pad")
    return ZeroPad(front=pad.front, back=pad.back)
