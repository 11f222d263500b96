"""Weights written back: a `state_dict` that torchvision or timm loads with `strict=True`, computing the same.

Deliberate choices: only networks that the other library has as they are; one that was scaled, pruned or trained with
the stem for small pictures is refused, since its weights would not load or would mean something else. Where the other
library's norms add another constant to the variance, the running variances are moved by the difference, so evaluation
stays exact (training there normalises batches with the other constant).
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor

from netsmith.arch.layout import Layout, at_size, layout_graph
from netsmith.arch.names import find_layout
from netsmith.errors import InputError
from netsmith.models.keymaps import KEYMAPS, foreign_names
from netsmith.run.files import write_bytes

Library = Literal["torchvision", "timm"]

_BOTH = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
    *(f"efficientnet_b{size}" for size in range(8)),
)
_TORCHVISION = (
    "alexnet",
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    *("googlenet", "inception_v3"),
    *("squeezenet1_0", "squeezenet1_1"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"),
    *(f"efficientnet_v2_{size}" for size in "sml"),
)
_TIMM = {
    "mobilenet_v1": "mobilenetv1_100",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mnasnet0_5": "mnasnet_050",
    "mnasnet0_75": "mnasnet_075",
    "mnasnet1_0": "mnasnet_100",
    **{f"efficientnet_v2_{size}": f"efficientnetv2_{size}" for size in "sml"},
    **{
        name: name
        for name in (
            *("inception_v4", "inception_resnet_v2"),
            *("resnet18d", "resnet34d", "resnet50d", "resnet101d", "seresnet50", "seresnext50_32x4d"),
            *("resnetv2_50", "resnetv2_101", "resnetv2_152"),
            *("mnasnet_100", "efficientnet_b8", "efficientnet_l2"),
            *(f"efficientnet_lite{size}" for size in range(5)),
            *(f"tf_efficientnet_b{size}" for size in range(9)),
            *(f"tf_efficientnet_lite{size}" for size in range(5)),
            *(f"tf_efficientnetv2_{size}" for size in "sml"),
            "tf_efficientnet_l2",
        )
    },
}
COUNTERPARTS: dict[Library, dict[str, str]] = {
    "torchvision": {name: name for name in (*_BOTH, *_TORCHVISION)} | {"resnet34_shortcut_b": "resnet34"},
    "timm": {name: name for name in _BOTH} | {"resnet34_shortcut_b": "resnet34"} | _TIMM,
}
"""Our names of the networks that a library has -> its names."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A `state_dict` in another library's names.

    Attributes:
        weights: by the other library's names.
        model: its name of the network.
        moved: whether running variances were moved to its norm constant.
    """

    weights: dict[str, Tensor]
    model: str
    moved: bool


def for_library(weights: Mapping[str, Tensor], layout: Layout, library: Library) -> Saved:
    """Weights under another library's names.

    Args:
        weights: by this project's names.
        layout: the network they are of, for any classes, channels and resolution.
        library: whose names.

    Raises:
        InputError: the library has no such network, or its norm constant cannot be made up for.
    """
    model = COUNTERPARTS[library].get(layout.name)
    if model is None:
        raise InputError(f"{library} has no network {layout.name}, so there is nothing to write for it")
    published = find_layout(layout.name, num_classes=layout.num_classes, in_channels=layout.input.channels)
    if not layout.auxiliary:
        published = replace(published, auxiliary=())
    same_norms = replace(at_size(layout, published.resolution[0]), norm_eps=published.norm_eps)
    if layout_graph(same_norms) != layout_graph(published):
        raise InputError(
            f"this {layout.name} is not the published network (it was trained with other strides, or was cut), so "
            f"{library} has nothing that would load it"
        )
    keymap = next(keymap for keymap in KEYMAPS[layout.family] if keymap.source == library)
    theirs = keymap.norm_eps or published.norm_eps
    found = dict(weights)
    if moved := theirs != layout.norm_eps:
        for name in [name for name in found if name.endswith(".running_var")]:
            found[name] = found[name] + (layout.norm_eps - theirs)
            if bool((found[name] < 0).any()):
                raise InputError(
                    f"{name} is so small that {library}'s norms, which add {theirs:g} to it, cannot compute the same"
                )
    names = foreign_names(keymap, layout)
    for name in [ours for ours, theirs in names.items() if theirs.removesuffix(".weight") in keymap.pointwise]:
        found[name] = found[name][:, :, None, None]
    return Saved(weights={names[name]: tensor for name, tensor in found.items()}, model=model, moved=moved)


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> int:
    """Write tensors by name: safetensors, or torch's own form where the name ends in .pth or .pt; the bytes written."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    if path.suffix in (".pth", ".pt"):
        buffer = io.BytesIO()
        torch.save(plain, buffer)
        content = buffer.getvalue()
    else:
        content = safetensors.torch.save(plain)
    write_bytes(path, content)
    return len(content)
