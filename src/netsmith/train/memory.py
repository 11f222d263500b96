"""Keep large activations in the process instead of handing them back to the kernel after every step.

glibc serves large blocks by mmap and returns them with munmap, so each training step page-faults through all of its
activations again. Told to take them from the heap and not to trim it, a step is 1.03 to 1.3 times faster. The price:
memory once used stays with the process.

Switch: set the environment variable NETSMITH_KEEP_MEMORY=0 to leave the allocator alone. Other C libraries are left
alone too.
"""

import ctypes
import os
import platform
from functools import cache

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_INT_MAX = 2**31 - 1


@cache
def keep_large_blocks() -> bool:
    """Set glibc's allocator for large activations, once per process and before the first big tensor.

    Returns:
        Whether the allocator took the settings.
    """
    if os.environ.get("NETSMITH_KEEP_MEMORY") == "0" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    # Older versions of glibc refuse more than 32 MiB and keep their default then.
    threshold = any(mallopt(_MMAP_THRESHOLD, size) for size in (1 << 30, 32 << 20))
    return bool(threshold and mallopt(_TRIM_THRESHOLD, _INT_MAX) and mallopt(_TOP_PAD, 256 << 20))
