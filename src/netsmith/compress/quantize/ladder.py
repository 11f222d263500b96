"""Which way of rounding is tried next: a pure function of what was tried and what became of it.

In this order: all that can be rounded, a scale per channel, ranges by minmax, entropy, percentile; then a scale per
layer; then the most sensitive layers left in float, 1, 2, 4, ... up to half of them; then, on an equalized graph with
corrected biases, all of it again; then, where training is allowed, the network trained on with rounding simulated. At
last, where int8 or nothing was not asked for, bfloat16 in OpenVINO: twice the bytes of int8, so it is for what int8
does not do, and training comes before it because who allows that wants int8 to do it.
Only what can mend the trouble is tried: calibration, equalization and training change what a graph answers and not how
long it takes, so where one rung was faster than float all that round alike are, whatever a disturbed measurement says;
and every excluded layer makes it slower and larger. The ranges are from then on those of the calibration that kept most
accuracy.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from netsmith.artifact.quantization import Calibration
from netsmith.compress.quantize.calibrate import METHODS


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One way of rounding.

    Attributes:
        calibration: how ranges are chosen; None of the one that is no int8, but weights and arithmetic in bfloat16.
        per_channel: whether every output of a layer has a scale of its own.
        excluded: how many of the most sensitive layers stay float.
        equalized: whether channels are made alike in size and biases corrected before.
        trained: whether the network is trained on with rounding simulated before.
    """

    calibration: Calibration | None
    per_channel: bool = True
    excluded: int = 0
    equalized: bool = False
    trained: bool = False

    def __str__(self) -> str:
        if self.calibration is None:
            return "bfloat16 in OpenVINO"
        parts = ["per channel" if self.per_channel else "per tensor", self.calibration]
        parts += ["equalized, biases corrected"] if self.equalized else []
        parts += [f"{self.excluded} layers in float"] if self.excluded else []
        parts += ["trained with rounding"] if self.trained else []
        return ", ".join(parts)


BFLOAT16 = Rung(calibration=None)
"""The one that is no int8."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What became of a rung.

    Attributes:
        rung: it.
        score: headline on validation.
        drops: whether it loses too much of it.
        slow: whether it is not faster than float.
        over: whether the layers left in float make it miss a limit.
    """

    rung: Rung
    score: float
    drops: bool
    slow: bool
    over: bool = False

    @property
    def kept(self) -> bool:
        """Whether the ladder ends here."""
        return not (self.drops or self.slow or self.over)


def next_rung(
    tried: Sequence[Tried],
    *,
    layers: int,
    methods: Sequence[Calibration] = METHODS,
    trains: bool = False,
    bfloat16: bool = False,
) -> Rung | None:
    """The next rung; None where one was kept, or none that is left can mend what is wrong.

    Args:
        tried: in the order they were tried.
        layers: how many can be left in float one by one.
        methods: of calibration, at least one.
        trains: whether training is allowed.
        bfloat16: whether that may be what comes of it.
    """
    if any(each.kept for each in tried):
        return None
    known = {each.rung: each for each in tried}
    ways = _ways(known, layers=layers, methods=methods, trains=trains)
    last = [BFLOAT16] if bfloat16 else []
    return next((rung for rung in chain(ways, last) if rung not in known), None)


def disturbed(tried: Sequence[Tried]) -> list[Rung]:
    """Rungs that answer well enough and were slow though others that take as long were not: worth measuring anew.

    Args:
        tried: in any order, each rung once.
    """
    return [
        each.rung
        for each in tried
        if each.slow
        and not each.drops
        and not each.rung.excluded
        and each.rung != BFLOAT16
        and _fast(tried, per_channel=each.rung.per_channel)
    ]


def _fast(tried: Iterable[Tried], *, per_channel: bool) -> bool:
    """Whether a rung with such scales and no layer in float was faster than float."""
    alike = [each for each in tried if each.rung.per_channel == per_channel and each.rung != BFLOAT16]
    return any(not each.slow for each in alike if not each.rung.excluded)


def _ways(known: dict[Rung, Tried], *, layers: int, methods: Sequence[Calibration], trains: bool) -> Iterator[Rung]:
    """The rungs in order, as far as what is known of those before says that they are worth trying."""
    for method in methods:
        yield Rung(calibration=method)
        if not _fast(known.values(), per_channel=True):
            break
    best = max((known[Rung(calibration=m)] for m in methods if Rung(calibration=m) in known), key=_score)
    plain = best.rung.calibration
    yield Rung(calibration=plain, per_channel=False)
    per_channel = _fast(known.values(), per_channel=True)
    if not per_channel and not _fast(known.values(), per_channel=False):
        return  # no way of calibrating is faster
    for equalized in (False, True):
        if equalized:
            yield Rung(calibration=plain, per_channel=per_channel, equalized=True)
        excluded = 1
        while excluded <= layers // 2:
            yield (rung := Rung(calibration=plain, per_channel=per_channel, excluded=excluded, equalized=equalized))
            if known[rung].slow or known[rung].over:
                break  # more of them take longer and more bytes
            excluded *= 2
    if trains:
        yield Rung(calibration=plain, per_channel=per_channel, trained=True)


def _score(tried: Tried) -> float:
    return tried.score
