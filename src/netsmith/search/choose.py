"""Which candidates to time, and which of those that fit to race: single-peaked guesses, replaced by measurements as
they come.

On small data the question is how much network the training time can feed. A candidate is guessed by the number of
passes over the training pictures it would get in the time there is: fewer than a few dozen and it stays unripe, many
more and a larger one would have done better, by less. Time per picture in training follows the work of an update,
which arithmetic gives, at the speed measured here (`Outlook.work_per_s`); latency comes from the stopwatch, before that
from MACs at the family's measured speed. At equal time, more pixels beat more channels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from netsmith.arch.cost import Cost
from netsmith.search.candidates import Candidate

GUESS_HEADROOM = 0.8
"""Share of a latency limit that a guessed median may take: p90 lies above it, and guesses err."""

RIPE_EPOCHS, RIPE_PICTURES = 100.0, 1700
"""Passes over so many training pictures after which a network scaled for the job stops gaining; fewer passes over more
pictures, by the square root. Seen on photos trained from scratch, see benchmarks/LOG.md."""

ACTIVATION_WORK = 360.0
"""MACs in whose time an update handles one output of a convolution besides its own MACs: norm, activation and memory.
A fit over ResNets and MobileNets of 25 to 250 M MACs, see benchmarks/LOG.md; it is why depthwise convolutions train far
slower than they predict."""

SURPLUS = 0.3
"""Doublings of training time that a network half as capable as the time could feed costs: being too small costs less
than being too large (benchmarks/LOG.md)."""

CAPABLE = {"resnet18": 1.0, "resnet20_cifar": 1.0, "resnet50": 1.3, "mobilenet_v2": 4.0, "efficientnet_b0": 6.0}
"""MACs of ResNet-18's kind that are as good as one of the family's, trained to the end; from published accuracies, so a
rough guess."""

MACS_OF_WORK = 0.5
"""Share of MACs in the training work of networks of ResNet-18's kind."""

LAG = {"resnet18": 0.0, "resnet20_cifar": 0.25, "resnet50": 0.5, "mobilenet_v2": 1.0, "efficientnet_b0": 1.5}
"""Doublings of training time that a family was seen to need beyond ResNet-18's when all train from scratch for minutes
(benchmarks/LOG.md). It orders guesses only: the race decides on answers."""

PIXEL_LAG = 0.7
"""Doublings of training time that halving the side costs at equal time per picture (benchmarks/LOG.md)."""

ALIKE_SIDE, ALIKE_MACS = 1.1, 1.15
"""Two candidates of one base network whose sides and MACs differ by at most these factors tell the same."""

FIRST_RATE = {"mobilenet_v2": 1.5e10, "efficientnet_b0": 1.0e10}
DEFAULT_RATE = 4.0e10
"""MACs per second of inference assumed until a network of the family has been timed."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What the stopwatch said: p50 and the upper bound of p90 in milliseconds, and the exported size in bytes."""

    p50_ms: float
    high_ms: float
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a candidate can expect.

    Attributes:
        train: training pictures.
        seconds: of training it would get as the winner.
        side: largest of the resolutions considered, pixels.
        share: training pixels per picture over those of evaluation.
        work_per_s: of training here, see `training_work`.
    """

    train: int
    seconds: float
    side: int
    share: float = 1.0
    work_per_s: float = 1e11


def training_work(cost: Cost) -> float:
    """How long training on a picture takes, in MACs of inference with nothing beside them."""
    return cost.macs + ACTIVATION_WORK * cost.activations


def rates(candidates: Mapping[str, Candidate], timings: Mapping[str, Timing]) -> dict[str, float]:
    """MACs per second by base network: the median over those of `candidates` that were timed."""
    speeds: dict[str, list[float]] = {}
    for candidate in candidates.values():
        if (timing := timings.get(candidate.id)) is None:
            continue
        speeds.setdefault(candidate.base, []).append(candidate.cost.macs / (timing.p50_ms / 1e3))
    return {base: sorted(values)[len(values) // 2] for base, values in speeds.items()}


def guessed_latency(candidate: Candidate, *, timing: Timing | None, speeds: Mapping[str, float]) -> float:
    """Seconds per picture of inference, measured or guessed from MACs."""
    if timing is not None:
        return timing.p50_ms / 1e3
    speed = speeds.get(candidate.base, FIRST_RATE.get(candidate.base, DEFAULT_RATE))
    return candidate.cost.macs / speed


def ripe_epochs(train: int) -> float:
    """Passes over `train` pictures that suit a candidate."""
    return RIPE_EPOCHS * math.sqrt(RIPE_PICTURES / train)


def promise(candidate: Candidate, outlook: Outlook) -> float:
    """How promising a candidate is, at most 0, in doublings of training time: what it lacks to its ripe epochs, what it
    is too small for the time, and the lag of its resolution."""
    fed = outlook.work_per_s * outlook.seconds / (ripe_epochs(outlook.train) * outlook.train * outlook.share)
    lacking = LAG[candidate.base] + math.log2(training_work(candidate.cost) / fed)
    too_small = math.log2(MACS_OF_WORK * fed / (candidate.cost.macs * CAPABLE[candidate.base]))
    pixels = PIXEL_LAG * math.log2(outlook.side / candidate.side)
    return -max(0.0, lacking) - SURPLUS * max(0.0, too_small) - pixels


def calibration(candidates: Sequence[Candidate], *, each: int = 2) -> list[Candidate]:
    """A few candidates per base network, evenly spread over its costs, to learn the family's speed from."""
    by_base: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        by_base.setdefault(candidate.base, []).append(candidate)
    chosen: list[Candidate] = []
    for group in by_base.values():
        ranked = sorted(group, key=lambda candidate: (candidate.cost.macs, candidate.id))
        places = {round((i + 1) * (len(ranked) - 1) / (each + 1)) for i in range(each)}
        chosen += [ranked[place] for place in sorted(places)]
    return chosen


def promising(
    candidates: Sequence[Candidate],
    timings: Mapping[str, Timing],
    *,
    known: Sequence[Candidate],
    count: int,
    outlook: Outlook,
    limit_ms: float | None,
    per_base: int,
    spread: float = 1.0,
    margin: float = math.inf,
) -> list[Candidate]:
    """The most promising candidates, best first, spread over families and sizes.

    At most `per_base` of one base network, and no two of one base that are alike; a candidate whose guessed latency
    leaves the limit no headroom is passed over.

    Args:
        candidates: to choose from.
        timings: what the stopwatch said, by id.
        known: the candidates among which those that were timed are found.
        count: how many at most.
        outlook: see `promise`.
        limit_ms: the budget's latency, or None.
        per_base: candidates of one base network at most.
        spread: power of `ALIKE_SIDE` and `ALIKE_MACS` up to which two are alike.
        margin: how much less promising than the best a candidate may be, doublings.
    """
    speeds = rates({candidate.id: candidate for candidate in known}, timings)

    def latency(candidate: Candidate) -> float:
        return guessed_latency(candidate, timing=timings.get(candidate.id), speeds=speeds)

    allowed = [c for c in candidates if limit_ms is None or latency(c) * 1e3 <= GUESS_HEADROOM * limit_ms]
    ranked = sorted(((promise(c, outlook), c) for c in allowed), key=lambda pair: (-pair[0], pair[1].id))
    chosen: list[Candidate] = []
    for value, candidate in ranked:
        if len(chosen) == count or value < ranked[0][0] - margin:
            break
        same = [other for other in chosen if other.base == candidate.base]
        if len(same) < per_base and not any(_alike(candidate, other, spread=spread) for other in same):
            chosen.append(candidate)
    return chosen


def _alike(a: Candidate, b: Candidate, *, spread: float) -> bool:
    def apart(x: int, y: int) -> float:
        return max(x, y) / min(x, y)

    return apart(a.side, b.side) <= ALIKE_SIDE**spread and apart(a.cost.macs, b.cost.macs) <= ALIKE_MACS**spread
