"""How the loss of single pictures changes with the channels that layers read, in evaluation.

A factor on a channel, where one layer reads it, has as its derivative the sum over positions of the channel times the
loss's gradient by it. In evaluation no picture depends on the others of its batch, so one backward pass gives the
derivatives of all of them.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from netsmith.data.items import Targets
from netsmith.run.preprocess import Preprocess
from netsmith.run.progress import Progress, silent
from netsmith.run.recipe import Recipe
from netsmith.run.scores import are_tags
from netsmith.train.objectives import objective_of


def channel_effects(
    network: nn.Module,
    layers: Sequence[str],
    pixels: NDArray[np.uint8],
    labels: Targets,
    *,
    every: Targets,
    preprocess: Preprocess,
    recipe: Recipe,
    batch_size: int = 64,
    progress: Progress = silent,
) -> Iterator[dict[str, NDArray[np.float64]]]:
    """Derivatives of each picture's loss by a factor on each channel, batch after batch.

    Args:
        network: used in evaluation mode and float32 on the CPU; it is left in evaluation mode.
        layers: names of the convolutions and linear layers whose inputs are asked about.
        pixels: uint8 [N,R,R,3], as `prepare` gives them.
        labels: int64 [N], or bool [N,C] of tags.
        every: labels of all training pictures, by which classes are weighed where the loss weighs them.
        preprocess: of the network.
        recipe: whose loss it is.
        batch_size: pictures per pass.
        progress: told how many pictures are done.

    Yields:
        Layer -> float64 [pictures of the batch, channels that it reads].
    """
    objective = objective_of(network.eval(), recipe, preprocess, labels=every)
    objective.auxiliary = {}  # classifiers for training do not ship
    found: dict[str, NDArray[np.float64]] = {}

    def watch(name: str) -> None:
        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
            x = inputs[0].view_as(inputs[0])  # of its own, so that its gradient comes through this layer alone

            def note(gradient: Tensor) -> None:
                product = (x.detach() * gradient).flatten(2).sum(2) if x.dim() > 2 else x.detach() * gradient
                found[name] = product.double().numpy()

            if x.requires_grad:
                x.register_hook(note)
            return x

        handles.append(network.get_submodule(name).register_forward_pre_hook(before))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    needing = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for name in layers:
            watch(name)
        for parameter in needing:  # only the pictures' maps are differentiated
            parameter.requires_grad_(False)
        for start in range(0, len(pixels), batch_size):
            progress("asking training pictures", start, len(pixels))
            found.clear()
            images = torch.from_numpy(pixels[start : start + batch_size].copy()).permute(0, 3, 1, 2)
            targets = torch.from_numpy(labels[start : start + batch_size])
            outcome = objective(images.float().requires_grad_(), targets.float() if are_tags(labels) else targets)
            (outcome.loss * len(images)).backward()
            yield dict(found)
        progress("asking training pictures", len(pixels), len(pixels))
    finally:
        for handle in handles:
            handle.remove()
        for parameter in needing:
            parameter.requires_grad_()
