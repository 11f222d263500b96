"""Checkpoints: `step-XXXXXXXX.safetensors` with the tensors and `step-XXXXXXXX.json` with the rest, written in this
order.

A checkpoint exists once its JSON does; it names the size and hash of the tensors, so one that was cut short, by
whatever, is recognised and passed over for the one before. Nothing is unpickled. The newest two are kept.

JSON, format 1: `{"format": 1, "step", "sha256", "bytes", "identity": {"recipe", "data"}, "state": {...}}`.
"""

import errno
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from torch import Tensor

from netsmith.errors import InputError
from netsmith.run.files import write_bytes, write_json
from netsmith.run.recipe import Recipe

KEPT = 2
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
_NAME = re.compile(r"^step-(\d{8,})\.(json|safetensors)$")


class Identity(BaseModel):
    """What a checkpoint belongs to; training goes on only where all of it is equal.

    Attributes:
        recipe: the fields of the recipe that decide what is computed.
        data: hash of the training split's order and labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    recipe: dict[str, Any]
    data: str


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    format: int = Field(ge=1, le=1)
    step: int = Field(ge=0)
    sha256: str
    bytes: int
    identity: Identity
    state: dict[str, float]


@dataclass(frozen=True)
class Checkpoint:
    """What was read back.

    Attributes:
        path: of its JSON.
        step: updates made.
        tensors: as they were saved.
        state: numbers saved beside them.
    """

    path: Path
    step: int
    tensors: dict[str, Tensor]
    state: dict[str, float]


class _Damaged(Exception):
    pass


def steps_saved(folder: Path) -> list[int]:
    """Steps of the checkpoints in `folder`, newest first; an absent folder has none."""
    if not folder.is_dir():
        return []
    names = (_NAME.match(path.name) for path in folder.iterdir())
    return sorted((int(name[1]) for name in names if name and name[2] == "json"), reverse=True)


def save_checkpoint(
    folder: Path, *, step: int, tensors: Mapping[str, Tensor], identity: Identity, state: Mapping[str, float]
) -> None:
    """Write a checkpoint, then remove all but the newest.

    Args:
        folder: made where absent.
        step: updates made.
        tensors: on any device, in any layout.
        identity: what they belong to.
        state: numbers to keep beside them, finite.

    Raises:
        OSError: as the file system does; the checkpoints that were there stay.
    """
    content = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    record = _Record(format=1, step=step, sha256=digest, bytes=len(content), identity=identity, state=dict(state))
    write_bytes(_path(folder, step, "safetensors"), content)
    write_json(_path(folder, step, "json"), record.model_dump())
    # Later steps are what this run passed over when it resumed.
    kept = [other for other in steps_saved(folder) if other <= step][:KEPT]
    for path in folder.iterdir():
        name = _NAME.match(path.name)
        if name and int(name[1]) not in kept:
            path.unlink()


def load_checkpoint(
    folder: Path, *, identity: Identity | None, shapes: Mapping[str, tuple[int, ...]], warn: Callable[[str], None]
) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None where there is none at all.

    Args:
        folder: absent means no checkpoint.
        identity: of the run that wants to go on; None where the weights alone are wanted, whatever made them.
        shapes: of the tensors that it must hold at least: those of the network.
        warn: told about each damaged checkpoint that is passed over.

    Raises:
        InputError: it belongs to another recipe, other data or another network, or all checkpoints are damaged.
    """
    steps = steps_saved(folder)
    for step in steps:
        path = _path(folder, step, "json")
        try:
            record, tensors = _read(path)
        except _Damaged as error:
            warn(f"the checkpoint {path} is damaged ({error}) and is passed over")
            continue
        if identity is not None:
            _refuse_other_run(path, record.identity, identity)
        _refuse_other_network(path, tensors, shapes)
        return Checkpoint(path, record.step, tensors, record.state)
    if steps:
        raise InputError(f"every checkpoint in {folder} is damaged; start the run again in another folder")
    return None


def _path(folder: Path, step: int, kind: str) -> Path:
    return folder / f"step-{step:08d}.{kind}"


def _read(path: Path) -> tuple[_Record, dict[str, Tensor]]:
    try:
        record = _Record.model_validate(json.loads(path.read_bytes()))
        content = path.with_suffix(".safetensors").read_bytes()
    except FileNotFoundError as error:
        raise _Damaged("its tensors are missing") from error
    except OSError as error:
        raise _Damaged(f"it cannot be read, {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _Damaged("its JSON is not that of a checkpoint") from error
    if len(content) != record.bytes:
        raise _Damaged(f"{len(content)} of {record.bytes} bytes")
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise _Damaged("its hash differs")
    try:
        return record, safetensors.torch.load(content)
    except SafetensorError as error:
        raise _Damaged(str(error)) from error


def _refuse_other_run(path: Path, theirs: Identity, ours: Identity) -> None:
    for key, value in ours.recipe.items():
        # A field that is younger than the checkpoint had the effect of its default.
        before = theirs.recipe[key] if key in theirs.recipe else _default(key)
        if before != value:
            raise InputError(
                f"the checkpoint {path} was trained with {key} {before} and not {value}; "
                f"go on with {before} or start in another folder"
            )
    if theirs.data != ours.data:
        raise InputError(
            f"the checkpoint {path} was trained on other data; go on with the same data or start in another folder"
        )


def _default(field: str) -> Any:
    info = Recipe.model_fields.get(field)
    return None if info is None else json.loads(json.dumps(info.get_default(call_default_factory=True)))


def _refuse_other_network(path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    networks = [name for name in tensors if not name.startswith("optimizer.")]
    lacking = [name for name in shapes if name not in tensors]
    unknown = [
        name for name in networks if name not in shapes and name.replace("averaged.", "network.", 1) not in shapes
    ]
    if lacking or unknown:
        what = f"it lacks {_some(lacking)}" if lacking else f"it holds {_some(unknown)}"
        raise InputError(f"the checkpoint {path} is of another network: {what}; start in another folder")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise InputError(
                f"the checkpoint {path} is of another network: {_short(name)} has shape {list(tensors[name].shape)} "
                f"and not {list(shape)}; start in another folder"
            )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{_short(names[0])}{more}"


def _short(name: str) -> str:
    return name.removeprefix("network.")
