"""Dtype and memory layout of the activations, and their measurement on the machine at hand.

- Weights, gradients and optimizer stay float32; bfloat16 and float16 mean autocast of the activations. float16's range
  is small: its loss is scaled, so that gradients do not vanish, and CUDA only has it.
- On a CPU some gradients of depthwise convolutions are float32 under bfloat16, where they are many times faster; see
  `depthwise`.
- bfloat16 pays only where the processor has its instructions and the channels are not tiny, channels_last nearly
  always: neither is assumed, both are measured with whole updates on a copy of the network, and a faster way must
      win by a margin that noise does not reach.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from netsmith.run.clock import Clock
from netsmith.run.machine import machine
from netsmith.run.recipe import Recipe
from netsmith.train.depthwise import Float32Parts, use
from netsmith.train.devices import computes_bfloat16

MARGIN = 1.1  # how much faster another way than the default must be
WARM_UPS = 2  # the first updates build and cache kernels
TIMED = 5
OVERRUN = 1.5  # times the seconds given: warm-ups are slower than what is known before them
HOPELESS = 4.0  # a candidate this much slower than the best in its first timed update is given up

BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True)
class Precision:
    """How a network computes.

    Attributes:
        dtype: "float32", "bfloat16" or "float16", of the activations.
        channels_last: layout of activations and 4-D weights.
        depthwise: gradients of depthwise convolutions that are float32 under bfloat16 on a CPU; None: by a rule.
    """

    dtype: str = "float32"
    channels_last: bool = True
    depthwise: Float32Parts | None = None

    @property
    def scales_loss(self) -> bool:
        """Whether gradients would vanish without a scaled loss."""
        return self.dtype == "float16"

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The context of the forward call."""
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(device.type, dtype=torch.float16 if self.dtype == "float16" else torch.bfloat16)

    def lay_out(self, images: Tensor) -> Tensor:
        """Pictures [N,C,H,W] in the layout that the activations shall have."""
        return images.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def apply(self, network: nn.Module, device: torch.device | None = None) -> None:
        """Give weights their layout and the gradients of depthwise convolutions their dtype, in place.

        Parameters stay the same objects, so an optimizer that holds them goes on.

        Args:
            network: to compute.
            device: where it will be; that of its weights when None.
        """
        # The layout of the weights decides that of the activations: oneDNN and cuDNN follow it through the network.
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=layout)
        devices = [each.device for each in network.parameters()] if device is None else [device]
        mixed = self.dtype == "bfloat16" and all(each.type == "cpu" for each in devices)
        use(network, (self.depthwise or Float32Parts.by_rule(network)) if mixed else None)


Way = TypeVar("Way")


@dataclass(frozen=True)
class Timing(Generic[Way]):
    """A way to compute, measured.

    Attributes:
        way: a precision, or a number of threads.
        seconds: of one update, the least seen: other work on the machine only ever slows one.
    """

    way: Way
    seconds: float


def thread_counts(recipe: Recipe, *, measured: bool, processes: int = 1) -> list[int]:
    """The numbers of CPU threads worth trying, the default first: the recipe's, or the usable cores of this one of so
    many processes, and half of them.

    Half pays for small networks, and where other programs want the cores.
    """
    if recipe.threads is not None:
        return [recipe.threads]
    cores = max(1, machine().cores_usable // processes)
    return [cores, cores // 2] if measured and cores > 1 else [cores]


def candidates(recipe: Recipe, device: torch.device, *, measured: bool) -> list[Precision]:
    """The ways worth trying, the default first.

    Args:
        recipe: where its `dtype` or `channels_last` is not "auto", it is obeyed.
        device: where training runs.
        measured: whether time may decide; without it "auto" gives the default alone, which depends on the kind of
            device only, so that a run of fixed length is the same whenever it is repeated.

    Returns:
        One or more ways, none twice.
    """
    if device.type in {"cuda", "xla"}:
        dtypes = ["bfloat16"] if computes_bfloat16(device) else ["float32"]
    elif measured and (_cpu_has_bfloat16() if device.type == "cpu" else computes_bfloat16(device)):
        dtypes = ["float32", "bfloat16"]
    else:
        dtypes = ["float32"]
    if recipe.dtype != "auto":
        dtypes = [recipe.dtype]
    if device.type == "xla":
        return [Precision(dtype, channels_last=False) for dtype in dtypes]  # its compiler lays out by itself
    layouts = [True, False] if device.type != "mps" else [False, True]
    layouts = layouts if measured else layouts[:1]
    if recipe.channels_last != "auto":
        layouts = [recipe.channels_last]
    # Where several are tried, bfloat16 in the other layout is not: it has never won, and takes time from the others.
    return [
        Precision(dtype, layout) for layout in layouts for dtype in dtypes if layout == layouts[0] or dtype == dtypes[0]
    ]


def leaves_bfloat16(recipe: Recipe, device: torch.device) -> bool:
    """Whether a run of fixed length leaves this processor's bfloat16 instructions alone, because nobody asked."""
    return recipe.time_s is None and recipe.dtype == "auto" and device.type == "cpu" and _cpu_has_bfloat16()


def _cpu_has_bfloat16() -> bool:
    return not BFLOAT16_FLAGS.isdisjoint(machine().flags)


def measure(
    ways: Sequence[Way],
    ready: Callable[[Way], Callable[[], object]],
    *,
    clock: Clock,
    seconds: float,
) -> list[Timing[Way]]:
    """Time whole updates of each way: first one of each after its warm-up, then more in turn.

    In turn, because other work on the machine comes and goes: one update that met it must not decide a run of hours.

    Args:
        ways: the default first.
        ready: before every update makes a way ready, which is not timed, and gives a function that does the update on a
            copy of the network.
        clock: reads time.
        seconds: about how long to measure in all. The default and the first other way are timed twice in any case (on
            a slow start the second is often the fast one), more only while time is left.

    Returns:
        One timing per way that was tried, the default first.
    """
    started = clock.now()
    tried: list[_Tried[Way]] = []
    for way in ways:
        if len(tried) > 1 and clock.now() - started + (WARM_UPS + 1) * tried[0].seconds > OVERRUN * seconds:
            break  # not even one more after its warm-up would fit
        each = _Tried(way, ready, clock)
        for _ in range(WARM_UPS):
            each.look()
            if len(each.spent) > 1 and sum(each.spent) > 2 * seconds / len(ways):
                break  # a large network: the first update is left out, the second counts
        else:
            each.look()
        each.warm()
        tried.append(each)
    for turn in range(1, TIMED):
        best = min(each.seconds for each in tried)
        hopeful = [each for each in tried if each.seconds <= HOPELESS * best]
        if turn > 1 and clock.now() - started + sum(each.seconds for each in hopeful) > seconds:
            break
        for each in hopeful:
            each.look()
    return [Timing(each.way, each.seconds) for each in tried]


class _Tried(Generic[Way]):
    """A way and what its updates took."""

    def __init__(self, way: Way, ready: Callable[[Way], Callable[[], object]], clock: Clock) -> None:
        self.way = way
        self.spent: list[float] = []
        self._ready, self._clock = ready, clock

    @property
    def seconds(self) -> float:
        """Of an update."""
        return min(self.spent)

    def look(self) -> None:
        """Time one more update."""
        update = self._ready(self.way)
        before = self._clock.now()
        update()
        self.spent.append(self._clock.now() - before)

    def warm(self) -> None:
        """Forget all but the last."""
        del self.spent[:-1]


def fastest(timings: Sequence[Timing[Way]]) -> Timing[Way]:
    """The fastest way, or the default (the first) where no other is faster by more than `MARGIN`."""
    best = min(timings, key=lambda timing: timing.seconds)
    return best if timings[0].seconds > MARGIN * best.seconds else timings[0]
