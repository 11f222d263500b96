"""Published top-1 of the networks: torchvision's on ImageNet, the paper's on CIFAR-10 (He et al. 2016, table 6).

ImageNet rows hold the accuracy of the first weights and, where torchvision published better ones later, of those too.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Published:
    """Accuracies of one network's published weights, per cent of the data set's validation or test split."""

    dataset: Literal["ImageNet", "CIFAR-10"]
    top1: tuple[float, ...]


_IMAGENET = {
    "resnet18": (69.76,),
    "resnet34": (73.31,),
    "resnet50": (76.13, 80.86),
    "resnet101": (77.37, 81.89),
    "resnet152": (78.31, 82.28),
    "resnext50_32x4d": (77.62, 81.20),
    "resnext101_32x8d": (79.31, 82.83),
    "resnext101_64x4d": (83.25,),
    "wide_resnet50_2": (78.47, 81.60),
    "wide_resnet101_2": (78.85, 82.51),
    "mobilenet_v2": (71.88, 72.15),
    "efficientnet_b0": (77.69,),
    "efficientnet_b1": (78.64, 79.84),
    "efficientnet_b2": (80.61,),
    "efficientnet_b3": (82.01,),
    "efficientnet_b4": (83.38,),
    "efficientnet_b5": (83.44,),
    "efficientnet_b6": (84.01,),
    "efficientnet_b7": (84.12,),
}
_CIFAR10 = {
    "resnet20_cifar": (91.25,),
    "resnet32_cifar": (92.49,),
    "resnet44_cifar": (92.83,),
    "resnet56_cifar": (93.03,),
    "resnet110_cifar": (93.57,),
}

PUBLISHED: dict[str, Published] = {
    **{name: Published("ImageNet", top1) for name, top1 in _IMAGENET.items()},
    **{name: Published("CIFAR-10", top1) for name, top1 in _CIFAR10.items()},
}
