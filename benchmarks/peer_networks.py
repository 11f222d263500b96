"""The networks of the loops people write: torchvision's modules with the weights of netsmith's network.

CIFAR's ResNets are not in torchvision; they are made of its blocks, with the shortcut without parameters as such loops
write it. So what netsmith's own modules gain counts for netsmith. That both compute the same is checked.
"""

import sys
import types

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsmith.arch.layout import Layout
from netsmith.models.build import build

sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("missing operators of CPU builds"))

TOLERANCE = 1e-4  # between logits in float32, of the largest


def peer_network(layout: Layout, *, seed: int) -> nn.Module:
    """A module that computes what netsmith's network of `layout` does, with the same initial weights."""
    ours = build(layout, seed=seed)
    theirs = _module(layout)
    strides = {name: module.stride for name, module in ours.named_modules() if isinstance(module, nn.Conv2d)}
    for name, module in theirs.named_modules():
        if isinstance(module, nn.Conv2d):
            module.stride = strides[name]  # small pictures are reduced less often
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, *layout.input.size)
    with torch.no_grad():
        found, expected = theirs.eval()(images), ours.eval()(images)
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max(), "the peer computes something else"
    return theirs.train()


def _module(layout: Layout) -> nn.Module:
    from torchvision import models

    if layout.name.partition("@")[0].endswith("_cifar"):
        depths, width = [len(stage.blocks) for stage in layout.stages], layout.stem[0].out
        return CifarResNet(depths, classes=layout.num_classes, width=width)
    options = {"stochastic_depth_prob": 0.0} if layout.name.startswith("efficientnet") else {}
    return getattr(models, layout.name)(num_classes=layout.num_classes, **options)


class Shortcut(nn.Module):
    """Option A of He et al. 2016: every second position, with zeros for the added channels."""

    def __init__(self, added: int) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added // 2))


class CifarResNet(nn.Module):
    """He et al. 2016, section 4.2, of torchvision's basic blocks; 16 channels in the first stage there."""

    def __init__(self, depths: list[int], *, classes: int, width: int) -> None:
        super().__init__()
        from torchvision.models.resnet import BasicBlock

        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for stage, depth in enumerate(depths):
            wide = width * 2**stage
            first = BasicBlock(channels, wide, 2, Shortcut(wide - channels)) if stage else BasicBlock(wide, wide)
            blocks = nn.Sequential(first, *(BasicBlock(wide, wide) for _ in range(depth - 1)))
            self.add_module(f"layer{stage + 1}", blocks)
            channels = wide
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        return self.fc(x.mean(dim=(2, 3)))
