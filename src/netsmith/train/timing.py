"""From a time to a number of steps, and from steps to progress: pure functions, no clock.

The number of steps of a timed run is planned from a first measurement and planned again at fixed marks of progress, and
between two of them where updates become far slower; each plan is a row (step at which it was made, total steps).
Progress is a pure function of the step and those rows: piecewise linear, each row aiming from where it stands at 1 in
its last step (one that leaves no step ends training where it stands). It is continuous but for two cases, in which it
goes back to the share of the new length that is done: training that had come to its end and is lengthened, because at 1
it would learn nothing; and the first updates, because a first measurement of a few pictures may think them ten times
slower than they are, and a schedule that had run down by then would never come back. So a run that is replayed from its
rows follows the same learning rates whatever the clock says.

The marks lie closer towards the end, where there is less left to correct with: what a stretch between two marks can
overrun is bounded by its own length times the change in speed within it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MARKS = (0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
SPARE = 0.005  # share of the time kept for what is not foreseen
FIRST = 50  # updates after which the pace is known: a plan made by then that is longer takes progress back


@dataclass(frozen=True)
class Length:
    """A plan of the number of steps.

    Attributes:
        at: step before which it was made.
        total: steps from the start of training to its end, >= `at`.
    """

    at: int
    total: int


def progress(step: float, lengths: Sequence[Length]) -> float:
    """Share of training that lies before `step`.

    Args:
        step: from 0; a half step gives the middle of an update.
        lengths: ascending, the first at 0; those made after `step` play no part.

    Returns:
        In [0, 1].
    """
    assert lengths[0].at == 0, "the first plan is made before the first step"
    made = [each for each in lengths if each.at < step or each.at == step < each.total]
    reached, done = 0.0, 0.0
    for length, end in zip(made, [*(float(each.at) for each in made[1:]), step], strict=True):
        if length.at < length.total and (done == 1.0 or length.at <= FIRST):
            done = min(done, length.at / length.total)
        done = 1.0 if end >= length.total else done + (1.0 - done) * (end - reached) / (length.total - reached)
        reached = end
    return done


def marks_passed(step: int, lengths: Sequence[Length], marks: Sequence[float]) -> bool:
    """Whether a mark lies in what the update before `step` did: after progress(step - 1), up to progress(step)."""
    if step == 0:
        return False
    earlier = [length for length in lengths if length.at < step]  # a plan made at this very step comes of the mark
    before, after = progress(step - 1, earlier), progress(step, earlier)
    return any(before < mark <= after for mark in marks)


def plan_length(step: int, *, seconds_left: float, seconds_per_step: float, seconds_reserved: float) -> int:
    """Total steps that fit.

    Args:
        step: updates already made.
        seconds_left: until training must be over.
        seconds_per_step: of the coming updates.
        seconds_reserved: of what else is to come: evaluations, checkpoints, what is not foreseen.

    Returns:
        At least one step in all; otherwise the last total that is over in time.
    """
    coming = math.floor((seconds_left - seconds_reserved) / seconds_per_step) if seconds_per_step > 0 else 0
    return max(step + max(coming, 0), 1)
