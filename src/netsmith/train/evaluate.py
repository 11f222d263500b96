"""A float network's answers on prepared pixels: every picture once, in float32, as the exported graph computes.

On CUDA torch's convolutions of float32 round their inputs to TF32 unless they are told not to
(`torch.backends.cudnn.allow_tf32`), and so they do here; what a finished run says of itself comes from its artifact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from netsmith.data.items import Targets
from netsmith.errors import CheckError
from netsmith.run.progress import Progress, silent
from netsmith.run.scores import METRIC_NAMES, Answers, points, thresholds_for
from netsmith.train.devices import likes_known_shapes, release
from netsmith.train.objectives import Normalize
from netsmith.train.ranks import Ranks
from netsmith.train.shortage import says_out_of_memory

PICTURES, GPU_PICTURES = 64, 256  # per forward call


@dataclass(frozen=True)
class Evaluation(Answers):
    """Answers and what they say."""

    @cached_property
    def points(self) -> dict[str, float]:
        """Its numbers without intervals, see `run.scores.points`."""
        return points(self.logits, self.targets)

    @property
    def loss(self) -> float:
        """Mean loss per picture, nats."""
        return self.points["loss"]

    @property
    def shown(self) -> str:
        """The headline as a person reads it."""
        metric, value = next(iter(self.points.items()))
        return f"{METRIC_NAMES['map' if metric == 'map' else 'top1']} {100 * value:.2f} %"

    @property
    def thresholds(self) -> tuple[float, ...] | None:
        """To answer with, see `run.scores.thresholds_for`."""
        return thresholds_for(self.logits, self.targets)


def evaluate_network(
    network: nn.Module,
    pixels: NDArray[np.uint8],
    labels: Targets,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int | None = None,
    progress: Progress = silent,
    jointly: bool = False,
) -> Evaluation:
    """Run a network in evaluation mode; each module's mode is put back afterwards.

    Args:
        network: `forward(x)` -> logits; it is used on the device of its first parameter.
        pixels: uint8 [N,R,R,3], as `prepare` gives them; N >= 1.
        labels: int64 [N], or bool [N,C] of tags.
        mean, std: of the network's input, in units of [0, 1] pixel values.
        batch_size: pictures per forward call, fewer where memory runs out; as suits the device when None. It does not
            change which are counted.
        progress: told how many pictures are done.
        jointly: every forward call is made by all processes together; then there are as many of them in each, for as
            many pictures, whatever happens.

    Raises:
        CheckError: memory is too small for one picture, or where they compute jointly, for `batch_size`.
    """
    assert len(pixels) == len(labels) > 0, (len(pixels), len(labels))
    device = next(network.parameters()).device
    batch_size = batch_size or (GPU_PICTURES if device.type == "cuda" else PICTURES)
    normalize = Normalize(mean, std).to(device)
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    answers: list[NDArray[np.float32]] = []
    try:
        with torch.no_grad() if jointly else torch.inference_mode():  # gathered weights are to be trained on
            start = 0
            while start < len(pixels):
                progress("evaluating", start, len(pixels))
                # A copy: caches are read-only. Pictures come interleaved, which is channels-last.
                images = torch.from_numpy(pixels[start : start + batch_size].copy()).permute(0, 3, 1, 2)
                count = len(images)
                if likes_known_shapes(device):  # filled up to the shape that was met already
                    images = images[torch.arange(min(batch_size, len(pixels))) % count]
                logits = _logits(network, normalize, images, device)
                if logits is None:
                    batch_size = _fewer(count, jointly=jointly)
                    continue
                answers.append(logits[:count])
                start += count
        progress("evaluating", len(pixels), len(pixels))
    finally:
        for module, mode in modes:
            module.training = mode
    return Evaluation(np.concatenate(answers), labels)


def evaluate_together(
    network: nn.Module,
    pixels: NDArray[np.uint8],
    labels: Targets,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    ranks: Ranks,
    jointly: bool = False,
) -> Evaluation:
    """Run a network that all processes have, each on a part of the pictures; arguments as `evaluate_network`.

    Every picture is answered once, however many there are: parts differ by one at most, and some may be empty. Of a
    network that is divided over the processes (`jointly`) each computes as many, and what others answer is left out.

    Returns:
        All answers in the order of the pictures, in every process.
    """
    ours = ranks.slice_of(len(labels))
    first, last = ours.start, ours.stop
    if jointly:
        most = -(-len(labels) // ranks.world.size)
        first = min(first, len(labels) - most)
        last = first + most
    answers: NDArray[np.float32] | None = None
    if first < last:
        found = evaluate_network(network, pixels[first:last], labels[first:last], mean=mean, std=std, jointly=jointly)
        answers = found.logits[ours.start - first : ours.stop - first]
    parts = [part for part in ranks.gathered(answers) if part is not None]
    return Evaluation(np.concatenate(parts), labels)


def _logits(
    network: nn.Module, normalize: Normalize, images: torch.Tensor, device: torch.device
) -> NDArray[np.float32] | None:
    """The network's answers, or None where memory ran out."""
    try:
        return network(normalize(images.to(device))).float().cpu().numpy()
    except (RuntimeError, MemoryError) as error:
        if not says_out_of_memory(error):
            raise
    release(device)
    return None


def _fewer(pictures: int, *, jointly: bool) -> int:
    if jointly:
        raise CheckError(
            f"memory ran out while the processes answered {pictures} pictures each, and as they exchange weights "
            "meanwhile they cannot try again with fewer; take a smaller --img-size or network"
        )
    if pictures == 1:
        raise CheckError("memory is too small to evaluate one picture; take a smaller --img-size or network")
    return pictures // 2
