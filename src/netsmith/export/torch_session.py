"""Networks in PyTorch behind the protocol of an artifact's runtimes: what a deployment is compared with, not one.

A network comes from an artifact's layout and float weights with its preprocessing, activation and temperature, or from
a layout alone with random weights (`netsmith.export.probe`). It runs eager, contiguous, in inference mode, from uint8
pixels to probabilities, as people do who have not exported it; or compiled by torch.compile, anew for every size of
batch, normalisation and probabilities included.

Run as a module (`python -m netsmith.export.torch_session`) this is the worker of processes that measure it. Other
modules import it without torch, to know what there is.
"""

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from netsmith.arch.layout import Layout, layout_from_json
from netsmith.artifact.bundle import WEIGHTS, Activation, Bundle, load_bundle
from netsmith.artifact.comparison import Contender
from netsmith.artifact.runtimes import Outputs, Session, open_model
from netsmith.artifact.timing import Timing, Visit, time_batches, time_models
from netsmith.artifact.worker import TASKS, Emit, main
from netsmith.errors import InputError, first_line
from netsmith.run.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor

    from netsmith.models.network import Network

TORCH, COMPILED = "torch", "torch-compiled"
WORKER = "netsmith.export.torch_session"


def in_torch(bundle: Bundle) -> list[Contender]:
    """PyTorch, eager and compiled, as something to compare an artifact's runtimes with."""
    obstacle = None
    if importlib.util.find_spec("torch") is None:
        obstacle = "is not installed (pip install 'netsmith[train]')"
    elif not (bundle.folder / WEIGHTS).is_file():
        obstacle = f"needs float weights, and {bundle.folder} was shipped without {WEIGHTS}"
    return [Contender(name, bundle.folder, worker=WORKER, obstacle=obstacle) for name in (TORCH, COMPILED)]


class TorchSession:
    """A network in PyTorch; a `netsmith.artifact.runtimes.Session`.

    Args:
        network: in evaluation mode, float32, on the CPU.
        preprocess: of its pictures.
        activation, temperature: what turns its logits into probabilities.
        threads: of PyTorch in this process, >= 1.
        compiled: by torch.compile, which is tried at once.

    Raises:
        InputError: torch.compile does not work here.
    """

    def __init__(
        self,
        network: "Network",
        preprocess: Preprocess,
        *,
        activation: Activation = "softmax",
        temperature: float = 1.0,
        threads: int,
        compiled: bool = False,
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self.runtime, self.threads = COMPILED if compiled else TORCH, threads
        self.size, self.classes = preprocess.size, network.layout.num_classes
        mean = 255 * torch.tensor(preprocess.mean).view(3, 1, 1)
        std = 255 * torch.tensor(preprocess.std).view(3, 1, 1)

        def answer(images: "Tensor") -> "tuple[Tensor, Tensor]":
            logits = network((images.permute(0, 3, 1, 2) - mean) / std)
            cooled = logits / temperature
            return cooled.sigmoid() if activation == "sigmoid" else cooled.softmax(1), logits

        self._answer = torch.compile(answer, dynamic=False) if compiled else answer
        if compiled:
            try:
                self.run(np.zeros((1, self.size, self.size, 3), np.uint8))
            except Exception as error:  # a compiler may raise anything
                said = first_line(getattr(error, "inner_exception", error))
                raise InputError(f"torch.compile does not work here ({said})") from error

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Classify images uint8 [N,R,R,3], N >= 1."""
        import torch

        with torch.inference_mode():
            probabilities, logits = self._answer(torch.from_numpy(images))
            return Outputs(probabilities.numpy(), logits.numpy())


def open_artifact(folder: Path, *, threads: int, compiled: bool = False) -> TorchSession:
    """An artifact's network in PyTorch.

    Raises:
        InputError: no artifact, one without float weights, or ones that are not its layout's.
    """
    from netsmith.models.build import load_model

    config = load_bundle(folder).config
    return TorchSession(
        load_model(folder),
        config.preprocess,
        activation=config.activation,
        temperature=config.temperature,
        threads=threads,
        compiled=compiled,
    )


def open_layout(layout: Layout, *, threads: int, compiled: bool = False) -> TorchSession:
    """A layout in PyTorch, with random weights."""
    import torch

    from netsmith.export.probe import probe_weights
    from netsmith.models.build import build

    network = build(layout).eval()
    state = network.state_dict()
    state |= {name: torch.from_numpy(values.copy()) for name, values in probe_weights(layout).items()}
    network.load_state_dict(state)
    return TorchSession(network, Preprocess(size=layout.resolution[0]), threads=threads, compiled=compiled)


def open_any(model: Path, *, threads: int, runtime: str) -> Session:
    """Open in PyTorch an artifact's folder or the JSON file of a layout, or an ONNX file in a runtime of artifacts."""
    if runtime not in (TORCH, COMPILED):
        return open_model(model, threads=threads, runtime=runtime)
    if model.is_dir():
        return open_artifact(model, threads=threads, compiled=runtime == COMPILED)
    layout = layout_from_json(json.loads(model.read_bytes()), where=str(model))
    return open_layout(layout, threads=threads, compiled=runtime == COMPILED)


def _measure(request: dict[str, Any], emit: Emit) -> None:
    time_models(Timing(**request), emit, opens=open_any)


def _compare(request: dict[str, Any], emit: Emit) -> None:
    visit = Visit(**request)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = visit.cache  # read when torch is first imported
    time_batches(visit, emit, opens=open_any)


if __name__ == "__main__":
    main({**TASKS, "measure": _measure, "compare": _compare})
