"""The networks by name, and names of scaled ones.

`NAME`, or `NAME@width=0.5,depth=0.75` (a lone number is the width: `resnet50@0.75`), or `NAME:phi=-1.5` for compound
scaling with EfficientNet's coefficients.
"""

import difflib
import fnmatch
from dataclasses import replace

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
from netsmith.arch.layout import Layout
from netsmith.arch.lower import lower
from netsmith.arch.scale import compound, for_size, scale
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


def list_models(pattern: str | None = None) -> list[str]:
    """Names of the networks, in the order of the tables; `pattern` is a shell pattern such as "resnet*"."""
    return [name for name in MODELS if pattern is None or fnmatch.fnmatchcase(name, pattern)]


def find_spec(name: str) -> Spec:
    """The spec of a name, scaled when the name says so.

    Raises:
        InputError: unknown names (with near ones) and multipliers that do not parse.
    """
    base, at, multipliers = name.partition("@")
    if not at:
        base, colon, phi = name.partition(":")
        if colon:
            key, _, value = phi.partition("=")
            if key != "phi":
                raise InputError(f"model {name!r}: after ':' comes phi=NUMBER, as in {base}:phi=-1.5")
            return replace(compound(_published(base), _number(name, value)), name=name)
        return _published(base)
    scaled = {"width": 1.0, "depth": 1.0}
    for item in multipliers.split(","):
        key, equals, value = item.partition("=")
        key, value = (key, value) if equals else ("width", key)
        if key not in scaled:
            raise InputError(f"model {name!r}: {key!r} is not width or depth; write {base}@width=0.5,depth=0.75")
        scaled[key] = _number(name, value)
    return replace(scale(_published(base), **scaled), name=name)


def _published(name: str) -> Spec:
    if name not in MODELS:
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
    """The layout of a name.

    Args:
        name: see the module.
        num_classes: number of logits; the published number when None.
        in_channels: channels of the input; 3 when None.
        img_size: side of the square input, pixels; the published one when None. Other sizes may change the stem and the
            strides (`for_size`).

    Raises:
        InputError: unknown names, numbers out of range.
    """
    spec = find_spec(name)
    if num_classes is not None:
        spec = with_classes(spec, num_classes)
    if in_channels is not None:
        spec = with_channels(spec, in_channels)
    if img_size is not None:
        spec = for_size(spec, img_size)
    return lower(spec)
