"""Where the time of a training step goes, and how far it is from what the machine's matrix products reach.

Operations are those of torch's profiler, by the time spent in themselves on the threads that call them. The work of a
step is counted as three times the products of a forward pass, two floating-point operations to a MAC: what the first
layer saves and what norms, activations and the optimizer compute is left out.
"""

from collections import Counter
from dataclasses import dataclass

import torch

from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout
from netsmith.run.clock import SystemClock
from netsmith.train.trainer import Trainer

FIRST, TIMED, SEEN = 4, 8, 4  # updates that warm up, are timed, are profiled
SIDE = 2048  # of the matrices
KINDS = {
    "convolutions and products": ("convolution", "addmm", "linear", "::mm"),
    "norms": ("batch_norm", "_folded", "var_mean"),
    "activations": ("relu", "hardtanh", "silu", "threshold", "clamp", "sigmoid", "hardswish"),
    "copies": ("copy", "contiguous", "::to", "::cat"),
    "pools": ("pool", "::mean"),
    "sums and factors": ("::add", "::mul", "::sum", "::div"),
    "optimizer": ("sgd", "foreach"),
}
"""Words of the operations' names; the first kind that has one takes it."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Of training steps.

    Attributes:
        milliseconds: of a step, without the profiler.
        rate: FLOP/s of a step.
        limit: FLOP/s of a matrix product in the same dtype, with as many threads.
        shares: of the time by kind of operation, the largest first.
        table: the operations, as torch's profiler prints them.
    """

    milliseconds: float
    rate: float
    limit: float
    shares: dict[str, float]
    table: str

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in self.shares.items() if share >= 0.005)
        return (
            f"{self.milliseconds:.0f} ms a step, {self.rate / 1e9:.0f} GFLOP/s, {self.rate / self.limit:.0%} of the "
            f"{self.limit / 1e9:.0f} that a product of matrices of {SIDE} reaches; {kinds}"
        )


def profiled(trainer: Trainer, layout: Layout) -> Profile:
    """Of the next updates of a trainer, which has them still to make."""
    clock = SystemClock()
    trainer.advance(FIRST)
    began = clock.now()
    trainer.advance(FIRST + TIMED)
    seconds = (clock.now() - began) / TIMED
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        trainer.advance(FIRST + TIMED + SEEN)
    found = seen.key_averages()
    spent: Counter[str] = Counter()
    for each in found:
        spent[kind_of(each.key)] += each.self_cpu_time_total
    whole = sum(spent.values())
    work = 3 * 2 * cost(layout).macs * trainer.batch_size
    return Profile(
        milliseconds=1e3 * seconds,
        rate=work / seconds,
        limit=matrix_limit(getattr(torch, trainer.precision.dtype)),
        shares={kind: time / whole for kind, time in spent.most_common()},
        table=found.table(sort_by="self_cpu_time_total", row_limit=18, max_name_column_width=48),
    )


def kind_of(operation: str) -> str:
    """The kind of an operation of torch's profiler."""
    name = operation.lower()
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "the rest")


def matrix_limit(dtype: torch.dtype) -> float:
    """FLOP/s of large matrix products with the threads that torch has, the best of several."""
    clock = SystemClock()
    left, right = torch.randn(SIDE, SIDE).to(dtype), torch.randn(SIDE, SIDE).to(dtype)
    seconds: list[float] = []
    for _ in range(8):
        began = clock.now()
        left @ right
        seconds.append(clock.now() - began)
    return 2 * SIDE**3 / min(seconds)
