"""All state of a training run in one object, and that object is what a checkpoint holds.

There is nothing else to save: batches, augmentation and dropout are functions of the step, and the rest is in the
recipe and the plan.
"""

import copy
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from netsmith.run.recipe import Recipe
from netsmith.train.division import WHOLE, Whole
from netsmith.train.optimizers import build_optimizer
from netsmith.train.precision import Precision
from netsmith.train.tally import Tally


class State:
    """Network, averaged network, optimizer, step.

    Args:
        network: on its device; its parameters' memory layout is changed in place as `precision` says.
        recipe: optimizer and averaging.
        precision: how the network computes.
        beside: what is trained with it and does not ship.
        division: what this process holds of all that follows.

    Attributes:
        network: what is trained.
        averaged: exponential moving average of its weights and statistics, or None.
        division: as given.
        parameters: what the optimizer moves, by the names of the network's parameters.
        optimizer: over them.
        step: updates made.
        scaler: of the loss, where activations are float16, or None.
        tally: of what updates gave since the last row of metrics.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        precision: Precision,
        *,
        beside: nn.Module | None = None,
        division: Whole = WHOLE,
    ) -> None:
        precision.apply(network, division.device)
        self.network, self.division = network, division
        self._beside = beside if beside is not None else nn.Module()
        self.averaged = copy.deepcopy(network).eval().requires_grad_(False) if recipe.ema is not None else None
        self.decay = recipe.ema
        division.divide(network, *([] if self.averaged is None else [self.averaged]))
        self.parameters = {name: division.held(parameter) for name, parameter in network.named_parameters()}
        # Fused optimizers would leave out an overflowing step by themselves, and start from memory that was never set.
        self.optimizer = build_optimizer(
            network,
            recipe,
            beside=list(self._beside.parameters()),
            fused=not precision.scales_loss,
            division=division,
        )
        self.scaler = torch.amp.GradScaler(next(network.parameters()).device.type) if precision.scales_loss else None
        self._buffers = list(network.buffers())
        self.step = 0
        self.tally = Tally()

    @property
    def final(self) -> nn.Module:
        """The network to evaluate and to ship: the averaged one where there is one."""
        return self.network if self.averaged is None else self.averaged

    @torch.no_grad()
    def average(self) -> None:
        """Move the average towards the weights after an update.

        The decay rises as (1 + step) / (10 + step) to the recipe's, so that a short run does not remember its first
        weights.
        """
        if self.averaged is None or self.decay is None:
            return
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        moving: list[Tensor] = []
        current: list[Tensor] = []
        for ours, theirs in zip(self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True):
            if ours.is_floating_point():
                moving.append(self.division.local(ours))
                current.append(self.division.local(theirs))
            else:
                ours.copy_(theirs)
        get_ema_multi_avg_fn(decay)(moving, current, None)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes, as far as it is held here, by name: "network.KEY", "averaged.KEY", "beside.KEY",
        "optimizer.PARAMETER.KEY"."""
        return {name: part for name, part, _ in self._parts()}

    def whole(self) -> dict[str, Tensor]:
        """`tensors()` as a process alone has them, one by one gathered from all; for the leading process to keep."""
        return {name: self.division.kept(self.division.whole(part, of)) for name, part, of in self._parts()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the whole tensors but for the optimizer's, by their names in `tensors()`."""
        return {name: tuple(of.shape) for name, _, of in self._parts() if not name.startswith("optimizer.")}

    def plain(self) -> nn.Module:
        """`final` as a process alone has it, brought to the CPU to stay; only the leading process's has weights."""
        return self.division.plain(self.final)

    def _parts(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name, what is held here, and the tensor of a network that it belongs to."""
        for kind, module in (("network", self.network), ("beside", self._beside), ("averaged", self.averaged)):
            for key, value in module.state_dict().items() if module is not None else ():
                yield f"{kind}.{key}", self.division.local(value), value
        for name, parameter in self._parameters():
            moments: Mapping[str, Tensor] = self.optimizer.state.get(self.division.held(parameter), {})
            for key in sorted(moments):
                yield f"optimizer.{name}.{key}", moments[key], parameter

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.network.named_parameters()
        yield from self._beside.named_parameters(prefix="beside")

    def numbers(self) -> dict[str, float]:
        """What changes and is no tensor: the tally, the scale of a float16 loss."""
        named = self.tally.numbers()
        if self.scaler is not None:
            scaling = self.scaler.state_dict()
            named |= {"loss_scale": scaling["scale"], "loss_scale_steps": float(scaling["_growth_tracker"])}
        return named

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float], *, step: int) -> None:
        """Become the state that `tensors` describes; names and shapes are known to agree.

        Args:
            tensors: as `whole()` gave them.
            numbers: as `numbers()` gave them, others may be among them.
            step: updates made.
        """
        self.optimizer.state.clear()
        for name, part, of in self._parts():
            part.copy_(self.division.part(tensors[name], of))
        counts_there = all(group.get("fused", True) for group in self.optimizer.param_groups)
        for name, parameter in self._parameters():
            prefix, held = f"optimizer.{name}.", self.division.held(parameter)
            moments = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if moments:
                self.optimizer.state[held] = {
                    key: _like(self.division.part(value, parameter), held, counts_there=counts_there)
                    for key, value in moments.items()
                }
        self.tally = Tally.of(numbers)
        if self.scaler is not None and "loss_scale" in numbers:
            scaling = {"scale": numbers["loss_scale"], "_growth_tracker": int(numbers["loss_scale_steps"])}
            self.scaler.load_state_dict(self.scaler.state_dict() | scaling)
        self.step = step

    def statistics(self) -> Callable[[], None]:
        """Remember the network's running statistics; calling what is returned brings them back."""
        kinds = {buffer.dtype for buffer in self._buffers}
        # One copy per dtype rather than one per buffer: this is done before every update.
        kept = {dtype: torch.cat([each.flatten() for each in self._buffers if each.dtype == dtype]) for dtype in kinds}

        def restore() -> None:
            for dtype, flat in kept.items():
                buffers = [each for each in self._buffers if each.dtype == dtype]
                for buffer, values in zip(buffers, flat.split([each.numel() for each in buffers]), strict=True):
                    buffer.copy_(values.view_as(buffer))

        return restore


def _like(value: Tensor, parameter: Tensor, *, counts_there: bool) -> Tensor:
    # Moments lie in memory as their parameter does: fused kernels walk both side by side. Counts of steps
    # stay where their optimizer makes them: torch's, where it is not fused, on the CPU, or every update would wait.
    if value.shape == parameter.shape and value.ndim:
        return torch.empty_like(parameter).copy_(value)
    return value.to(parameter.device) if counts_there or value.ndim else value
