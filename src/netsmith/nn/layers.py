"""Layers that several families are made of.

Deliberate choices: convolutions are padded by half their kernel unless asked otherwise (odd kernels keep the size at
stride 1) and have no bias before a norm; sequences are plain `nn.Sequential`, so parameter names end in 0, 1, 2 as
torchvision's do. Activations whose gradient needs the output alone work in place (`rectifiers`); the others' need the
input.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsmith.arch.blocks.draft import Padding
from netsmith.arch.graph import Activation
from netsmith.nn.positions import every, mean_over_positions
from netsmith.nn.rectifiers import ReLU, ReLU6
from netsmith.nn.windows import window_conv

Norm = Callable[[int], nn.Module]
"""Makes a normalisation layer over a number of channels."""

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": ReLU,
    "relu6": ReLU6,
    "silu": nn.SiLU,
    "hard_swish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
}


def conv(
    channels: int, out: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, padding: Padding = "half"
) -> nn.Conv2d:
    """A convolution without bias."""
    return window_conv(channels, out, kernel, stride=stride, padding=padding, groups=groups)


def conv_norm(
    channels: int, out: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, padding: Padding = "half", norm: Norm
) -> nn.Sequential:
    """Convolution ("0") and norm ("1")."""
    return nn.Sequential(conv(channels, out, kernel, stride=stride, groups=groups, padding=padding), norm(out))


def conv_norm_act(
    channels: int, out: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, padding: Padding = "half",
    norm: Norm, activation: Activation,
) -> nn.Sequential:  # fmt: skip
    """Convolution ("0"), norm ("1") and activation ("2")."""
    layers = conv_norm(channels, out, kernel, stride=stride, groups=groups, padding=padding, norm=norm)
    return layers.append(ACTIVATIONS[activation]())


def projection(channels: int, out: int, *, stride: int, norm: Norm | None) -> nn.Sequential:
    """A shortcut that changes shapes: strided 1x1 convolution ("0"), norm ("1") where there is one."""
    layers = nn.Sequential(conv(channels, out, stride=stride))
    return layers if norm is None else layers.append(norm(out))


def pooled_projection(channels: int, out: int, *, stride: int, norm: Norm | None) -> nn.Sequential:
    """ResNet-D's shortcut (He et al. 2019, arXiv 1812.01187, figure 2c): the mean of stride x stride positions ("0";
    windows over the end average what is there), 1x1 convolution ("1"), norm ("2") where there is one."""
    pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    layers = nn.Sequential(pool, conv(channels, out))
    return layers if norm is None else layers.append(norm(out))


class SqueezeExcitation(nn.Module):
    """Channel gates from the global average (Hu et al. 2018, arXiv 1709.01507, figure 2), with 1x1 convolutions as
    torchvision's.

    Args:
        channels: of the input and output.
        squeeze: channels between the two convolutions.
        activation: after the first convolution.
        gate: after the second.
    """

    def __init__(self, channels: int, squeeze: int, *, activation: Activation, gate: Activation = "sigmoid") -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeeze, 1)
        self.activation = ACTIVATIONS[activation]()
        self.fc2 = nn.Conv2d(squeeze, channels, 1)
        self.gate = ACTIVATIONS[gate]()

    def forward(self, x: Tensor) -> Tensor:
        """Scale every channel of x [N,C,H,W] by a gate in 0 to 1."""
        x, gate = _WithMean.apply(x)  # [N,C,1,1]
        gate = self.activation(self.fc1(gate))  # [N,squeeze,1,1]
        return x * self.gate(self.fc2(gate))


class _WithMean(torch.autograd.Function):
    """x and its mean over all positions.

    Autograd's own way to the gradient writes the mean's share out at every position and adds it to the rest, on a CPU
    with bfloat16 by a slow kernel; here it is added as it is broadcast, which trains EfficientNet a tenth faster.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.view_as(x), x.mean(dim=(2, 3), keepdim=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        of_x, of_mean = grads
        return of_x + of_mean / (of_x.shape[2] * of_x.shape[3])


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016, arXiv 1603.09382): drop a residual branch per sample, in training only.

    A branch that stays is divided by its probability of staying, so that evaluation needs no change. Draws from torch's
    generator of the input's device, one number per sample.

    Args:
        rate: probability of dropping, 0 <= rate < 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Zero some samples of x [N, ...] and scale the others."""
        if not self.training or self.rate == 0.0:
            return x
        stay = 1.0 - self.rate
        kept = torch.empty(len(x), *(1 for _ in x.shape[1:]), dtype=x.dtype, device=x.device).bernoulli_(stay)
        return x * kept.div_(stay)

    def extra_repr(self) -> str:
        """The rate, for `print(network)`."""
        return f"rate={self.rate:g}"


class ZeroPadShortcut(nn.Module):
    """Option A of He et al. 2016: every stride-th position, then `front` and `back` zero channels around it; no
    parameters."""

    def __init__(self, *, stride: int, front: int, back: int) -> None:
        super().__init__()
        self.stride, self.front, self.back = stride, front, back

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,front+C+back,ceil(H/stride),ceil(W/stride)]."""
        x = every(x, self.stride)
        return F.pad(x, (0, 0, 0, 0, self.front, self.back))

    def extra_repr(self) -> str:
        """The attributes, for `print(network)`."""
        return f"stride={self.stride}, front={self.front}, back={self.back}"


class GlobalAverage(nn.Module):
    """The mean over all positions."""

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,C]."""
        return mean_over_positions(x)
