"""JSON of layouts and specs: round trips, and every departure refused with its place."""

import copy
import json
import math
import time
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from netsmith.arch.layout import layout_from_json, layout_to_json
from netsmith.arch.lower import lower
from netsmith.arch.names import MODELS, find_layout
from netsmith.arch.spec import spec_from_json, spec_to_json
from netsmith.errors import InputError

Path = tuple[str | int, ...]

NAMES = ("resnet20_cifar", "resnext50_32x4d", "efficientnet_b0", "mobilenet_v2")
LAYOUTS = {name: layout_to_json(find_layout(name)) for name in NAMES}
SPECS = {name: spec_to_json(MODELS[name]) for name in NAMES}
MISSING: Any = object()


def changed(document: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy with the value at a path set, or taken out when it is MISSING."""
    document = copy.deepcopy(document)
    at: Any = document
    for step in path[:-1]:
        at = at[step]
    if value is MISSING:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return document


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("name", MODELS)
def test_layouts_and_specs_round_trip(name: str):
    layout, spec = find_layout(name), MODELS[name]
    assert layout_from_json(json.loads(json.dumps(layout_to_json(layout), allow_nan=False))) == layout
    again = spec_from_json(json.loads(json.dumps(spec_to_json(spec), allow_nan=False)))
    assert again == spec
    assert lower(again) == layout


BLOCK = ("stages", 0, "blocks", 0)
AT = "stages[0].blocks[0]"
LAYOUT_FAULTS = [
    ("resnet20_cifar", ("colour",), 1, "unknown field 'colour'"),
    ("resnet20_cifar", ("kind",), "layout", "unknown field 'kind'"),
    ("resnet20_cifar", (*BLOCK, "colour"), 1, f"{AT}: unknown field 'colour'"),
    ("resnet20_cifar", ("family",), MISSING, "field 'family' is missing"),
    ("resnet20_cifar", ("format",), MISSING, "field 'format' is missing"),
    ("resnet20_cifar", (*BLOCK, "stride"), MISSING, f"{AT}: field 'stride' is missing"),
    ("resnet20_cifar", (*BLOCK, "kind"), MISSING, f"{AT}.kind: expected one of"),
    ("resnet20_cifar", (*BLOCK, "kind"), "transformer", f"{AT}.kind: expected one of .*found 'transformer'"),
    ("resnet20_cifar", (*BLOCK, "kind"), ["basic"], f"{AT}.kind: expected one of"),
    ("resnet20_cifar", ("head", "kind"), "detector", "head.kind: expected one of .*, found 'detector'"),
    ("resnet20_cifar", ("head", "kind"), MISSING, "head.kind: expected one of .*, found null"),
    ("resnet20_cifar", ("format",), 2, "layout format 2"),
    ("resnet20_cifar", ("format",), True, "format: expected an integer, found true"),
    ("resnet20_cifar", (*BLOCK, "width"), True, f"{AT}.width: expected an integer, found true"),
    ("resnet20_cifar", (*BLOCK, "width"), 16.0, f"{AT}.width: expected an integer, found 16.0"),
    ("resnet20_cifar", (*BLOCK, "width"), "16", f"{AT}.width: expected an integer, found '16'"),
    ("resnet20_cifar", (*BLOCK, "width"), None, f"{AT}.width: expected an integer, found null"),
    ("resnet20_cifar", (*BLOCK, "width"), 1 << 40, f"{AT}: layer1.0: a width of 1099511627776"),
    ("resnet20_cifar", (*BLOCK, "width"), 10**5000, f"{AT}.width: expected an integer of at most 64 bits"),
    ("resnet20_cifar", (*BLOCK, "width"), 0, f"{AT}: layer1.0: a width of 0"),
    ("resnet20_cifar", (*BLOCK, "width"), -16, f"{AT}: layer1.0: a width of -16"),
    ("resnet20_cifar", (*BLOCK, "stride"), 0, f"{AT}: layer1.0: a stride of 0"),
    ("resnet20_cifar", (*BLOCK, "out"), 24, "layer1.0.add: cannot add shapes"),
    ("resnet20_cifar", (*BLOCK, "name"), "layer1.1", "two operations are called"),
    ("resnet20_cifar", (*BLOCK, "name"), "", f"{AT}: '' cannot name a layer"),
    ("resnet20_cifar", (*BLOCK, "name"), "../../etc", f"{AT}: '../../etc' cannot name a layer"),
    ("resnet20_cifar", (*BLOCK, "name"), "a" * 10**6, "cannot name a layer"),
    ("resnet20_cifar", ("stages", 1, "blocks", 0, "shortcut", "front"), -8, r"stages\[1\].blocks\[0\].shortcut: .*-8"),
    ("resnet20_cifar", ("stages", 1, "name"), "stage1", "two stages are called 'stage1'"),
    ("resnet20_cifar", ("stages", 1, "blocks"), [], "stage2: a stage needs at least one block"),
    ("resnet20_cifar", ("norm_eps",), math.nan, "norm_eps: expected a finite number"),
    ("resnet20_cifar", ("norm_eps",), math.inf, "norm_eps: expected a finite number"),
    ("resnet20_cifar", ("norm_eps",), 10**400, "norm_eps: expected a number, found an integer of 1329 bits"),
    ("resnet20_cifar", ("norm_eps",), 0.0, "norm_eps is 0"),
    ("resnet20_cifar", ("norm_eps",), True, "norm_eps: expected a number, found true"),
    ("resnet20_cifar", ("drop_path",), 1.0, "drop_path is 1"),
    ("resnet20_cifar", ("head", "dropout"), -0.1, "dropout is -0.1"),
    ("resnet20_cifar", ("head", "classes"), 0, "head: fc: a width of 0"),
    ("resnet20_cifar", ("input", "size"), [], "input: an input of size"),
    ("resnet20_cifar", ("input", "size"), [32, -32], "input: an input of size 32 x -32"),
    ("resnet20_cifar", ("input", "size"), [2] * 4, "input: an input of size"),
    ("resnet20_cifar", ("input", "size"), 32, r"input.size: expected a list, found 32"),
    ("resnet20_cifar", ("input", "kind"), "sound", "input.kind: expected one of 'image'"),
    ("resnet20_cifar", ("stages",), {"0": {}}, "stages: expected a list, found an object"),
    ("resnet20_cifar", ("stages",), nested(100_000), r"stages\[0\]: expected an object, found a list of 1"),
    ("resnet20_cifar", ("head", "conv"), nested(100_000), "head.conv: expected an object, found a list of 1"),
    ("resnet20_cifar", ("name",), nested(100_000), "name: expected a string, found a list of 1"),
    ("resnext50_32x4d", (*BLOCK, "groups"), 24, "layer1.0.conv2: .* in 24 groups"),
    ("resnext50_32x4d", (*BLOCK, "groups"), 0, f"{AT}: layer1.0: a width of 0"),
    ("resnext50_32x4d", (*BLOCK, "stride_at"), "5x5", f"{AT}.stride_at: expected one of '1x1', '3x3', found '5x5'"),
    ("resnext50_32x4d", ("stem", 1, "kernel"), 2, r"stem\[1\]: maxpool: a kernel of 2"),
    ("mobilenet_v2", ("stages", 1, "blocks", 0, "skip"), True, "features.2.add: cannot add shapes"),
    ("mobilenet_v2", ("stages", 1, "blocks", 0, "skip"), 0, r"blocks\[0\].skip: expected true or false, found 0"),
    ("mobilenet_v2", ("stages", 1, "blocks", 0, "expand"), 0, "features.2: a width of 0"),
    ("mobilenet_v2", ("stages", 1, "blocks", 0, "kernel"), 4, "features.2: a kernel of 4"),
    ("mobilenet_v2", (*BLOCK, "activation"), "gelu", f"{AT}.activation: expected one of"),
    ("efficientnet_b0", (*BLOCK, "squeeze"), 0, "features.1.0: a width of 0"),
    ("efficientnet_b0", ("head", "conv", "out"), 0, "head.conv: features.8.0: a width of 0"),
]


@pytest.mark.parametrize(("name", "path", "value", "says"), LAYOUT_FAULTS, ids=range(len(LAYOUT_FAULTS)))
def test_a_faulty_layout_is_refused_with_the_place(name: str, path: Path, value: Any, says: str):
    says = says if "\\" in says else says.replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(InputError, match=says) as refusal:
        layout_from_json(changed(LAYOUTS[name], path, value), where="config.json: layout")
    assert str(refusal.value).startswith("config.json: layout")
    assert len(str(refusal.value)) < 1000


SPEC_FAULTS = [
    ("efficientnet_b0", ("colour",), 1, "unknown field 'colour'"),
    ("efficientnet_b0", ("depth",), MISSING, "field 'depth' is missing"),
    ("efficientnet_b0", ("format",), 7, "spec format 7"),
    ("efficientnet_b0", ("width",), 0.0, "the width multiplier is 0"),
    ("efficientnet_b0", ("depth",), math.nan, "depth: expected a finite number"),
    ("efficientnet_b0", ("stages",), [], "at least one stage"),
    ("efficientnet_b0", ("stages", 0, "rows"), [], r"stages\[0\]: a stage needs at least one row"),
    ("efficientnet_b0", ("stages", 0, "stride"), 0, r"stages\[0\]: stage: a stride of 0"),
    ("efficientnet_b0", ("stages", 0, "rows", 0, "repeats"), 10**6, r"rows\[0\]: repeats is 1000000"),
    ("efficientnet_b0", ("stages", 0, "rows", 0, "repeats"), {"kind": "fixed", "value": -1}, r"repeats: fixed: .* -1"),
    ("efficientnet_b0", ("stages", 0, "rows", 0, "repeats"), {"kind": "at_least", "value": 1}, "repeats.kind"),
    ("efficientnet_b0", ("stages", 0, "rows", 0, "block", "out"), 0, r"rows\[0\].block: mbconv: a width of 0"),
    ("efficientnet_b0", ("stages", 0, "rows", 0, "block", "expand"), 0.5, "expand is 0.5"),
    ("efficientnet_b0", ("stages", 0, "rows", 0, "block", "squeeze"), 0.0, "squeeze is 0"),
    ("efficientnet_b0", ("block_name",), "{stage.__class__}", "block_name is '{stage.__class__}'"),
    ("efficientnet_b0", ("block_name",), "{stage:>999999999}", "block_name is"),
    ("efficientnet_b0", ("head", "conv_name"), None, "conv and conv_name"),
    ("efficientnet_b0", ("head", "conv_name"), "features.{index}", "conv_name is"),
    ("resnext50_32x4d", ("stages", 0, "rows", 0, "block", "groups"), 24, "does not split in 24 groups"),
    ("resnext50_32x4d", ("stages", 0, "rows", 0, "block", "shortcut"), "E", "shortcut: expected one of"),
    ("mobilenet_v2", ("head", "conv", "kind"), "at_most", "head.conv.kind: expected one of 'at_least', 'fixed'"),
]


@pytest.mark.parametrize(("name", "path", "value", "says"), SPEC_FAULTS, ids=range(len(SPEC_FAULTS)))
def test_a_faulty_spec_is_refused_with_the_place(name: str, path: Path, value: Any, says: str):
    with pytest.raises(InputError, match=says) as refusal:
        spec_from_json(changed(SPECS[name], path, value), where="search.json: spec")
    assert str(refusal.value).startswith("search.json: spec")


def test_names_that_collide_are_refused_when_lowered():
    spec = spec_from_json(changed(SPECS["mobilenet_v2"], ("block_name",), "features.{stage}"))
    with pytest.raises(InputError, match="two operations are called"):
        lower(spec)


@pytest.mark.parametrize("document", [None, 3, "layout", [], [{}], {}, True, math.nan])
def test_documents_that_are_no_layout(document: Any):
    with pytest.raises(InputError, match=r"^model\.json"):
        layout_from_json(document, where="model.json")


def test_a_million_blocks_are_refused_at_once():
    block = LAYOUTS["resnet20_cifar"]["stages"][0]["blocks"][0]
    document = changed(LAYOUTS["resnet20_cifar"], ("stages", 0, "blocks"), [block] * 10**6)
    began = time.process_time()
    with pytest.raises(InputError, match=r"blocks: expected a list of at most 4096, found a list of 1000000"):
        layout_from_json(document)
    stage = changed(LAYOUTS["resnet20_cifar"]["stages"][0], ("blocks",), [block] * 100)
    with pytest.raises(InputError, match="5000 blocks are more than the 4096"):
        layout_from_json(changed(LAYOUTS["resnet20_cifar"], ("stages",), [stage] * 50))
    assert time.process_time() - began < 5


def test_records_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        find_layout("resnet18").name = "other"  # pyright: ignore[reportAttributeAccessIssue]
