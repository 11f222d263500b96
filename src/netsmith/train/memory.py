"""Keep large activations in the process instead of handing them back to the kernel after every step, or, where a
network is divided because memory is short, hand them back at once.

glibc serves large blocks by mmap and returns them with munmap, so each training step page-faults through all of its
activations again. Told to take them from the heap and not to trim it, a step is 1.03 to 1.3 times faster. The price:
memory once used stays with the process. It is the wrong price for a divided network: what is gathered of it around
each block, of ever other sizes and in other threads, leaves a heap of holes that soon takes more than the whole network
does. glibc's own way is no better, because it raises the size from which blocks are mapped whenever one is freed.

Switch: set the environment variable NETSMITH_KEEP_MEMORY=0 to leave the allocator alone. Other C libraries are left
alone too.
"""

import ctypes
import os
import platform
from collections.abc import Sequence
from functools import cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_INT_MAX = 2**31 - 1


def keep_large_blocks() -> bool:
    """Set glibc's allocator for large activations, before the first big tensor of a training.

    Returns:
        Whether the allocator took the settings.
    """
    # Older versions of glibc refuse more than 32 MiB and keep their default then.
    return _set(threshold=(1 << 30, 32 << 20), trim=_INT_MAX, pad=256 << 20)


def give_back_large_blocks() -> bool:
    """Set glibc's allocator for divided networks: what is freed goes back to the kernel.

    Returns:
        Whether the allocator took the settings.
    """
    return _set(threshold=(1 << 20,), trim=1 << 20, pad=0)


@cache
def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"  # reads the interpreter's file


def _set(*, threshold: Sequence[int], trim: int, pad: int) -> bool:
    if os.environ.get("NETSMITH_KEEP_MEMORY") == "0" or not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    mapped = any(mallopt(_MMAP_THRESHOLD, size) for size in threshold)
    return bool(mapped and mallopt(_TRIM_THRESHOLD, trim) and mallopt(_TOP_PAD, pad))
