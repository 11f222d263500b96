"""Inverted residuals: MobileNetV2's block (Sandler et al. 2018, table 1), MobileNetV3's bneck (Howard et al. 2019,
figure 4), EfficientNet's MBConv (Tan and Le 2019) and EfficientNetV2's fused MBConv (Tan and Le 2021, figure 2).

Deliberate choices: parameter names are torchvision's; whether a block expands or skips is decided on the paper's
widths.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Draft, Widths
from netsmith.arch.blocks.place import Place
from netsmith.arch.blocks.single import Single
from netsmith.arch.codec import added
from netsmith.arch.limits import check_name, check_share, check_widths, check_window
from netsmith.arch.widths import Width, paper_width, round_channels
from netsmith.errors import InputError

BlockPadding = Literal["half", "same"]
"""torch's symmetric padding or TensorFlow's, which differ where a block strides."""


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
    activation: g.Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.expand, self.out)
        check_window(self.name, kernel=self.kernel, stride=self.stride)

    def add(self, draft: Draft, source: str) -> str:
        """Append the block's operations; the name of its output is returned."""
        prefix = f"{self.name}.conv"
        x, at = _expand_and_filter(draft, prefix, source, self)
        x = draft.norm(f"{prefix}.{at + 1}", draft.conv(f"{prefix}.{at}", x, self.out))
        return draft.total(f"{self.name}.add", x, source) if self.skip else x

    def resized(self, widths: Widths) -> "InvertedResidualBlock":
        """The record of this block in a graph whose channels were cut."""
        prefix = f"{self.name}.conv"
        if self.expand is None:
            return replace(self, out=widths.out(f"{prefix}.1"))
        return replace(self, expand=widths.out(f"{prefix}.0.0"), out=widths.out(f"{prefix}.2"))


@dataclass(frozen=True, kw_only=True)
class MBConvBlock:
    """Inverted residual; squeeze-excitation of width `squeeze` (absent when None) follows the depthwise convolution.

    `squeeze_activation` is that between its two convolutions (the block's when None), `gate` the one behind them.
    """

    kind: ClassVar[str] = "mbconv"
    name: str
    expand: int | None
    kernel: int
    squeeze: int | None
    out: int
    stride: int
    skip: bool
    activation: g.Activation
    squeeze_activation: g.Activation | None = added(None)
    gate: g.Activation = added("sigmoid")
    padding: BlockPadding = added("half")

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.expand, self.squeeze, self.out)
        check_window(self.name, kernel=self.kernel, stride=self.stride)

    def add(self, draft: Draft, source: str) -> str:
        """Append the block's operations; the name of its output is returned."""
        prefix = f"{self.name}.block"
        x, at = _expand_and_filter(draft, prefix, source, self, padding=self.padding)
        if self.squeeze is not None:
            function = self.squeeze_activation or self.activation
            x, at = draft.squeeze_excite(f"{prefix}.{at}", x, self.squeeze, function, gate=self.gate), at + 1
        x = draft.norm(f"{prefix}.{at}.1", draft.conv(f"{prefix}.{at}.0", x, self.out))
        return draft.total(f"{self.name}.add", x, source) if self.skip else x

    def resized(self, widths: Widths) -> "MBConvBlock":
        """The record of this block in a graph whose channels were cut."""
        prefix = f"{self.name}.block"
        depthwise = 0 if self.expand is None else 1
        project = depthwise + (1 if self.squeeze is None else 2)
        return replace(
            self,
            expand=None if self.expand is None else widths.out(f"{prefix}.0.0"),
            squeeze=None if self.squeeze is None else widths.out(f"{prefix}.{depthwise + 1}.fc1"),
            out=widths.out(f"{prefix}.{project}.0"),
        )


@dataclass(frozen=True, kw_only=True)
class FusedMBConvBlock:
    """A full convolution to `expand` channels and a linear 1x1; without expansion one convolution, activated; added to
    the input when `skip`."""

    kind: ClassVar[str] = "fused_mbconv"
    name: str
    expand: int | None
    kernel: int
    out: int
    stride: int
    skip: bool
    activation: g.Activation
    padding: BlockPadding = added("half")

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.expand, self.out)
        check_window(self.name, kernel=self.kernel, stride=self.stride)

    def add(self, draft: Draft, source: str) -> str:
        """Append the block's operations; the name of its output is returned."""
        prefix = f"{self.name}.block"
        x = draft.conv_norm_act(
            f"{prefix}.0", source, self.expand or self.out,
            kernel=self.kernel, stride=self.stride, padding=self.padding, activation=self.activation,
        )  # fmt: skip
        if self.expand is not None:
            x = draft.norm(f"{prefix}.1.1", draft.conv(f"{prefix}.1.0", x, self.out))
        return draft.total(f"{self.name}.add", x, source) if self.skip else x

    def resized(self, widths: Widths) -> "FusedMBConvBlock":
        """The record of this block in a graph whose channels were cut."""
        prefix = f"{self.name}.block"
        if self.expand is None:
            return replace(self, out=widths.out(f"{prefix}.0.0"))
        return replace(self, expand=widths.out(f"{prefix}.0.0"), out=widths.out(f"{prefix}.1.0"))


def _expand_and_filter(
    draft: Draft,
    prefix: str,
    source: str,
    block: InvertedResidualBlock | MBConvBlock,
    *,
    padding: BlockPadding = "half",
) -> tuple[str, int]:
    """The 1x1 expansion, if there is one, and the depthwise convolution: the output, the number of the next layer."""
    x, at = source, 0
    if block.expand is not None:
        x, at = draft.conv_norm_act(f"{prefix}.0", x, block.expand, activation=block.activation), 1
    channels = draft.channels(x)
    x = draft.conv_norm_act(
        f"{prefix}.{at}", x, channels,
        kernel=block.kernel, stride=block.stride, groups=channels, padding=padding, activation=block.activation,
    )  # fmt: skip
    return x, at + 1


@dataclass(frozen=True, kw_only=True)
class InvertedResidual(Single):
    """Expand 1x1, depthwise, linear 1x1 (Sandler et al. 2018, table 1); no expand convolution when `expand` is 1."""

    kind: ClassVar[str] = "inverted_residual"
    out: Width
    expand: float
    kernel: int = 3

    def __post_init__(self) -> None:
        check_widths(self.kind, paper_width(self.out))
        check_window(self.kind, kernel=self.kernel, stride=1)
        _check_expand(self.expand)

    def lower(self, place: Place) -> InvertedResidualBlock:
        """Every width and decision written out."""
        return InvertedResidualBlock(
            name=place.name, expand=_expanded(place, self.expand), kernel=self.kernel, out=place.width(self.out),
            stride=place.stride, skip=place.keeps_shape(self.out), activation=place.activation,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MBConv(Single):
    """Inverted residual with squeeze-excitation (Tan and Le 2019, table 1); `squeeze` is a share of the input width."""

    kind: ClassVar[str] = "mbconv"
    out: Width
    expand: float
    kernel: int = 3
    squeeze: float | None = 0.25
    padding: BlockPadding = added("half")

    def __post_init__(self) -> None:
        check_widths(self.kind, paper_width(self.out))
        check_window(self.kind, kernel=self.kernel, stride=1)
        _check_expand(self.expand)
        check_share(self.kind, "squeeze", self.squeeze)

    def lower(self, place: Place) -> MBConvBlock:
        """Every width and decision written out."""
        squeeze = None if self.squeeze is None else max(1, int(place.channels * self.squeeze))
        return MBConvBlock(
            name=place.name, expand=_expanded(place, self.expand), kernel=self.kernel, squeeze=squeeze,
            out=place.width(self.out), stride=place.stride, skip=place.keeps_shape(self.out),
            activation=place.activation, padding=self.padding,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bneck(Single):
    """MobileNetV3's row (Howard et al. 2019, tables 1 and 2): the expanded width itself, whether squeeze-excitation is
    there (a quarter of that width, rounded to 8; ReLU and a hard sigmoid), and an activation of its own.

    No expand convolution when the paper's expanded width is that of the input.
    """

    kind: ClassVar[str] = "bneck"
    out: Width
    expand: Width
    kernel: int
    squeeze: bool
    activation: g.Activation

    def __post_init__(self) -> None:
        check_widths(self.kind, paper_width(self.out), paper_width(self.expand))
        check_window(self.kind, kernel=self.kernel, stride=1)

    def lower(self, place: Place) -> MBConvBlock:
        """Every width and decision written out."""
        expand = None if paper_width(self.expand) == place.paper_in else place.width(self.expand)
        return MBConvBlock(
            name=place.name, expand=expand, kernel=self.kernel,
            squeeze=round_channels((expand or place.channels) // 4) if self.squeeze else None,
            out=place.width(self.out), stride=place.stride, skip=place.keeps_shape(self.out),
            activation=self.activation, squeeze_activation="relu", gate="hard_sigmoid",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FusedMBConv(Single):
    """MBConv with expansion and depthwise convolution in one (Tan and Le 2021, figure 2); one convolution when `expand`
    is 1."""

    kind: ClassVar[str] = "fused_mbconv"
    out: Width
    expand: float
    kernel: int = 3
    padding: BlockPadding = added("half")

    def __post_init__(self) -> None:
        check_widths(self.kind, paper_width(self.out))
        check_window(self.kind, kernel=self.kernel, stride=1)
        _check_expand(self.expand)

    def lower(self, place: Place) -> FusedMBConvBlock:
        """Every width and decision written out."""
        return FusedMBConvBlock(
            name=place.name, expand=_expanded(place, self.expand), kernel=self.kernel, out=place.width(self.out),
            stride=place.stride, skip=place.keeps_shape(self.out), activation=place.activation,
            padding=self.padding,
        )  # fmt: skip


def _check_expand(expand: float) -> None:
    if not 1.0 <= expand <= 64.0:
        raise InputError(f"expand is {expand:g}; it must be within 1..64")


def _expanded(place: Place, ratio: float) -> int | None:
    return None if ratio == 1.0 else round_channels(place.channels * ratio)
