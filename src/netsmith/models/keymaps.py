"""Weights of other projects under this project's names.

A key map lists another project's layer names in the order in which the layout's graph has those layers; what follows
the layer's name (weight, bias, running_mean, ...) is the same everywhere. Known are torchvision (the native names),
timm, and the CIFAR ResNets in the wake of the paper's (akamaster, kuangliu), which say `linear` for the classifier
and `shortcut` for the projection.

Deliberate choices: the map is chosen by the names found in the file, never by its origin. timm's EfficientNets keep
torch's norm constants in every size, so weights under timm's names get 1e-5 where torchvision's B5 to B7 have 1e-3.
timm's `tf_` variants have the same names but pad otherwise and use 1e-3: they cannot be told from the file, so they are
networks of their own here (`tf_efficientnet_b0`), and the name given decides.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.names import find_layout, list_models
from netsmith.errors import InputError
from netsmith.models.inception_names import timm_inception_resnet_v2, timm_inception_v4
from netsmith.models.mobile_names import timm_layers, torchvision_mnasnet_layers
from netsmith.models.weights import check_weights, differences

COUNTER = "num_batches_tracked"
SMALL_PICTURE = 32


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """How one source names the layers of a family.

    Attributes:
        source: who names them so.
        layers: a layout -> the source's layer names, in the order of the layout's graph.
        norm_eps: of the source's batch norms, where it is not the layout's.
        pointwise: the source's names of layers that are linear here and 1x1 convolutions there.
    """

    source: str
    layers: Callable[[Layout], list[str]]
    norm_eps: float | None = None
    pointwise: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Converted:
    """Weights under this project's names, float32; the layout they are for; whose names they had."""

    weights: dict[str, Tensor]
    layout: Layout
    source: str


def native_layers(layout: Layout) -> list[str]:
    """The layers that have parameters, in graph order, under this project's (torchvision's) names."""
    return g.layers(layout_graph(layout))


def cifar_layers(layout: Layout) -> list[str]:
    """Names of the CIFAR ResNets that follow akamaster's and kuangliu's code."""
    names = (name.replace(".downsample.", ".shortcut.") for name in native_layers(layout))
    return ["linear" if name == layout.head.logits else name for name in names]


def timm_resnetv2_layers(layout: Layout) -> list[str]:
    """timm's names of pre-activation ResNets."""
    ends = {"conv1": "stem.conv", "bn": "norm", layout.head.logits: "head.fc"}
    return [ends.get(name) or _timm_resnetv2_layer(name) for name in native_layers(layout)]


def _timm_resnetv2_layer(name: str) -> str:
    stage, index, layer = name.removeprefix("layer").split(".", 2)
    layer = layer.replace("downsample.0", "downsample.conv").replace("bn", "norm")
    return f"stages.{int(stage) - 1}.blocks.{index}.{layer}"


TORCHVISION = KeyMap(source="torchvision", layers=native_layers)
NATIVE = KeyMap(source="netsmith", layers=native_layers)
CIFAR = KeyMap(source="akamaster or kuangliu", layers=cifar_layers)
TIMM = KeyMap(source="timm", layers=timm_layers, norm_eps=1e-5)
TIMM_RESNET = KeyMap(source="timm", layers=native_layers)
"""timm's ResNets have torchvision's names."""
TIMM_RESNETV2 = KeyMap(source="timm", layers=timm_resnetv2_layers, pointwise=frozenset({"head.fc"}))
TIMM_TENSORFLOW = KeyMap(source="timm", layers=timm_layers)
TIMM_MOBILENET_V3 = KeyMap(source="timm", layers=timm_layers, norm_eps=1e-5, pointwise=frozenset({"conv_head"}))
TORCHVISION_MNASNET = KeyMap(source="torchvision", layers=torchvision_mnasnet_layers)
TIMM_INCEPTION_V4 = KeyMap(source="timm", layers=timm_inception_v4)
TIMM_INCEPTION_RESNET_V2 = KeyMap(source="timm", layers=timm_inception_resnet_v2)

KEYMAPS: dict[str, tuple[KeyMap, ...]] = {
    "alexnet": (TORCHVISION,),
    "vgg": (TORCHVISION,),
    "googlenet": (TORCHVISION,),
    "inception": (NATIVE,),
    "inception_v3": (TORCHVISION,),
    "inception_v4": (NATIVE, TIMM_INCEPTION_V4),
    "inception_resnet_v2": (NATIVE, TIMM_INCEPTION_RESNET_V2),
    "resnet": (TORCHVISION, CIFAR, TIMM_RESNET),
    "resnetv2": (NATIVE, TIMM_RESNETV2),
    "squeezenet": (TORCHVISION,),
    "mobilenet_v1": (NATIVE, TIMM),
    "mobilenet_v2": (TORCHVISION, TIMM),
    "mobilenet_v3": (TORCHVISION, TIMM_MOBILENET_V3),
    "mnasnet": (NATIVE, TORCHVISION_MNASNET, TIMM),
    "efficientnet": (TORCHVISION, TIMM),
    "tf_efficientnet": (NATIVE, TIMM_TENSORFLOW),
}
"""By family; where two fit alike the first is taken."""


def convert_weights(weights: Mapping[str, Tensor], layout: Layout, *, where: str) -> Converted:
    """Give foreign weights this project's names.

    A file that holds none of the classifiers for training gives a layout without them.

    Counters of batches that the file lacks are set to 0: evaluation does not read them, and training with a momentum
    does not either.

    Args:
        weights: tensors by their names in the file.
        layout: the network they are for.
        where: how an error names the weights, such as a file name.

    Raises:
        InputError: no key map gives the layout's names and shapes; the message lists what differs, or names the
            network that fits.
    """
    keymap, state = _best_match(weights, layout)
    layout = _as_held(layout, state)
    for name, _, _ in g.state(layout_graph(layout)):
        if name.endswith(f".{COUNTER}"):
            state.setdefault(name, torch.zeros((), dtype=torch.int64))
    if keymap.norm_eps is not None:
        layout = replace(layout, norm_eps=keymap.norm_eps)
    if problems := differences(state, {name: shape for name, shape, _ in g.state(layout_graph(layout))}):
        raise InputError(
            f"{where} does not hold the weights of {layout.name}: {_explain(weights, state, layout) or problems}"
        )
    # Only now: a tensor of a few bytes may claim any shape, which a copy of it would have.
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    check_weights(state, layout, where=where)
    return Converted(weights=state, layout=layout, source=keymap.source)


def _as_held(layout: Layout, state: Mapping[str, Tensor]) -> Layout:
    """The layout, without its classifiers for training where none of their entries are there."""
    alone = replace(layout, auxiliary=())
    needed = {name for name, _, _ in g.state(layout_graph(alone))}
    beside = {name for name, _, _ in g.state(layout_graph(layout))} - needed
    return layout if beside & state.keys() else alone


def _best_match(weights: Mapping[str, Tensor], layout: Layout) -> tuple[KeyMap, dict[str, Tensor]]:
    """The key map that knows most of the names, and the weights renamed by it; names it does not know stay."""
    tables = [(keymap, _renaming(keymap, layout)) for keymap in KEYMAPS[layout.family]]
    keymap, table = max(tables, key=lambda entry: sum(name in entry[1] for name in weights))
    flat = {f"{layer}.weight" for layer in keymap.pointwise}
    return keymap, {
        table.get(name, name): tensor[:, :, 0, 0] if name in flat and tensor.shape[2:] == (1, 1) else tensor
        for name, tensor in weights.items()
    }


def _renaming(keymap: KeyMap, layout: Layout) -> dict[str, str]:
    """Name in the source -> name here, for every entry of the `state_dict`."""
    return {theirs: ours for ours, theirs in foreign_names(keymap, layout).items()}


def foreign_names(keymap: KeyMap, layout: Layout) -> dict[str, str]:
    """Name here -> name in the source, for every entry of the `state_dict`."""
    theirs = dict(zip(native_layers(layout), keymap.layers(layout), strict=True))
    entries = (name.rpartition(".") for name, _, _ in g.state(layout_graph(layout)))
    return {f"{layer}.{leaf}": f"{theirs[layer]}.{leaf}" for layer, _, leaf in entries}


def _explain(weights: Mapping[str, Tensor], state: Mapping[str, Tensor], layout: Layout) -> str | None:
    """What the file holds instead, where that can be told."""
    linear = f"{layout.head.logits}.weight"
    if _signature(state, layout) == _expected(layout) and linear in state and state[linear].dim() == 2:
        return f"it has {len(state[linear])} classes, not {layout.num_classes}; give --num-classes {len(state[linear])}"
    for name in list_models():
        for size in (None, SMALL_PICTURE):
            other = find_layout(name, img_size=size)
            _, renamed = _best_match(weights, other)
            other = _as_held(other, renamed)
            if _signature(renamed, other) == _expected(other):
                return f"it looks like {name}{'' if size is None else f' for {size} pixels'}; give --model {name}"
    return None


def _signature(state: Mapping[str, Tensor], layout: Layout) -> dict[str, g.Shape]:
    """Names and shapes without the classifiers and the counters, which differ between files of the same network."""
    return {name: tuple(tensor.shape) for name, tensor in state.items() if _counts(name, layout)}


def _expected(layout: Layout) -> dict[str, g.Shape]:
    return {name: shape for name, shape, _ in g.state(layout_graph(layout)) if _counts(name, layout)}


def _counts(name: str, layout: Layout) -> bool:
    layer, _, entry = name.rpartition(".")
    classifiers = {layout.head.logits, *(each.head.logits for each in layout.auxiliary)}
    return entry != COUNTER and layer not in classifiers
