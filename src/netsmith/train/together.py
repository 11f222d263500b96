"""An update of several processes: each computes a part of the batch, and all make the same step.

Choices made on purpose, against DistributedDataParallel, which adds gradients up while they are computed:

- Gradients are added up after the last of them, together with the loss and the running statistics of batch norm, in
  large pieces. So nothing is exchanged before all processes know that each of them has its gradients: where memory ran
  out or a loss is not finite in one, all make the update again in smaller parts, or stop with its reason.
- Each process weighs the loss of its part by its share of the batch: what is added up is the gradient of the mean over
  the batch, also where parts differ by one picture, and all processes hold the same bits afterwards.
- Running statistics are averaged at every update, so evaluation and checkpoints do not depend on which process is
  asked. They are the means over the processes' batches, and not over the whole batch; `sync_norm` is for that.
- There is no wrapper: names of parameters, hooks and what a checkpoint holds are those of one process.
- Where the network is divided (`sharding`), gradients are exchanged while they are computed; loss and running
  statistics go the way they go here.

What this leaves out is adding up the first gradients while the last ones are computed. That hides the exchange where it
is slow, between machines; within one it is small beside the update.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import Parameter

from netsmith.errors import CheckError
from netsmith.run.recipe import Recipe
from netsmith.train.batch import Batch
from netsmith.train.objectives import Outcome
from netsmith.train.planning import Planner
from netsmith.train.ranks import Ranks
from netsmith.train.shortage import OutOfMemory
from netsmith.train.state import State
from netsmith.train.step import ALONE, NonFiniteLoss, Peers
from netsmith.train.sync_norm import FEW, norms, synchronise

Fate = Outcome | NonFiniteLoss | OutOfMemory


def peers_of(ranks: Ranks, state: State, recipe: Recipe, *, planner: Planner, batch_size: int) -> Peers:
    """Who else computes a part of a batch; the network's batch norms are synchronised where recipe and plan say so.

    Args:
        ranks: that train together.
        state: of the training.
        recipe: its `sync_bn` and `grad_accum` are used.
        planner: of the run.
        batch_size: pictures of the whole batch.
    """
    if not ranks.several:
        return ALONE
    at_once = batch_size // ranks.world.size // recipe.grad_accum
    wanted = at_once < FEW if recipe.sync_bn == "auto" else recipe.sync_bn
    synchronised = any(True for _ in norms(state.network)) and planner.synchronised(lambda: wanted)
    if synchronised:
        synchronise(state.network, ranks)
    return Together(ranks, state, batch_size=batch_size, synchronised=synchronised)


class Together:
    """The processes of an update; see `step.Peers`.

    Args:
        ranks: all of them.
        state: of the training.
        batch_size: pictures of the whole batch.
        synchronised: whether batch norm's statistics are those of the whole batch.
    """

    def __init__(self, ranks: Ranks, state: State, *, batch_size: int, synchronised: bool) -> None:
        self._ranks, self._network, self._division = ranks, state.network, state.division
        self._batch_size, self._synchronised = batch_size, synchronised
        # Statistics or weights are exchanged as updates are computed: a process that fails cannot leave that out.
        self._inside = synchronised or state.division.joint
        self._batch: Batch | None = None

    def count(self, batch: Batch) -> int:
        """Pictures of the whole batch."""
        self._batch = batch
        return self._batch_size

    def finite(self, loss: float) -> bool:
        """Whether the loss of this process's part is, and where they meet anyway, that of all."""
        lost = not math.isfinite(loss)
        return self._ranks.most([lost]) == [0] if self._inside else not lost

    def settle(self, fate: Fate) -> Fate:
        """The fate of all: the worst of each, or the update of the whole batch."""
        if self._inside:
            if isinstance(fate, OutOfMemory):
                raise CheckError(
                    f"memory ran out ({fate}), and processes that exchange statistics or weights while they compute "
                    "cannot try again in smaller parts; give --grad-accum 2 or more, or a smaller --batch-size"
                )
            if isinstance(fate, NonFiniteLoss):
                return fate
        else:
            ours = isinstance(fate, NonFiniteLoss), isinstance(fate, OutOfMemory)
            lost, short = self._ranks.most(ours)
            if lost:
                assert self._batch is not None, "its pictures were counted"
                return fate if isinstance(fate, NonFiniteLoss) else NonFiniteLoss(self._batch, here=False)
            if short:
                return fate if isinstance(fate, OutOfMemory) else OutOfMemory("in another process")
        assert isinstance(fate, Outcome)
        self._division.take_gradients()
        self._ranks.add_up([fate.loss, *self._gradients(), *self._statistics()])
        return fate

    def clip(self, parameters: Iterable[Parameter], largest: float) -> None:
        """By the norm of what all hold."""
        held = [self._division.held(parameter) for parameter in parameters]
        norm = torch.nn.utils.get_total_norm([each.grad for each in held if each.grad is not None])
        torch.nn.utils.clip_grads_with_norm_(held, largest, self._division.over_all(norm))

    def _gradients(self) -> Iterator[Tensor]:
        for parameter in self._network.parameters():
            if parameter.grad is not None:  # of what is divided it was taken, and is the sum already
                yield _as_stored(parameter, parameter.grad)

    def _statistics(self) -> Iterator[Tensor]:
        if self._synchronised:
            return
        assert self._batch is not None, "its pictures were counted"
        share = len(self._batch.targets) / self._batch_size
        for module in norms(self._network):
            if module.training and module.running_mean is not None and module.running_var is not None:
                yield module.running_mean.mul_(share)
                yield module.running_var.mul_(share)


def _as_stored(parameter: Tensor, gradient: Tensor) -> Tensor:
    """A view whose order is that of the parameter in memory, channels last or not, so that no copy has to turn it."""
    return gradient if parameter.ndim != 4 or parameter.is_contiguous() else gradient.permute(0, 2, 3, 1)
