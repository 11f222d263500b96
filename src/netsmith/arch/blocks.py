"""Lowered blocks: every width an integer, every decision stated; and the graph of each kind, declared once.

A block's `name` is the prefix of its parameters. The parameter names below it are torchvision's for the family.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from netsmith.arch import graph as g
from netsmith.arch.limits import MAX_WIDTH, check_name, check_widths, check_window
from netsmith.arch.spec import Activation
from netsmith.errors import InputError


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
    activation: Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.width, self.out)
        check_window(self.name, kernel=3, stride=self.stride)


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
    activation: Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.reduce, self.width, self.out, self.groups)
        check_window(self.name, kernel=3, stride=self.stride)


@dataclass(frozen=True, kw_only=True)
class InvertedResidualBlock:
    """1x1 expansion to `expand` channels (absent when None), depthwise, linear 1x1; added to the input when `skip`."""

    kind: ClassVar[str] = "inverted_residual"
    name: str
    expand: int | None
    kernel: int
    out: int
    stride: int
    skip: bool
    activation: Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.expand, self.out)
        check_window(self.name, kernel=self.kernel, stride=self.stride)


@dataclass(frozen=True, kw_only=True)
class MBConvBlock:
    """Inverted residual; squeeze-excitation of width `squeeze` (absent when None) follows the depthwise convolution."""

    kind: ClassVar[str] = "mbconv"
    name: str
    expand: int | None
    kernel: int
    squeeze: int | None
    out: int
    stride: int
    skip: bool
    activation: Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.expand, self.squeeze, self.out)
        check_window(self.name, kernel=self.kernel, stride=self.stride)


Block = BasicBlock | BottleneckBlock | InvertedResidualBlock | MBConvBlock


class Draft:
    """Collects a graph's operations; every output's channels are known as it grows, so blocks state only decisions."""

    def __init__(self, *, channels: int, dimensions: int, norm_eps: float, norm_momentum: float) -> None:
        self.ops: list[g.Op] = []
        self.channels = {"input": channels}
        self.dimensions = dimensions
        self.norm_eps = norm_eps
        self.norm_momentum = norm_momentum

    def add(self, op: g.Op, channels: int) -> str:
        """Append an operation whose output has `channels` channels; its name is returned."""
        if op.name in self.channels:
            raise InputError(f"two operations are called {op.name!r}; block and layer names must differ")
        self.ops.append(op)
        self.channels[op.name] = channels
        return op.name

    def conv(
        self, name: str, source: str, out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> str:
        """A convolution padded to keep the size at stride 1 (odd kernels)."""
        each = self.dimensions
        into = self.channels[source]
        op = g.Conv(
            name=name, source=source, in_channels=into, out_channels=out, kernel=(kernel,) * each,
            stride=(stride,) * each, padding=(kernel // 2,) * each, groups=groups, bias=bias,
        )  # fmt: skip
        return self.add(op, out)

    def norm(self, name: str, source: str) -> str:
        """Batch norm over the source's channels."""
        channels = self.channels[source]
        op = g.Norm(name=name, source=source, channels=channels, eps=self.norm_eps, momentum=self.norm_momentum)
        return self.add(op, channels)

    def activate(self, name: str, source: str, function: Activation) -> str:
        """An activation."""
        return self.add(g.Activate(name=name, source=source, function=function), self.channels[source])

    def total(self, name: str, *parts: str) -> str:
        """An element-wise sum."""
        return self.add(g.Add(name=name, sources=parts), self.channels[parts[0]])

    def max_pool(self, name: str, source: str, *, kernel: int, stride: int) -> str:
        """Max pooling padded by half the kernel."""
        return self._pool(name, source, "max", kernel, stride, kernel // 2)

    def subsample(self, name: str, source: str, *, stride: int) -> str:
        """Every stride-th position."""
        return self._pool(name, source, "max", 1, stride, 0)

    def _pool(
        self, name: str, source: str, reduce: Literal["max", "avg"], kernel: int, stride: int, padding: int
    ) -> str:
        each = self.dimensions
        op = g.Pool(
            name=name, source=source, reduce=reduce,
            kernel=(kernel,) * each, stride=(stride,) * each, padding=(padding,) * each,
        )  # fmt: skip
        return self.add(op, self.channels[source])

    def squeeze_excite(self, name: str, source: str, width: int, function: Activation) -> str:
        """Squeeze-excitation (Hu et al. 2018): global pool, two 1x1 convolutions, sigmoid, gate."""
        channels = self.channels[source]
        pooled = self.add(g.GlobalPool(name=f"{name}.avgpool", source=source), channels)
        squeezed = self.activate(f"{name}.activation", self.conv(f"{name}.fc1", pooled, width, bias=True), function)
        scale = self.activate(f"{name}.scale", self.conv(f"{name}.fc2", squeezed, channels, bias=True), "sigmoid")
        return self.add(g.Gate(name=name, source=source, gate=scale), channels)


def add_block(draft: Draft, block: Block, source: str) -> str:
    """Append a block's operations; the name of its output is returned."""
    match block:
        case BasicBlock():
            return _basic(draft, block, source)
        case BottleneckBlock():
            return _bottleneck(draft, block, source)
        case InvertedResidualBlock():
            return _inverted_residual(draft, block, source)
        case MBConvBlock():
            return _mbconv(draft, block, source)


def _basic(draft: Draft, block: BasicBlock, source: str) -> str:
    name = block.name
    x = draft.norm(f"{name}.bn1", draft.conv(f"{name}.conv1", source, block.width, kernel=3, stride=block.stride))
    x = draft.activate(f"{name}.relu1", x, block.activation)
    x = draft.norm(f"{name}.bn2", draft.conv(f"{name}.conv2", x, block.out, kernel=3))
    return _join(draft, block, source, x)


def _bottleneck(draft: Draft, block: BottleneckBlock, source: str) -> str:
    name = block.name
    first, second = (block.stride, 1) if block.stride_at == "1x1" else (1, block.stride)
    x = draft.norm(f"{name}.bn1", draft.conv(f"{name}.conv1", source, block.reduce, stride=first))
    x = draft.activate(f"{name}.relu1", x, block.activation)
    x = draft.conv(f"{name}.conv2", x, block.width, kernel=3, stride=second, groups=block.groups)
    x = draft.activate(f"{name}.relu2", draft.norm(f"{name}.bn2", x), block.activation)
    x = draft.norm(f"{name}.bn3", draft.conv(f"{name}.conv3", x, block.out))
    return _join(draft, block, source, x)


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
            x = draft.total(f"{name}.add", x, draft.add(pad, front + draft.channels[taken] + back))
        case None:
            pass
    return draft.activate(f"{name}.relu", x, block.activation)


def _inverted_residual(draft: Draft, block: InvertedResidualBlock, source: str) -> str:
    prefix = f"{block.name}.conv"
    x, at = source, 0
    if block.expand is not None:
        x, at = _conv_norm_act(draft, f"{prefix}.0", x, block.expand, activation=block.activation), 1
    x = _depthwise(draft, f"{prefix}.{at}", x, block)
    x = draft.norm(f"{prefix}.{at + 2}", draft.conv(f"{prefix}.{at + 1}", x, block.out))
    return draft.total(f"{block.name}.add", x, source) if block.skip else x


def _mbconv(draft: Draft, block: MBConvBlock, source: str) -> str:
    prefix = f"{block.name}.block"
    x, at = source, 0
    if block.expand is not None:
        x, at = _conv_norm_act(draft, f"{prefix}.0", x, block.expand, activation=block.activation), 1
    x, at = _depthwise(draft, f"{prefix}.{at}", x, block), at + 1
    if block.squeeze is not None:
        x, at = draft.squeeze_excite(f"{prefix}.{at}", x, block.squeeze, block.activation), at + 1
    x = draft.norm(f"{prefix}.{at}.1", draft.conv(f"{prefix}.{at}.0", x, block.out))
    return draft.total(f"{block.name}.add", x, source) if block.skip else x


def _conv_norm_act(draft: Draft, name: str, source: str, out: int, *, activation: Activation) -> str:
    x = draft.norm(f"{name}.1", draft.conv(f"{name}.0", source, out))
    return draft.activate(f"{name}.2", x, activation)


def _depthwise(draft: Draft, name: str, source: str, block: InvertedResidualBlock | MBConvBlock) -> str:
    channels = draft.channels[source]
    x = draft.conv(f"{name}.0", source, channels, kernel=block.kernel, stride=block.stride, groups=channels)
    return draft.activate(f"{name}.2", draft.norm(f"{name}.1", x), block.activation)


def resized(block: Block, *, convs: Mapping[str, g.Conv], pads: Mapping[str, g.Pad]) -> Block:
    """The record of a block whose graph was given other widths; `convs` and `pads` are the new operations by name.

    The inverse of `add_block` for widths; nothing else of a block changes.
    """

    def out(name: str) -> int:
        return convs[f"{block.name}.{name}"].out_channels

    match block:
        case BasicBlock():
            shortcut = _resized_shortcut(block, pads)
            return replace(block, width=out("conv1"), out=out("conv2"), shortcut=shortcut)
        case BottleneckBlock():
            return replace(
                block, reduce=out("conv1"), width=out("conv2"), out=out("conv3"),
                groups=convs[f"{block.name}.conv2"].groups, shortcut=_resized_shortcut(block, pads),
            )  # fmt: skip
        case InvertedResidualBlock(expand=None):
            return replace(block, out=out("conv.1"))
        case InvertedResidualBlock():
            return replace(block, expand=out("conv.0.0"), out=out("conv.2"))
        case MBConvBlock():
            depthwise = 0 if block.expand is None else 1
            project = depthwise + (1 if block.squeeze is None else 2)
            return replace(
                block,
                expand=None if block.expand is None else out("block.0.0"),
                squeeze=None if block.squeeze is None else out(f"block.{depthwise + 1}.fc1"),
                out=out(f"block.{project}.0"),
            )


def _resized_shortcut(block: BasicBlock | BottleneckBlock, pads: Mapping[str, g.Pad]) -> Shortcut:
    if not isinstance(block.shortcut, ZeroPad):
        return block.shortcut
    pad = pads[f"{block.name}.pad"]
    return ZeroPad(front=pad.front, back=pad.back)
