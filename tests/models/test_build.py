"""Building: seeds, rates, refusals; and folders."""

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from netsmith.arch.layout import Layout
from netsmith.arch.names import find_layout
from netsmith.arch.spec import Input
from netsmith.errors import InputError
from netsmith.export.network import export_network
from netsmith.models.build import build, create_model, load_model
from netsmith.nn.layers import DropPath
from netsmith.run.preprocess import Preprocess

LABELS = ("ant", "bee", "cat")


def tiny() -> Layout:
    return find_layout("resnet8_cifar@width=0.5", num_classes=3, img_size=28)


def renamed(layout: Layout, name: str) -> Layout:
    """The layout with another name for its first block."""
    first, *others = layout.stages
    return replace(layout, stages=(replace(first, blocks=(replace(first.blocks[0], name=name),)), *others))


def test_a_piece_stands_where_its_name_says() -> None:
    network = build(renamed(tiny(), "body.0.first"))
    assert type(network.get_submodule("body.0.first")).__name__ == "BasicBlock"
    assert network(torch.randn(2, 3, 28, 28)).shape == (2, 3)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ["resnet8_cifar", "mobilenet_v2@0.25", "mnasnet1_0@0.25", "efficientnet_b0@0.25"])
def test_seed_decides_the_weights_and_nothing_else_does(name: str) -> None:
    layout = find_layout(name, num_classes=3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build(layout, seed=7)
    assert torch.equal(torch.get_rng_state(), before), "the global generator moved"
    torch.manual_seed(2)
    assert same(first, build(layout, seed=7))
    assert not same(first, build(layout, seed=8))
    assert first.training
    assert all(tensor.device.type == "cpu" for tensor in first.state_dict().values())


@pytest.mark.parametrize("name", ["resnet8_cifar", "mobilenet_v2@0.25", "efficientnet_b0@0.25"])
def test_rates_come_from_the_layout_or_the_call(name: str) -> None:
    layout = find_layout(name)
    network = build(layout, dropout=0.4, drop_path=0.3)
    rates = [layer.rate for layer in network.modules() if isinstance(layer, DropPath)]
    steps = len(rates) - 1
    assert rates == pytest.approx([0.3 * i / steps for i in range(len(rates))])
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.4]
    assert network.layout == replace(layout, drop_path=0.3, head=replace(layout.head, dropout=0.4))
    assert build(layout).layout == layout


@pytest.mark.parametrize("rates", [{"drop_path": 1.0}, {"drop_path": -0.1}, {"dropout": 1.0}])
def test_rates_out_of_range_are_refused(rates: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"must be at least 0 and below 1"):
        build(tiny(), **rates)


@pytest.mark.parametrize(
    "name",
    [
        "resnet8_cifar",
        "resnet50@0.25",
        "seresnet50@0.1",
        "preresnet20_cifar",
        "resnetv2_50@0.1",
        "mobilenet_v2@0.25",
        "efficientnet_b0@0.25",
    ],
)
def test_zero_init_makes_residual_branches_begin_at_zero(name: str) -> None:
    layout = find_layout(name, img_size=32)
    network = build(layout, zero_init_residual=True, drop_path=0.0).eval()
    branches = 0
    for block in network.modules():
        last = {
            "BasicBlock": "bn2",
            "Bottleneck": "bn3",
            "InvertedResidual": "conv.3",
            "MBConv": "block.3.1",
            "PreBasicBlock": "conv2",
            "PreBottleneck": "conv3",
        }
        path = last.get(type(block).__name__)
        if path is not None and getattr(block, "skip", True):
            branches += 1
            assert not block.get_submodule(path).weight.any()
    assert branches
    assert not same(network, build(layout))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean resnet18"):
        create_model("resnet19")


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (replace(tiny(), family="resmet"), "no family is called 'resmet'; did you mean 'resnet'"),
        (replace(tiny(), input=Input(size=(28,))), "images of 2 dimensions, not 1"),
        (renamed(tiny(), "conv1.weight"), "cannot be called 'conv1.weight', that place is taken"),
    ],
)
def test_layouts_that_no_network_has_are_refused(layout: Layout, says: str) -> None:
    with pytest.raises(InputError, match=says):
        build(layout)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    network = build(tiny(), seed=3)
    network(torch.randn(8, 3, 28, 28))
    export_network(network, tmp_path / "model", labels=LABELS, preprocess=Preprocess(size=28))
    return tmp_path / "model"


def test_load_model_gives_the_exported_network(artifact: Path) -> None:
    network = load_model(artifact)
    assert not network.training
    assert network.layout == tiny()
    fresh = build(tiny(), seed=3).state_dict()
    assert torch.equal(network.state_dict()["fc.weight"], fresh["fc.weight"])
    assert not torch.equal(network.state_dict()["bn1.running_mean"], fresh["bn1.running_mean"])


def test_load_model_without_weights(artifact: Path) -> None:
    (artifact / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"shipped without model\.safetensors"):
        load_model(artifact)


def test_load_model_with_other_weights(artifact: Path) -> None:
    state = build(tiny()).state_dict()
    (artifact / "model.safetensors").write_bytes(safetensors.torch.save(state))
    with pytest.raises(InputError, match=r"model\.safetensors is not the file that config\.json describes"):
        load_model(artifact)


def test_load_model_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        load_model(tmp_path / "absent")
