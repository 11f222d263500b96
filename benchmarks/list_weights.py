"""Write the table of published weights, `src/netsmith/arch/weights.json`, and the class names beside it.

    python benchmarks/list_weights.py RESULTS

RESULTS is timm's `results/results-imagenet.csv`, which is in its repository and not in its package. Needs torchvision
and timm; nothing is downloaded. Networks that netsmith does not have are listed too: the reader leaves them out.

Deliberate choices: the first weights of a network are torchvision's default, else timm's. timm's entries prepare
pictures as timm does unasked (its `input_size`, not `test_input_size`) and have the accuracy measured so. Left out:
weights with other classes than ImageNet's 1000, timm's copies of torchvision's (tags `tv_in1k`, `tv2_in1k`), and timm's
Inception-v3 and VGG, which lack layers or arrange them otherwise. torchvision's GoogLeNet and Inception-v3 change the
input from their published mean and std to 0.5 and 0.5 (`transform_input`): here those are simply their mean and std.
"""

import csv
import json
import math
import sys
import types
from pathlib import Path
from typing import Any

ARCH = Path(__file__).parent.parent / "src" / "netsmith" / "arch"
TORCHVISION = (
    "alexnet",
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    "googlenet",
    "inception_v3",
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
    *("squeezenet1_0", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *(f"mnasnet{width}" for width in ("0_5", "0_75", "1_0", "1_3")),
    *(f"efficientnet_b{size}" for size in range(8)),
    *(f"efficientnet_v2_{size}" for size in "sml"),
)
TIMM = {
    **{f"resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{f"resnet{depth}d": f"resnet{depth}d" for depth in (18, 26, 34, 50, 101, 152, 200)},
    **{f"resnetv2_{depth}": f"resnetv2_{depth}" for depth in ("18", "18d", "34", "34d", "50", "101")},
    **{
        name: name
        for name in (
            *("resnext50_32x4d", "resnext50d_32x4d", "resnext101_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
            *("wide_resnet50_2", "wide_resnet101_2", "seresnet50", "inception_v4", "inception_resnet_v2"),
        )
    },
    "mobilenet_v1": "mobilenetv1_100",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mnasnet1_0": "mnasnet_100",
    **{f"efficientnet_b{size}": f"efficientnet_b{size}" for size in range(6)},
    "efficientnet_lite0": "efficientnet_lite0",
    **{
        name: name
        for name in (
            *(f"tf_efficientnet_b{size}" for size in range(9)),
            *(f"tf_efficientnet_lite{size}" for size in range(5)),
            *(f"tf_efficientnetv2_{size}" for size in "sml"),
            "tf_efficientnet_l2",
        )
    },
}
"""Our name -> timm's. The `tf_` networks pad and normalise as TensorFlow does, so they are networks of their own."""
CIFAR = {
    "resnet20_cifar": ("resnet20-12fca82f.th", 91.73),
    "resnet32_cifar": ("resnet32-d509ac18.th", 92.63),
    "resnet44_cifar": ("resnet44-014dd654.th", 93.10),
    "resnet56_cifar": ("resnet56-4bfd9763.th", 93.39),
    "resnet110_cifar": ("resnet110-1d1ed7c2.th", 93.68),
    "resnet1202_cifar": ("resnet1202-f3b1deed.th", 93.82),
}
"""Of akamaster/pytorch_resnet_cifar10, with the accuracies that its README states (BSD-2-Clause)."""
HALVES = [0.5, 0.5, 0.5]
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
LICENCES = {"apache-2.0": "Apache-2.0", "bsd-3-clause": "BSD-3-Clause", "mit": "MIT", "cc-by-nc-4.0": "CC-BY-NC-4.0"}


def from_torchvision(name: str) -> list[dict[str, Any]]:
    """Rows of a network's weights, the default first."""
    from torchvision.models import get_model_weights

    enum = get_model_weights(name)
    rows: list[dict[str, Any]] = []
    for weights in sorted(enum, key=lambda entry: entry is not enum.DEFAULT):
        if not weights.name.startswith("IMAGENET1K_V"):
            continue  # features alone, without a classifier
        preset = weights.transforms()
        prepared = name in ("googlenet", "inception_v3")
        rows.append(
            {
                "model": name,
                "tag": weights.name.removeprefix("IMAGENET1K_").lower(),
                "source": "torchvision",
                "file": weights.url.rpartition("/")[2],
                "top1": round(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"], 3),
                "licence": "BSD-3-Clause",
                "size": preset.crop_size[0],
                "resize": preset.resize_size[0],
                "interpolation": preset.interpolation.value,
                "mean": HALVES if prepared else preset.mean,
                "std": HALVES if prepared else preset.std,
            }
        )
    return rows


def from_timm(name: str, architecture: str, accuracies: dict[tuple[str, int, str], float]) -> list[dict[str, Any]]:
    """Rows of a network's weights, timm's default first."""
    from timm.models import get_pretrained_cfg, list_pretrained

    default = get_pretrained_cfg(architecture).tag
    tags = [full.partition(".")[2] for full in list_pretrained(f"{architecture}.*")]
    rows: list[dict[str, Any]] = []
    for tag in sorted(tags, key=lambda tag: tag != default):
        config = get_pretrained_cfg(f"{architecture}.{tag}")
        if config.num_classes != 1000 or tag in ("tv_in1k", "tv2_in1k"):
            continue
        assert config.hf_hub_id == f"timm/{architecture}.{tag}", (name, tag)
        assert not config.hf_hub_filename, (name, tag)
        assert not config.custom_load, (name, tag)
        assert config.crop_mode in ("center", "squash"), (name, tag, config.crop_mode)
        size = config.input_size[-1]
        rows.append(
            {
                "model": name,
                "tag": tag,
                "source": "timm",
                "file": config.hf_hub_id,
                "top1": accuracies.get((f"{architecture}.{tag}", size, f"{config.crop_pct:.3f}")),
                "licence": LICENCES[config.license],
                "size": size,
                "resize": None if config.crop_mode == "squash" else math.floor(size / config.crop_pct),
                "interpolation": config.interpolation,
                "mean": list(config.mean),
                "std": list(config.std),
            }
        )
    return rows


def from_akamaster(name: str, file: str, top1: float) -> dict[str, Any]:
    """The row of a CIFAR-10 network."""
    row = {"model": name, "tag": "akamaster", "source": "akamaster", "file": file, "top1": top1}
    return row | {"licence": "BSD-2-Clause", "size": 32, "resize": 32, "interpolation": "bilinear", **IMAGENET}


def main(results: Path) -> None:
    """Write both files."""
    sys.modules["torchvision._meta_registrations"] = types.ModuleType("absent")  # needs operators that CPU wheels lack
    import timm
    import torchvision

    with open(results, encoding="utf-8") as handle:
        accuracies = {
            (row["model"], int(row["img_size"]), row["crop_pct"]): float(row["top1"]) for row in csv.DictReader(handle)
        }
    names = list(dict.fromkeys([*TORCHVISION, *TIMM]))
    rows = [
        row
        for name in names
        for row in [
            *(from_torchvision(name) if name in TORCHVISION else ()),
            *(from_timm(name, TIMM[name], accuracies) if name in TIMM else ()),
        ]
    ]
    rows += [from_akamaster(name, *entry) for name, entry in CIFAR.items()]
    versions = f"torchvision {torchvision.__version__.partition('+')[0]}, timm {timm.__version__}"
    lines = ",\n".join(json.dumps(row) for row in rows)
    (ARCH / "weights.json").write_text(f'{{"written_from": "{versions}", "weights": [\n{lines}\n]}}\n')

    from torchvision.models import ResNet18_Weights

    classes = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(set(classes)) == 1000, "labels of an artifact are all different"
    (ARCH / "imagenet_classes.txt").write_text("\n".join(classes) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
