"""The state_dict of every published network is the reference's: names, shapes, types and order."""

import json
from pathlib import Path

import pytest
import torch

from netsmith.arch.names import find_layout, list_models
from netsmith.models.build import INITS, construct

HERE = Path(__file__).parent


def _contracts(file: str) -> dict[str, list[str]]:
    return json.loads((HERE / file).read_text())["networks"]


TORCHVISION = {name: entries for family in INITS for name, entries in _contracts(f"{family}.json").items()}
CHECKPOINTS = _contracts("resnet_cifar.json")


def _entries(name: str) -> list[str]:
    layout = find_layout(name)
    with torch.device("meta"):
        state = construct(layout).state_dict()
    return [
        f"{key} {str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape)) or '-'}"
        for key, tensor in state.items()
    ]


def test_every_published_network_has_a_contract() -> None:
    assert set(TORCHVISION) == {name for name in list_models() if not name.endswith("_cifar")}


@pytest.mark.parametrize("name", TORCHVISION)
def test_state_is_torchvisions(name: str) -> None:
    assert _entries(name) == TORCHVISION[name]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_cifar_state_is_the_checkpoints(name: str) -> None:
    """The checkpoints call the classifier `linear` and hold no counters; all else is equal."""
    ours = [entry.replace("fc.", "linear.") for entry in _entries(name) if ".num_batches_tracked " not in entry]
    assert ours == CHECKPOINTS[name]
