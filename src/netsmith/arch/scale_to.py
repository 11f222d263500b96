"""scale_to: the network of a family that comes closest to a target cost without exceeding it.

A rule (`RULES`) turns one factor into multipliers of depth, width and resolution; bisection finds the largest factor
whose network, lowered and counted, is not above the target. Choices:

- The cost is a staircase, because widths round to multiples of 8, repeats up and sides to pixels: a whole interval of
  factors gives one network, and no factor may come near a target that lies between two steps.
- Multipliers have four significant digits. That is the tolerance of the search and the rule for ties: of the factors
  that give the same cost, the largest that bisection reached. The name of the result states the multipliers, and read
  as a name (`netsmith.arch.names`) it is the same network.
- A step in depth adds blocks to every stage at once. Where the target lies within one, the rule goes on in width and
  resolution alone, at the depth below the step and at the one above it; what comes closest is taken, the depth below
  where they are equal.
- Under rules of several axes the width is adjusted at the end, upwards, by half at most and never beyond 1 when
  shrinking, because a side of the input is a coarser step than a width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from netsmith.arch.cost import Cost, cost
from netsmith.arch.lower import lower, spread_repeats
from netsmith.arch.scale import RULES, Rule, check_resolution, scale
from netsmith.arch.spec import Spec
from netsmith.errors import InputError, near

Measure = Literal["macs", "params", "activations"]

DIGITS = 4
_NEAR = 1 + 10.0**-DIGITS  # factors this close round to the same multipliers, or to neighbours
_WIDTH_ADJUSTED = 1.5


@dataclass(frozen=True)
class Times:
    """A target as a multiple of what the network costs now, such as 2 or 0.5."""

    factor: float

    def __post_init__(self) -> None:
        if not (self.factor > 0 and math.isfinite(self.factor)):
            raise InputError(f"the target is {self.factor:g} times the cost; give a number above 0")


Target = int | Times


def scale_to(
    spec: Spec,
    *,
    macs: Target | None = None,
    params: Target | None = None,
    activations: Target | None = None,
    rule: Rule = "compound",
) -> Spec:
    """Scale a network to a number of MACs, parameters or activations: as near as it gets, never above.

    Args:
        spec: any network; the target is counted at its own resolution and what the rule makes of that.
        macs, params, activations: exactly one of them, above 0.
        rule: how depth, width and resolution share the factor, see `RULES`.

    Returns:
        The scaled spec, named by its multipliers, such as "resnet50@width=1.19,depth=1.2,resolution=1.161"; the spec
        itself where nothing comes closer.

    Raises:
        InputError: not one target, a rule that does not exist, a target that no scaling by this rule reaches; the
            message gives the least or the most that it does.
    """
    given: dict[Measure, Target | None] = {"macs": macs, "params": params, "activations": activations}
    targets: list[tuple[Measure, Target]] = [(name, target) for name, target in given.items() if target is not None]
    if len(targets) != 1:
        raise InputError(f"{spec.name}: give one target, which is macs, params or activations")
    if rule not in RULES:
        raise InputError(f"{spec.name}: there is no rule {rule!r}; {near(rule, RULES)}")
    measure, target = targets[0]
    spent = cost(check_resolution(lower(spec)))
    now, limit = count(spent, measure), resolve(target, spent, measure)
    if limit <= 0:
        raise InputError(f"{spec.name}: a target of {limit:,} {LABELS[measure]} is none; give a number above 0")
    return spec if limit == now else _Search(spec, rule, measure, limit).run(now)


def resolve(target: Target, now: Cost, measure: Measure) -> int:
    """A target as a number; a multiple is one of what the network costs now, rounded down."""
    return math.floor(target.factor * count(now, measure)) if isinstance(target, Times) else target


LABELS: dict[Measure, str] = {"macs": "MACs", "params": "params", "activations": "activations"}


def count(spent: Cost, measure: Measure) -> int:
    """One of the numbers of a cost, by the name of the target."""
    match measure:
        case "macs":
            return spent.macs
        case "params":
            return spent.params
        case "activations":
            return spent.activations


@dataclass(frozen=True, kw_only=True)
class _Multipliers:
    """Of depth, width and resolution, to `DIGITS` significant digits."""

    depth: float
    width: float
    resolution: float


class _Search:
    def __init__(self, spec: Spec, rule: Rule, measure: Measure, limit: int) -> None:
        self.spec = spec
        self.rule: Rule = rule
        self.measure: Measure = measure
        self.limit = limit
        self.exponents = RULES[rule]
        self._known: dict[_Multipliers, int | None] = {}

    def run(self, now: int) -> Spec:
        low, high = self._bracket(now)
        below, above = self._multipliers(low), self._multipliers(high)
        best, most = below, self._spent(below) or 0
        for at in self._shared(below, above, low=low, high=high, grows=now <= self.limit):
            adjusted = self._widest(at, most=1.0 if now > self.limit else math.inf)
            if (spent := self._spent(adjusted) or 0) > most:
                best, most = adjusted, spent
        return self._scaled(best)

    def _shared(
        self, below: _Multipliers, above: _Multipliers, *, low: float, high: float, grows: bool
    ) -> list[_Multipliers]:
        """Where the width is adjusted: at the step below; if the one above has more blocks, at the depth of either,
        with as much of the rule's width and resolution as fits."""
        if not (self.exponents.width and self.exponents.depth):
            return []
        if self._blocks(below) == self._blocks(above):
            return [below]
        room = _WIDTH_ADJUSTED ** (1 / self.exponents.width)
        least, most = (1.0, high * room) if grows else (low / room, 1.0)
        found: list[_Multipliers] = []
        for depth in (below.depth, above.depth):

            def fits(factor: float, depth: float = depth) -> bool:
                spent = self._spent(replace(self._multipliers(factor), depth=depth))
                return spent is not None and spent <= self.limit

            if fits(most):
                found.append(replace(self._multipliers(most), depth=depth))
            elif fits(least):
                found.append(replace(self._multipliers(_bisect(least, most, fits)[0]), depth=depth))
        return found

    def _bracket(self, now: int) -> tuple[float, float]:
        """Factors next to each other: a network that is not above the limit, and one that is."""
        grows = now <= self.limit
        low = high = 1.0
        if grows:
            while self._fits(high := 2 * high):
                low = high
        else:
            while self._exceeds(low := low / 2):
                high = low
        low, high = _bisect(low, high, self._fits if grows else lambda factor: not self._exceeds(factor))
        reached = self._spent(self._multipliers(low if grows else high))
        assert reached is not None
        if self._spent(self._multipliers(high if grows else low)) is None and reached != self.limit:
            end = "most" if grows else "least"
            raise InputError(
                f"{self.spec.name}: scaling by the rule {self.rule!r} does not reach {self.limit:,} "
                f"{LABELS[self.measure]}; the {end} is {reached:,}"
            )
        return low, high

    def _widest(self, at: _Multipliers, *, most: float) -> _Multipliers:
        """The widest network at a depth and resolution that is not above the limit, at least as wide as `at`."""

        def with_width(width: float) -> _Multipliers:
            return replace(at, width=_rounded(width))

        def fits(width: float) -> bool:
            spent = self._spent(with_width(width))
            return spent is not None and spent <= self.limit

        wide = min(most, at.width * _WIDTH_ADJUSTED)
        return with_width(wide if fits(wide) else _bisect(at.width, wide, fits)[0])

    def _fits(self, factor: float) -> bool:
        spent = self._spent(self._multipliers(factor))
        return spent is not None and spent <= self.limit

    def _exceeds(self, factor: float) -> bool:
        spent = self._spent(self._multipliers(factor))
        return spent is not None and spent > self.limit

    def _multipliers(self, factor: float) -> _Multipliers:
        per_axis = 2 / len(self.spec.input.size)  # the exponents are those of pictures
        return _Multipliers(
            depth=_rounded(factor**self.exponents.depth),
            width=_rounded(factor**self.exponents.width),
            resolution=_rounded(factor ** (self.exponents.resolution * per_axis)),
        )

    def _spent(self, multipliers: _Multipliers) -> int | None:
        """What a scaled network costs; None when there is no such network."""
        if multipliers not in self._known:
            try:
                spent = count(cost(check_resolution(lower(self._scaled(multipliers)))), self.measure)
            except InputError:
                spent = None
            self._known[multipliers] = spent
        return self._known[multipliers]

    def _blocks(self, multipliers: _Multipliers) -> list[list[int]]:
        return [spread_repeats(stage.rows, self.spec.depth * multipliers.depth) for stage in self.spec.stages]

    def _scaled(self, by: _Multipliers) -> Spec:
        changed = {
            axis: value
            for axis, value in (("width", by.width), ("depth", by.depth), ("resolution", by.resolution))
            if value != 1.0
        }
        if not changed:
            return self.spec
        name = f"{self.spec.name}@{','.join(f'{axis}={value:.{DIGITS}g}' for axis, value in changed.items())}"
        return replace(scale(self.spec, **changed), name=name)


def _rounded(multiplier: float) -> float:
    return float(f"{multiplier:.{DIGITS}g}")


def _bisect(low: float, high: float, holds: Callable[[float], bool]) -> tuple[float, float]:
    """Narrow (low, high), where `holds` is true at low and false at high, until both round to the same digits."""
    while high > low * _NEAR:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high
