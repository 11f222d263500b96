"""Several processes that train one network: how they agree, and how they add up.

Choices made on purpose:

- Whatever depends on time, files or the machine is decided by the process that leads (number 0) and told to the others
  (`once`); whatever happens to one (a signal, a picture that is gone, memory that ran out) is told to all at one fixed
  place of every step (`most`, `each`). So all take the same way through the program, and none waits for one that left.
- These words go by gloo over the CPU, whatever the device; only tensors go the device's own way (nccl on CUDA).
- A process that ends for a reason of its own leaves it in torchrun's store, where the leading one finds it and says it.
- A world of one is the same object with nothing behind it: no call leaves the process.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from netsmith.errors import CheckError, InputError
from netsmith.run.clock import span
from netsmith.run.world import World
from netsmith.train.interrupt import Interrupted

T = TypeVar("T")

STEP_SECONDS = 1800.0
"""How long a process waits for the others within training: above any evaluation or checkpoint."""
PREPARATION_SECONDS = 86400.0
"""How long for what the leading one does alone: reading millions of pictures takes hours."""
BUCKET = 25 * 2**20  # bytes of tensors that are added up at once
_REASON = "netsmith/reason"
_prefixed: Any = vars(dist)["PrefixStore"]  # public, but torch's types do not say so
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out", "timed out", "NCCL error")
_KINDS: dict[str, type[Exception]] = {"input": InputError, "check": CheckError}


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them.

    Attributes:
        world: which one this is.
        words: the gloo group for what takes long; None alone.
        steps: the gloo group for what happens in every step; None alone.
    """

    world: World = field(default_factory=World)
    words: dist.ProcessGroup | None = None
    steps: dist.ProcessGroup | None = None

    @property
    def several(self) -> bool:
        """Whether there are others, until they part."""
        return self.world.several and dist.is_initialized()

    @property
    def leads(self) -> bool:
        """Whether this process decides, writes and speaks."""
        return self.world.leads

    def once(self, compute: Callable[[], T]) -> T:
        """`compute()` of the leading process, given to all; an InputError or CheckError of it is raised by all."""
        if not self.several:
            return compute()
        told: list[Any] = [None]
        if self.leads:
            try:
                told = [("done", compute())]
            except (InputError, CheckError) as error:
                dist.broadcast_object_list([(_kind(error), str(error))], src=0, group=self.words)
                raise
        dist.broadcast_object_list(told, src=0, group=self.words)
        kind, value = told[0]
        if kind != "done":
            raise _KINDS[kind](value)
        return value

    def each(self, compute: Callable[[], T]) -> T:
        """`compute()` of every process; an InputError or CheckError of any is raised by all."""
        if not self.several:
            return compute()
        done: list[T] = []
        error: InputError | CheckError | None = None
        try:
            done.append(compute())
        except (InputError, CheckError) as raised:
            error = raised
        if self.most([error is not None]) == [0]:
            return done[0]
        told = self.gathered((_kind(error), str(error)) if error is not None else None)
        rank, (kind, text) = next((rank, each) for rank, each in enumerate(told) if each is not None)
        where = f"process {rank} of {self.world.size}: " if rank else ""
        raise _KINDS[kind](f"{where}{text}") from error

    def most(self, values: Sequence[int]) -> list[int]:
        """The largest of each value over all processes."""
        if not self.several:
            return [int(value) for value in values]
        largest = torch.tensor([int(value) for value in values])
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.steps)
        return largest.tolist()

    def gathered(self, value: T) -> list[T]:
        """The value of every process, by rank."""
        if not self.several:
            return [value]
        found: list[Any] = [None] * self.world.size
        dist.all_gather_object(found, value, group=self.steps)
        return found

    def stacked(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, by rank, along a new first axis."""
        if not self.several:
            return tensor[None]
        found = [torch.empty_like(tensor) for _ in range(self.world.size)]
        dist.all_gather(found, tensor)
        return torch.stack(found)

    def same(self, value: str, what: str) -> None:
        """Raise InputError in all processes where a value is not the same in all.

        Args:
            value: to compare.
            what: every process needs, for the message.
        """
        values = self.gathered(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise InputError(f"every process needs {what}: process {rank} has {other!r}, the first {values[0]!r}")

    def slice_of(self, count: int) -> slice:
        """Which of `count` things are this process's: a contiguous part; parts differ by one at most."""
        rank, size = self.world.rank, self.world.size
        return slice(rank * count // size, (rank + 1) * count // size)

    @torch.no_grad()
    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the sum over all processes, in place; the sum has the same bits everywhere.

        Args:
            tensors: the same ones, in shape, dtype and order, in every process.
        """
        if not self.several:
            return
        under_way: list[tuple[list[Tensor], Tensor, Any]] = []
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            under_way.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in under_way:
            work.wait()
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))

    @torch.no_grad()
    def spread(self, network: nn.Module) -> None:
        """Give every process the leading one's weights and buffers."""
        if self.several:
            for tensor in network.state_dict().values():
                there = tensor.contiguous()
                dist.broadcast(there, src=0)
                tensor.copy_(there)

    def own_device(self, device: torch.device) -> torch.device:
        """The device of this process, of those that the recipe's stands for.

        Raises:
            InputError: there are fewer devices than processes, or the recipe names a single one.
        """
        if not self.several or device.type == "cpu":
            return device
        size, local = self.world.local_size, self.world.local
        if device.type != "cuda":
            raise InputError(
                f"several processes train on CPUs or CUDA devices and not on {device.type.upper()}; "
                "start one process, or give --device cpu"
            )
        if str(device) != "cuda":
            raise InputError(
                f"--device {device} is one device, and each of the {self.world.size} processes needs its own; "
                "give --device cuda"
            )
        if local >= torch.cuda.device_count():
            raise InputError(
                f"{size} processes were started on a machine where torch sees {torch.cuda.device_count()} CUDA "
                "devices; start one per device (torchrun --nproc-per-node), or give --device cpu"
            )
        torch.cuda.set_device(local)
        return torch.device("cuda", local)

    def leave(self) -> None:
        """End what all do together, at one place of the program; each goes on alone."""
        if self.several:
            dist.barrier(group=self.words)
            dist.destroy_process_group()


ALONE = Ranks()


@contextmanager
def joined(world: World) -> Generator[Ranks]:
    """Join the others of this process's world, and part from them at the end.

    Args:
        world: where torchrun put this process; of one, nothing is done.

    Raises:
        CheckError: another process ended or does not answer; with its reason where it left one.
    """
    if not world.several:
        yield ALONE
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        shared, rank, size = next(iter(rendezvous("env://")))
        # The store outlives a restart, and with it the addresses of processes that are gone.
        store = _prefixed(f"netsmith/attempt {world.restarts}", shared)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=span(seconds=STEP_SECONDS))
        words, steps = _group(PREPARATION_SECONDS), _group(STEP_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise CheckError(
            f"the {world.size} processes do not find each other ({_line(error)}); check MASTER_ADDR, MASTER_PORT and "
            "the network between the machines, and start them with torchrun"
        ) from error
    ranks = Ranks(world, words, steps)
    try:
        yield ranks
    except BaseException as error:
        explained = _explained(error, world, store)
        _part()
        if explained is error:
            raise
        raise explained from error
    ranks.leave()


def _part() -> None:
    """End the threads of gloo, which abort a process that ends before they do. nccl's wait for what is under way on the
    devices, which others may never finish; those end with the process."""
    if dist.is_initialized() and not torch.cuda.is_available():
        with suppress(RuntimeError):
            dist.destroy_process_group()


def _group(seconds: float) -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=span(seconds=seconds))
    assert isinstance(group, dist.ProcessGroup), "every process is in it"
    return group


class _Store(Protocol):
    """What is used of torch's store, which all processes see."""

    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes: ...
    def check(self, keys: list[str], /) -> bool: ...
    def get(self, key: str, /) -> bytes: ...


class Silent(SystemExit):
    """The end of a process whose reason the leading one says."""


def _explained(error: BaseException, world: World, store: _Store) -> BaseException:
    """What to raise for an error: the leading process says its own or what another one left, the others are silent."""
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST):
        reason = _reason(store)
        if reason and not world.leads:
            return Silent(1)
        return CheckError(
            reason
            or f"another of the {world.size} processes ended or does not answer ({_line(error)}); "
            "go on with --resume, or let torchrun do it (--max-restarts)"
        )
    if isinstance(error, Interrupted):
        return error if world.leads else Silent(128 + error.number)
    if isinstance(error, Exception):
        kind = "" if isinstance(error, (InputError, CheckError)) else f"{type(error).__name__}: "
        _leave_reason(store, f"process {world.rank} of {world.size} ended: {kind}{error}")
    if isinstance(error, (InputError, CheckError)) and not world.leads:
        return Silent(2 if isinstance(error, InputError) else 1)
    return error


def _leave_reason(store: _Store, text: str) -> None:
    with suppress(RuntimeError):
        store.compare_set(_REASON, "", text)


def _reason(store: _Store) -> str:
    with suppress(RuntimeError):
        if store.check([_REASON]):
            return store.get(_REASON).decode()
    return ""


def _kind(error: Exception) -> str:
    return "input" if isinstance(error, InputError) else "check"


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


def _buckets(tensors: Iterable[Tensor]) -> Generator[list[Tensor]]:
    """Neighbours of one dtype, up to so many bytes."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size >= BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel() * tensor.element_size()
    if bucket:
        yield bucket
