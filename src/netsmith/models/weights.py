"""Weights in files: read without running anything from them, and compared with a layout before use.

Deliberate choices: torch files are read by torch's restricted unpickler only, and there is no way to ask for the other.
Where a checkpoint holds averaged weights beside the trained ones, the averaged are taken: they are the ones its author
evaluated.
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph
from netsmith.errors import InputError

STATE_KEYS = (
    "model_ema", "state_dict_ema", "ema_state_dict", "ema",
    "state_dict", "model_state_dict", "model_state", "model", "net", "params",
)  # fmt: skip
"""Where checkpoints keep the weights, in the order of trying."""

WRAPPERS = ("module.", "_orig_mod.", "model.")
"""Prefixes that data parallelism, compilation and trainers put before every name."""

_SHOWN = 5


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name, on the CPU, without the wrappers' prefixes.

    Args:
        path: a safetensors file, or one written by `torch.save` that holds tensors and plain values only.

    Returns:
        The names as in the file, less `WRAPPERS`; from a nested checkpoint, those under the first of `STATE_KEYS` that
        holds tensors.

    Raises:
        InputError: no such file, not a checkpoint, cut short, or one that would run code; nothing in it is ever run.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} is {'a folder' if path.is_dir() else 'not there'}; give a checkpoint file (safetensors or torch)"
        )
    state = _find_state(_read_safetensors(path) if _is_safetensors(path) else _read_torch(path))
    if state is None:
        raise InputError(
            f"{path} holds no tensors by name at its top or under {', '.join(STATE_KEYS)}; save the state_dict itself"
        )
    return _unwrap(state)


def _is_safetensors(path: Path) -> bool:
    """Whether the file begins with the length of a JSON header and its opening brace."""
    try:
        with open(path, "rb") as handle:
            start = handle.read(9)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    return path.suffix == ".safetensors" or (len(start) == 9 and start[8:] == b"{" and start[6:8] == b"\0\0")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(
            f"{path} is not a safetensors file or is cut short ({error}); copy or download it again"
        ) from error


def _read_torch(path: Path) -> Any:
    if _is_packed(path):
        raise InputError(
            f"{path} unpacks to more bytes than it has, which no file of torch.save does, so it was not loaded; save "
            "the network's state_dict anew, best as safetensors"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about pickles it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # On foreign bytes the restricted unpickler fails in whatever way the bytes happen to lead to.
        if found := re.search(r"GLOBAL\s+([\w.]+)", str(error)):
            raise InputError(
                f"{path} holds the Python object {found[1]}, which could run code, so it was not loaded; "
                "save the network's state_dict alone, best as safetensors"
            ) from error
        raise InputError(
            f"{path} is no checkpoint of torch or safetensors, or is cut short; nothing in it was run; fetch it again"
        ) from error


def _is_packed(path: Path) -> bool:
    """Whether it is a zip file of compressed members, or of several in the same bytes: they may come to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist()) > path.stat().st_size
    except Exception:  # no zip file, or a damaged one, which torch says
        return False


def _is_plain(value: object) -> TypeGuard[Tensor]:
    """Whether it is a tensor that has its numbers in memory, one by one."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_nested)
    )


def _find_state(document: object, *, levels: int = 3) -> dict[str, Tensor] | None:
    """The named tensors of a checkpoint, so many levels down (a document may hold itself)."""
    if not isinstance(document, Mapping) or levels == 0:
        return None
    entries = {key: value for key, value in cast(Mapping[object, object], document).items() if isinstance(key, str)}
    tensors = {key: value for key, value in entries.items() if _is_plain(value)}
    if any(tensor.dim() >= 2 for tensor in tensors.values()):
        return tensors
    below = (_find_state(entries.get(key), levels=levels - 1) for key in STATE_KEYS)
    return next((state for state in below if state is not None), None)


def _unwrap(state: dict[str, Tensor]) -> dict[str, Tensor]:
    # torch's AveragedModel keeps its count beside the network.
    state = {name: tensor for name, tensor in state.items() if name != "n_averaged"}
    while state and (prefix := next((each for each in WRAPPERS if all(name.startswith(each) for name in state)), None)):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def check_weights(weights: Mapping[str, Tensor], layout: Layout, *, where: str) -> None:
    """Compare weights with a layout: the same names, shapes and kinds of numbers.

    Args:
        weights: tensors by the network's own names.
        layout: what they are for.
        where: how an error names the weights, such as a file name.

    Raises:
        InputError: names are missing or unexpected, shapes or types differ, or a number is not finite; the message
            lists them.
    """
    expected = {name: shape for name, shape, _ in g.state(layout_graph(layout))}
    if problems := differences(weights, expected):
        raise InputError(
            f"{where} does not hold the weights of {layout.name}: {problems}; give those of this network, or export it "
            "again"
        )
    for name, tensor in weights.items():
        if tensor.is_floating_point() == name.endswith(".num_batches_tracked"):
            raise InputError(
                f"{where}: {name} holds {str(tensor.dtype).removeprefix('torch.')} numbers; save float weights"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"{where}: {name} holds numbers that are not finite; the training that wrote it had diverged"
            )


def entries_of(layout: Layout, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries that a layout has, of weights that hold more, such as classifiers for training."""
    wanted = {name for name, _, _ in g.state(layout_graph(layout))}
    return {name: tensor for name, tensor in weights.items() if name in wanted}


def differences(weights: Mapping[str, Tensor], expected: Mapping[str, g.Shape]) -> str:
    """How names and shapes differ from those expected, in words; "" when they do not."""
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    shapes = [
        f"{name} (found {_shape(tensor.shape)}, wanted {_shape(expected[name])})"
        for name, tensor in weights.items()
        if name in expected and tuple(tensor.shape) != expected[name]
    ]
    parts = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in parts.items() if names)


def _some(names: list[str]) -> str:
    shown = (name if name.isprintable() else ascii(name) for name in names[:_SHOWN])
    return ", ".join(shown) + (", ..." if len(names) > _SHOWN else "")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
