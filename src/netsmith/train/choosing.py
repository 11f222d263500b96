"""How a run computes: dtype, memory layout, threads, as recipe and plan say, or as is fastest where time counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from netsmith.run.clock import Clock
from netsmith.run.recipe import Recipe
from netsmith.train.depthwise import Float32Parts, kinds_of
from netsmith.train.devices import choose_kernels
from netsmith.train.planning import Measure, Planner
from netsmith.train.precision import Precision, Timing, candidates, thread_counts
from netsmith.train.trials import Trials


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        precision: dtype and layout of the activations.
        threads: of the CPU; torch has them.
        measure: times updates in that precision with numbers of threads.
    """

    precision: Precision
    threads: int
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
        warn: told where the plan has other threads than the recipe.
        processes: that train together on this machine.
    """
    timed = planner.timed
    choose_kernels(device)
    counts = thread_counts(recipe, measured=timed and device.type == "cpu", processes=processes)
    torch.set_num_threads(counts[0])
    ways = candidates(recipe, device, measured=timed)
    depthwise = None
    if timed and device.type == "cpu" and any(way.dtype == "bfloat16" for way in ways) and kinds_of(network):
        depthwise = planner.depthwise(lambda: Float32Parts.measured(network, clock=clock))
    ways = [replace(way, depthwise=depthwise) for way in ways]
    precision = replace(planner.precision(ways, trials.precisions), depthwise=depthwise)

    def measure(ways: Sequence[int], seconds: float) -> list[Timing[int]]:
        return trials.threads(ways, seconds, precision=precision)

    threads = planner.threads(counts, measure)
    torch.set_num_threads(threads)
    if recipe.threads not in (None, threads):
        warn(
            f"--threads {recipe.threads} is not heeded: this run computes with {threads}, as {planner.plan.path} says, "
            "so that it comes to the weights it would have come to"
        )
    return Choice(precision, threads, measure)
