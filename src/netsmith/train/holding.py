"""Weights held at zero while a network trains: their gradients are set to zero before the optimizer sees them.

A weight of zero without gradient stays zero under SGD, RMSProp, AdamW and LAMB, whatever they decay and remember, so
neither the optimizer nor the loop knows of it. Muon turns whole matrices, zeros included.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from netsmith.errors import CheckError


def hold_zeros(network: nn.Module, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Set weights to zero and keep them there in every training of this network.

    Args:
        network: changed in place.
        masks: parameters by name -> whether each number stays, in the parameter's shape.
    """
    for name, mask in masks.items():
        parameter = network.get_parameter(name)
        stays = torch.from_numpy(mask).to(parameter)
        with torch.no_grad():
            parameter.mul_(stays)
        parameter.register_hook(_Mask(stays))


class _Mask:
    """Sets gradients to zero, on the device that the network has gone to since."""

    def __init__(self, stays: Tensor) -> None:
        self._stays = stays

    def __call__(self, gradient: Tensor) -> Tensor:
        self._stays = self._stays.to(gradient)  # once: a GPU would be waited for
        return gradient * self._stays


def refuse_moved(network: nn.Module, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Raise CheckError where a weight that was held at zero is not zero."""
    state = network.state_dict()
    for name, mask in masks.items():
        if moved := int(state[name].cpu()[~torch.from_numpy(mask)].count_nonzero()):
            raise CheckError(f"{moved} weights of {name} left the zero they were held at; report this as a defect")
