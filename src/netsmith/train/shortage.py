"""Memory that ran out: how torch says so, and what an update that met it is answered with."""

from collections.abc import Callable
from typing import TypeVar

import torch

from netsmith.errors import CheckError, first_line

Result = TypeVar("Result")

_WORDS = (
    "DefaultCPUAllocator",
    "bad_alloc",
    "out of memory",
    "RESOURCE_EXHAUSTED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_CUDNN = "unable to find an engine to execute"
"""What cuDNN says where no kernel's workspace finds room, each failed allocation being passed over; also where it has
no kernel at all, but then no allocation failed."""
_ONEDNN = ("could not create a primitive", "could not execute a primitive", "could not create a memory")
"""All that oneDNN says where its own buffers find no room. A layer it cannot compute is worded alike, but longer."""


class OutOfMemory(Exception):
    """Memory ran out while gradients were computed; weights and optimizer were not touched."""


class NoMemory(CheckError):
    """Memory ran out, and smaller parts of a batch are no help."""


def says_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory for tensors ran out.

    CUDA has a class of its own; all others raise a plain RuntimeError, known by its words only.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    said = str(error)
    return (
        first_line(error) in _ONEDNN or any(words in said for words in _WORDS) or (_CUDNN in said and _cuda_ran_out())
    )


def _cuda_ran_out() -> bool:
    """Whether an allocation of this process failed on a CUDA device."""
    return any(torch.cuda.memory_stats(each).get("num_ooms", 0) for each in range(torch.cuda.device_count()))


def enough_memory(
    make: Callable[[], Result],
    *,
    of: str,
    mend: str = "go on with fewer --workers, or take a smaller --batch-size",
) -> Result:
    """What `make` gives.

    Args:
        make: makes it.
        of: what it is, for the message.
        mend: what the user can do about it.

    Raises:
        NoMemory: memory ran out.
    """
    try:
        return make()
    except (RuntimeError, MemoryError) as error:
        if not says_out_of_memory(error):
            raise
        raise NoMemory(f"there is no memory for {of} ({first_line(error)}); {mend}") from error


def enough_to_begin(make: Callable[[], Result], *, mend: str = "take a smaller network or --img-size") -> Result:
    """What `make` gives of all that a training holds before its first update.

    Args:
        make: makes it.
        mend: what the user can do about a lack of memory.

    Raises:
        NoMemory: memory ran out.
    """
    return enough_memory(make, of="the network and what is held beside it to train it", mend=mend)
