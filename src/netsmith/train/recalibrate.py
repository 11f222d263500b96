"""Batch norm's running statistics taken again, for a network whose channels changed and that is not trained after.

The statistics of a layer are those of what reaches it, and that changes when channels before it go. All else stays as
in evaluation, so dropout and stochastic depth are off, and norms that nothing reaches then, those of classifiers for
training only, keep what they have.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from netsmith.run.progress import Progress, silent
from netsmith.train.objectives import Normalize


def recalibrate(
    network: nn.Module,
    pixels: NDArray[np.uint8],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int = 64,
    progress: Progress = silent,
) -> int:
    """Give every batch norm the mean over batches of the statistics that training pictures give it.

    Args:
        network: changed in place; it is left in evaluation mode.
        pixels: uint8 [N,R,R,3] training pictures as `prepare` gives them, N >= 2.
        mean, std: of the network's input, in units of [0, 1] pixel values.
        batch_size: pictures whose statistics are taken together, about.
        progress: told how many pictures are done.

    Returns:
        Number of batch norms that were given them.
    """
    assert len(pixels) > 1, "statistics are those of several pictures"
    norms = [module for module in network.eval().modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, copy.deepcopy(list(norm.buffers()))) for norm in norms]
    normalize = Normalize(mean, std)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # all batches count alike
        norm.train()
    done = 0
    with torch.no_grad():
        for part in np.array_split(pixels, max(1, len(pixels) // batch_size)) if norms else ():
            progress("recalibrating batch norm", done, len(pixels))
            network(normalize(torch.from_numpy(part.copy()).permute(0, 3, 1, 2)))
            done += len(part)
    reached = 0
    for norm, (momentum, buffers) in zip(norms, before, strict=True):
        norm.momentum = momentum
        if norm.num_batches_tracked:
            reached += 1
        else:
            for buffer, kept in zip(norm.buffers(), buffers, strict=True):
                buffer.copy_(kept)
    network.eval()
    return reached
