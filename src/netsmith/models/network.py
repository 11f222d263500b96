"""The network of any layout: its pieces in a row, each where the layout's names put it.

Deliberate choices: there is one network class. A layout's records say what every piece is and what its parameters are
called, so a family adds only its table (`netsmith.arch.families`) and its initial weights; a piece called
"features.3.1" stands in `features`, there in `3`, so names in a `state_dict` are the layout's.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol, runtime_checkable

from torch import Generator, Tensor, nn

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph, layout_sections
from netsmith.models.blocks import build_block, build_head, build_row
from netsmith.nn.layers import Norm
from netsmith.nn.norm import BatchNorm2d
from netsmith.nn.tree import place

Init = Callable[["Network", Generator], None]
"""Sets every parameter and buffer of a network from a generator on the CPU."""


@runtime_checkable
class Residual(Protocol):
    """A block whose residual branch can start at zero."""

    def zero_init(self) -> None: ...


class Network(nn.Module):
    """Pieces in a row, and classifiers for training beside it.

    Args:
        layout: what the network is; kept as `.layout`.
        pieces: name -> module, in the order of running; the last gives the logits.
        taps: name of a feature output ("stage1") -> the piece that gives it.
        auxiliary: piece -> (name of auxiliary logits, the pieces that compute them from its output).
        init: sets the family's initial weights.
    """

    def __init__(
        self, layout: Layout, *, pieces: Mapping[str, nn.Module], taps: Mapping[str, str],
        auxiliary: Mapping[str, tuple[str, Mapping[str, nn.Module]]], init: Init,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layout = layout
        self.order = tuple(pieces)
        self.taps = {piece: tap for tap, piece in taps.items()}
        self.auxiliary = {after: (name, tuple(beside)) for after, (name, beside) in auxiliary.items()}
        self._init = init
        for row in (pieces, *(beside for _, beside in auxiliary.values())):
            for name, piece in row.items():
                place(self, name, piece)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N,C,H,W] -> logits [N,classes]."""
        return self._run(self.order, x)

    def forward_all(self, x: Tensor) -> dict[str, Tensor]:
        """Images [N,C,H,W] -> the map after every stage ("stage1", ...), auxiliary logits and "logits" [N,classes]."""
        outputs: dict[str, Tensor] = {}
        for name in self.order:
            x = self._run((name,), x)
            if name in self.taps:
                outputs[self.taps[name]] = x
            if name in self.auxiliary:
                logits, beside = self.auxiliary[name]
                outputs[logits] = self._run(beside, x)
        return {**outputs, "logits": x}

    def _run(self, names: Iterable[str], x: Tensor) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x

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

    Raises:
        InputError: two pieces have the same name.
    """
    norm: Norm = partial(BatchNorm2d, eps=layout.norm_eps, momentum=layout.norm_momentum)
    shapes = g.shapes(layout_graph(layout))
    reads = (shapes[section.source] for section in layout_sections(layout))  # what comes to each record, in order
    pieces = build_row(layout.stem, next(reads), norm=norm)
    taps: dict[str, str] = {}
    ends: dict[str, str] = {}
    last = sum(len(stage.blocks) for stage in layout.stages) - 1
    for stage in layout.stages:
        for block in stage.blocks:
            rate = layout.drop_path * len(ends) / max(1, last)
            pieces |= build_block(block, next(reads)[0], drop_path=rate, norm=norm)
            ends[block.name] = list(pieces)[-1]
        taps[stage.name] = list(pieces)[-1]
    auxiliary = {
        ends[each.after]: (each.name, build_head(each.head, next(reads), norm=norm)) for each in layout.auxiliary
    }
    pieces |= build_head(layout.head, next(reads), norm=norm)
    return Network(layout, pieces=pieces, taps=taps, auxiliary=auxiliary, init=init)
