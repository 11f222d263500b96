"""Weights carried over to another head or another input.

`arch.select` says what stays; here the tensors follow. What is new in the head is freshly initialised, what is new in
the input is computed from what was there.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.select import Slice, select

Weights = dict[str, Tensor]


def adapt(
    layout: Layout,
    weights: Mapping[str, Tensor],
    fresh: Callable[[Layout], Weights],
    *,
    num_classes: int,
    in_channels: int,
) -> tuple[Layout, Weights]:
    """A trained network for other classes and other channels.

    The classifier is replaced where the number of classes differs. The first convolution, where the channels differ:
    for one channel its kernels are summed over the three, so a grey picture gives what it gave as R = G = B; for
    others they are repeated in turn and multiplied by old / new channels, so the sum over all channels keeps its scale.

    Args:
        layout, weights: the trained network.
        fresh: gives a layout the weights of a new network.
        num_classes: wanted, at least 1.
        in_channels: wanted, at least 1.

    Returns:
        Layout and weights; those given where nothing differs.
    """
    graph = layout_graph(layout)
    keep: dict[str, Sequence[int | None]] = {}
    if num_classes != layout.num_classes:
        keep[graph.output] = [None] * num_classes
    if in_channels != layout.input.channels:
        keep["input"] = [None] * in_channels
    if not keep:
        return layout, dict(weights)
    selection = select(layout, keep)
    found = fresh(selection.layout)
    for name, part in selection.slices.items():
        found[name] = carried(weights[name], part, found[name])
    counters = {name: tensor for name, tensor in weights.items() if name not in selection.slices}
    if "input" in keep:
        for op in graph.ops:
            if isinstance(op, g.Conv) and op.source == "input":
                name = f"{op.name}.weight"
                found[name] = repeated(weights[name], in_channels)
    return selection.layout, found | counters


def carried(old: Tensor, part: Slice, fresh: Tensor) -> Tensor:
    """The entry of a selected network: what stays of `old`, and for new positions what `fresh` has there."""
    result = fresh.clone()
    if part.columns is None:
        new, rows = _known(part.rows)
        result[new] = old[rows]
        return result
    each = len(part.rows) // len(part.columns)
    for group, columns in enumerate(part.columns):
        new, rows = _known(part.rows[group * each : (group + 1) * each])
        new_columns, old_columns = _known(columns)
        result[(new + group * each)[:, None], new_columns] = old[rows[:, None], old_columns]
    return result


def _known(positions: Sequence[int | None]) -> tuple[Tensor, Tensor]:
    """Where positions that are not new go, and what they were: int64 [K] both."""
    pairs = [(at, position) for at, position in enumerate(positions) if position is not None]
    new, old = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return new, old


def repeated(kernels: Tensor, channels: int) -> Tensor:
    """Kernels of a first convolution, [O,C,...], for so many channels; see `adapt`."""
    before = kernels.shape[1]
    in_turn = kernels[:, torch.arange(max(channels, before)) % before]
    if channels == 1:
        return in_turn.sum(dim=1, keepdim=True)
    return in_turn[:, :channels] * (before / channels)
