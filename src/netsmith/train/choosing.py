"""How a run computes: dtype, memory layout, threads, as recipe and plan say, or as is fastest where time counts.

What is fastest is found on a copy of the network. Where there is no memory for one, the first of every kind is taken,
said aloud, and the run's own updates tell how long they take.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from netsmith.errors import cause
from netsmith.run.clock import Clock
from netsmith.run.recipe import Recipe
from netsmith.train.depthwise import Float32Parts, kinds_of
from netsmith.train.devices import choose_kernels, release
from netsmith.train.planning import Measure, Planner
from netsmith.train.precision import Precision, Timing, Way, candidates, thread_counts
from netsmith.train.shortage import NoMemory
from netsmith.train.trials import Trials


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        precision: dtype and layout of the activations.
        threads: of the CPU; torch has them.
        counts: of threads that may be worth a measurement, the default first.
        measure: times updates in that precision with numbers of threads; without memory for it those of the first
            alone, of which nothing is said.
    """

    precision: Precision
    threads: int
    counts: Sequence[int]
    measure: Measure[int]


def choose(
    network: nn.Module,
    recipe: Recipe,
    device: torch.device,
    *,
    planner: Planner,
    trials: Trials,
    clock: Clock,
    warn: Callable[[str], None],
    processes: int = 1,
) -> Choice:
    """Decide by plan rows, or write them.

    Args:
        network: to train.
        recipe: where it names a dtype, layout or threads, it is obeyed.
        device: that computes.
        planner: of the run.
        trials: time updates on copies.
        clock: reads time.
        warn: told where the plan has other threads than the recipe, and where nothing can be compared.
        processes: that train together on this machine.
    """
    timed = planner.timed
    choose_kernels(device)
    counts = thread_counts(recipe, measured=timed and device.type == "cpu", processes=processes)
    torch.set_num_threads(counts[0])
    ways = candidates(recipe, device, measured=timed)
    depthwise = None
    to_measure = timed and device.type == "cpu" and any(way.dtype == "bfloat16" for way in ways)
    if kinds_of(network) and (to_measure or planner.has("depthwise")):  # a plan's dtype may be no candidate here
        depthwise = planner.depthwise(lambda: Float32Parts.measured(network, clock=clock))
    ways = [replace(way, depthwise=depthwise) for way in ways]
    said: list[str] = []

    def or_first(measure: Measure[Way], *, aloud: bool = True) -> Measure[Way]:
        def found(ways: Sequence[Way], seconds: float) -> list[Timing[Way]]:
            try:
                return measure(ways, seconds)
            except NoMemory as error:
                why = cause(error)
            release(device)
            if aloud and len(ways) > 1 and not said:
                said.append(why)
                warn(
                    f"{why}, beside the network itself: dtype, layout and threads are the first of each and not the "
                    "fastest; --amp and --threads choose others"
                )
            return [Timing(ways[0], planner.pacing.per_step)]

        return found

    precision = replace(planner.precision(ways, or_first(trials.precisions)), depthwise=depthwise)

    def time_threads(ways: Sequence[int], seconds: float) -> list[Timing[int]]:
        return trials.threads(ways, seconds, precision=precision)

    threads = planner.threads(counts, or_first(time_threads))
    torch.set_num_threads(threads)
    if recipe.threads not in (None, threads):
        warn(
            f"--threads {recipe.threads} is not heeded: this run computes with {threads}, as {planner.plan.path} says, "
            "so that it comes to the weights it would have come to"
        )
    return Choice(precision, threads, counts, or_first(time_threads, aloud=False))
