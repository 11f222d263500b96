"""Progressive resizing: training begins with small pictures, whose updates cost less, and ends with whole ones.

Choices made on purpose:

- The side is a pure function of progress: sides between the smallest and the full one take equal shares of it.
- Sides differ by multiples of the network's stride, so that its maps stay as even or odd as they are at full size; a
  side is left out where the network cannot take it, or its last map would be smaller than any network's is.
- What moves pictures by pixels (pad, shift) moves them by the same share of the side.
- The smallest sides come first, when the learning rate is high and what is learned is coarse; the last stretch is
  trained at the full side, because statistics and features have to suit the size that the network is judged at.

Source: Howard 2018 (DAWNBench entry of fast.ai); Touvron et al. 2019 (FixRes); Tan and Le 2021 (EfficientNetV2).
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Self

from torch import nn

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, at_size, layout_graph
from netsmith.arch.scale import SMALLEST_MAP
from netsmith.errors import InputError
from netsmith.models.network import Network
from netsmith.run.recipe import Recipe
from netsmith.train.costs import Phase


@dataclass(frozen=True)
class Sides:
    """Sides of the pictures trained on.

    Attributes:
        sizes: pixels, ascending, at least two, the full side last.
        reached: progress at which the full side is reached.
    """

    sizes: tuple[int, ...]
    reached: float

    @classmethod
    def of(cls, recipe: Recipe, network: nn.Module) -> Self | None:
        """What `recipe` asks for, None where all is trained at one side.

        Args:
            recipe: its `progressive`, `train_size` and `img_size` are used.
            network: to be trained.

        Raises:
            InputError: the network cannot be trained at smaller sides; says why.
        """
        if recipe.progressive is None:
            return None
        full = recipe.train_size or recipe.img_size
        smallest, reached = recipe.progressive
        if not isinstance(network, Network):
            raise InputError(f"--progressive needs a network with a layout, and {recipe.model} has none; leave it out")
        stride = stride_of(network.layout)
        smaller = range(full - stride, math.ceil(smallest * full) - 1, -stride)
        sizes = [size for size in smaller if size > 0 and takes(network.layout, size)]
        if not sizes:
            raise InputError(
                f"--progressive {smallest:g} {reached:g}: {recipe.model} can be trained at no side from "
                f"{math.ceil(smallest * full)} to {full - 1} pixels; {_why(network.layout, full, stride)}"
            )
        return cls((*sorted(sizes), full), reached)

    @property
    def starts(self) -> tuple[float, ...]:
        """Progress from which each side is trained at."""
        changes = len(self.sizes) - 1
        return tuple(self.reached * number / changes for number in range(changes + 1))

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What updates are thought to cost: as much as they have pixels."""
        return tuple(
            Phase(start, f"side {size}", float(size**2)) for start, size in zip(self.starts, self.sizes, strict=True)
        )

    def at(self, progress: float) -> int:
        """The side at `progress`, pixels."""
        return self.sizes[bisect_right(self.starts, progress) - 1]


def stride_of(layout: Layout) -> int:
    """Pixels of the input per position of the last map, as a power of two."""
    return 2 ** round(math.log2(layout.resolution[0] / _last_map(layout)))


def takes(layout: Layout, size: int) -> bool:
    """Whether a network can be trained on pictures of `size` pixels: with all its classifiers and the same weights."""
    try:
        smaller = at_size(layout, size)
    except InputError:
        return False
    graph = layout_graph(smaller)
    return (
        len(smaller.auxiliary) == len(layout.auxiliary)
        and list(g.parameters(graph)) == list(g.parameters(layout_graph(layout)))
        and _enlarged(graph) is None
        and _last_map(smaller) >= SMALLEST_MAP
    )


def _last_map(layout: Layout) -> int:
    graph = layout_graph(layout)
    return min(g.shapes(graph)[list(graph.taps.values())[-1]][1:])


def _enlarged(graph: g.Graph) -> g.AdaptivePool | None:
    """The pool that would enlarge its map to what a flattening classifier is made for."""
    shapes = g.shapes(graph)
    pools = (op for op in graph.ops if isinstance(op, g.AdaptivePool))
    return next((op for op in pools if min(shapes[op.source][1:]) < max(op.size)), None)


def _why(layout: Layout, full: int, stride: int) -> str:
    if (pool := _enlarged(layout_graph(at_size(layout, full - stride)))) is not None:
        return f"its classifier is made for maps of {' x '.join(map(str, pool.size))}; leave --progressive out"
    if layout.auxiliary and takes(replace(layout, auxiliary=()), full - stride):
        return "its classifiers for training take no smaller maps; leave --progressive out"
    return (
        f"sides are {full} less multiples of {stride}, its stride, with {SMALLEST_MAP} x {SMALLEST_MAP} positions in "
        "the last map at least; take a smaller first number, a larger --img-size, or leave it out"
    )
