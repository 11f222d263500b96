"""Candidates: every family scaled up and down, at the resolutions that suit the pictures, cut to a budget by
arithmetic.

From each base network come the compound path (EfficientNet's alpha, beta, gamma for depth and width, phi from -8 to 2)
and the width path (depth as published), each at each resolution: scaling couples depth and width, while the pictures
and the budget decide the resolution. What arithmetic can rule out (MACs, parameters, bytes) never reaches a stopwatch.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from netsmith.arch.cost import Cost, cost
from netsmith.arch.graph import Conv, Linear
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.lower import lower
from netsmith.arch.names import MODELS
from netsmith.arch.scale import for_size, scale
from netsmith.arch.spec import Spec, with_classes
from netsmith.errors import InputError
from netsmith.run.budget import Budget

BASES = ("resnet18", "resnet50", "resnet20_cifar", "mobilenet_v2", "efficientnet_b0")
SIDES = (16, 20, 24, 28, 32, 40, 48, 56, 64, 96, 128, 160, 192, 224, 256, 288, 320)
"""Above 64 pixels multiples of the networks' stride, so that training and evaluation may differ (fit/recipes.py)."""
SMALLEST_SIDE = 16
ALPHA, BETA = 1.2, 1.1
COMPOUND = (2.0, 1.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0)
WIDTHS = (1.5, 0.75, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25, 0.21, 0.18, 0.15, 0.12, 0.09, 0.06)
BYTES_PER_NODE = 160  # names and attributes of an operation in the exported graph, on average
CONFIG_BYTES = 6000  # labels and settings beside the layout in config.json, without which no model opens


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What the candidates must suit.

    Attributes:
        side: median of the pictures' shorter sides, pixels.
        train: pictures to train on.
        classes: number of classes.
    """

    side: int
    train: int
    classes: int


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network that may win.

    Attributes:
        id: short and fit for a folder's name, such as "resnet18-d1-w0.5-r96".
        base: the family's network it was scaled from.
        layout: the network itself.
        cost: counted on its graph.
        size_bytes: estimate of what the exported artifact takes.
    """

    id: str
    base: str
    layout: Layout
    cost: Cost
    size_bytes: int

    @property
    def side(self) -> int:
        """Of the input, pixels."""
        return self.layout.input.size[0]


def sides_for(pictures: Pictures) -> list[int]:
    """Resolutions worth trying: at most the pictures' own side (a little more for tiny pictures), ascending.

    Pictures below 16 pixels are doubled once: a convolution needs room. The pictures' own side is always among them
    when it is at most 64, since not resizing at all is exact and free.
    """
    largest = max(SMALLEST_SIDE, pictures.side if pictures.side >= SMALLEST_SIDE else 2 * pictures.side)
    smallest = min(largest, max(SMALLEST_SIDE, 64 if pictures.side >= 128 else largest * 3 // 4))
    sides = {side for side in SIDES if smallest <= side <= largest}
    if pictures.side <= 64:
        sides.add(largest)
    return sorted(sides or {largest})


def enumerate_candidates(pictures: Pictures, *, budget: Budget) -> list[Candidate]:
    """All candidates that arithmetic does not rule out, cheapest first.

    Returns:
        Distinct networks that meet the budget's MACs, parameters and (by estimate, with a tenth to spare) bytes. Empty
        when none does.
    """
    found: dict[Layout, Candidate] = {}
    for candidate in all_candidates(pictures):
        if within(candidate, budget):
            found.setdefault(replace(candidate.layout, name=""), candidate)
    return sorted(found.values(), key=lambda candidate: (candidate.cost.macs, candidate.id))


@lru_cache(maxsize=4)
def all_candidates(pictures: Pictures) -> tuple[Candidate, ...]:
    """Every scaled network at every suitable resolution, whatever the budget; distinct ids. Counted once: it takes
    seconds."""
    candidates: list[Candidate] = []
    for base in BASES:
        if base.endswith("_cifar") and pictures.side > 64:
            continue  # its first stage works at full resolution: made for small pictures, hopeless on photos
        for depth, width in _multipliers():
            for side in sides_for(pictures):
                candidates += _candidate(base, pictures, depth=depth, width=width, side=side)
    return tuple(candidates)


def within(candidate: Candidate, budget: Budget) -> bool:
    """Whether a candidate may meet the limits that need no stopwatch; the estimated size may be a tenth over."""
    return (
        (budget.macs is None or candidate.cost.macs <= budget.macs)
        and (budget.params is None or candidate.cost.params <= budget.params)
        and (budget.size_bytes is None or candidate.size_bytes <= 1.1 * budget.size_bytes)
    )


def _multipliers() -> list[tuple[float, float]]:
    compound = [(ALPHA**phi, BETA**phi) for phi in COMPOUND]
    return compound + [(depth, width) for width in WIDTHS for depth in (1.0, 0.5)]


def _candidate(base: str, pictures: Pictures, *, depth: float, width: float, side: int) -> list[Candidate]:
    identity = f"{base}-d{depth:.3g}-w{width:.3g}-r{side}"
    try:
        layout = layout_of(base, depth=depth, width=width, side=side, classes=pictures.classes)
    except InputError:
        return []  # no such network: the scaled widths or the resolution leave nothing
    counted = cost(layout)
    return [Candidate(id=identity, base=base, layout=layout, cost=counted, size_bytes=estimated_bytes(layout))]


def layout_of(base: str, *, depth: float, width: float, side: int, classes: int) -> Layout:
    """A base network scaled and given a resolution and a number of classes; its name tells how it was made.

    Raises:
        InputError: when scaling leaves no such network.
    """
    spec: Spec = scale(MODELS[base], depth=depth, width=width)
    name = f"{base}@width={width:.4g},depth={depth:.4g}"
    return lower(for_size(with_classes(replace(spec, name=name), classes), side))


def estimated_bytes(layout: Layout) -> int:
    """Bytes of the exported float32 artifact: folded weights and biases, the graph's text, config.json."""
    graph = layout_graph(layout)
    numbers = 0
    for op in graph.ops:
        match op:
            case Conv():
                numbers += op.out_channels * (1 + op.in_channels // op.groups * math.prod(op.kernel))
            case Linear():
                numbers += op.out_features * (1 + op.in_features)
            case _:
                continue
    blocks = sum(len(stage.blocks) for stage in layout.stages)
    return 4 * numbers + BYTES_PER_NODE * len(graph.ops) + 300 * blocks + CONFIG_BYTES
