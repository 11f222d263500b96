"""Latencies in PyTorch and in ONNX Runtime side by side, by the same stopwatch in one fresh process.

All models take turns in both runtimes, so that a disturbance meets them alike. PyTorch runs the float network as people
do who have not exported it: eager, contiguous, in inference mode, from uint8 pixels to probabilities, with random
weights (`netsmith.export.probe`). It is left out where torch is not installed.

Run as a module (`python -m netsmith.export.side_by_side`) this is the worker of that process.
"""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netsmith.arch.layout import Layout, layout_from_json, layout_to_json
from netsmith.artifact.latency import Measurement
from netsmith.artifact.measure import measure_many
from netsmith.artifact.runtimes import Outputs, Session, open_model
from netsmith.artifact.timing import Timing, time_models
from netsmith.artifact.worker import TASKS, Emit, main
from netsmith.export.probe import probe_weights
from netsmith.run.preprocess import Preprocess
from netsmith.run.progress import Progress, silent

TORCH, ONNXRUNTIME = "torch", "onnxruntime"
OPENING_S = 10.0
"""For importing torch and opening a network on a busy machine, for each network."""

Sides = dict[str, Measurement | None]
"""Runtime -> measurement, None where no time was left."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A network's layout, for PyTorch, and its ONNX file or the content of it."""

    layout: Layout
    model: Path | bytes


def side_by_side(
    pairs: Sequence[Pair], *, threads: int, seconds_each: float, progress: Progress = silent
) -> list[Sides]:
    """Latencies of networks in ONNX Runtime and, where torch is installed, in PyTorch.

    Args:
        pairs: the networks.
        threads: of every model in both runtimes, >= 1.
        seconds_each: timed calls per network and runtime.
        progress: is told the share that is done.

    Returns:
        For each network its measurements by runtime.

    Raises:
        InputError, CheckError: as `netsmith.artifact.measure.measure_many`.
    """
    runtimes = [ONNXRUNTIME] + ([TORCH] if importlib.util.find_spec("torch") is not None else [])
    models: list[Path | bytes] = []
    for pair in pairs:
        models += [pair.model, json.dumps(layout_to_json(pair.layout)).encode()][: len(runtimes)]
    measured = measure_many(
        models,
        threads=threads,
        seconds_each=seconds_each,
        deadline_s=len(models) * (4 * seconds_each + OPENING_S),
        runtime=runtimes * len(pairs),
        worker="netsmith.export.side_by_side",
        progress=progress,
    )
    count = len(runtimes)
    return [dict(zip(runtimes, measured[i * count : (i + 1) * count], strict=True)) for i in range(len(pairs))]


class TorchSession:
    """A network in PyTorch; a `netsmith.artifact.runtimes.Session`.

    Args:
        layout: the network.
        threads: of PyTorch in this process, >= 1.
    """

    runtime = TORCH

    def __init__(self, layout: Layout, *, threads: int) -> None:
        import torch

        from netsmith.models.build import build

        torch.set_num_threads(threads)
        self.threads, self.size, self.classes = threads, layout.resolution[0], layout.num_classes
        network = build(layout).eval()
        state = network.state_dict()
        state |= {name: torch.from_numpy(values.copy()) for name, values in probe_weights(layout).items()}
        network.load_state_dict(state)
        self._network = network
        preprocess = Preprocess(size=self.size)
        self._mean = 255 * torch.tensor(preprocess.mean).view(3, 1, 1)
        self._std = 255 * torch.tensor(preprocess.std).view(3, 1, 1)

    def run(self, images: NDArray[np.uint8]) -> Outputs:
        """Classify images uint8 [N,R,R,3], N >= 1."""
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
            logits = self._network((pixels - self._mean) / self._std)
            return Outputs(logits.softmax(1).numpy(), logits.numpy())


def open_either(model: Path, *, threads: int, runtime: str) -> Session:
    """Open the JSON file of a layout in PyTorch, or an ONNX file in a runtime of artifacts."""
    if runtime == TORCH:
        return TorchSession(layout_from_json(json.loads(model.read_bytes()), where=str(model)), threads=threads)
    return open_model(model, threads=threads, runtime=runtime)


def _measure(request: dict[str, Any], emit: Emit) -> None:
    time_models(Timing(**request), emit, opens=open_either)


if __name__ == "__main__":
    main({**TASKS, "measure": _measure})
