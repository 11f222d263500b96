"""What runs an artifact: one protocol, one table of runtimes.

Every one opens the same `model.onnx`. ONNX Runtime comes with netsmith and is the reference: golden examples are made
with it, the others are compared with it, and it stands in where the one that an artifact prefers is not there.
OpenVINO is an extra, imported only where it is asked for (`netsmith.artifact.runtimes_openvino`).

Settings are the same wherever netsmith opens a model, so that what is measured is what is shipped: all graph
optimisations, one operator after the other, the given number of threads inside an operator, and threads that stop
spinning when a call returns (between calls they would take the cores from decoding and from other processes).
"""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact.bundle import Bundle, Precision, external_files, external_names
from netsmith.errors import InputError, cause, first_line, near
from netsmith.run.machine import MOST_THREADS, machine

Warn = Callable[[str], None]
REFERENCE = "onnxruntime"
"""The runtime that is always there and that the others are held against."""
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # instructions without which it is slower than float32


class Outputs(NamedTuple):
    """What a model says about N images: probabilities and logits, float32 [N,C]."""

    probabilities: NDArray[np.float32]
    logits: NDArray[np.float32]


class Session(Protocol):
    """An opened model.

    Attributes:
        runtime: name in `RUNTIMES`.
        threads: it computes with, which may be fewer than were asked for.
        size: R, side of its input, pixels.
        classes: C, number of its outputs.
    """

    runtime: str
    threads: int
    size: int
    classes: int

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Classify images uint8 [N,R,R,3], N >= 1."""
        ...


class OnnxRuntimeSession:
    """A model in ONNX Runtime on the CPU.

    Args:
        model: path of an ONNX file, or its content.
        threads: >= 1.

    Raises:
        InputError: ONNX Runtime refuses the file, or its inputs and outputs are not those of a netsmith classifier.
    """

    runtime = REFERENCE

    def __init__(self, model: Path | bytes, *, threads: int) -> None:
        import onnxruntime

        assert threads >= 1
        self.threads = threads
        where = str(model) if isinstance(model, Path) else "the ONNX model"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4  # its errors arrive as exceptions
        options.add_session_config_entry("session.force_spinning_stop", "1")
        source = str(model) if isinstance(model, Path) else model
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common class of their own
            raise InputError(
                f"{where} is refused by ONNX Runtime ({first_line(error)}); export the artifact again"
            ) from error
        self._where = where
        tensors = (*self._session.get_inputs(), *self._session.get_outputs())
        self.size, self.classes = signature([(each.name, each.type, each.shape) for each in tensors], where=where)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Classify images uint8 [N,R,R,3], N >= 1."""
        assert (images.dtype, images.shape[1:]) == (np.uint8, (self.size, self.size, 3)), (images.dtype, images.shape)
        try:
            probabilities, logits = self._session.run(["probabilities", "logits"], {"image": images})
        except Exception as error:  # as above
            raise failed(self._where, error) from error
        outputs = Outputs(cast(NDArray[np.float32], probabilities), cast(NDArray[np.float32], logits))
        return held_to(outputs, (len(images), self.classes), where=self._where)


def signature(tensors: Sequence[tuple[str, str, Sequence[int | str | None]]], *, where: str) -> tuple[int, int]:
    """R and C of a model whose inputs and outputs are a netsmith classifier's.

    Args:
        tensors: name, type as ONNX Runtime writes it, and shape of the input and the outputs, in their order; a size
            that varies is no int.
        where: names the model in messages.

    Raises:
        InputError: they are another model's.
    """
    match tensors:
        case [
            ("image", "tensor(uint8)", [_, int(height), int(width), 3]),
            ("probabilities", "tensor(float)", [_, int(classes)]),
            ("logits", "tensor(float)", [_, int(others)]),
        ] if height == width and classes == others:
            return height, classes
        case _:
            shown = ", ".join(f"{name} {kind} {shape}" for name, kind, shape in tensors)
            raise InputError(
                f"{where} has {shown}; a classifier takes image uint8 [N,R,R,3] and gives probabilities and logits "
                "float32 [N,C]"
            )


def failed(where: str, error: Exception) -> InputError:
    """What is said of a model that opens and does not answer; `where` names it."""
    return InputError(f"{where} fails on pictures ({first_line(error)}); export the artifact again")


def held_to(outputs: Outputs, shape: tuple[int, int], *, where: str) -> Outputs:
    """Answers, of the shape that the model promised; what a file says of its outputs binds no runtime.

    Raises:
        InputError: they have another.
    """
    if outputs.probabilities.shape != shape or outputs.logits.shape != shape:
        raise InputError(
            f"{where} answers {shape[0]} pictures with probabilities {list(outputs.probabilities.shape)} and logits "
            f"{list(outputs.logits.shape)}, and says {list(shape)}; export the artifact again"
        )
    return outputs


def refuse_no_numbers(answers: NDArray[np.float32], *, of: Path) -> None:
    """Refuse what a model answers where it is not finite.

    Args:
        answers: logits or probabilities [N,C].
        of: folder of the artifact.

    Raises:
        InputError: some are no numbers.
    """
    if not np.isfinite(answers).all():
        raise InputError(f"{of} answers with what is no number; export the artifact again")


@dataclass(frozen=True)
class Runtime:
    """A way to run a model.

    Attributes:
        package: that must be importable.
        open: (ONNX file or content, threads) -> session.
        extra: of netsmith that brings the package; None for what is always there.
        precision: in which it computes what the graph has in float32.
    """

    package: str
    open: Callable[[Path | bytes, int], Session]
    extra: str | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

    def obstacle(self) -> str | None:
        """What keeps it from running here, as the end of a sentence about it; None where nothing does."""
        if importlib.util.find_spec(self.package) is None:
            return f"is not installed (pip install 'netsmith[{self.extra}]')"
        if self.precision == "bfloat16" and not _BFLOAT16 & set(machine().flags):
            return "needs a processor with bfloat16 instructions"
        return None


def _open_onnxruntime(model: Path | bytes, threads: int) -> Session:
    return OnnxRuntimeSession(model, threads=threads)


def _open_openvino(precision: Literal["float32", "bfloat16"]) -> Callable[[Path | bytes, int], Session]:
    def opened(model: Path | bytes, threads: int) -> Session:
        from netsmith.artifact.runtimes_openvino import OpenVinoSession

        return OpenVinoSession(model, threads=threads, precision=precision)

    return opened


RUNTIMES = {
    REFERENCE: Runtime("onnxruntime", _open_onnxruntime),
    "openvino": Runtime("openvino", _open_openvino("float32"), "openvino"),
    "openvino-bf16": Runtime("openvino", _open_openvino("bfloat16"), "openvino", "bfloat16"),
}
"""By name; an int8 graph is computed in int8 by all of them, and what it leaves in float32 as the table says."""


def precision_in(bundle: Bundle, runtime: str) -> Precision:
    """The arithmetic in which a runtime carries out an artifact: int8 where the graph is, else the runtime's own.

    Weights in sixteen bits are widened when the file is opened (`netsmith.compress.quantize.half`), so they are rounded
    once and for all: the same numbers in every runtime of `RUNTIMES`. PyTorch computes with the float weights.
    """
    own = bundle.config.precision
    return RUNTIMES[runtime].precision if own != "int8" and runtime in RUNTIMES else own


def refuse_runtime(name: str) -> None:
    """Raise InputError for a runtime that is unknown or cannot run here."""
    if name not in RUNTIMES:
        raise InputError(f"there is no runtime {name!r}; {near(name, RUNTIMES)}")
    if obstacle := RUNTIMES[name].obstacle():
        raise InputError(f"the runtime {name!r} {obstacle}; choose another, such as {REFERENCE}")


def open_model(model: Path | bytes, *, threads: int = 1, runtime: str = REFERENCE) -> Session:
    """Open an ONNX file or its content, outside an artifact.

    Raises:
        InputError: a runtime that is unknown or cannot run here, a file that it refuses, tensors outside the file's
            folder.
    """
    refuse_runtime(runtime)
    if isinstance(model, Path):
        external_files(model)
    elif external_names(model, where="the ONNX model"):
        raise InputError("the ONNX model keeps tensors outside itself; give the path of its file")
    return RUNTIMES[runtime].open(model, threads)


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)


def choose_runtime(
    bundle: Bundle, *, runtime: str | None = None, threads: int | None = None, warn: Warn | None = None
) -> tuple[str, int]:
    """The runtime and number of threads to open an artifact with; arguments and errors as `open_session`."""
    say = warn or _warn
    preferred = bundle.config.preferred
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise InputError(f"threads is {threads}; give a number from 1 to {MOST_THREADS}")
    if runtime is None:
        runtime = preferred.runtime
        known = RUNTIMES.get(runtime)
        if obstacle := known.obstacle() if known else "this netsmith does not know":
            runtime = REFERENCE
            say(f"{bundle.folder} prefers the runtime {preferred.runtime!r}, which {obstacle}; {runtime} runs it")
    if threads is None:
        threads = min(preferred.threads, machine().cores_usable) if preferred.threads > 1 else 1
        if threads < preferred.threads:
            say(f"{bundle.folder} prefers {preferred.threads} threads, this machine gives {threads}")
    return runtime, threads


def open_session(
    bundle: Bundle, *, runtime: str | None = None, threads: int | None = None, warn: Warn | None = None
) -> Session:
    """Open an artifact's model.

    Args:
        bundle: the artifact.
        runtime: name in `RUNTIMES`; None takes the preferred one, or says that another has to stand in for it, also
            where it is here and does not open the model.
        threads: >= 1; None takes the preferred number, or says that the machine has fewer cores.
        warn: is given a sentence where this differs from what the artifact prefers or from what was asked for; None
            uses `warnings.warn`.

    Raises:
        InputError: as `open_model`; `threads` out of range; a model that does not agree with config.json.
    """
    say = warn or _warn
    name, count = choose_runtime(bundle, runtime=runtime, threads=threads, warn=warn)
    try:
        session = open_model(bundle.model_path, threads=count, runtime=name)
    except InputError as error:
        if runtime is not None or name == REFERENCE:
            raise
        session = open_model(bundle.model_path, threads=count)
        say(f"{bundle.folder} prefers the runtime {name!r}, and {cause(error)}; {REFERENCE} runs it")
        name = REFERENCE
    if session.threads != count:
        say(f"{name} computes with {session.threads} of {count} threads, all that this machine gives it")
    expected = bundle.config.preprocess.size, len(bundle.config.labels)
    if (session.size, session.classes) != expected:
        raise InputError(
            f"{bundle.model_path} takes {session.size} pixels and gives {session.classes} classes, config.json says "
            f"{expected[0]} and {expected[1]}; export the artifact again"
        )
    return session
