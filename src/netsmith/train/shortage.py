"""Memory that ran out: how torch says so, and what an update that met it is answered with."""

import torch

_WORDS = (
    "DefaultCPUAllocator",
    "bad_alloc",
    "out of memory",
    "RESOURCE_EXHAUSTED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class OutOfMemory(Exception):
    """Memory ran out while gradients were computed; weights and optimizer were not touched."""


def says_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory for tensors ran out.

    CUDA has a class of its own; all others raise a plain RuntimeError, known by its words only.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def first_line(error: BaseException) -> str:
    """What an error says, without the lines of advice and traces that torch adds."""
    return str(error).strip().split("\n")[0] or type(error).__name__
