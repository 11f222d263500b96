"""Pieces: single layers as records. They make stems, plain networks such as VGG, branches and heads.

Deliberate choices: a convolution states all it is (norm, bias, padding, groups, activation), so networks without norms
are records like any other. In a stage the stage's stride decides, and a pool that no longer strides is left out; in a
stem, a branch or a head a piece keeps its own stride.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Draft, Padding, Size, Widths
from netsmith.arch.blocks.place import Place
from netsmith.arch.codec import added
from netsmith.arch.limits import check_name, check_template, check_widths, check_window
from netsmith.arch.widths import Width, paper_width
from netsmith.errors import InputError

NAME_FIELDS = ("layer", "next")


@dataclass(frozen=True, kw_only=True)
class ConvBlock:
    """Convolution, norm (absent when None), activation (absent when None); `conv` and `norm` are parameter names."""

    kind: ClassVar[str] = "conv"
    conv: str
    norm: str | None
    out: int
    kernel: Size
    stride: int
    activation: g.Activation | None
    padding: Padding = added("half")
    groups: int = added(1)
    bias: bool = added(False)

    def __post_init__(self) -> None:
        check_name(self.conv)
        if self.norm is not None:
            check_name(self.norm)
        check_widths(self.conv, self.out, self.groups)
        check_window(self.conv, kernel=self.kernel, stride=self.stride, padding=self.padding)

    @property
    def name(self) -> str:
        """The convolution's name."""
        return self.conv

    def add(self, draft: Draft, source: str) -> str:
        """Append the piece's operations; the name of its output is returned."""
        x = draft.conv(
            self.conv, source, self.out, kernel=self.kernel, stride=self.stride, groups=self.groups,
            bias=self.bias, padding=self.padding,
        )  # fmt: skip
        if self.norm is not None:
            x = draft.norm(self.norm, x)
        return x if self.activation is None else draft.activate(f"{x}.activation", x, self.activation)

    def resized(self, widths: Widths) -> "ConvBlock":
        """The record of this piece in a graph whose channels were cut."""
        return replace(self, out=widths.out(self.conv), groups=widths.conv(self.conv).groups)


@dataclass(frozen=True, kw_only=True)
class PoolBlock:
    """Max or average pooling."""

    kind: ClassVar[str] = "pool"
    name: str
    kernel: Size
    stride: int
    reduce: Literal["max", "avg"] = added("max")
    padding: Padding = added("half")
    ceil: bool = added(False)
    count_padding: bool = added(False)

    def __post_init__(self) -> None:
        check_name(self.name)
        check_window(self.name, kernel=self.kernel, stride=self.stride, padding=self.padding)
        _check_rounding(self.name, self.ceil, self.count_padding)

    def add(self, draft: Draft, source: str) -> str:
        """Append the pool; its name is returned."""
        return draft.pool(
            self.name, source, self.reduce, kernel=self.kernel, stride=self.stride, padding=self.padding,
            ceil=self.ceil, count_padding=self.count_padding,
        )  # fmt: skip

    def resized(self, widths: Widths) -> "PoolBlock":
        """Itself: it has no widths."""
        return self


@dataclass(frozen=True, kw_only=True)
class AdaptivePoolBlock:
    """Average over windows that cover the map evenly, to `size` positions in every dimension."""

    kind: ClassVar[str] = "adaptive_pool"
    name: str
    size: int

    def __post_init__(self) -> None:
        check_name(self.name)
        check_window(self.name, kernel=self.size, stride=1, padding=0)

    def add(self, draft: Draft, source: str) -> str:
        """Append the pool; its name is returned."""
        return draft.add(g.AdaptivePool(name=self.name, source=source, size=(self.size,) * draft.dimensions))

    def resized(self, widths: Widths) -> "AdaptivePoolBlock":
        """Itself: it has no widths."""
        return self


@dataclass(frozen=True, kw_only=True)
class LocalNormBlock:
    """Local response normalisation over `size` neighbouring channels (Krizhevsky et al. 2012, section 3.3)."""

    kind: ClassVar[str] = "local_norm"
    name: str
    size: int
    alpha: float
    beta: float
    k: float

    def __post_init__(self) -> None:
        check_name(self.name)
        check_window(self.name, kernel=self.size, stride=1)
        if not (self.alpha >= 0 and 0 <= self.beta <= 10 and self.k > 0):
            raise InputError(f"{self.name}: a local norm needs alpha and beta of at least 0 and k above 0")

    def add(self, draft: Draft, source: str) -> str:
        """Append the norm; its name is returned."""
        op = g.LocalNorm(name=self.name, source=source, size=self.size, alpha=self.alpha, beta=self.beta, k=self.k)
        return draft.add(op)

    def resized(self, widths: Widths) -> "LocalNormBlock":
        """Itself: it has no widths."""
        return self


Piece = ConvBlock | PoolBlock | LocalNormBlock


def _check_rounding(name: str, ceil: bool, count_padding: bool) -> None:
    if ceil and count_padding:
        raise InputError(f"{name}: a pool that rounds up cannot count its padding; give one of the two")


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution with norm (absent when `norm` is None) and activation.

    Attributes:
        out, kernel, stride, padding, groups: of the convolution; a kernel may have one number per dimension.
        conv, norm: parameter names, below the block's where it stands in one. {layer} is the number of layers before,
            {next} the one after that.
        activation: the network's, none, or another.
        bias: whether the convolution has one; None where it has when no norm follows.
    """

    kind: ClassVar[str] = "conv"
    out: Width
    kernel: Size
    stride: int = 1
    conv: str
    norm: str | None = None
    activation: g.Activation | Literal["network", "none"] = added("network")
    padding: Padding = added("half")
    groups: int = added(1)
    bias: bool | None = added(None)

    reduction: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_template("conv", self.conv, NAME_FIELDS)
        if self.norm is not None:
            check_template("norm", self.norm, NAME_FIELDS)
        check_widths(self.conv, paper_width(self.out), self.groups)
        check_window(self.conv, kernel=self.kernel, stride=self.stride, padding=self.padding)

    @property
    def layers(self) -> int:
        """How many layers it is in torchvision's count."""
        return 1 + (self.norm is not None) + (self.activation != "none")

    def paper_out(self, paper_in: int) -> int:
        """Channels of the output on the paper's scale."""
        return paper_width(self.out)

    def lower(self, place: Place) -> ConvBlock:
        """Every width and decision written out."""
        named: dict[str, g.Activation | None] = {"network": place.activation, "none": None}
        return ConvBlock(
            conv=place.named(self.conv), norm=None if self.norm is None else place.named(self.norm),
            out=place.width(self.out, groups=self.groups), kernel=place.window(self.kernel, self.padding),
            stride=place.strides(self.stride),
            activation=named[self.activation] if self.activation in ("network", "none") else self.activation,
            padding=self.padding, groups=self.groups, bias=self.norm is None if self.bias is None else self.bias,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Max or average pooling; at the start of a stage it takes the stage's stride, or goes when there is none."""

    kind: ClassVar[str] = "pool"
    kernel: Size
    stride: int = 1
    name: str = "maxpool"
    reduce: Literal["max", "avg"] = added("max")
    padding: Padding = added("half")
    ceil: bool = added(False)
    count_padding: bool = added(False)

    reduction: ClassVar[bool] = True
    layers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_template("name", self.name, NAME_FIELDS)
        check_window(self.name, kernel=self.kernel, stride=self.stride, padding=self.padding)
        _check_rounding(self.name, self.ceil, self.count_padding)

    def paper_out(self, paper_in: int) -> int:
        """Channels of the output on the paper's scale."""
        return paper_in

    def lower(self, place: Place) -> PoolBlock:
        """Every decision written out."""
        return PoolBlock(
            name=place.named(self.name), kernel=place.window(self.kernel, self.padding),
            stride=place.strides(self.stride),
            reduce=self.reduce, padding=self.padding, ceil=self.ceil, count_padding=self.count_padding,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AdaptivePool:
    """Average pooling to `size` positions in every dimension, or to the map's size where that is less."""

    kind: ClassVar[str] = "adaptive_pool"
    size: int
    name: str = "avgpool"

    layers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_template("name", self.name, NAME_FIELDS)
        check_window(self.name, kernel=self.size, stride=1, padding=0)

    def paper_out(self, paper_in: int) -> int:
        """Channels of the output on the paper's scale."""
        return paper_in

    def lower(self, place: Place) -> AdaptivePoolBlock:
        """Every decision written out."""
        return AdaptivePoolBlock(name=place.named(self.name), size=min(self.size, *place.sides))


@dataclass(frozen=True, kw_only=True)
class LocalNorm:
    """Local response normalisation; torch's form of the constants (alpha is divided by `size`)."""

    kind: ClassVar[str] = "local_norm"
    name: str
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    reduction: ClassVar[bool] = True
    layers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_template("name", self.name, NAME_FIELDS)

    def paper_out(self, paper_in: int) -> int:
        """Channels of the output on the paper's scale."""
        return paper_in

    def lower(self, place: Place) -> LocalNormBlock:
        """Every decision written out."""
        return LocalNormBlock(
            name=place.named(self.name), size=self.size, alpha=self.alpha, beta=self.beta, k=self.k
        )  # fmt: skip


PieceSpec = Conv | Pool | LocalNorm
