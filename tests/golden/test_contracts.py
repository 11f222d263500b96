"""The state_dict of every published network is the reference's: names (by a key map where ours are others), shapes,
types and order."""

import json
from pathlib import Path

import pytest
import torch

from netsmith.arch.layout import layout_sections
from netsmith.arch.names import find_layout, list_models
from netsmith.models.build import construct
from netsmith.models.keymaps import KEYMAPS, native_layers

HERE = Path(__file__).parent


def _contracts(file: str) -> dict[str, list[str]]:
    return json.loads((HERE / file).read_text())["networks"]


CHECKPOINTS = _contracts("resnet_cifar.json")
REFERENCES = {
    name: (json.loads(path.read_text())["reference"].split()[0], entries)
    for path in sorted(HERE.glob("*.json"))
    if path.name != "resnet_cifar.json"
    for name, entries in _contracts(path.name).items()
}
"""Our name -> the reference's project (netsmith where there is no other) and entries."""


def _entries(name: str) -> list[str]:
    layout = find_layout(name)
    with torch.device("meta"):
        state = construct(layout).state_dict()
    return [
        f"{key} {str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape)) or '-'}"
        for key, tensor in state.items()
    ]


def _renamed(name: str, source: str) -> list[str]:
    """Our entries under a project's names."""
    if source == "netsmith":
        return _entries(name)
    layout = find_layout(name)
    keymap = next(keymap for keymap in KEYMAPS[layout.family] if keymap.source == source)
    theirs = dict(zip(native_layers(layout), keymap.layers(layout), strict=True))
    renamed = [f"{theirs[entry.rpartition('.')[0]]}.{entry.rpartition('.')[2]}" for entry in _entries(name)]
    pointwise = tuple(f"{layer}.weight " for layer in keymap.pointwise)
    return [f"{entry}x1x1" if pointwise and entry.startswith(pointwise) else entry for entry in renamed]


def test_every_published_network_has_a_contract() -> None:
    others = {*list_models("*_cifar"), *list_models("tf_*")}
    assert set(REFERENCES) == set(list_models()) - others


@pytest.mark.parametrize("name", list_models("tf_*"))
def test_tensorflows_padding_changes_no_entry(name: str) -> None:
    assert _entries(name) == _entries(name.removeprefix("tf_").replace("netv2", "net_v2"))


@pytest.mark.parametrize("name", REFERENCES)
def test_state_is_the_references(name: str) -> None:
    """Classifiers for training stand in the reference's `state_dict` where it made them, and in ours at the end."""
    source, entries = REFERENCES[name]
    ours = _renamed(name, source)
    assert sorted(ours) == sorted(entries)
    if find_layout(name).family == "resnetv2":  # timm makes the projection of a block before its norms
        return
    auxiliary = _auxiliary_layers(name)
    assert _without(ours, auxiliary) == _without(entries, auxiliary)


def _auxiliary_layers(name: str) -> set[str]:
    sections = layout_sections(find_layout(name))
    return {op.name for section in sections if section.kind == "auxiliary" for op in section.ops}


def _without(entries: list[str], layers: set[str]) -> list[str]:
    return [entry for entry in entries if entry.partition(" ")[0].rpartition(".")[0] not in layers]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_cifar_state_is_the_checkpoints(name: str) -> None:
    """The checkpoints call the classifier `linear` and hold no counters; all else is equal."""
    ours = [entry.replace("fc.", "linear.") for entry in _entries(name) if ".num_batches_tracked " not in entry]
    assert ours == CHECKPOINTS[name]
