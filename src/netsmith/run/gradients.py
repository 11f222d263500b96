"""Gradients by depth, as a training records them a few times (`gradients.jsonl`), and whether they vanish or explode.

What counts is the gradient of a layer against its weights: by how large a share of itself an update would change it.
The first layers are compared with the last before the classifier, over the recorded moments after the first update.
The thresholds lie far outside what networks that learn show: see docs/watching-training.md.

Source: Glorot and Bengio 2010 (norms by depth); He et al. 2016, section 4.1, for the plain networks; You et al. 2017
(LARS) for the ratio to the weights.
"""

import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Norm = Annotated[float, Field(ge=0.0, le=1e300)]
FEWEST = 8  # layers of which it can be said that something is lost on the way
SHARE = 5  # a fifth of the layers is the beginning, a fifth the end
VANISHING, EXPLODING = 1 / 30, 100.0  # networks that learn lie between 1 / 5 and 30, in their first updates too


class Layer(BaseModel):
    """A layer's kernel or matrix.

    Attributes:
        name: of the layer.
        gradient: norm of the loss's gradient by it.
        weight: its own norm.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    name: str
    gradient: Norm
    weight: Norm

    @property
    def share(self) -> float | None:
        """Gradient over weight, None where one of them is 0."""
        return self.gradient / self.weight if self.gradient and self.weight else None


class GradientRow(BaseModel):
    """The layers at one moment of a training, from the first to the last.

    Attributes:
        step: of the update.
        progress: share of training that lay before it.
        layers: those that are trained at the moment.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    step: int = Field(ge=0)
    progress: float = Field(ge=0.0, le=1.0)
    layers: tuple[Layer, ...]


def ends(rows: Sequence[GradientRow]) -> tuple[float, float] | None:
    """Geometric means of the layers' shares at the beginning and at the end of the network, or None where there are
    too few layers to tell.

    Args:
        rows: of one training.
    """
    deepest = max((len(row.layers) for row in rows), default=0)  # with a part of it frozen there are fewer
    if deepest <= FEWEST:
        return None
    whole = [row for row in rows if len(row.layers) == deepest]
    later = [row for row in whole if row.step > 0] or whole
    shares = [
        median(math.log(share) for share in found)
        for layers in zip(*(row.layers for row in later), strict=True)
        if (found := [share for layer in layers if (share := layer.share) is not None])
    ][:-1]  # the classifier is next to the loss
    if len(shares) < FEWEST:  # the others have no gradient at all
        return None
    part = len(shares) // SHARE
    return math.exp(fmean(shares[:part])), math.exp(fmean(shares[-part:]))


def in_words(rows: Sequence[GradientRow]) -> str | None:
    """What is wrong with the gradients of a training, with the numbers and the mend; None where nothing is."""
    found = ends(rows)
    if found is None:
        return None
    ratio = found[0] / found[1]
    if ratio < VANISHING:
        return (
            f"vanishing gradients: against their weights the first layers get 1/{_round(1 / ratio)} of what the last "
            "get, so they hardly learn; residual connections mend this, batch norm may, or a shallower network"
        )
    if ratio > EXPLODING:
        return (
            f"exploding gradients: against their weights the first layers get {_round(ratio)} times what the last get, "
            f"so no learning rate suits both; {_MENDS}"
        )
    begun = ends(rows[:1])
    if begun is not None and (ratio := begun[0] / begun[1]) > EXPLODING:
        return (
            f"exploding gradients at the beginning: against their weights the first layers got {_round(ratio)} times "
            f"what the last got in the first update, which throws them about; {_MENDS}, or a longer --warmup"
        )
    return None


_MENDS = "residual connections mend this, or a shallower network"


def _round(value: float) -> str:
    return f"{float(f'{value:.1e}'):,.0f}"
