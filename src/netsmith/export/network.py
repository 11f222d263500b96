"""A trained network becomes an artifact, or nothing does: what was written is run and compared with PyTorch first.

The reference is the network as `load_model` will build it from the artifact, in float32 on the CPU, so the layout, the
weights and the graph are held against each other at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from netsmith.arch.layout import Layout, at_size
from netsmith.artifact.bundle import Activation, Bundle, Preferred, Provenance, write_bundle
from netsmith.artifact.golden import Golden, make_golden, synthetic_examples
from netsmith.artifact.runtimes import open_model
from netsmith.errors import CheckError, InputError
from netsmith.export.onnx_graph import write_onnx
from netsmith.models.build import Network, load_weights
from netsmith.models.weights import entries_of
from netsmith.run.preprocess import Preprocess

TOLERANCE = 1e-3
"""Largest difference of a logit from PyTorch's, as a share of the largest logit; rounding stays far below it."""


@dataclass(frozen=True)
class Exported:
    """A network as ONNX, compared with PyTorch.

    Attributes:
        layout: of the network at the artifact's resolution.
        model: content of `model.onnx`.
        weights: content of `model.safetensors`.
        golden: the examples it was compared on.
        difference: largest difference of a logit from PyTorch's, as a share of the largest logit.
    """

    layout: Layout
    model: bytes
    weights: bytes
    golden: Golden
    difference: float


def export_network(
    network: nn.Module,
    folder: Path,
    *,
    labels: Sequence[str],
    preprocess: Preprocess,
    golden: Sequence[bytes] | None = None,
    activation: Activation = "softmax",
    thresholds: tuple[float, ...] | None = None,
    temperature: float = 1.0,
    preferred: Preferred | None = None,
    provenance: Provenance | None = None,
    with_weights: bool = True,
    overwrite: bool = False,
) -> Bundle:
    """Write the artifact of a network.

    Args:
        network: as `netsmith.models.build` makes them, on any device, in any mode; it is not changed.
        folder: see `write_bundle`.
        labels: class names in the order of the logits, all different.
        preprocess: its size is the artifact's resolution, which may differ from the layout's.
        golden: encoded pictures to ship as examples; generated ones when None.
        activation, temperature: what turns logits into probabilities.
        thresholds: of tags, see `Config`.
        preferred, provenance: see `Config`.
        with_weights: also ship the float weights.
        overwrite: replace an artifact that is already there.

    Returns:
        The bundle, read back.

    Raises:
        InputError: labels that do not fit the network, weights that are not finite, a folder that exists, or what
            `write_onnx` refuses.
        CheckError: ONNX Runtime's logits are not PyTorch's; nothing is written.
    """
    exported = convert_network(
        network,
        labels=labels,
        preprocess=preprocess,
        golden=golden,
        activation=activation,
        temperature=temperature,
    )
    return write_bundle(
        folder,
        model=exported.model,
        layout=exported.layout,
        labels=tuple(labels),
        preprocess=preprocess,
        golden=exported.golden,
        weights=exported.weights if with_weights else None,
        activation=activation,
        thresholds=thresholds,
        temperature=temperature,
        preferred=preferred,
        provenance=provenance,
        overwrite=overwrite,
    )


def convert_network(
    network: nn.Module,
    *,
    labels: Sequence[str],
    preprocess: Preprocess,
    golden: Sequence[bytes] | None = None,
    activation: Activation = "softmax",
    temperature: float = 1.0,
) -> Exported:
    """`export_network` without the folder; arguments and errors as there."""
    layout = getattr(network, "layout", None)
    assert isinstance(layout, Layout), "a network that carries its layout"
    layout = at_size(layout, preprocess.size)
    if len(labels) != layout.num_classes or len(set(labels)) != len(labels):
        raise InputError(
            f"{len(set(labels))} different labels do not fit the {layout.num_classes} outputs of {layout.name}; "
            "give one label per output"
        )
    state = {name: _plain(tensor) for name, tensor in entries_of(layout, network.state_dict()).items()}
    reference = load_weights(layout, state, where=layout.name)
    weights = {name: tensor.numpy() for name, tensor in state.items()}
    model = write_onnx(layout, weights, preprocess=preprocess, activation=activation, temperature=temperature)
    session = open_model(model)
    pictures = golden or synthetic_examples(preprocess)
    examples = make_golden(pictures, preprocess, lambda pixels: session.run(pixels).probabilities)
    difference = compare_logits(session.run(examples.pixels).logits, reference, examples.pixels, preprocess)
    return Exported(layout, model, safetensors.torch.save(state), examples, difference)


def compare_logits(
    logits: NDArray[np.float32], network: Network, pixels: NDArray[np.uint8], preprocess: Preprocess
) -> float:
    """Hold a runtime's logits against PyTorch's.

    Args:
        logits: float32 [K,C] of the runtime.
        network: in evaluation mode, float32, on the CPU.
        pixels: uint8 [K,R,R,3].
        preprocess: of the network.

    Returns:
        The largest difference as a share of PyTorch's largest logit, 0 to `TOLERANCE`.

    Raises:
        CheckError: it is larger, or a logit is not finite.
    """
    with torch.inference_mode():
        expected = network(normalised(pixels, preprocess)).numpy()
    name = network.layout.name
    if not (np.isfinite(logits).all() and np.isfinite(expected).all()):
        raise CheckError(
            f"{name} gives logits that are not finite; its training diverged, train it again with a lower --lr"
        )
    largest = float(np.abs(expected).max())
    departure = float(np.abs(logits - expected).max())
    if departure > TOLERANCE * largest:
        raise CheckError(
            f"the logits of the exported {name} are up to {departure:.3g} away from PyTorch's, the limit is "
            f"{TOLERANCE * largest:.3g}; nothing was written, report this as a defect of netsmith"
        )
    return departure / largest if largest else 0.0


def _plain(tensor: Tensor) -> Tensor:
    """On the CPU, contiguous, float32 (counters stay integers)."""
    kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", kind).contiguous()


def normalised(pixels: NDArray[np.uint8], preprocess: Preprocess) -> Tensor:
    """What a network reads, float32 [K,3,R,R], for pixels uint8 [K,R,R,3]."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std))
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
