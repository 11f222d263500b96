"""Depthwise convolutions under bfloat16 on a CPU.

Their forward call is faster in bfloat16, and so are most of their gradients, but some are up to thirty times slower:
with torch 2.13 on AVX-512 the input's gradient of strided ones, and the weight's of kernels above 3x3 twice as slow.
So each gradient has its own dtype, by kernel and stride: a fixed rule, or in timed runs what a check of a few
milliseconds finds on the machine.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, Self, TypeGuard

import torch
from torch import Tensor, nn

from netsmith.run.clock import Clock

Kind = tuple[int, int]
"""Side of the kernel, and stride."""

CHECKED_SHAPE = (8, 96, 28, 28)  # large enough to take longer than a call, small enough to take no time
CHECKS = 3
MARGIN = 0.8  # of the time in bfloat16 that float32, its casts included, must stay below


@dataclass(frozen=True)
class Float32Parts:
    """Kinds of depthwise convolutions whose gradient of the input, or of the weight, is computed in float32."""

    input: frozenset[Kind]
    weight: frozenset[Kind]

    @classmethod
    def by_rule(cls, network: nn.Module) -> Self:
        """The rule of this module's docstring."""
        kinds = kinds_of(network)
        return cls(frozenset(kind for kind in kinds if kind[1] > 1), frozenset(kind for kind in kinds if kind[0] > 3))

    @classmethod
    def measured(cls, network: nn.Module, *, clock: Clock) -> Self:
        """What is faster on this machine, checked on made-up maps."""
        slow: dict[bool, set[Kind]] = {True: set(), False: set()}
        for kind in kinds_of(network):
            for of_input in (True, False):
                half, full = (
                    _seconds(kind, dtype, clock, of_input=of_input) for dtype in (torch.bfloat16, torch.float32)
                )
                if full < MARGIN * half:
                    slow[of_input].add(kind)
        return cls(frozenset(slow[True]), frozenset(slow[False]))

    def to_plan(self) -> list[str]:
        """As a plan row holds it, such as ["input 3x3/2", "weight 5x5/1"]."""
        parts = (("input", self.input), ("weight", self.weight))
        return [f"{name} {side}x{side}/{stride}" for name, kinds in parts for side, stride in sorted(kinds)]

    @classmethod
    def from_plan(cls, value: Iterable[str]) -> Self:
        """Back from `to_plan`."""
        found: dict[str, set[Kind]] = {"input": set(), "weight": set()}
        for text in value:
            name, _, kind = text.partition(" ")
            side, _, stride = kind.partition("/")
            found[name].add((int(side.partition("x")[0]), int(stride)))
        return cls(frozenset(found["input"]), frozenset(found["weight"]))


def is_depthwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is a square depthwise convolution without bias, as the networks have them."""
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == module.in_channels == module.out_channels > 1
        and module.bias is None
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.kernel_size[0] == module.kernel_size[1]
        and module.stride[0] == module.stride[1]
    )


def kinds_of(network: nn.Module) -> list[Kind]:
    """Kinds of the network's depthwise convolutions, sorted."""
    return sorted({_kind(module) for module in network.modules() if is_depthwise(module)})


def _kind(module: nn.Conv2d) -> Kind:
    return module.kernel_size[0], module.stride[0]


def use(network: nn.Module, parts: Float32Parts | None) -> None:
    """Let depthwise convolutions compute gradients as `parts` says, in place; None: as torch does."""
    for module in network.modules():
        if is_depthwise(module):
            vars(module).pop("forward", None)
            if parts is not None:
                kind = _kind(module)
                module.forward = _forward(
                    module, input_float32=kind in parts.input, weight_float32=kind in parts.weight
                )


def _forward(module: nn.Conv2d, *, input_float32: bool, weight_float32: bool) -> Callable[..., Tensor]:
    def forward(self: nn.Conv2d, input: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(input.device.type):
            return nn.Conv2d.forward(self, input)
        dtypes = [torch.float32 if asked else torch.bfloat16 for asked in (input_float32, weight_float32)]
        return _Depthwise.apply(input, self.weight, self.stride, self.padding, *dtypes)

    return MethodType(forward, module)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution in bfloat16 whose gradients have dtypes of their own."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], input_dtype: torch.dtype,
        weight_dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        x = x.to(torch.bfloat16)
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.dtypes = stride, padding, (input_dtype, weight_dtype)
        with torch.autocast(x.device.type, enabled=False):
            return nn.functional.conv2d(x, weight.to(x.dtype), None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = _gradient(grad, x, weight, ctx.stride, ctx.padding, ctx.dtypes[0], of_input=True).to(x.dtype)
        if ctx.needs_input_grad[1]:
            found = _gradient(grad, x, weight, ctx.stride, ctx.padding, ctx.dtypes[1], of_input=False)
            of_weight = found.to(weight.dtype)
        return of_input, of_weight, None, None, None, None


def _gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dtype: torch.dtype, *,
    of_input: bool,
) -> Tensor:  # fmt: skip
    # The input's gradient reads nothing of the input but its shape and layout.
    source = torch.empty_like(x, dtype=dtype) if of_input and dtype != x.dtype else x.to(dtype)
    mask = [of_input, not of_input, False]
    found = torch.ops.aten.convolution_backward(
        grad.to(dtype), source, weight.to(dtype), None, stride, padding, [1, 1], False, [0, 0], len(weight), mask
    )
    return found[0] if of_input else found[1]


def _seconds(kind: Kind, dtype: torch.dtype, clock: Clock, *, of_input: bool) -> float:
    side, stride = kind
    x = torch.ones(CHECKED_SHAPE, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(CHECKED_SHAPE[1], 1, side, side)
    strides, padding = [stride] * 2, [side // 2] * 2
    grad = nn.functional.conv2d(x, weight.to(x.dtype), None, strides, padding, 1, len(weight))
    spent: list[float] = []
    for _ in range(1 + CHECKS):
        began = clock.now()
        _gradient(grad, x, weight, strides, padding, dtype, of_input=of_input).to(x.dtype)
        spent.append(clock.now() - began)
    return min(spent[1:])  # the first builds and caches kernels
