"""extend: a trained network grown without changing what it computes (Net2Net, Chen et al. 2016, arXiv 1511.05641).

Wider by `netsmith.arch.widen`, deeper by `netsmith.arch.deepen`, more classes by `netsmith.arch.select`. The old logits
stay what they were; each new one starts as their mean, so no new class is ever the most probable before it is trained.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from netsmith.arch.deepen import deepen
from netsmith.arch.layout import Layout
from netsmith.arch.select import Selection, select
from netsmith.arch.widen import widen
from netsmith.errors import InputError
from netsmith.models.build import Network, build, load_weights
from netsmith.models.inherit import Weights, continue_deeper, take

TOLERANCE = 1e-5
"""Largest change of a logit that is taken for the same, as a share of the largest logit."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How a network grows; None leaves that axis alone.

    Attributes:
        width: multiplies the channels of every layer, above 1.
        counts: blocks of every stage.
        classes: number of logits.
        seed: decides which channels are copied, how their weights are divided, and the untrained layers of new blocks.
    """

    width: float | None = None
    counts: Sequence[int] | None = None
    classes: int | None = None
    seed: int = 0


def extend(network: Network, growth: Growth) -> Network:
    """The grown network, in evaluation mode, float32, on the CPU.

    Args:
        network: trained; it is not changed.
        growth: what to add.

    Raises:
        InputError: nothing to add, or an axis that cannot grow so, with the reason.
    """
    layout = network.layout
    weights: Weights = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    changes: list[str] = []
    if growth.width is not None:
        layout, weights = _selected(widen(layout, growth.width, seed=growth.seed), weights, seed=growth.seed)
        changes.append(f"width={growth.width:g}")
    if growth.counts is not None:
        deeper = deepen(layout, growth.counts)
        weights = continue_deeper(weights, deeper, build(deeper.layout, seed=growth.seed).state_dict())
        layout = deeper.layout
        changes.append(f"depth={'-'.join(map(str, growth.counts))}")
    if growth.classes is not None:
        layout, weights = _more_classes(layout, weights, growth.classes)
    if changes:
        layout = replace(layout, name=f"{network.layout.name}+{','.join(changes)}")
    return load_weights(layout, weights, where=layout.name)


def _selected(selection: Selection, weights: Weights, *, seed: int) -> tuple[Layout, Weights]:
    fresh = build(selection.layout, seed=seed).state_dict()
    return selection.layout, take(weights, selection.slices, fresh, seed=seed)


def _more_classes(layout: Layout, weights: Weights, classes: int) -> tuple[Layout, Weights]:
    now = layout.num_classes
    if classes <= now:
        raise InputError(f"{layout.name} has {now} classes already; ask for more than that, not {classes}")
    selection = select(layout, {layout.head.logits: [*range(now), *[None] * (classes - now)]})
    fresh = build(selection.layout).state_dict()
    for head in (layout.head, *(each.head for each in layout.auxiliary)):
        for name in (f"{head.logits}.weight", f"{head.logits}.bias"):
            fresh[name] = weights[name].mean(dim=0, keepdim=True).expand(classes, *weights[name].shape[1:])
    return selection.layout, take(weights, selection.slices, fresh)


def logit_difference(before: nn.Module, after: nn.Module, images: Tensor) -> float:
    """How far the old logits of a grown network are from those of the network that it grew from.

    Both are computed in double precision, so what is seen is the change of the function and not the rounding of one run
    of it.

    Args:
        before, after: networks in evaluation mode; `after` may have more logits. Neither is changed.
        images: float [N,C,H,W], normalised.

    Returns:
        The largest difference as a share of the largest logit.
    """
    with torch.inference_mode():
        old, new = (copy.deepcopy(network).double()(images.double()) for network in (before, after))
    largest = float(old.abs().max())
    return float((new[:, : old.shape[1]] - old).abs().max()) / (largest or 1.0)
