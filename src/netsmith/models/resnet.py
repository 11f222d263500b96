"""ResNet, ResNeXt, Wide ResNet and CIFAR ResNets (He et al. 2016, arXiv 1512.03385; Xie et al. 2017; Zagoruyko and
Komodakis 2016).

Deliberate choices: parameter names, the place of the stride and the initial weights are torchvision's. Stochastic depth
and dropout before the classifier are there for training and off unless the layout asks. The published tables are in
`netsmith.arch.families.resnet`.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import cast

from torch import Generator, Tensor, nn

from netsmith.arch import blocks as b
from netsmith.arch.layout import ConvNormAct, Layout, MaxPool
from netsmith.arch.spec import Activation
from netsmith.errors import InputError
from netsmith.models.naming import read_name
from netsmith.nn.init import init_convs_and_norms, init_linear_default
from netsmith.nn.layers import ACTIVATIONS, DropPath, Norm, ZeroPadShortcut, conv, conv_norm


class BasicBlock(nn.Module):
    """3x3 (stride), 3x3, plus the shortcut (figure 5 left). `downsample` is the shortcut's layer; None leaves the
    shortcut out."""

    def __init__(
        self, channels: int, width: int, out: int, *, stride: int, downsample: nn.Module | None,
        activation: Activation, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = conv(channels, width, 3, stride=stride)
        self.bn1 = norm(width)
        self.conv2 = conv(width, out, 3)
        self.bn2 = norm(out)
        self.downsample = downsample
        self.drop_path = DropPath(drop_path)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride]."""
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.downsample is not None:
            y = self.drop_path(y) + self.downsample(x)
        return self.activation(y)


class Bottleneck(nn.Module):
    """1x1 to `reduce`, 3x3 in groups to `width`, 1x1 to `out`, plus the shortcut (figure 5 right; ResNeXt's figure
    3c)."""

    def __init__(
        self, channels: int, reduce: int, width: int, out: int, *, groups: int, strides: tuple[int, int],
        downsample: nn.Module | None, activation: Activation, drop_path: float, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = conv(channels, reduce, stride=strides[0])
        self.bn1 = norm(reduce)
        self.conv2 = conv(reduce, width, 3, stride=strides[1], groups=groups)
        self.bn2 = norm(width)
        self.conv3 = conv(width, out)
        self.bn3 = norm(out)
        self.downsample = downsample
        self.drop_path = DropPath(drop_path)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[N,channels,H,W] -> [N,out,H/stride,W/stride]."""
        y = self.activation(self.bn1(self.conv1(x)))
        y = self.activation(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.downsample is not None:
            y = self.drop_path(y) + self.downsample(x)
        return self.activation(y)


class ResNet(nn.Module):
    """Stem, stages of residual blocks, global pool, linear.

    Args:
        layout: what the network is; kept as `.layout`.
        conv1, bn1, activation: the stem's convolution.
        maxpool: after the stem, or nn.Identity.
        stages: name of the tap ("stage1") -> (name of the submodule, "layer1"; its blocks).
        dropout: probability, before the linear layer.
        fc: features -> logits.
    """

    def __init__(
        self, layout: Layout, *, conv1: nn.Conv2d, bn1: nn.Module, activation: Activation, maxpool: nn.Module,
        stages: Mapping[str, tuple[str, nn.Sequential]], dropout: float, fc: nn.Linear,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layout = layout
        self.conv1 = conv1
        self.bn1 = bn1
        self.activation = ACTIVATIONS[activation]()
        self.maxpool = maxpool
        self.taps = {tap: name for tap, (name, _) in stages.items()}
        for name, stage in stages.values():
            self.add_module(name, stage)
        self.dropout = nn.Dropout(dropout)
        self.fc = fc

    def forward(self, x: Tensor) -> Tensor:
        """Images [N,C,H,W] -> logits [N,classes]."""
        x = self._stem(x)
        for _, stage in self._stages():
            x = stage(x)
        return self._head(x)

    def forward_all(self, x: Tensor) -> dict[str, Tensor]:
        """Images [N,C,H,W] -> the map after every stage ("stage1", ...) and "logits" [N,classes]."""
        outputs: dict[str, Tensor] = {}
        x = self._stem(x)
        for tap, stage in self._stages():
            x = outputs[tap] = stage(x)
        outputs["logits"] = self._head(x)
        return outputs

    def _stem(self, x: Tensor) -> Tensor:
        return self.maxpool(self.activation(self.bn1(self.conv1(x))))

    def _stages(self) -> Iterator[tuple[str, nn.Module]]:
        return ((tap, cast(nn.Module, getattr(self, name))) for tap, name in self.taps.items())

    def _head(self, x: Tensor) -> Tensor:
        x = x.mean(dim=(2, 3))  # [N,channels]
        return self.fc(self.dropout(x))

    def init_weights(self, generator: Generator, *, zero_init_residual: bool = False) -> None:
        """Set every parameter and buffer as torchvision's ResNets do.

        Args:
            generator: on the CPU, where the parameters are.
            zero_init_residual: start every residual branch at zero (Goyal et al. 2017, arXiv 1706.02677), so that
                blocks begin as their shortcuts; blocks without a shortcut are left alone.
        """
        init_convs_and_norms(self, generator)
        init_linear_default(self.fc, generator)
        if zero_init_residual:
            for block in self.modules():
                if isinstance(block, BasicBlock | Bottleneck) and block.downsample is not None:
                    last = block.bn2 if isinstance(block, BasicBlock) else block.bn3
                    nn.init.zeros_(cast(Tensor, last.weight))


def build(layout: Layout) -> ResNet:
    """The network of a layout, with torch's default weights on the current default device.

    Raises:
        InputError: records that are not a ResNet's.
    """
    norm = partial(nn.BatchNorm2d, eps=layout.norm_eps, momentum=layout.norm_momentum)
    stem, pool = _split_stem(layout)
    channels, position = stem.out, 0
    last = sum(len(stage.blocks) for stage in layout.stages) - 1
    stages: dict[str, tuple[str, nn.Sequential]] = {}
    for stage in layout.stages:
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        number = ""
        for block in stage.blocks:
            number, index = read_name(block.name, "layer{}.{}")
            rate = layout.drop_path * position / max(1, last)
            blocks[index] = _build_block(block, channels, drop_path=rate, norm=norm)
            channels, position = block.out, position + 1
        stages[stage.name] = (f"layer{number}", nn.Sequential(blocks))
    return ResNet(
        layout,
        conv1=conv(layout.input.channels, stem.out, stem.kernel, stride=stem.stride),
        bn1=norm(stem.out),
        activation=stem.activation,
        maxpool=nn.Identity() if pool is None else nn.MaxPool2d(pool.kernel, pool.stride, padding=pool.kernel // 2),
        stages=stages,
        dropout=layout.head.dropout,
        fc=nn.Linear(channels, layout.head.classes),
    )


def _split_stem(layout: Layout) -> tuple[ConvNormAct, MaxPool | None]:
    match layout.stem:
        case (ConvNormAct() as stem,) if layout.head.conv is None:
            return stem, None
        case (ConvNormAct() as stem, MaxPool() as pool) if layout.head.conv is None:
            return stem, pool
        case _:
            raise InputError(
                f"{layout.name}: a resnet has a convolution and at most one max pool in its stem, and none in its head"
            )


def _build_block(block: b.Block, channels: int, *, drop_path: float, norm: Norm) -> nn.Module:
    match block:
        case b.BasicBlock():
            return BasicBlock(
                channels, block.width, block.out, stride=block.stride,
                downsample=_build_shortcut(block, channels, norm=norm),
                activation=block.activation, drop_path=drop_path, norm=norm,
            )  # fmt: skip
        case b.BottleneckBlock():
            return Bottleneck(
                channels, block.reduce, block.width, block.out, groups=block.groups,
                strides=(block.stride, 1) if block.stride_at == "1x1" else (1, block.stride),
                downsample=_build_shortcut(block, channels, norm=norm),
                activation=block.activation, drop_path=drop_path, norm=norm,
            )  # fmt: skip
        case _:
            raise InputError(f"{block.name}: a resnet has no blocks of kind {block.kind!r}")


def _build_shortcut(block: b.BasicBlock | b.BottleneckBlock, channels: int, *, norm: Norm) -> nn.Module | None:
    match block.shortcut:
        case b.Identity():
            return nn.Identity()
        case b.Projection():
            return conv_norm(channels, block.out, stride=block.stride, norm=norm)
        case b.ZeroPad(front=front, back=back):
            return ZeroPadShortcut(stride=block.stride, front=front, back=back)
        case None:
            return None
