"""An artifact's `model.onnx` in OpenVINO on the CPU.

Choices:

- The precision is always said, because OpenVINO's own default is bfloat16 wherever the processor has it.
- One stream with the given threads, and threads that are not pinned to cores: pinned ones of two processes share the
  same cores while others stand idle.
- Nothing leaves the process: compiled models are not kept on disk, and openvino's telemetry, which counts its imports,
  is replaced by the stand-in that openvino has for where that package is missing.
- The batch stays open. One that is fixed was no faster, and would need a compiled model for every size.

Source: openvino 2026.4, `openvino.properties`, and its ONNX reader.
"""

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact.bundle import external_files
from netsmith.artifact.runtimes import REFERENCE, Outputs, failed, held_to, signature
from netsmith.errors import InputError, first_line

_NAMES = {"float32": ("openvino", "f32"), "bfloat16": ("openvino-bf16", "bf16")}
_TYPES = {"u8": "tensor(uint8)", "f32": "tensor(float)"}  # as ONNX Runtime writes them
_TELEMETRY = "openvino_telemetry"


class OpenVinoSession:
    """A model in OpenVINO; a `netsmith.artifact.runtimes.Session`.

    Args:
        model: path of an ONNX file, or its content.
        threads: >= 1; OpenVINO takes no more than there are cores.
        precision: in which it computes what the graph has in float32; quantized layers are computed in int8.

    Raises:
        InputError: OpenVINO cannot be loaded or refuses the file, or its inputs and outputs are not those of a netsmith
            classifier.
    """

    def __init__(self, model: Path | bytes, *, threads: int, precision: Literal["float32", "bfloat16"]) -> None:
        assert threads >= 1
        try:
            with _without_telemetry():
                import openvino
        except (ImportError, OSError) as error:
            raise InputError(
                f"openvino is installed and cannot be loaded ({first_line(error)}); install it anew, or remove it and "
                f"{REFERENCE} takes its place"
            ) from error
        self.runtime, hint = _NAMES[precision]
        where = str(model) if isinstance(model, Path) else "the ONNX model"
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "ENABLE_HYPER_THREADING": True,
            "CACHE_DIR": "",
        }
        # A path only where it must be: OpenVINO tries its readers of other formats on a file that it cannot read.
        if isinstance(model, Path) and not external_files(model):
            model = model.read_bytes()
        try:
            core = openvino.Core()
            network = core.read_model(str(model) if isinstance(model, Path) else model)
            compiled: Any = core.compile_model(network, "CPU", settings)
        except Exception as error:  # RuntimeError, and whatever its readers raise
            raise InputError(f"{where} is refused by OpenVINO ({_reason(error)}); export the artifact again") from error
        self._where = where
        tensors = [_described(port) for port in (*compiled.inputs, *compiled.outputs)]
        self.size, self.classes = signature(tensors, where=where)
        self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        self._request: Any = compiled.create_infer_request()
        self._turn = threading.Lock()  # a request serves one call at a time

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Classify images uint8 [N,R,R,3], N >= 1."""
        assert (images.dtype, images.shape[1:]) == (np.uint8, (self.size, self.size, 3)), (images.dtype, images.shape)
        try:
            with self._turn:
                found = self._request.infer({"image": images}, share_inputs=True)
        except Exception as error:  # RuntimeError, and whatever its kernels raise
            raise failed(self._where, error) from error
        return held_to(Outputs(found["probabilities"], found["logits"]), (len(images), self.classes), where=self._where)


@contextmanager
def _without_telemetry() -> Generator[None]:
    """While openvino is imported its telemetry is not there, so its own stand-in, which does nothing, is taken."""
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:  # somebody else's import came first
        yield
        return
    sys.modules[_TELEMETRY] = None  # pyright: ignore[reportArgumentType]  (how Python is told that a module is absent)
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]


def _described(port: Any) -> tuple[str, str, list[int | str | None]]:
    """Name, type and shape of an input or output; one that is the same as another has several names."""
    names = port.get_names()
    name = next((name for name in ("image", "probabilities", "logits") if name in names), str(port.get_any_name()))
    kind = str(port.get_element_type().get_type_name())
    sizes: list[int | str | None] = [
        None if each.is_dynamic else int(each.get_length()) for each in port.get_partial_shape()
    ]
    return name, _TYPES.get(kind, kind), sizes


def _reason(error: Exception) -> str:
    """The last line of a message, whose first ones name OpenVINO's source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300].rstrip(".") if lines else type(error).__name__
