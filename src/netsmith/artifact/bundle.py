"""The artifact: a folder to ship, written whole or not at all, and read strictly.

`model.onnx` is the network, `config.json` everything else that decides what it means (labels, preprocessing, layout,
hashes of the other files), `golden.npz` examples by which any runtime can be tested, `model.safetensors` the float
weights (optional). Reading never executes code from the folder; tensors that `model.onnx` keeps in other files must
lie in the same folder and be named by `config.json`.
"""

import ctypes
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import netsmith
from netsmith.artifact.golden import Golden
from netsmith.artifact.quantization import Quantization
from netsmith.errors import InputError
from netsmith.run.files import make_folder, sha256_file, sync_folder, write_bytes, write_json
from netsmith.run.preprocess import Preprocess
from netsmith.run.scores import Task

if TYPE_CHECKING:
    from netsmith.arch.layout import Layout  # in functions only: predicting needs no layout and starts faster without

FORMATS: dict[int, tuple[Task, ...]] = {1: ("classify",), 2: ("tag",), 3: ("classify", "tag")}
"""Format of `config.json` and the tasks that are written in it: an older netsmith refuses tags by their number, and
what a rounded graph says of itself by 3."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
MODEL, CONFIG, GOLDEN, WEIGHTS = "model.onnx", "config.json", "golden.npz", "model.safetensors"
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
_SHA256 = re.compile(r"[0-9a-f]{64}")
Activation = Literal["softmax", "sigmoid"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]


class Tensor(BaseModel):
    """An input or output of `model.onnx`: its name, element type and shape, in which a string stands for any size."""

    model_config = _STRICT

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int | str, ...]


class Preferred(BaseModel):
    """What the latency was measured with: the name of the runtime and its number of threads."""

    model_config = _STRICT

    runtime: str = "onnxruntime"
    threads: int = Field(default=1, ge=1)

    def __str__(self) -> str:
        return f"{self.runtime} with {self.threads} thread{'s' if self.threads > 1 else ''}"


class Provenance(BaseModel):
    """Where the artifact comes from; None where there was no such thing.

    Attributes:
        netsmith: version that wrote it.
        recipe: SHA-256 of the training recipe.
        data: fingerprint of the pictures of its run: those it was trained, chosen or calibrated on.
        doubtful: whether its weights may have seen before what `data` validates or tests on, because the pictures of a
            model that it descends from are not known (in its JSON only where they may).
        weights: the weights it started from, such as "resnet50.imagenet_v2" or a file's name.
        licence: SPDX identifier or sentence that governs use of the weights.
    """

    model_config = _STRICT

    netsmith: str = netsmith.__version__
    recipe: str | None = None
    data: str | None = None
    doubtful: bool = False
    weights: str | None = None
    licence: str | None = None


class Config(BaseModel):
    """`config.json`: what the numbers that go into and come out of `model.onnx` mean.

    Attributes:
        format: version of this record: 1 for "classify", 2 for "tag", 3 for either with a rounded graph.
        task: "classify": one image in, one row of class probabilities out; "tag": one probability of each label.
        layout: the network as a JSON object (`netsmith.arch.layout`).
        labels: class names; position = index of the output, all different.
        preprocess: what turns a picture into the input.
        activation: what turns logits into probabilities; of tags "sigmoid".
        thresholds: of tags, from which probability on a picture has each label; None for "classify" (and not in its
            JSON).
        temperature: the logits are divided by it before the activation (inside `model.onnx`).
        precision: of convolutions and linear layers: of their arithmetic for "int8"; "float16" and "bfloat16" are how
            the file holds their weights, which are computed with in float32.
        quantization: of "int8", how it was made; None for the others (and not in their JSON).
        inputs, outputs: schemas of `model.onnx`.
        preferred: runtime and threads that the latency holds for.
        provenance: where it comes from.
        files: hex SHA-256 of every other file of the folder, by name.
    """

    model_config = _STRICT

    format: Literal[1, 2, 3] = 1
    task: Task = "classify"
    layout: dict[str, Any]
    labels: tuple[str, ...] = Field(min_length=1)
    preprocess: Preprocess
    activation: Activation = "softmax"
    thresholds: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] | None = None
    temperature: float = Field(default=1.0, gt=0.0)
    precision: Precision = "float32"
    quantization: Quantization | None = None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    preferred: Preferred = Preferred()
    provenance: Provenance = Provenance()
    files: dict[str, str]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must all be different")
        if (self.inputs, self.outputs) != schemas(self.preprocess.size, len(self.labels)):
            raise ValueError("inputs and outputs do not agree with preprocess.size and the number of labels")
        if self.task not in FORMATS[self.format] or (self.task == "tag") != (self.thresholds is not None):
            raise ValueError("format 2, task 'tag' and thresholds go together")
        if (self.format == 3) != (self.quantization is not None) or (self.quantization and self.precision != "int8"):
            raise ValueError("format 3, precision 'int8' and quantization go together")
        if self.thresholds is not None and (len(self.thresholds) != len(self.labels) or self.activation != "sigmoid"):
            raise ValueError("tags need a threshold per label and the activation 'sigmoid'")
        for name, digest in self.files.items():
            if not _is_plain_name(name) or name == CONFIG:
                raise ValueError(f"files names {name!r}, which is no plain file name of another file")
            if not _SHA256.fullmatch(digest):
                raise ValueError(f"files gives {name!r} a value that is no SHA-256 in lower-case hex")
        if MODEL not in self.files or GOLDEN not in self.files:
            raise ValueError(f"files must name {MODEL} and {GOLDEN}")
        return self


def schemas(size: int, classes: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs and outputs of a classifier's `model.onnx` for R = `size` pixels and `classes` classes."""
    image = Tensor(name="image", dtype="uint8", shape=("N", size, size, 3))
    outputs = (Tensor(name=name, dtype="float32", shape=("N", classes)) for name in ("probabilities", "logits"))
    return (image,), tuple(outputs)


@dataclass(frozen=True)
class Bundle:
    """An artifact folder that was found well formed."""

    folder: Path
    config: Config

    @property
    def model_path(self) -> Path:
        """The network's file."""
        return self.folder / MODEL

    @property
    def layout(self) -> "Layout":
        """The network as a value.

        Raises:
            InputError: config.json holds no layout that this netsmith knows.
        """
        from netsmith.arch.layout import layout_from_json

        return layout_from_json(self.config.layout, where=f"{self.folder / CONFIG}: layout")

    @property
    def size_bytes(self) -> int:
        """Bytes that the predictor must open: the graph, its external data and the configuration."""
        names = (MODEL, *external_files(self.model_path), CONFIG)
        return sum((self.folder / name).stat().st_size for name in names)

    def golden(self) -> Golden:
        """The examples of `golden.npz`.

        Raises:
            InputError: the file is damaged, or of another model.
        """
        return Golden.load(self.folder / GOLDEN, of=(self.config.preprocess.size, len(self.config.labels)))


def write_bundle(
    folder: Path,
    *,
    model: bytes,
    layout: "Layout",
    labels: tuple[str, ...],
    preprocess: Preprocess,
    golden: Golden,
    weights: bytes | None = None,
    activation: Activation = "softmax",
    thresholds: tuple[float, ...] | None = None,
    temperature: float = 1.0,
    precision: Precision = "float32",
    quantization: Quantization | None = None,
    preferred: Preferred | None = None,
    provenance: Provenance | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write an artifact into a temporary folder beside `folder`, then rename it: it is there whole or not at all.

    Args:
        folder: must not exist, unless `overwrite` and it is an artifact.
        model: the ONNX file, all tensors inside.
        layout: the network, for this size of input and number of classes.
        labels, preprocess, activation, temperature, precision, quantization, preferred, provenance: see `Config`.
        thresholds: see `Config`; with them the task is "tag".
        golden: see `netsmith.artifact.golden.make_golden`.
        weights: content of `model.safetensors`, or None to leave it out.
        overwrite: replace an artifact that is already there.

    Returns:
        The bundle, read back.

    Raises:
        InputError: `folder` exists, or is no artifact.
    """
    from netsmith.arch.layout import layout_to_json

    if folder.exists() or folder.is_symlink():
        if not overwrite:
            raise InputError(f"{folder} already exists; choose another folder or ask for it to be overwritten")
        if not (folder / CONFIG).is_file():
            raise InputError(f"{folder} is not an artifact, so it is not overwritten; choose another folder")
    assert (layout.resolution, layout.num_classes) == ((preprocess.size,) * 2, len(labels)), "layout of another model"
    contents = {MODEL: model, GOLDEN: golden.to_bytes()} | ({WEIGHTS: weights} if weights is not None else {})
    inputs, outputs = schemas(preprocess.size, len(labels))
    config = Config(
        format=3 if quantization is not None else 1 if thresholds is None else 2,
        task="classify" if thresholds is None else "tag",
        layout=layout_to_json(layout),
        labels=labels,
        preprocess=preprocess,
        activation=activation,
        thresholds=thresholds,
        temperature=temperature,
        precision=precision,
        quantization=quantization,
        inputs=inputs,
        outputs=outputs,
        preferred=preferred or Preferred(),
        provenance=provenance or Provenance(),
        files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    )
    make_folder(folder.parent)
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a writer that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        for name, content in contents.items():
            write_bytes(temporary / name, content)
        write_json(temporary / CONFIG, _config_document(config))
        _move(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return load_bundle(folder)


def _config_document(config: Config) -> dict[str, Any]:
    document = config.model_dump(mode="json")
    for key in ("thresholds", "quantization"):  # of higher formats
        if document[key] is None:
            del document[key]
    if not config.provenance.doubtful:  # as it was written before that was known
        del document["provenance"]["doubtful"]
    return document


def write_preferred(bundle: Bundle, preferred: Preferred) -> Bundle:
    """Write an artifact's preferred runtime and threads into its `config.json`, whole or not at all.

    Returns:
        The bundle, read back; writing what it preferred before gives its bytes back.
    """
    config = bundle.config.model_copy(update={"preferred": preferred})
    write_json(bundle.folder / CONFIG, _config_document(config))
    return load_bundle(bundle.folder)


def _move(temporary: Path, folder: Path) -> None:
    """Rename `temporary` to `folder`, in exchange for the artifact that is there; what is left at `temporary` is
    removed."""
    if folder.exists():
        _exchange(temporary, folder)
    else:
        os.replace(temporary, folder)
    sync_folder(folder.parent)
    # The artifact may have been there by a link, whose target stays.
    temporary.unlink() if temporary.is_symlink() else shutil.rmtree(temporary, ignore_errors=True)


def _exchange(first: Path, second: Path) -> None:
    """Let two folders change names, at once where the system can (Linux), so that `second` is there at every moment."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if (
        rename is not None
        and rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0
    ):
        return
    aside = second.with_name(f".{second.name}.{secrets.token_hex(4)}.tmp")
    os.replace(second, aside)
    os.replace(first, second)
    os.replace(aside, first)


def find_artifact(path: Path) -> Path:
    """The model folder that `path` means: itself, or the `model` of a run folder.

    Raises:
        InputError: it is neither.
    """
    for folder in (path, path / "model"):
        if (folder / CONFIG).is_file():
            return folder
    if not path.exists():
        raise InputError(f"there is no {path}; give the folder of an artifact or of a run")
    if path.is_dir() and (path / MODEL).is_file():
        raise InputError(f"{path} has no {CONFIG}; an artifact needs both it and {MODEL}, so export it again")
    raise InputError(f"{path} is neither an artifact (a folder with {CONFIG} and {MODEL}) nor a run with one in model/")


def load_bundle(path: Path, *, check_hashes: bool = False) -> Bundle:
    """Open an artifact.

    Args:
        path: the model folder, or a run folder that holds one as `model`.
        check_hashes: also compare every file with its hash in `config.json`.

    Raises:
        InputError: no artifact, a missing, damaged or unknown file; the message names the file and the mend.
    """
    folder = find_artifact(path)
    config = _read_config(folder / CONFIG)
    for name in config.files:
        # The float weights are optional to ship: config.json keeps saying which they were.
        if name != WEIGHTS and not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing; copy the whole folder again or export it again")
    if check_hashes:
        for name, found in file_hashes(folder, config):
            if found is not None and found != config.files[name]:
                raise InputError(f"{folder / name} is not the file that {CONFIG} describes; export the artifact again")
    return Bundle(folder, config)


def _read_config(path: Path) -> Config:
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); export the artifact again") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON or is cut short ({error}); export the artifact again") from error
    version = document.get("format") if isinstance(document, dict) else None
    if version not in (*FORMATS,):
        raise InputError(
            f"{path} has format {version!r} and this netsmith ({netsmith.__version__}) reads format "
            f"{' and '.join(map(str, FORMATS))}; "
            "use the version that wrote it or export the artifact again"
        )
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        raise InputError(
            f"{path}: {where + ': ' if where else ''}{problem}; restore the file or export the artifact again"
        ) from error


def file_hashes(folder: Path, config: Config) -> Iterator[tuple[str, str | None]]:
    """Hash every file that `config` names; None where the (optional) file is not there."""
    for name in config.files:
        path = folder / name
        yield name, sha256_file(path) if path.is_file() else None


def artifact_hash(folder: Path) -> str:
    """Hex SHA-256 over the names and contents of all files of a model folder, in order of their names."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _is_plain_name(name: str) -> bool:
    """Whether `name` can only mean a file in the folder itself, on any system, and not a hidden one."""
    return bool(name) and not name.startswith(".") and not set(name) & set('/\\:*?"<>|\0')


def external_files(model: Path) -> tuple[str, ...]:
    """Names of the files in which `model.onnx` keeps tensors, sorted; usually none.

    Raises:
        InputError: no ONNX file; a tensor lies outside the model's folder, or in a file that is missing or a link.
    """
    names = external_names(model.read_bytes(), where=str(model))
    for name in names:
        path = model.parent / name
        if not _is_plain_name(name) or not path.is_file() or path.is_symlink():
            raise InputError(
                f"{model} keeps tensors in {name!r}, which is no regular file of its own folder; "
                "export the artifact again"
            )
    return names


def external_names(content: bytes, *, where: str) -> tuple[str, ...]:
    """Where an ONNX file keeps tensors outside itself, as it says, sorted; `where` names it in messages.

    Raises:
        InputError: no ONNX file.
    """
    # Every such tensor carries the key "location" as plain bytes, so its absence proves that there are none, without
    # importing onnx.
    if b"location" not in content:
        return ()
    import onnx
    from google.protobuf.message import DecodeError

    def locations(message: Any) -> Iterator[str]:
        if isinstance(message, onnx.TensorProto):
            yield from (entry.value for entry in message.external_data if entry.key == "location")
            return
        for field, value in message.ListFields():
            if field.message_type is not None:
                for part in value if field.is_repeated else (value,):
                    yield from locations(part)

    try:
        return tuple(sorted(set(locations(onnx.load_model_from_string(content)))))
    except DecodeError as error:
        raise InputError(f"{where} is not an ONNX file or is cut short; export the artifact again") from error
