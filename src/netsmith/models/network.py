"""The network of any layout: its pieces in a row, each where the layout's names put it.

Deliberate choices: there is one network class. A layout's records say what every piece is and what its parameters are
called, so a family adds only its table (`netsmith.arch.families`) and its initial weights; a piece called
"features.3.1" stands in `features`, there in `3`, so names in a `state_dict` are the layout's.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol, runtime_checkable

from torch import Generator, Tensor, nn

from netsmith.arch.layout import ConvNormAct, Layout, MaxPool
from netsmith.errors import InputError
from netsmith.models.blocks import build_block
from netsmith.nn.layers import ACTIVATIONS, GlobalAverage, Norm, conv

Init = Callable[["Network", Generator], None]
"""Sets every parameter and buffer of a network from a generator on the CPU."""


@runtime_checkable
class Residual(Protocol):
    """A block whose residual branch can start at zero."""

    def zero_init(self) -> None: ...


class Network(nn.Module):
    """Pieces in a row.

    Args:
        layout: what the network is; kept as `.layout`.
        pieces: name -> module, in the order of running; the last gives the logits.
        taps: name of a feature output ("stage1") -> the piece that gives it.
        init: sets the family's initial weights.
    """

    def __init__(self, layout: Layout, *, pieces: Mapping[str, nn.Module], taps: Mapping[str, str], init: Init) -> None:
        super().__init__()
        self.layout = layout
        self.order = tuple(pieces)
        self.taps = dict(taps)
        self._init = init
        for name, piece in pieces.items():
            self._place(name, piece)

    def _place(self, name: str, piece: nn.Module) -> None:
        *path, leaf = name.split(".")
        where: nn.Module = self
        for part in path:
            if part not in where._modules:
                self._add(where, part, nn.Sequential(), name)
            where = where.get_submodule(part)
        self._add(where, leaf, piece, name)

    def _add(self, where: nn.Module, key: str, piece: nn.Module, name: str) -> None:
        if hasattr(where, key):
            raise InputError(f"{self.layout.name}: a piece cannot be called {name!r}, that place is taken; rename it")
        where.add_module(key, piece)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N,C,H,W] -> logits [N,classes]."""
        for name in self.order:
            x = self.get_submodule(name)(x)
        return x

    def forward_all(self, x: Tensor) -> dict[str, Tensor]:
        """Images [N,C,H,W] -> the map after every stage ("stage1", ...) and "logits" [N,classes]."""
        tapped = {piece: tap for tap, piece in self.taps.items()}
        outputs: dict[str, Tensor] = {}
        for name in self.order:
            x = self.get_submodule(name)(x)
            if name in tapped:
                outputs[tapped[name]] = x
        return {**outputs, "logits": x}

    def init_weights(self, generator: Generator, *, zero_init_residual: bool = False) -> None:
        """Set every parameter and buffer as the family's reference does.

        Args:
            generator: on the CPU, where the parameters are.
            zero_init_residual: start every residual branch at zero, so that blocks begin as their shortcuts.
        """
        self._init(self, generator)
        if zero_init_residual:
            for block in self.modules():
                if isinstance(block, Residual):
                    block.zero_init()


def build_network(layout: Layout, *, init: Init) -> Network:
    """The network of a layout, with torch's default weights on the current default device.

    Args:
        layout: what to build.
        init: sets the family's initial weights.
    """
    norm: Norm = partial(nn.BatchNorm2d, eps=layout.norm_eps, momentum=layout.norm_momentum)
    pieces: dict[str, nn.Module] = {}
    taps: dict[str, str] = {}
    channels = layout.input.channels
    for piece in layout.stem:
        pieces |= _piece(piece, channels, norm=norm)
        channels = piece.out if isinstance(piece, ConvNormAct) else channels
    last, position = sum(len(stage.blocks) for stage in layout.stages) - 1, 0
    for stage in layout.stages:
        for block in stage.blocks:
            rate = layout.drop_path * position / max(1, last)
            pieces[block.name] = build_block(block, channels, drop_path=rate, norm=norm)
            channels, position = block.out_channels(channels), position + 1
        taps[stage.name] = stage.blocks[-1].name
    return Network(layout, pieces={**pieces, **dict(_head(layout, channels, norm=norm))}, taps=taps, init=init)


def _piece(piece: ConvNormAct | MaxPool, channels: int, *, norm: Norm) -> dict[str, nn.Module]:
    match piece:
        case ConvNormAct():
            return {
                piece.conv: conv(channels, piece.out, piece.kernel, stride=piece.stride),
                piece.norm: norm(piece.out),
                f"{piece.norm}_activation": ACTIVATIONS[piece.activation](),
            }
        case MaxPool():
            return {piece.name: nn.MaxPool2d(piece.kernel, piece.stride, padding=piece.kernel // 2)}


def _head(layout: Layout, channels: int, *, norm: Norm) -> Iterator[tuple[str, nn.Module]]:
    head = layout.head
    if head.conv is not None:
        yield from _piece(head.conv, channels, norm=norm).items()
        channels = head.conv.out
    yield "avgpool", GlobalAverage()
    yield "dropout", nn.Dropout(head.dropout)
    yield head.linear, nn.Linear(channels, head.classes)
