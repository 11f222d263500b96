"""The update: forward, loss, backward, clip, optimizer step, in one function."""

import math

import torch
from torch import nn

from netsmith.run.recipe import Recipe
from netsmith.train.feed import Batch
from netsmith.train.objectives import Outcome
from netsmith.train.precision import Precision

_FUSED = frozenset({"cpu", "cuda"})


class NonFiniteLoss(ArithmeticError):
    """The loss of a step is NaN or infinite; the weights were not touched by that step."""


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or AdamW over the network's parameters, fused where torch can.

    Weight decay acts on the weights of convolutions and linear layers only: on norms and biases it costs accuracy
        (He et al. 2019, "Bag
    of tricks", section 3.1).

    Args:
        network: on its device already.
        recipe: its `opt`, `momentum`, `nesterov`, `weight_decay` are used; the rate is set by every update.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(p.device.type in _FUSED for p in trained)
    if recipe.opt == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused)


def update(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    rate: float,
    precision: Precision,
    grad_clip: float | None = None,
    check: bool = True,
) -> Outcome:
    """One optimizer step on one batch.

    Args:
        objective: `forward(images, targets)` -> Outcome, in training mode.
        optimizer: over the objective's parameters.
        batch: on the objective's device.
        rate: learning rate of this step.
        precision: dtype of the activations.
        grad_clip: largest norm of the gradient, or None.
        check: look whether the loss is finite before anything is changed (on a GPU this waits for it).

    Returns:
        Loss and logits, detached.

    Raises:
        NonFiniteLoss: the loss is NaN or infinite; weights and optimizer are as before.
    """
    with precision.autocast(batch.images.device):
        outcome: Outcome = objective(precision.lay_out(batch.images), batch.targets)
    if check and not math.isfinite(outcome.loss.item()):
        raise NonFiniteLoss
    outcome.loss.backward()
    if grad_clip is not None:
        torch.nn.utils.clip_grad_norm_(objective.parameters(), grad_clip)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Outcome(outcome.loss.detach(), outcome.logits.detach())
