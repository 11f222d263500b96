"""The networks by name, names of scaled ones, and layouts in files.

`NAME`, then any number of changes, applied from left to right: `@width=0.5,depth=0.75,resolution=0.8` (a lone number is
the width: `resnet50@0.75`) and `:phi=-1.5` for compound scaling with EfficientNet's coefficients. Wherever a name is
asked for, the path of a layout's JSON file (`FILE.json`) will do.
"""

import difflib
import fnmatch
import json
import os
import re
from dataclasses import replace
from pathlib import Path

from netsmith.arch.families import (
    alexnet,
    efficientnet,
    googlenet,
    inception,
    inception_resnet,
    inception_v3,
    inception_v4,
    mnasnet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    resnet,
    resnetv2,
    squeezenet,
    vgg,
)
from netsmith.arch.layout import Layout, at_size, layout_from_json
from netsmith.arch.limits import check_widths
from netsmith.arch.lower import lower
from netsmith.arch.scale import check_resolution, compound, for_size, scale
from netsmith.arch.select import select
from netsmith.arch.spec import Spec, with_channels, with_classes
from netsmith.errors import InputError

MODELS: dict[str, Spec] = {
    **alexnet.TABLE,
    **vgg.TABLE,
    **googlenet.TABLE,
    **inception.TABLE,
    **inception_v3.TABLE,
    **inception_v4.TABLE,
    **inception_resnet.TABLE,
    **resnet.TABLE,
    **resnetv2.TABLE,
    **squeezenet.TABLE,
    **mobilenet_v1.TABLE,
    **mobilenet_v2.TABLE,
    **mobilenet_v3.TABLE,
    **mnasnet.TABLE,
    **efficientnet.TABLE,
}
MAX_FILE = 1 << 25
"""Bytes of a layout's file: 4096 blocks take less."""


def list_models(pattern: str | None = None) -> list[str]:
    """Names of the networks, in the order of the tables; `pattern` is a shell pattern such as "resnet*"."""
    return [name for name in MODELS if pattern is None or fnmatch.fnmatchcase(name, pattern)]


def find_spec(name: str) -> Spec:
    """The spec of a name, scaled when the name says so.

    Raises:
        InputError: unknown names (with near ones) and multipliers that do not parse.
    """
    base, *changes = re.split(r"([@:])", name)
    spec = _published(base)
    for mark, text in zip(changes[::2], changes[1::2], strict=True):
        spec = _multiplied(spec, text, name) if mark == "@" else _compounded(spec, text, name)
    return replace(spec, name=name)


def _compounded(spec: Spec, text: str, name: str) -> Spec:
    key, _, value = text.partition("=")
    if key != "phi":
        raise InputError(f"model {name!r}: after ':' comes phi=NUMBER, as in {spec.name}:phi=-1.5")
    return compound(spec, _number(name, value))


def _multiplied(spec: Spec, text: str, name: str) -> Spec:
    scaled: dict[str, float] = {}
    for item in text.split(","):
        key, equals, value = item.partition("=")
        key, value = (key, value) if equals else ("width", key)
        if key not in ("width", "depth", "resolution"):
            raise InputError(
                f"model {name!r}: {key!r} is not width, depth or resolution; write {spec.name}@width=0.5,depth=0.75"
            )
        if key in scaled:
            raise InputError(f"model {name!r} gives {key} twice; keep one")
        scaled[key] = _number(name, value)
    return scale(spec, **scaled)


def _published(name: str) -> Spec:
    if name not in MODELS:
        model, tag = name.partition(".")[::2]
        if tag and model in MODELS:
            raise InputError(f"{name!r} names weights; the network alone, which is wanted here, is {model!r}")
        near = difflib.get_close_matches(name, MODELS, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "`netsmith models` lists them"
        raise InputError(f"no model is called {name!r}; {hint}")
    return MODELS[name]


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"model {name!r}: {text!r} is not a number") from None


def find_layout(
    name: str, *, num_classes: int | None = None, in_channels: int | None = None, img_size: int | None = None
) -> Layout:
    """The layout of a name, or of a layout's file.

    Args:
        name: see the module.
        num_classes: number of logits; the published number, or the file's, when None.
        in_channels: channels of the input; 3, or the file's, when None.
        img_size: side of the square input, pixels; the published one, or the file's, when None. For a name, other sizes
            may change the stem and the strides (`for_size`); a file's strides stay.

    Raises:
        InputError: unknown names, numbers out of range, a resolution too small for the strides, a file that is no
            layout.
    """
    if is_layout_file(name):
        return _fitted(read_layout(Path(name)), num_classes, in_channels, img_size)
    spec = find_spec(name)
    if num_classes is not None:
        spec = with_classes(spec, num_classes)
    if in_channels is not None:
        spec = with_channels(spec, in_channels)
    return check_resolution(lower(spec)) if img_size is None else lower(for_size(spec, img_size))


def is_layout_file(name: str) -> bool:
    """Whether a name means the file of a layout."""
    return name.endswith(".json")


def read_layout(path: Path) -> Layout:
    """Read the JSON file of a layout, as `netsmith scale -o` writes it.

    Raises:
        InputError: no such file, or it holds no layout that this netsmith knows; the message names the place.
    """
    if not os.path.isfile(path):  # neither a folder nor a pipe that never ends
        raise InputError(f"there is no layout file {path}; check the path, or make one with netsmith scale -o")
    try:
        if path.stat().st_size > MAX_FILE:
            raise InputError(f"{path} has more than {MAX_FILE:,} bytes, which no layout takes; check the path")
        document = json.loads(path.read_bytes())
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a layout's JSON file") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON or is cut short ({error}); give a layout's JSON file") from None
    return layout_from_json(document, where=str(path))


def _fitted(layout: Layout, num_classes: int | None, in_channels: int | None, img_size: int | None) -> Layout:
    """A layout with other classes, channels or sides; its blocks stay as they are."""
    if num_classes is not None:
        check_widths("num_classes", num_classes)
        layout = select(layout, {layout.head.logits: [None] * num_classes}).layout
    if in_channels is not None:
        layout = replace(layout, input=replace(layout.input, channels=in_channels))
    if img_size is None:
        return layout
    return check_resolution(at_size(layout, img_size))
