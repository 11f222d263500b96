"""How the time of a fit is divided, fixed before it begins except for what is left.

    reading | stopwatch (< 6 %) | race (a sixth to a third) | winner | export, measuring, verification, report

What comes after training is reserved from what the same things cost so far: every answered picture is read and prepared
again by the verification, and the fresh processes start Python.
"""

import math

from netsmith.run.clock import Clock

PROBE_SHARE = 0.06
RACE_SHARES = {1: 0.17, 2: 0.25, 3: 0.3}
"""Of the time until training must be over, by rungs. A second rung of a short race would tell candidates apart that
the first could not, by less than its time is worth to the winner."""
PROCESS_S = 1.5
"""Starting a fresh process that imports the runtime, on an ordinary machine."""


def after_training(measure_s: float, reading_s: float) -> float:
    """Seconds of everything after training: four fresh processes, three measurements, half the pictures read again."""
    return 4 * PROCESS_S + 3 * measure_s + 2.0 + 0.5 * reading_s


def least_time(reading_s: float) -> float:
    """Seconds that a fit takes without any training, when reading all pictures takes `reading_s`.

    Five fresh processes time candidates; importing torch and making the racers takes about as long as two more.
    """
    return reading_s + 7 * PROCESS_S + after_training(0.5, reading_s)


class Timetable:
    """The division of a fit's time.

    Args:
        time_s: of the whole fit.
        clock: reads time.
        began: `clock.now()` at the beginning of this session.
        before: seconds that earlier sessions of the same fit spent.
        pictures: validation and test pictures that are answered at the end.
        reading_s: seconds that reading all pictures took.
    """

    def __init__(
        self, time_s: float, *, clock: Clock, began: float, before: float, pictures: int, reading_s: float
    ) -> None:
        self.time_s = time_s
        self._clock = clock
        self._ends = began + time_s - before
        self.measure_s = min(2.0, max(0.5, time_s / 60))
        self._pictures = pictures
        self._after_training = after_training(self.measure_s, reading_s)
        self._answers = min(0.003 * pictures, 0.15 * time_s)

    @property
    def probe_s(self) -> float:
        """Seconds of the stopwatch."""
        return PROBE_SHARE * self.time_s

    @property
    def pace_s(self) -> float:
        """Seconds of measuring how fast this machine trains."""
        return min(2.0, 0.02 * self.time_s)

    @property
    def winner_s(self) -> float:
        """Seconds of training the winner can expect, its part of the race included."""
        return max(1.0, (1 - PROBE_SHARE) * self.time_s - self._after_training - self._answers) * (
            1 - 0.7 * self.race_share
        )

    @property
    def entries(self) -> int:
        """Candidates that race: 2 in a minute, 3 in ten, 4 in an hour: each must get some epochs before judgement."""
        return min(8, max(2, round(2 + 0.4 * math.log2(self.time_s / 60))))

    @property
    def rungs(self) -> int:
        """Rungs of the race."""
        return 1 if self.time_s < 1200 else 2 if self.time_s < 3600 else 3

    @property
    def race_share(self) -> float:
        """Share of the race in the time until training must be over."""
        return RACE_SHARES[self.rungs]

    def reserve_answers(self, latency_s: float) -> None:
        """Reserve what answering validation and test twice takes, at most a third of the whole.

        Args:
            latency_s: of one picture, of the slowest network that may win.
        """
        self._answers = min(2 * latency_s * self._pictures, self.time_s / 3)

    def training_left(self) -> float:
        """Seconds until training must be over, at least 1."""
        return max(1.0, self._ends - self._after_training - self._answers - self._clock.now())

    def race_s(self) -> float:
        """Seconds of the race, from now."""
        return self.race_share * self.training_left()
