"""EfficientNet's small grid search: alpha, beta and gamma of compound scaling, found at phi = 1.

Tan and Le 2019, section 3.3, step 1: with phi fixed to 1 (twice the resources), every alpha, beta, gamma >= 1 of a grid
with alpha * beta^2 * gamma^2 near 2 is evaluated and the best kept; step 2 then scales by them with other phi. What a
scaled network is worth is the caller's to say: train and validate it, or predict that. Nothing here trains, reads time
or draws numbers, so the same evaluations give the same ranking.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netsmith.arch.cost import Cost, cost
from netsmith.arch.layout import Layout
from netsmith.arch.lower import lower
from netsmith.arch.scale import check_resolution, compound
from netsmith.arch.spec import Spec
from netsmith.errors import CheckError, InputError
from netsmith.run.progress import Progress, silent

GRID = (1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4)
PRODUCT, TOLERANCE = 2.0, 0.1


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """Of compound scaling: depth alpha^phi, width beta^phi, resolution gamma^phi."""

    alpha: float
    beta: float
    gamma: float

    @property
    def product(self) -> float:
        """By how much the MACs of a network on pictures grow at phi = 1, rounding apart."""
        return self.alpha * self.beta**2 * self.gamma**2


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Coefficients that were evaluated, with the network at phi = 1, its cost and its score; higher is better."""

    coefficients: Coefficients
    layout: Layout
    cost: Cost
    score: float


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Coefficients that have no score, and why."""

    coefficients: Coefficients
    reason: str


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Outcome of a grid search.

    Attributes:
        ranked: best first. Equal scores stand in the order of their MACs, fewer first, then of the product's distance
            from the wanted one, then of alpha, beta and gamma.
        tied: how many share the best score; more than 1 says that the evaluation does not tell them apart.
        failed: those without a score, in the order of the grid.
    """

    ranked: tuple[Scored, ...]
    tied: int
    failed: tuple[Failed, ...]

    @property
    def best(self) -> Coefficients:
        """The first of the ranking."""
        return self.ranked[0].coefficients


def grid(
    *,
    alphas: Sequence[float] = GRID,
    betas: Sequence[float] = GRID,
    gammas: Sequence[float] = GRID,
    product: float = PRODUCT,
    tolerance: float = TOLERANCE,
) -> tuple[Coefficients, ...]:
    """The points of the grid on which alpha * beta^2 * gamma^2 is within `tolerance` of `product`.

    Args:
        alphas, betas, gammas: values to combine, each at least 1.
        product: growth of the MACs at phi = 1, above 1.
        tolerance: largest distance from it, at least 0.

    Raises:
        InputError: values out of range, or no point near enough; the message gives the nearest.
    """
    for name, values in (("alpha", alphas), ("beta", betas), ("gamma", gammas)):
        if not values:
            raise InputError(f"the grid has no {name}; give at least one value")
        if odd := [value for value in values if not (value >= 1 and math.isfinite(value))]:
            raise InputError(f"the grid has {name} {odd[0]:g}; at phi = 1 networks grow, so give 1 or more")
    if not (product > 1 and math.isfinite(product)) or not tolerance >= 0:
        raise InputError(f"product is {product:g} and tolerance {tolerance:g}; give above 1 and at least 0")
    points = [
        Coefficients(alpha=alpha, beta=beta, gamma=gamma)
        for alpha in dict.fromkeys(alphas)
        for beta in dict.fromkeys(betas)
        for gamma in dict.fromkeys(gammas)
    ]
    near = tuple(point for point in points if abs(point.product - product) <= tolerance)
    if not near:
        closest = min(points, key=lambda point: abs(point.product - product))
        raise InputError(
            f"no point of the grid has alpha * beta^2 * gamma^2 within {tolerance:g} of {product:g}; the nearest has "
            f"{closest.product:.4g}, so widen the grid or the tolerance"
        )
    return near


def search_coefficients(
    spec: Spec,
    evaluate: Callable[[Layout], float],
    *,
    points: Sequence[Coefficients] | None = None,
    progress: Progress = silent,
) -> Ranking:
    """Evaluate a network scaled at phi = 1 by every point of a grid.

    Args:
        spec: the small network that is to be scaled, such as EfficientNet-B0.
        evaluate: what a scaled network is worth, higher being better, such as its validation accuracy after a fixed
            training. It raises CheckError for a network that cannot be scored; points that lower to the same layout
            are evaluated once.
        points: what to try; `grid()` when None.
        progress: told how many points are done.

    Returns:
        All points, ranked or failed: no such network, an evaluation that raised CheckError, a score that is not finite.

    Raises:
        InputError: no points.
        CheckError: none has a score; the message gives the first reason.
    """
    points = grid() if points is None else points
    if not points:
        raise InputError(f"{spec.name}: there are no coefficients to try; give at least one point")
    scores: dict[Layout, float | str] = {}
    ranked: list[Scored] = []
    failed: list[Failed] = []
    for done, point in enumerate(points):
        progress(f"coefficients of {spec.name}", done, len(points))
        try:
            scaled = compound(spec, 1.0, alpha=point.alpha, beta=point.beta, gamma=point.gamma)
            layout = check_resolution(lower(scaled))
        except InputError as error:
            failed.append(Failed(coefficients=point, reason=str(error)))
            continue
        if layout not in scores:
            scores[layout] = _score(layout, evaluate)
        match scores[layout]:
            case str(reason):
                failed.append(Failed(coefficients=point, reason=reason))
            case score:
                ranked.append(Scored(coefficients=point, layout=layout, cost=cost(layout), score=score))
    progress(f"coefficients of {spec.name}", len(points), len(points))
    if not ranked:
        raise CheckError(f"none of the {len(points)} points has a score; the first failed because {failed[0].reason}")
    ranked.sort(key=_order)
    tied = sum(scored.score == ranked[0].score for scored in ranked)
    return Ranking(ranked=tuple(ranked), tied=tied, failed=tuple(failed))


def _score(layout: Layout, evaluate: Callable[[Layout], float]) -> float | str:
    """The score, or why there is none."""
    try:
        score = evaluate(layout)
    except CheckError as error:
        return str(error)
    return score if math.isfinite(score) else f"its score is {score}"


def _order(scored: Scored) -> tuple[float, ...]:
    point = scored.coefficients
    distance = abs(point.product - PRODUCT)
    return (-scored.score, scored.cost.macs, distance, point.alpha, point.beta, point.gamma)
