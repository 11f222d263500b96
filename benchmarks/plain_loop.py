"""The loop that people write, as torchvision's reference script has it (references/classification/train.py,
`train_one_epoch`): what netsmith's training is measured against.

A DataLoader with PIL transforms, float32, the loss and the accuracies read at every step. `tuned` is the same with
channels_last and bfloat16 autocast.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe


@dataclass(frozen=True)
class PlainLoop:
    """The update of the loop.

    Attributes:
        smoothing: of the labels.
        tuned: compute in bfloat16, channels last.
    """

    smoothing: float
    tuned: bool = False

    def laid_out(self, network: nn.Module) -> nn.Module:
        """The network as the loop wants it in memory."""
        return network.to(memory_format=torch.channels_last) if self.tuned else network

    def _forward(self, network: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss_of = nn.CrossEntropyLoss(label_smoothing=self.smoothing)
        if not self.tuned:
            logits = network(images)
            return logits, loss_of(logits, targets)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(images.contiguous(memory_format=torch.channels_last))
            return logits, loss_of(logits, targets)

    def update(self, network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, targets: Tensor) -> None:
        """One update, and what the script logs of it."""
        logits, loss = self._forward(network, images, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        best = logits.detach().topk(5).indices.eq(targets[:, None])
        loss.item(), best[:, 0].sum().item(), best.sum().item()


def transform(recipe: Recipe, rules: Preprocess) -> Any:
    """What the script does to a picture, a PIL image: the crops of the recipe, a flip, a normalised tensor.

    On CPU builds of torch, torchvision imports only as `peer_networks` prepares it.
    """
    from torchvision import transforms

    side = recipe.img_size
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(side, scale=recipe.crop_scale)
            if recipe.crop_scale
            else transforms.RandomCrop(side, padding=recipe.pad),
            *([transforms.RandomHorizontalFlip()] if recipe.flip else []),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize(rules.mean, rules.std),
        ]
    )


def sgd(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of the recipe, without netsmith's fused kernels; weights of norms and biases decay as it says."""
    weights = [each for each in network.parameters() if each.ndim > 1]
    others = [each for each in network.parameters() if each.ndim <= 1]
    decayed = recipe.weight_decay if recipe.weight_decay_on == "all" else 0.0
    return torch.optim.SGD(
        [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": decayed}],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
    )
