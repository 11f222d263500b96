"""Spec: a network as its paper's table states it, with the multipliers that scale it.

Deliberate choices: the table stays unscaled and the multipliers stand beside it, so scaling composes without rounding
twice and every decision (is there an expand convolution, a skip, a projection) is made on the paper's widths, never on
rounded ones. Widths are `int` (scaled), `Fixed` (never scaled) or `AtLeast` (scaled up only, as MobileNetV2's last
convolution).
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from netsmith.errors import InputError

Activation = Literal["relu", "relu6", "silu", "hard_swish", "sigmoid", "hard_sigmoid"]
Shortcut = Literal["A", "B", "C", "none"]


@dataclass(frozen=True, kw_only=True)
class Input:
    """What the network reads: `size` has one entry per dimension, so 1-D and 3-D networks are the same records."""

    kind: Literal["image"] = "image"
    channels: int = 3
    size: tuple[int, ...] = (224, 224)

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= 1024 or not self.size or not all(1 <= side <= 65536 for side in self.size):
            raise InputError(
                f"an input of {self.channels} channels and size {self.size} is outside 1..1024 and 1..65536"
            )


@dataclass(frozen=True)
class Fixed:
    """A width or a number of repeats that scaling leaves alone."""

    kind: ClassVar[str] = "fixed"
    value: int


@dataclass(frozen=True)
class AtLeast:
    """A width that scaling raises but never lowers."""

    kind: ClassVar[str] = "at_least"
    value: int


Width = int | Fixed | AtLeast
Repeats = int | Fixed


@dataclass(frozen=True, kw_only=True)
class Basic:
    """Two 3x3 convolutions around a shortcut (He et al. 2016, figure 5 left)."""

    kind: ClassVar[str] = "basic"
    out: Width
    shortcut: Shortcut = "B"


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
    shortcut: Shortcut = "B"
    stride_at: Literal["1x1", "3x3"] = "3x3"


@dataclass(frozen=True, kw_only=True)
class InvertedResidual:
    """Expand 1x1, depthwise, linear 1x1 (Sandler et al. 2018, table 1); no expand convolution when `expand` is 1."""

    kind: ClassVar[str] = "inverted_residual"
    out: Width
    expand: float
    kernel: int = 3


@dataclass(frozen=True, kw_only=True)
class MBConv:
    """Inverted residual with squeeze-excitation (Tan and Le 2019, table 1); `squeeze` is a share of the input width."""

    kind: ClassVar[str] = "mbconv"
    out: Width
    expand: float
    kernel: int = 3
    squeeze: float | None = 0.25


BlockSpec = Basic | Bottleneck | InvertedResidual | MBConv


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the paper's table: a block and how often it stands in a row."""

    block: BlockSpec
    repeats: Repeats = 1


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Rows at one resolution; the first block of the stage strides."""

    rows: tuple[Row, ...]
    stride: int = 1


@dataclass(frozen=True, kw_only=True)
class StemConv:
    """Convolution, norm, activation before the first stage. `conv` and `norm` are the parameter names."""

    kind: ClassVar[str] = "conv"
    out: Width
    kernel: int
    stride: int
    conv: str
    norm: str


@dataclass(frozen=True, kw_only=True)
class StemPool:
    """Max pooling before the first stage."""

    kind: ClassVar[str] = "pool"
    kernel: int
    stride: int
    name: str = "maxpool"


StemSpec = StemConv | StemPool


@dataclass(frozen=True, kw_only=True)
class PooledHead:
    """Optional 1x1 convolution, global average pooling, dropout, one linear layer."""

    kind: ClassVar[str] = "pooled"
    linear: str
    classes: int = 1000
    dropout: float = 0.0
    conv: Width | None = None
    conv_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A network as a value: the unscaled table and its multipliers.

    Attributes:
        family: the key of the network class.
        name: what the network is called; scaled ones are derived names.
        input, stem, stages, head: the paper's table.
        small_stem: the stem for pictures too small for `stem`.
        block_name: template of a block's parameter prefix, with {stage} from 1, {index} from 0 within the stage,
            {running} from 1 over all.
        activation, norm_eps, norm_momentum: of every block.
        drop_path: rate of the last block in training, growing linearly from 0.
        width, depth: the multipliers.
    """

    family: str
    name: str
    input: Input
    stem: tuple[StemSpec, ...]
    small_stem: tuple[StemSpec, ...]
    stages: tuple[Stage, ...]
    head: PooledHead
    block_name: str
    activation: Activation = "relu"
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1
    drop_path: float = 0.0
    width: float = 1.0
    depth: float = 1.0


def with_classes(spec: Spec, classes: int) -> Spec:
    """The same network with another number of classes (at least 1)."""
    if not 1 <= classes <= 1_000_000:
        raise InputError(f"num_classes is {classes}; it must be between 1 and 1000000")
    return replace(spec, head=replace(spec.head, classes=classes))


def with_channels(spec: Spec, channels: int) -> Spec:
    """The same network for inputs of another number of channels (at least 1)."""
    return replace(spec, input=replace(spec.input, channels=channels))
