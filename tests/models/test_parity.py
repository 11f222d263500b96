"""The same weights give the same logits and gradients as in torchvision, timm and plain versions of the rest."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from reference_models import (
    PLAIN,
    REFERENCES,
    TIMM,
    TIMM_ONLY,
    TORCHVISION,
    difference,
    norm_settings,
    plain_difference,
    timm_model,
    torchvision_model,
)
from torch import nn

from netsmith.arch.names import find_layout
from netsmith.models.build import construct, create_model
from netsmith.models.saving import for_library

LIMIT = 1e-4
PAGE = Path(__file__).resolve().parents[2] / "docs" / "networks.md"
QUICK = (
    *("googlenet", "resnet18", "resnet50", "resnext50_32x4d", "mobilenet_v2", "mnasnet0_5", "efficientnet_b0"),
    *("resnet50_v1", "resnet18d", "seresnet50", "resnetv2_50"),
    *("mobilenet_v1", "mobilenet_v3_small", "efficientnet_lite0", "tf_efficientnet_lite0"),
)
SLOW_PLAIN = ("resnet1202_cifar", "preresnet1001_cifar", "wrn28_10_cifar")


def _slow_beyond_quick(names: tuple[str, ...]) -> list[object]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def _made(make: Callable[[str], nn.Module], name: str) -> nn.Module:
    try:
        return make(name)
    except ImportError as error:
        pytest.skip(f"the reference is not installed: {error}")


@pytest.mark.reference
@pytest.mark.parametrize("name", _slow_beyond_quick(TORCHVISION))
def test_equals_torchvision(name: str) -> None:
    found = difference(name, _made(torchvision_model, name))
    assert max(found.evaluation, found.training, found.gradient) < LIMIT


@pytest.mark.reference
@pytest.mark.parametrize(
    "name",
    [name if name in QUICK and name in TIMM_ONLY else pytest.param(name, marks=pytest.mark.slow) for name in TIMM],
)
def test_equals_timm(name: str) -> None:
    found = difference(name, _made(timm_model, name))
    assert max(found.evaluation, found.training, found.gradient) < LIMIT


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in SLOW_PLAIN else name for name in PLAIN],
)
def test_networks_of_no_library_equal_the_plain_version(name: str) -> None:
    assert plain_difference(name) < LIMIT


def test_the_page_shows_every_comparison() -> None:
    """`python benchmarks/check_reference.py --write` makes the table."""
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (torchvision|timm|plain) \| (.*) \|$", text, re.MULTILINE)
    assert [(name, source) for name, source, _ in rows] == list(REFERENCES)
    for name, source, cells in rows:
        evaluation, training, gradient = map(str.strip, cells.split("|"))
        assert float(evaluation) < LIMIT, name
        if source == "plain":
            assert training == gradient == ""
        else:
            assert max(float(training), float(gradient)) < LIMIT, name


@pytest.mark.reference
@pytest.mark.parametrize("name", _slow_beyond_quick((*TORCHVISION, *TIMM_ONLY)))
def test_norms_have_the_references_constant_and_momentum(name: str) -> None:
    """The momentum decides what training leaves for evaluation, which no output in training shows."""
    with torch.device("meta"):
        expected = norm_settings(_made(torchvision_model if name in TORCHVISION else timm_model, name))
        if name.startswith("tf_"):  # TensorFlow's momentum, where timm has torch's
            expected = {(eps, 0.01) for eps, _ in expected}
        assert norm_settings(construct(find_layout(name))) == expected


@pytest.mark.reference
@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "resnext50_32x4d", "mobilenet_v2", "mobilenet_v3_small", "mnasnet1_0", "efficientnet_b0"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("googlenet", "inception_v3")),
    ],
)
def test_initial_weights_are_distributed_as_torchvisions(name: str) -> None:
    theirs = dict(_made(torchvision_model, name).state_dict())
    network = create_model(name)
    for key, ours in for_library(network.state_dict(), network.layout, "torchvision").weights.items():
        their = theirs[key].float()
        if their.unique().numel() == 1:
            assert torch.equal(ours.float(), their), key
        elif their.numel() >= 2000:
            assert ours.std().item() == pytest.approx(their.std().item(), rel=0.1), key
            assert ours.abs().max().item() == pytest.approx(their.abs().max().item(), rel=0.5), key


@pytest.mark.reference
def test_stochastic_depth_draws_as_torchvisions() -> None:
    """Both turn the same global generator state into the same kept samples."""
    _made(torchvision_model, "resnet18")
    from torchvision.ops import StochasticDepth

    from netsmith.nn.layers import DropPath

    x = torch.randn(64, 3, 2, 2)
    torch.manual_seed(5)
    theirs = StochasticDepth(0.3, "row")(x)
    torch.manual_seed(5)
    assert torch.equal(DropPath(0.3)(x), theirs)
