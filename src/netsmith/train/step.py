"""The update: forward, loss, backward, clip, optimizer step, in one function."""

import math
from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from netsmith.errors import first_line
from netsmith.train.devices import flush, release
from netsmith.train.feed import Batch
from netsmith.train.objectives import Outcome
from netsmith.train.precision import Precision
from netsmith.train.shortage import NoMemory, OutOfMemory, says_out_of_memory


class NonFiniteLoss(ArithmeticError):
    """The loss of a step is NaN or infinite; the weights were not touched by that step.

    Attributes:
        batch: the pictures that gave it: the batch, or the part of it.
        here: whether it was this process's loss, and not another's.
    """

    def __init__(self, batch: Batch, *, here: bool = True) -> None:
        super().__init__()
        self.batch = batch
        self.here = here


class Peers(Protocol):
    """The other processes that compute a part of the same batch."""

    def count(self, batch: Batch) -> int:
        """Pictures of the whole batch that `batch` is this process's part of."""
        ...

    def finite(self, loss: float) -> bool:
        """Whether the loss of a part is, before its gradients are computed."""
        ...

    def settle(self, fate: Outcome | NonFiniteLoss | OutOfMemory) -> Outcome | NonFiniteLoss | OutOfMemory:
        """What becomes of the update in all processes; gradients and loss are those of the whole batch afterwards."""
        ...

    def clip(self, parameters: Iterable[Parameter], largest: float) -> None:
        """Scale the gradients of the network's parameters so that the norm of them all is at most `largest`."""
        ...


class Alone:
    """No others."""

    def count(self, batch: Batch) -> int:
        """All of them."""
        return len(batch.targets)

    def finite(self, loss: float) -> bool:
        """Whether it is."""
        return math.isfinite(loss)

    def settle(self, fate: Outcome | NonFiniteLoss | OutOfMemory) -> Outcome | NonFiniteLoss | OutOfMemory:
        """What it is."""
        return fate

    def clip(self, parameters: Iterable[Parameter], largest: float) -> None:
        """As torch does."""
        torch.nn.utils.clip_grad_norm_(parameters, largest)


ALONE = Alone()


def update(
    objective: nn.Module,
    optimizer: Optimizer,
    batch: Batch,
    *,
    rate: float,
    precision: Precision,
    grad_clip: float | None = None,
    parts: int = 1,
    scaler: torch.amp.GradScaler | None = None,
    check: bool = True,
    peers: Peers = ALONE,
    look: Callable[[], None] | None = None,
) -> Outcome:
    """One optimizer step on one batch.

    Args:
        objective: `forward(images, targets)` -> Outcome, in training mode.
        optimizer: over the objective's parameters.
        batch: on the objective's device.
        rate: learning rate of this step, times each group's "rate_factor".
        precision: dtype of the activations.
        grad_clip: largest norm of the gradient, or None.
        parts: micro-batches that the batch is computed in, one after another, of sizes that differ by one at most. The
            gradient is that of the whole batch where a picture's loss does not depend on the others of its part (batch
            norm) nor on chance (dropout).
        scaler: of the loss, for float16: a step whose gradient overflows is left out.
        check: look whether the loss is finite before anything is changed (on a GPU this waits for it).
        peers: the processes with the other parts of the batch.
        look: called once the gradients of the whole batch are there, before they are clipped and used.

    Returns:
        Loss of the whole batch and logits of this process's part, detached.

    Raises:
        NonFiniteLoss: the loss is NaN or infinite; weights and optimizer are as before.
        OutOfMemory: the parts are too large; weights and optimizer are as before.
        NoMemory: memory ran out in the optimizer, for which smaller parts are no help.
    """
    outcome = peers.settle(
        _attempt(
            lambda: _gradients(
                objective, batch, precision=precision, parts=parts, scaler=scaler, check=check, peers=peers
            )
        )
    )
    if isinstance(outcome, Exception):
        objective.zero_grad(set_to_none=True)
        release(batch.images.device)
        raise outcome
    if scaler is not None:
        scaler.unscale_(optimizer)
    if look is not None:
        look()
    if grad_clip is not None:
        peers.clip(objective.parameters(), grad_clip)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)
    try:
        _step(optimizer, scaler)
    except (RuntimeError, MemoryError) as error:
        if not says_out_of_memory(error):
            raise
        raise NoMemory(
            f"there is no memory for the optimizer's step ({first_line(error)}); "
            "take a smaller network, or --opt sgd, which remembers least"
        ) from error
    optimizer.zero_grad(set_to_none=True)
    flush(batch.images.device)
    return outcome


def _step(optimizer: Optimizer, scaler: torch.amp.GradScaler | None) -> None:
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


def _attempt(compute: Callable[[], Outcome]) -> Outcome | NonFiniteLoss | OutOfMemory:
    """Loss and gradients, or why there are none: returned, because an error on its way up keeps the activations."""
    try:
        return compute()
    except NonFiniteLoss as error:
        return NonFiniteLoss(error.batch, here=error.here)
    except (RuntimeError, MemoryError) as error:
        if not says_out_of_memory(error):
            raise
        return OutOfMemory(first_line(error))


def _gradients(
    objective: nn.Module,
    batch: Batch,
    *,
    precision: Precision,
    parts: int,
    scaler: torch.amp.GradScaler | None,
    check: bool,
    peers: Peers,
) -> Outcome:
    count = peers.count(batch)
    losses: list[Tensor] = []
    logits: list[Tensor] = []
    for images, targets in zip(batch.images.tensor_split(parts), batch.targets.tensor_split(parts), strict=True):
        with precision.autocast(images.device):
            outcome: Outcome = objective(precision.lay_out(images), targets)
        loss = outcome.loss if len(targets) == count else outcome.loss * (len(targets) / count)
        if check and not peers.finite(value := loss.item()):
            raise NonFiniteLoss(Batch(images, targets), here=not math.isfinite(value))
        (loss if scaler is None else scaler.scale(loss)).backward()
        losses.append(loss.detach())
        logits.append(outcome.logits.detach())
    return Outcome(losses[0], logits[0]) if parts == 1 else Outcome(torch.stack(losses).sum(), torch.cat(logits))
