"""Pictures of stripes in four directions, and a network that tells them apart without having been trained.

Its convolutions are random and its last layer is solved for by least squares, so an artifact that answers well is there
in a second and needs no torch.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from netsmith.arch.graph import Conv, Norm
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.names import find_layout
from netsmith.artifact.bundle import Bundle, write_bundle
from netsmith.artifact.golden import make_golden, synthetic_examples
from netsmith.artifact.insides import Insides
from netsmith.artifact.runtimes import open_model
from netsmith.compress.quantize.graph import Graph
from netsmith.export.onnx_graph import write_onnx
from netsmith.export.probe import probe_weights
from netsmith.run.preprocess import Preprocess

SIDE = 16
NOISE = 100
"""The largest feature over the noise that the last layer is solved to bear, which is more than rounding's."""
PREPROCESS = Preprocess(size=SIDE)
LABELS = ("down", "flat", "steep", "up")
Weights = dict[str, NDArray[np.float32]]


def stripes(count: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures uint8 [count,16,16,3] and their directions int64 [count]."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(LABELS)
    angle = labels[:, None, None] * np.pi / 4 + rng.normal(0, 0.1, (count, 1, 1))
    y, x = np.mgrid[:SIDE, :SIDE]
    wave = np.cos(
        (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(0.8, 1.6, (count, 1, 1))
        + rng.uniform(0, 6, (count, 1, 1))
    )
    pixels = 128 + 60 * wave[..., None] + rng.normal(0, 20, (count, SIDE, SIDE, 3))
    return pixels.clip(0, 255).astype(np.uint8), labels


def write_stripes(path: Path, *, train: int = 160, val: int = 80, test: int = 40) -> Path:
    """A data set of them with given splits."""
    pixels, labels = stripes(train + val + test, seed=0)
    split = np.array(["train"] * train + ["val"] * val + ["test"] * test)
    np.savez(path, images=pixels, labels=np.array(LABELS)[labels], split=split)
    return path


def solved(name: str, spoil: Callable[[Layout, Weights], None] | None = None) -> tuple[Layout, Weights]:
    """A network and weights with which it tells stripes apart; `spoil` changes weights but not what is computed."""
    layout = find_layout(name, num_classes=len(LABELS), img_size=SIDE)
    weights = {name: value.copy() for name, value in probe_weights(layout).items()}
    if spoil is not None:
        spoil(layout, weights)
    graph = Graph(write_onnx(layout, weights, preprocess=PREPROCESS))
    last = next(node for node in graph.nodes if node.name == graph.layers()[-1])
    pixels, labels = stripes(400, seed=1)
    read = Insides(graph.model, [last.input[0]]).run(pixels)[last.input[0]].astype(np.float64)
    mean, noise = read.mean(0), read.max() / NOISE
    features = read - mean
    wanted = 4.0 * np.eye(len(LABELS))[labels]
    found = np.linalg.solve(
        features.T @ features + len(read) * noise**2 * np.eye(features.shape[1]), features.T @ (wanted - wanted.mean(0))
    )
    weights[f"{last.name}.weight"] = found.T.astype(np.float32)
    weights[f"{last.name}.bias"] = (wanted.mean(0) - mean @ found).astype(np.float32)
    return layout, weights


def neighbours(layout: Layout) -> tuple[str, str, str]:
    """The second convolution that hands its map to the next one, its norm, and that next one."""
    ops = layout_graph(layout).ops
    found = [
        (first.name, norm.name, second.name)
        for first, norm, _, second in zip(ops, ops[1:], ops[2:], ops[3:], strict=False)
        if isinstance(first, Conv) and isinstance(norm, Norm) and isinstance(second, Conv)
    ]
    return found[1]


def write_solved(
    folder: Path, layout: Layout, weights: Weights, *, thresholds: tuple[float, ...] | None = None
) -> Bundle:
    """The artifact of a solved network; with thresholds it tags."""
    activation = "softmax" if thresholds is None else "sigmoid"
    model = write_onnx(layout, weights, preprocess=PREPROCESS, activation=activation)
    session = open_model(model)
    counters = {name: np.zeros((), np.int64) for name in weights if name.endswith("running_mean")}
    state = weights | {name.replace("running_mean", "num_batches_tracked"): zero for name, zero in counters.items()}
    return write_bundle(
        folder,
        model=model,
        layout=layout,
        labels=LABELS,
        preprocess=PREPROCESS,
        golden=make_golden(
            synthetic_examples(PREPROCESS), PREPROCESS, lambda pixels: session.run(pixels).probabilities
        ),
        weights=safetensors.numpy.save(state),
        activation=activation,
        thresholds=thresholds,
    )
