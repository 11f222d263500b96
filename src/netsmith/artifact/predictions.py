"""`predictions/SPLIT.npz`: what the artifact said about every picture of a split, so that its accuracy can be
recomputed.

Arrays: `hash` S64 [N] (content hash of each picture, in hex), `target` int64 [N] (of tags bool [N,C]), `logits`
float32 [N,C]; and `runtime`, a string that names what answered.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from netsmith.data.arrays import read_arrays
from netsmith.data.items import Targets
from netsmith.errors import InputError
from netsmith.run.files import write_bytes
from netsmith.run.scores import are_tags


@dataclass(frozen=True)
class Predictions:
    """Logits float32 [N,C] and targets int64 [N] or bool [N,C] of the pictures with these keys; N >= 1.

    Attributes:
        runtime: that answered; None where the file does not say.
    """

    keys: tuple[str, ...]
    targets: Targets
    logits: NDArray[np.float32]
    runtime: str | None = None

    def __post_init__(self) -> None:
        assert len(self.keys) == len(self.targets) == len(self.logits) > 0

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all; the same content gives the same bytes."""
        content = io.BytesIO()
        told: dict[str, Any] = {} if self.runtime is None else {"runtime": np.array(self.runtime)}
        np.savez(content, hash=np.array(self.keys, "S64"), target=self.targets, logits=self.logits, **told)
        write_bytes(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            InputError: it is missing, damaged, or its arrays do not agree.
        """
        try:
            arrays = read_arrays(path)
            hashes, targets, logits = arrays["hash"], arrays["target"], arrays["logits"]
            runtime = str(arrays["runtime"]) if "runtime" in arrays else None
            _check(hashes, targets, logits)
            return cls(tuple(hashes.astype(str).tolist()), targets, logits, runtime)
        except FileNotFoundError as error:
            raise InputError(f"{path} is missing; restore it from a copy of the run") from error
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is damaged ({error}); restore it from a copy of the run") from error


def _check(hashes: NDArray[np.bytes_], targets: Targets, logits: NDArray[np.float32]) -> None:
    kinds = [(array.dtype.str[1:], array.ndim) for array in (hashes, targets, logits)]
    if kinds not in ([("S64", 1), ("i8", 1), ("f4", 2)], [("S64", 1), ("b1", 2), ("f4", 2)]):
        raise ValueError(
            "its arrays have other types than hash S64 [N], target int64 [N] or bool [N,C] and logits float32 [N,C]"
        )
    if not len(hashes) == len(targets) == len(logits) > 0:
        raise ValueError("its arrays do not agree in their number of pictures")
    if not np.isfinite(logits).all():
        raise ValueError("it holds logits that are no numbers")
    if are_tags(targets):
        if targets.shape != logits.shape:
            raise ValueError("its tags and its logits are not of the same number of classes")
    elif targets.min() < 0 or targets.max() >= logits.shape[1]:
        raise ValueError("it has targets beyond its classes")
