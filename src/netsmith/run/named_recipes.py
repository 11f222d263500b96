"""Recipes by name: `netsmith train DATA --recipe NAME`.

Each is a frozen part of a `Recipe`: the fields that its source decides. What it leaves out follows from the pictures;
a recipe file and flags stand above it. Schedules are functions of progress, so `--epochs` or `--time` may replace the
length of a recipe that has one, and the schedule keeps its shape. docs/recipes.md says for each what it is for, what
its source came to, and what came out here.

Papers' recipes name everything that changes weights, so that no default of this project leaks into them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from netsmith.errors import InputError, near


@dataclass(frozen=True, kw_only=True)
class NamedRecipe:
    """A part of a recipe.

    Attributes:
        name: as it is typed.
        summary: what it is for, a few words.
        source: paper and section.
        fields: of `Recipe`, by name.
        train_share: side of the pictures trained on over that of the input, rounded to the networks' stride; None where
            `fields` or the pictures decide.
        sides: smallest and largest side of the input in pixels that it was made for.
    """

    name: str
    summary: str
    source: str
    fields: Mapping[str, Any]
    train_share: float | None = None
    sides: tuple[int, int] = (1, 1 << 16)


# What was not there yet when a paper was written.
_NOTHING_ELSE: Mapping[str, Any] = {
    "train_size": None,
    "progressive": None,
    "head_first": 0.0,
    "layer_decay": 1.0,
    "smoothing": 0.0,
    "bce_loss": False,
    "bce_target_thresh": None,
    "ema": None,
    "grad_clip": None,
    "drop_rate": 0.0,
    "drop_path": 0.0,
    "flip": True,
    "pad": 0,
    "shift": 0.0,
    "crop_scale": None,
    "crop_ratio": (3 / 4, 4 / 3),
    "rotate": 0.0,
    "auto_augment": "none",
    "color_jitter": (0.0, 0.0, 0.0, 0.0),
    "random_erase": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
}
_SGD_OF_2015: Mapping[str, Any] = {
    "opt": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 1e-4,
    "weight_decay_on": "all",
    "sched": "step",
    "step_every": None,
    "step_gamma": 0.1,
    "warmup": 0.0,
}


def _recipe(name: str, fields: Mapping[str, Any], **about: Any) -> NamedRecipe:
    return NamedRecipe(name=name, fields=MappingProxyType(dict(fields)), **about)


_ALL = (
    _recipe(
        "fast",
        {
            "batch_size": 64,
            "opt": "sgd",
            "lr": 0.2,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 5e-4,
            "weight_decay_on": "weights",
            "sched": "onecycle",
            "warmup": 0.25,
            "final_lr_ratio": 0.0,
            "smoothing": 0.1,
            "ema": None,  # the last weights of a cycle are as good
            "progressive": (0.5, 0.75),
        },
        summary="most accuracy in minutes from scratch: one cycle of the rate, pictures that grow",
        source="Smith and Topin 2018 (arXiv 1708.07120); growing pictures: Howard 2018, DAWNBench",
    ),
    _recipe(
        "finetune",
        {
            "pretrained": True,
            "opt": "sgd",
            "lr": 0.01,
            "head_first": 0.2,
            "layer_decay": 0.7,
        },
        summary="published weights on few pictures: the classifier first, then all, early layers gently",
        source="Howard and Ruder 2018 (arXiv 1801.06146), sections 3.2 and 3.3, for pictures",
    ),
    _recipe(
        "paper/resnet-cifar",
        _NOTHING_ELSE
        | _SGD_OF_2015
        | {
            "epochs": 163.84,  # 64,000 updates on 50,000 pictures
            "batch_size": 128,
            "step_milestones": (0.5, 0.75),
            "pad": 4,
        },
        summary="CIFAR's ResNets of 2015: SGD, 64,000 updates of 128",
        source="He et al. 2016 (arXiv 1512.03385), section 4.2",
        sides=(24, 64),
    ),
    _recipe(
        "paper/resnet",
        _NOTHING_ELSE
        | _SGD_OF_2015
        | {
            "epochs": 90.0,
            "batch_size": 256,
            "step_milestones": (1 / 3, 2 / 3),
            "crop_scale": (0.08, 1.0),
        },
        summary="ImageNet's ResNets of 2015: SGD, 90 epochs, a tenth of the rate after 30 and 60",
        source="He et al. 2016 (arXiv 1512.03385), section 3.4; length and crops of torchvision's version",
        sides=(128, 1 << 16),
    ),
    _recipe(
        "paper/efficientnet",
        _NOTHING_ELSE
        | {
            "epochs": 350.0,
            "batch_size": 256,
            "opt": "rmsprop",
            "lr": 0.016,  # 0.256 for 4096 pictures
            "momentum": 0.9,
            "weight_decay": 1e-5,
            "weight_decay_on": "weights+biases",
            "sched": "step",
            "step_every": 2.4 / 350,
            "step_gamma": 0.97,
            "warmup": 5 / 350,
            "smoothing": 0.1,
            "ema": 0.9999,
            "drop_path": 0.2,
            "crop_scale": (0.08, 1.0),
            "auto_augment": "randaugment",
            "ra_ops": 2,
            "ra_magnitude": 9,
            "ra_std": 0.0,
            "ra_prob": 1.0,
        },
        summary="EfficientNet of 2019: RMSProp, 350 epochs, averaged weights, RandAugment for its AutoAugment",
        source="Tan and Le 2019 (arXiv 1905.11946), section 5.2, and its code",
        sides=(128, 1 << 16),
    ),
    _recipe(
        "strikes-back-a3",
        {key: value for key, value in _NOTHING_ELSE.items() if key != "train_size"}
        | {
            "epochs": 100.0,
            "batch_size": 2048,
            "opt": "lamb",
            "lr": 8e-3,
            "momentum": 0.9,
            "weight_decay": 0.02,
            "weight_decay_on": "weights",
            "sched": "cosine",
            "warmup": 5 / 100,
            "final_lr_ratio": 1e-6 / 8e-3,
            "bce_loss": True,
            "bce_target_thresh": 0.2,
            "grad_clip": 1.0,  # which timm's LAMB does by itself
            "crop_scale": (0.08, 1.0),
            "auto_augment": "randaugment",
            "ra_ops": 2,
            "ra_magnitude": 18,  # 6 of 10
            "ra_std": 1.5,
            "ra_prob": 0.5,
            "mixup": 0.1,
            "cutmix": 1.0,
        },
        train_share=160 / 224,
        summary="ResNet-50 of 2021 in 100 short epochs: LAMB, binary cross-entropy, cutmix, 160 pixels for 224",
        source="Wightman et al. 2021 (arXiv 2110.00476), procedure A3, table 2",
        sides=(128, 1 << 16),
    ),
)
RECIPES: Mapping[str, NamedRecipe] = MappingProxyType({recipe.name: recipe for recipe in _ALL})


def find_recipe(name: str) -> NamedRecipe:
    """The recipe of a name.

    Raises:
        InputError: there is none; the message has names like it.
    """
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}; {near(name, RECIPES)}")
    return RECIPES[name]


def list_in_words() -> str:
    """Names and summaries, a line each, for help."""
    width = max(map(len, RECIPES))
    return "\n".join(f"  {recipe.name:<{width}}  {recipe.summary}" for recipe in RECIPES.values())
