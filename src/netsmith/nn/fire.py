"""Fire: SqueezeNet's block (Iandola et al. 2016, arXiv 1602.07360, figure 1).

Deliberate choices: parameter names are torchvision's.
"""

import torch
from torch import Tensor, nn

from netsmith.arch.graph import Activation
from netsmith.nn.layers import ACTIVATIONS
from netsmith.nn.windows import window_conv


class Fire(nn.Module):
    """1x1 to `squeeze` channels, then 1x1 to `expand1x1` beside 3x3 to `expand3x3`."""

    def __init__(self, channels: int, squeeze: int, expand1x1: int, expand3x3: int, *, activation: Activation) -> None:
        super().__init__()
        self.squeeze = window_conv(channels, squeeze, 1, bias=True)
        self.expand1x1 = window_conv(squeeze, expand1x1, 1, bias=True)
        self.expand3x3 = window_conv(squeeze, expand3x3, 3, bias=True)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,expand1x1+expand3x3,H,W]."""
        x = self.activation(self.squeeze(x))
        return torch.cat([self.activation(self.expand1x1(x)), self.activation(self.expand3x3(x))], dim=1)
