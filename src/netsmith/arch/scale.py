"""Scaling: pure functions Spec -> Spec over depth, width and resolution.

Compound scaling is Tan and Le 2019 (EfficientNet, equation 3): depth alpha^phi, width beta^phi, resolution gamma^phi.
Multipliers compose exactly because the paper's table stays unscaled in the Spec.

A rule says how a factor s of the MACs, which on pictures grow as depth * width^2 * resolution^2, is shared out: all of
it to one axis, to the three as EfficientNet's alpha, beta and gamma do, or mostly to the width ("fast", Dollar, Singh
and Girshick 2021, arXiv 2103.06877, with alpha = 0.8: activations, which cost time, then grow as s^0.6 only).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from netsmith.arch import graph as g
from netsmith.arch.blocks.pieces import Conv, Pool
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.limits import MAX_SIDE
from netsmith.arch.lower import lower
from netsmith.arch.spec import Spec
from netsmith.errors import InputError

SMALLEST_MAP = 4
MAX_PHI = 64
ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15
"""Of depth, width and resolution: what EfficientNet's grid search at phi = 1 found."""

Rule = Literal["compound", "depth", "width", "resolution", "fast"]


@dataclass(frozen=True, kw_only=True)
class Exponents:
    """Of the factor s of the MACs, for networks on pictures: depth + 2 width + 2 resolution = 1."""

    depth: float
    width: float
    resolution: float


_PER_PHI = math.log(ALPHA * BETA**2 * GAMMA**2)

RULES: dict[Rule, Exponents] = {
    "compound": Exponents(
        depth=math.log(ALPHA) / _PER_PHI, width=math.log(BETA) / _PER_PHI, resolution=math.log(GAMMA) / _PER_PHI
    ),
    "depth": Exponents(depth=1.0, width=0.0, resolution=0.0),
    "width": Exponents(depth=0.0, width=0.5, resolution=0.0),
    "resolution": Exponents(depth=0.0, width=0.0, resolution=0.5),
    "fast": Exponents(depth=0.1, width=0.4, resolution=0.05),
}


def scale(spec: Spec, *, depth: float = 1.0, width: float = 1.0, resolution: float = 1.0) -> Spec:
    """Multiply a network's depth, width and resolution.

    Args:
        spec: any network.
        depth: multiplies the blocks of every stage (rounded up at lowering), > 0.
        width: multiplies channels (rounded to multiples of 8 at lowering), > 0.
        resolution: multiplies the input's sides, rounded to whole pixels, > 0.

    Raises:
        InputError: for a multiplier that is not positive and finite, or a resolution below one pixel.
    """
    for name, multiplier in (("depth", depth), ("width", width), ("resolution", resolution)):
        if not (multiplier > 0 and math.isfinite(multiplier)):
            raise InputError(f"{spec.name}: {name} is multiplied by {multiplier:g}; give a number above 0")
    sides = tuple(round(min(max(1.0, side * resolution), MAX_SIDE + 1)) for side in spec.input.size)
    return replace(spec, depth=spec.depth * depth, width=spec.width * width, input=replace(spec.input, size=sides))


def compound(spec: Spec, phi: float, *, alpha: float = ALPHA, beta: float = BETA, gamma: float = GAMMA) -> Spec:
    """Scale depth, width and resolution together by alpha^phi, beta^phi, gamma^phi; phi below 0 shrinks.

    The defaults are EfficientNet's, found by its grid search at phi = 1 under alpha * beta^2 * gamma^2 ~ 2.

    Raises:
        InputError: for a phi outside -64..64, which no network survives.
    """
    if not abs(phi) <= MAX_PHI:
        raise InputError(f"{spec.name}: phi is {phi:g}; give a number in -{MAX_PHI}..{MAX_PHI}")
    return scale(spec, depth=alpha**phi, width=beta**phi, resolution=gamma**phi)


def total_stride(layout: Layout) -> int:
    """Input positions per position of the last stage's map, along the way that strides most."""
    graph = layout_graph(layout)
    strides = {"input": 1}
    for op in graph.ops:
        own = max(op.stride) if isinstance(op, g.Conv | g.Pool) else 1
        strides[op.name] = own * max(strides[source] for source in g.sources(op))
    return strides[graph.taps[layout.stages[-1].name]]


def check_resolution(layout: Layout) -> Layout:
    """The layout itself, when its input is large enough for its strides.

    Raises:
        InputError: a side of the input is shorter than the strides together, so that the last map would come from
            padding. `for_size` drops strides of a spec instead.
    """
    stride, side = total_stride(layout), min(layout.resolution)
    if side < stride:
        raise InputError(
            f"{layout.name}: a resolution of {side} is too small for strides of {stride} in all; "
            f"give {stride} pixels or more"
        )
    return layout


def for_size(spec: Spec, size: int) -> Spec:
    """The network for square pictures of side `size`, with the small stem and fewer strides where they are needed.

    The last map keeps at least 4 positions a side: when the standard stem leaves fewer, the small stem takes its place;
    then strides are dropped, earliest first (pools that no longer stride go), until the map is large enough.

    Args:
        spec: any network.
        size: side of the input, pixels, at least 4.

    Raises:
        InputError: when `size` is below 4.
    """
    if size < SMALLEST_MAP:
        raise InputError(
            f"{spec.name}: a resolution of {size} is below {SMALLEST_MAP} pixels; choose a larger --img-size"
        )
    spec = replace(spec, input=replace(spec.input, size=(size,) * len(spec.input.size)))

    if _fits(spec):
        return spec
    spec = replace(spec, stem=spec.small_stem)
    while not _fits(spec):
        spec = _without_first_stride(spec)
    return spec


def _fits(spec: Spec) -> bool:
    """Whether the last map is large enough, which depth and width do not change."""
    try:
        graph = layout_graph(lower(replace(spec, depth=0.01, width=1.0)))
    except InputError:
        return False
    return min(g.shapes(graph)[list(graph.taps.values())[-1]][1:]) >= SMALLEST_MAP


def _without_first_stride(spec: Spec) -> Spec:
    for i, piece in enumerate(spec.stem):
        match piece:
            case Conv(stride=stride) if stride > 1:
                changed = (replace(piece, stride=1),)
            case Pool(stride=stride) if stride > 1:
                changed = ()
            case _:
                continue
        return replace(spec, stem=(*spec.stem[:i], *changed, *spec.stem[i + 1 :]))
    for i, stage in enumerate(spec.stages):
        if stage.stride > 1:
            return replace(spec, stages=(*spec.stages[:i], replace(stage, stride=1), *spec.stages[i + 1 :]))
    lower(spec)  # says what does not fit
    size = "x".join(map(str, spec.input.size))
    raise InputError(f"{spec.name}: {size} pixels leave fewer than {SMALLEST_MAP} positions; enlarge --img-size")
