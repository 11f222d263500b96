"""Weights that are cast again for the backward pass, in place of casts that are kept.

Under autocast a layer computes with a narrow copy of its weight, and autograd keeps that copy until the backward pass:
of a network that is divided over processes, where a block's weights come and go, half the bytes of all weights would
stay. Here a layer's copy ends with its forward call and is made anew from the weight, which is there again by then. It
is the same cast, so gradients have the same bits.
"""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from netsmith.train.depthwise import is_depthwise
from netsmith.train.groups import LAYERS

_View = tuple[torch.Size, tuple[int, ...]]
"""Shape and strides of a cast, or of the same numbers transposed."""


def recast(network: nn.Module) -> None:
    """Let convolutions and linear layers keep no casts of their weights, in place.

    Depthwise ones are left out: they are small, and some have gradients of dtypes of their own.

    Args:
        network: whose weights are there in a layer's forward and in its backward call.
    """
    for module in network.modules():
        if isinstance(module, LAYERS) and not is_depthwise(module):
            _Recasting(module)


class _Recasting:
    """The cast of one layer's weight, as long as its forward call lasts."""

    def __init__(self, layer: nn.Module) -> None:
        self._during = ExitStack()
        layer.register_forward_pre_hook(self._begin)
        layer.register_forward_hook(self._end, always_call=True)

    def _begin(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kind = inputs[0].device.type
        if not (torch.is_autocast_enabled(kind) and torch.is_grad_enabled()):
            return
        weight: Any = layer.weight
        cast: Tensor = weight.to(torch.get_autocast_dtype(kind))
        vars(layer)["weight"] = cast  # before the parameter of that name
        self._during.callback(vars(layer).pop, "weight")
        address, size, dtype = cast.data_ptr(), cast.numel(), cast.dtype  # autograd keeps what follows, and not it

        def pack(tensor: Tensor) -> Tensor | _View:
            cast_or_view = tensor.data_ptr() == address and tensor.numel() == size
            return (tensor.shape, tensor.stride()) if cast_or_view else tensor

        def unpack(kept: Tensor | _View) -> Tensor:
            return kept if isinstance(kept, Tensor) else weight.detach().to(dtype).as_strided(*kept)

        self._during.enter_context(saved_tensors_hooks(pack, unpack))

    def _end(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._during.close()
