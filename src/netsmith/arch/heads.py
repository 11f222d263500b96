"""Heads: from the last map to the logits, the paper's records and the lowered ones.

`logits` of a lowered head is the layer that computes them, whose rows are the classes.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Draft, Widths
from netsmith.arch.blocks.pieces import AdaptivePool, AdaptivePoolBlock, Conv, ConvBlock, Pool, PoolBlock
from netsmith.arch.blocks.place import Place
from netsmith.arch.codec import added
from netsmith.arch.limits import check_name, check_rate, check_template, check_widths
from netsmith.arch.widths import Width, paper_width
from netsmith.errors import InputError


@dataclass(frozen=True, kw_only=True)
class HiddenLayer:
    """Dropout, linear, activation before the logits; `name` is the linear layer's."""

    name: str
    width: int
    activation: g.Activation
    dropout: float

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.width)
        check_rate("dropout", self.dropout)

    def add(self, draft: Draft, source: str) -> str:
        """Append the layer; the name of its output is returned."""
        return draft.activate(f"{self.name}.activation", draft.linear(self.name, source, self.width), self.activation)


@dataclass(frozen=True, kw_only=True)
class NormAct:
    """The norm and activation that a pre-activation network ends in; `norm` is the parameter name."""

    norm: str
    activation: g.Activation

    def __post_init__(self) -> None:
        check_name(self.norm)

    def add(self, draft: Draft, source: str) -> str:
        """Append both; the name of the output is returned."""
        return draft.activate(f"{self.norm}.activation", draft.norm(self.norm, source), self.activation)


class _LinearHead:
    """What heads that end in a linear layer share."""

    linear: str
    classes: int
    dropout: float
    hidden: tuple[HiddenLayer, ...]

    def __post_init__(self) -> None:
        _check_classifier(self.linear, self.classes, self.dropout)

    @property
    def logits(self) -> str:
        """The layer that gives the logits."""
        return self.linear

    def _classify(self, draft: Draft, source: str) -> str:
        for layer in self.hidden:
            source = layer.add(draft, source)
        return draft.linear(self.linear, source, self.classes)


@dataclass(frozen=True, kw_only=True)
class PooledHead(_LinearHead):
    """Optional 1x1 convolution, norm and activation, then global average pooling, hidden layers, dropout, linear."""

    kind: ClassVar[str] = "pooled"
    conv: ConvBlock | None
    linear: str
    classes: int
    dropout: float
    hidden: tuple[HiddenLayer, ...] = added(())
    norm: NormAct | None = added(None)

    def add(self, draft: Draft, source: str) -> str:
        """Append the head's operations; the name of the logits is returned."""
        x = source if self.conv is None else self.conv.add(draft, source)
        x = x if self.norm is None else self.norm.add(draft, x)
        return self._classify(draft, draft.flatten("flatten", draft.global_pool("avgpool", x)))

    def resized(self, widths: Widths) -> "PooledHead":
        """The record of this head in a graph whose channels were cut."""
        conv = None if self.conv is None else self.conv.resized(widths)
        return replace(self, conv=conv, hidden=_resized(self.hidden, widths), classes=widths.out(self.linear))


@dataclass(frozen=True, kw_only=True)
class FlattenedHead(_LinearHead):
    """Pieces down to a map of fixed size, all of its positions, hidden layers, dropout, linear (AlexNet, VGG)."""

    kind: ClassVar[str] = "flattened"
    pieces: tuple[ConvBlock | PoolBlock | AdaptivePoolBlock, ...]
    linear: str
    classes: int
    dropout: float
    hidden: tuple[HiddenLayer, ...]

    def add(self, draft: Draft, source: str) -> str:
        """Append the head's operations; the name of the logits is returned."""
        for piece in self.pieces:
            source = piece.add(draft, source)
        return self._classify(draft, draft.flatten(f"{self.linear}.flatten", source))

    def resized(self, widths: Widths) -> "FlattenedHead":
        """The record of this head in a graph whose channels were cut."""
        pieces = tuple(piece.resized(widths) for piece in self.pieces)
        return replace(self, pieces=pieces, hidden=_resized(self.hidden, widths), classes=widths.out(self.linear))


def _check_classifier(linear: str, classes: int, dropout: float) -> None:
    check_name(linear)
    check_widths(linear, classes)
    check_rate("dropout", dropout)


def _resized(hidden: tuple[HiddenLayer, ...], widths: Widths) -> tuple[HiddenLayer, ...]:
    return tuple(replace(layer, width=widths.out(layer.name)) for layer in hidden)


@dataclass(frozen=True, kw_only=True)
class ConvHead:
    """Dropout, a 1x1 convolution with bias to the classes, activation, global average pooling (SqueezeNet)."""

    kind: ClassVar[str] = "conv_classifier"
    conv: str
    classes: int
    dropout: float
    activation: g.Activation

    def __post_init__(self) -> None:
        check_name(self.conv)
        check_widths(self.conv, self.classes)
        check_rate("dropout", self.dropout)

    @property
    def logits(self) -> str:
        """The layer that gives the logits."""
        return self.conv

    def add(self, draft: Draft, source: str) -> str:
        """Append the head's operations; the name of the logits is returned."""
        x = draft.conv(self.conv, source, self.classes, bias=True)
        x = draft.activate(f"{self.conv}.activation", x, self.activation)
        return draft.flatten("flatten", draft.global_pool("avgpool", x))

    def resized(self, widths: Widths) -> "ConvHead":
        """The record of this head in a graph whose channels were cut."""
        return replace(self, classes=widths.out(self.conv))


Head = PooledHead | FlattenedHead | ConvHead


def with_dropout(head: Head, rate: float) -> Head:
    """The head with another rate wherever it drops; before the last layer when it drops nowhere."""
    if isinstance(head, ConvHead) or not head.hidden:
        return replace(head, dropout=rate)
    hidden = tuple(replace(layer, dropout=rate if layer.dropout else 0.0) for layer in head.hidden)
    nowhere = not any(layer.dropout for layer in head.hidden)
    return replace(head, hidden=hidden, dropout=rate if head.dropout or nowhere else 0.0)


@dataclass(frozen=True, kw_only=True)
class AuxiliaryHead:
    """A classifier on the output of a block, for training only.

    Attributes:
        name: of its logits in `forward_all`.
        after: name of the block.
        weight: of its loss.
        head: what it is; its classes are the network's.
    """

    name: str
    after: str
    weight: float
    head: FlattenedHead

    def __post_init__(self) -> None:
        check_name(self.name)
        check_name(self.after)
        if not 0.0 <= self.weight <= 100.0:
            raise InputError(f"{self.name}: a loss weighs {self.weight:g}; it must be within 0..100")


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """A hidden linear layer with dropout before and an activation after it."""

    name: str
    width: Width
    dropout: float = 0.0
    activation: g.Activation | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, paper_width(self.width))
        check_rate("dropout", self.dropout)

    def lower(self, place: Place) -> HiddenLayer:
        """The width written out; None is the network's activation."""
        return HiddenLayer(
            name=self.name, width=place.width(self.width), dropout=self.dropout,
            activation=self.activation or place.activation,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """Optional 1x1 convolution, norm (a parameter name) and activation, then global average pooling, hidden layers,
    dropout, one linear layer."""

    kind: ClassVar[str] = "pooled"
    linear: str
    classes: int = 1000
    dropout: float = 0.0
    conv: Width | None = None
    conv_name: str | None = None
    hidden: tuple[Hidden, ...] = added(())
    norm: str | None = added(None)

    def __post_init__(self) -> None:
        _check_classifier(self.linear, self.classes, self.dropout)
        if self.norm is not None:
            check_name(self.norm)
        if (self.conv is None) != (self.conv_name is None):
            raise InputError("conv and conv_name of a head stand together; give both or neither")
        if self.conv is not None and self.conv_name is not None:
            check_widths(self.conv_name, paper_width(self.conv))
            check_template("conv_name", self.conv_name, ("stage", "running"))

    def lower(self, place: Place, draft: Draft, source: str) -> PooledHead:
        """Every width and decision written out; `source` is the map in `draft` that the head reads."""
        conv = None
        if self.conv is not None:
            conv = ConvBlock(
                conv=f"{place.name}.0", norm=f"{place.name}.1", out=place.width(self.conv), kernel=1, stride=1,
                activation=place.activation,
            )  # fmt: skip
        hidden = tuple(layer.lower(place) for layer in self.hidden)
        norm = None if self.norm is None else NormAct(norm=self.norm, activation=place.activation)
        return PooledHead(
            conv=conv, linear=self.linear, classes=self.classes, dropout=self.dropout, hidden=hidden, norm=norm
        )


@dataclass(frozen=True, kw_only=True)
class Flattened:
    """Pieces down to a map of fixed size (the map's own where that is less), hidden layers, dropout, linear."""

    kind: ClassVar[str] = "flattened"
    pieces: tuple[Conv | Pool | AdaptivePool, ...]
    linear: str
    classes: int = 1000
    dropout: float = 0.0
    hidden: tuple[Hidden, ...] = ()

    def __post_init__(self) -> None:
        _check_classifier(self.linear, self.classes, self.dropout)

    def lower(self, place: Place, draft: Draft, source: str) -> FlattenedHead:
        """Every width and decision written out; `source` is the map in `draft` that the head reads."""
        pieces: list[ConvBlock | PoolBlock | AdaptivePoolBlock] = []
        draft = draft.beginning_with(source)
        source = "input"
        for piece in self.pieces:
            channels, *sides = draft.shapes[source]
            pieces.append(piece.lower(replace(place, name="", channels=channels, sides=tuple(sides))))
            source = pieces[-1].add(draft, source)
        return FlattenedHead(
            pieces=tuple(pieces), linear=self.linear, classes=self.classes, dropout=self.dropout,
            hidden=tuple(layer.lower(place) for layer in self.hidden),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ConvClassifier:
    """Dropout, a 1x1 convolution with bias to the classes, activation, global average pooling."""

    kind: ClassVar[str] = "conv_classifier"
    conv: str
    classes: int = 1000
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_name(self.conv)
        check_widths(self.conv, self.classes)
        check_rate("dropout", self.dropout)

    def lower(self, place: Place, draft: Draft, source: str) -> ConvHead:
        """Every decision written out."""
        return ConvHead(conv=self.conv, classes=self.classes, dropout=self.dropout, activation=place.activation)


HeadSpec = Pooled | Flattened | ConvClassifier


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """A classifier for training only, on the output of a named row (its last block when depth is scaled).

    Attributes:
        name: of its logits.
        after: the row's name.
        weight: of its loss.
        head: its classes follow the network's.
    """

    name: str
    after: str
    weight: float
    head: Flattened
