"""Published top-1 of the networks: torchvision's on ImageNet, the papers' on CIFAR-10 (He et al. 2016, table 6; of
pre-activation networks He et al. 2016, Identity Mappings, table 3; Zagoruyko and Komodakis 2016, table 5).

Where torchvision has no weights, timm's of ResNets (its results-imagenet.csv, at 224 pixels) and the authors':
Inception-v4 and Inception-ResNet-v2 (Szegedy et al. 2017, table 2: without the pictures that ImageNet's authors
blacklisted), MobileNet (Howard et al. 2017, table 8), EfficientNet-B8 (Xie et al. 2020, arXiv 1911.09665), -L2 (Xie et
al. 2020, arXiv 1911.04252: pretrained on more pictures than ImageNet's) and -Lite (the page of their code).

ImageNet rows hold the accuracy of the first weights and, where better ones were published later, of those too.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Published:
    """Accuracies of one network's published weights, per cent of the data set's validation or test split."""

    dataset: Literal["ImageNet", "CIFAR-10"]
    top1: tuple[float, ...]


_IMAGENET = {
    "alexnet": (56.52,),
    "vgg11": (69.02,),
    "vgg11_bn": (70.37,),
    "vgg13": (69.93,),
    "vgg13_bn": (71.59,),
    "vgg16": (71.59,),
    "vgg16_bn": (73.36,),
    "vgg19": (72.38,),
    "vgg19_bn": (74.22,),
    "googlenet": (69.78,),
    "inception_v3": (77.29,),
    "inception_v4": (80.0,),
    "inception_resnet_v2": (80.1,),
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
    "resnet18d": (72.30, 74.36),
    "resnet34d": (77.11,),
    "resnet50d": (79.08, 80.96),
    "resnet101d": (80.47,),
    "seresnet50": (80.26,),
    "seresnext50_32x4d": (79.92, 81.27),
    "resnetv2_50": (80.41,),
    "resnetv2_101": (82.04,),
    "squeezenet1_0": (58.09,),
    "squeezenet1_1": (58.18,),
    "mobilenet_v1": (70.6,),
    "mobilenet_v2": (71.88, 72.15),
    "mobilenet_v3_small": (67.67,),
    "mobilenet_v3_large": (74.04, 75.27),
    "mnasnet0_5": (67.73,),
    "mnasnet0_75": (71.18,),
    "mnasnet1_0": (73.46,),
    "mnasnet1_3": (76.51,),
    "efficientnet_b0": (77.69,),
    "efficientnet_b1": (78.64, 79.84),
    "efficientnet_b2": (80.61,),
    "efficientnet_b3": (82.01,),
    "efficientnet_b4": (83.38,),
    "efficientnet_b5": (83.44,),
    "efficientnet_b6": (84.01,),
    "efficientnet_b7": (84.12,),
    "efficientnet_b8": (85.5,),
    "efficientnet_l2": (88.4,),
    "efficientnet_lite0": (75.1,),
    "efficientnet_lite1": (76.7,),
    "efficientnet_lite2": (77.6,),
    "efficientnet_lite3": (79.8,),
    "efficientnet_lite4": (81.5,),
    "efficientnet_v2_s": (84.23,),
    "efficientnet_v2_m": (85.11,),
    "efficientnet_v2_l": (85.81,),
}
_CIFAR10 = {
    "resnet20_cifar": (91.25,),
    "resnet32_cifar": (92.49,),
    "resnet44_cifar": (92.83,),
    "resnet56_cifar": (93.03,),
    "resnet110_cifar": (93.57,),
    "resnet1202_cifar": (92.07,),
    "preresnet110_cifar": (93.63,),
    "preresnet164_cifar": (94.54,),
    "preresnet1001_cifar": (95.08,),
    "wrn40_4_cifar": (95.47,),
    "wrn28_10_cifar": (96.00,),
}

PUBLISHED: dict[str, Published] = {
    **{name: Published("ImageNet", top1) for name, top1 in _IMAGENET.items()},
    **{name: Published("CIFAR-10", top1) for name, top1 in _CIFAR10.items()},
}
