"""`.npz` files, whoever wrote them: nothing is unpickled, and whatever numpy makes of a damaged one is one error.

The headers of arrays are Python literals and may claim any size, members are compressed in any way and need not be
arrays at all, so what the parsers raise is not bounded.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netsmith.errors import first_line


def read_arrays(
    path: Path, names: Iterable[str] | None = None, *, largest: int | None = None
) -> dict[str, NDArray[Any]]:
    """Arrays by name.

    Args:
        path: of the file.
        names: which; None reads all.
        largest: bytes above which what it unpacks to is refused.

    Raises:
        OSError: it is not there or cannot be read.
        ValueError: it is damaged, too large, holds Python objects, or lacks an array; says which it is.
    """
    try:
        with open(path, "rb") as file:
            if largest is not None:
                with zipfile.ZipFile(file) as archive:
                    unpacked = sum(member.file_size for member in archive.infolist())
                if unpacked > largest:
                    raise ValueError(f"more than {largest} bytes when unpacked")
                file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                found = {name: stored[name] for name in (stored.files if names is None else names)}
    except OSError:
        raise
    except Exception as error:
        raise ValueError(first_line(error)) from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # numpy gives the bytes of what is none
            raise ValueError(f"'{name}' is no array")
    return found
