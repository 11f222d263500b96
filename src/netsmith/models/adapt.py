"""Weights carried over to another head or another input.

`arch.select` says what stays; here the tensors follow. What is new in the head is freshly initialised, what is new in
the input is computed from what was there.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.select import select
from netsmith.models.inherit import Weights, take


def adapt(
    layout: Layout,
    weights: Mapping[str, Tensor],
    fresh: Callable[[Layout], Weights],
    *,
    classes: Sequence[int | None],
    in_channels: int,
) -> tuple[Layout, Weights]:
    """A trained network for other classes and other channels.

    Each class takes the weights of a known one or new ones, in the classifiers for training too. The first convolution,
    where the channels differ: for one channel its kernels are summed over the three, so a grey picture gives what it
    gave as R = G = B; for others they are repeated in turn and multiplied by old / new channels, so the sum over all
    channels keeps its scale.

    Args:
        layout, weights: the trained network.
        fresh: gives a layout the weights of a new network.
        classes: for each class that is wanted, the place of the known one that it is, or None for a new one; see
            `shared_classes`.
        in_channels: wanted, at least 1.

    Returns:
        Layout and weights; those given where nothing differs.
    """
    graph = layout_graph(layout)
    keep: dict[str, Sequence[int | None]] = {}
    if list(classes) != list(range(layout.num_classes)):
        keep[layout.head.logits] = classes  # auxiliary classifiers follow
    if in_channels != layout.input.channels:
        keep["input"] = [None] * in_channels
    if not keep:
        return layout, dict(weights)
    selection = select(layout, keep)
    found = take(weights, selection.slices, fresh(selection.layout))
    if "input" in keep:
        for op in graph.ops:
            if isinstance(op, g.Conv) and op.source == "input":
                name = f"{op.name}.weight"
                found[name] = repeated(weights[name], in_channels)
    return selection.layout, found


def shared_classes(known: Sequence[str], wanted: Sequence[str]) -> list[int | None]:
    """For each class that is wanted, the place of the known one of the same name; None where there is none.

    A name that stands twice among the known ones, as "crane" in ImageNet's, says nothing.
    """
    return [known.index(name) if known.count(name) == 1 else None for name in wanted]


def repeated(kernels: Tensor, channels: int) -> Tensor:
    """Kernels of a first convolution, [O,C,...], for so many channels; see `adapt`."""
    before = kernels.shape[1]
    in_turn = kernels[:, torch.arange(max(channels, before)) % before]
    if channels == 1:
        return in_turn.sum(dim=1, keepdim=True)
    return in_turn[:, :channels] * (before / channels)
