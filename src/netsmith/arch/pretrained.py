"""Published weights: which networks have them, where they are, how good they are, how their pictures were prepared.

The table is `weights.json`, written by `benchmarks/list_weights.py` from torchvision's and timm's own records; the
class names are torchvision's (`imagenet_classes.txt`, BSD-3-Clause), sorted by WordNet id as everywhere. Weights are
called NETWORK.TAG: torchvision's are `v1` and `v2`, timm's have timm's tags, those of CIFAR-10 are `akamaster`.

Deliberate choices: a network's first weights are its default. Weights of networks that this version does not have are
in the file and not in the table.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from netsmith.arch.names import MODELS, find_spec, is_layout_file
from netsmith.errors import InputError, near

Source = Literal["torchvision", "timm", "akamaster"]
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One published set of weights.

    Attributes:
        model, tag: of the name NETWORK.TAG.
        source: who published them, which says where `file` is.
        file: file name at torchvision's and akamaster's, repository of timm's on the Hugging Face hub.
        top1: per cent of the data set's validation (ImageNet) or test (CIFAR-10) pictures, prepared as below; None
            where nobody published it.
        licence: SPDX identifier of what the source says of them.
        size: side of the input, pixels.
        resize: the shorter side before the centre is cut out, pixels; None where both sides are resized to `size`.
        interpolation: filter of the resize.
        mean, std: per RGB channel, of values in 0 to 1.
    """

    model: str
    tag: str
    source: Source
    file: str
    top1: float | None
    licence: str
    size: int
    resize: int | None
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def name(self) -> str:
        """NETWORK.TAG."""
        return f"{self.model}.{self.tag}"

    @property
    def hash_prefix(self) -> str:
        """First hex digits of the file's SHA-256, which its published name ends in; "" for timm's, which have none."""
        return "" if self.source == "timm" else self.file.rpartition(".")[0].rpartition("-")[2]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits."""
        return CIFAR10_CLASSES if self.source == "akamaster" else _imagenet_classes()


@cache
def _imagenet_classes() -> tuple[str, ...]:
    return tuple(files("netsmith.arch").joinpath("imagenet_classes.txt").read_text("utf-8").splitlines())


@cache
def pretrained() -> dict[str, tuple[Weights, ...]]:
    """Weights of the networks that have any, by network, the default first."""
    table: dict[str, tuple[Weights, ...]] = {}
    document = json.loads(files("netsmith.arch").joinpath("weights.json").read_text("utf-8"))
    for row in document["weights"]:
        if row["model"] in MODELS:
            table[row["model"]] = (
                *table.get(row["model"], ()),
                Weights(**row | {"mean": tuple(row["mean"]), "std": tuple(row["std"])}),
            )
    return table


def has_weights(model: str) -> bool:
    """Whether there are published weights of a network; of a scaled one, or a layout's file, there are none."""
    return model in pretrained()


def split_tag(name: str) -> tuple[str, str | None]:
    """Network and tag of a name: "resnet50.v2" -> ("resnet50", "v2"); (name, None) where it has no tag.

    What follows the name of a network and a dot is a tag; dots elsewhere belong to a multiplier, as in `resnet50@0.75`,
    or to the file of a layout.
    """
    if is_layout_file(name):
        return name, None
    model, dot, tag = name.partition(".")
    return (model, tag) if dot and not {"@", ":"} & set(model) else (name, None)


def find_weights(model: str, tag: str | None = None) -> Weights:
    """Published weights.

    Args:
        model: name of a network, without a tag.
        tag: which weights; the default ones when None.

    Raises:
        InputError: no such network, one without published weights, no such tag; with the names that there are.
    """
    if is_layout_file(model):
        raise InputError(
            f"{model} is the file of a layout and has no published weights; name a network, or leave --pretrained out"
        )
    find_spec(model)
    base = next((base for base in (model.partition("@")[0], model.partition(":")[0]) if base != model), None)
    if base is not None:
        raise InputError(
            f"{model} has no published weights, because it is scaled; take {base} or train it from scratch"
        )
    found = pretrained().get(model)
    if found is None:
        raise InputError(
            f"{model} has no published weights that this version knows; `netsmith models` shows which have, and "
            f"`netsmith import-weights FILE --model {model}` reads a file"
        )
    if tag is None:
        return found[0]
    chosen = next((weights for weights in found if weights.tag == tag), None)
    if chosen is None:
        tags = [weights.tag for weights in found]
        raise InputError(f"{model} has no weights with the tag {tag!r}; {near(tag, tags)}")
    return chosen
