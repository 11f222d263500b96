"""RMSProp, LAMB and Muon against their rules, timm and torch, and which parameter goes where."""

import sys
import types
from typing import Any

import pytest
import torch
from tiny_training import tiny_network, tiny_recipe
from torch import Tensor, nn

from netsmith.arch.names import find_layout
from netsmith.models.build import build
from netsmith.train.lamb import Lamb
from netsmith.train.muon import Muon, orthogonal
from netsmith.train.optimizers import RMSProp, build_optimizer


def made(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def follow(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], *, steps: int = 6) -> list[Tensor]:
    """Where parameters come to under made gradients and a rate that changes."""
    for step in range(steps):
        for place, parameter in enumerate(parameters):
            parameter.grad = made(tuple(parameter.shape), 100 * step + place) * 10.0 ** (place - 1)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (step + 1)
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(made(shape, place)) for place, shape in enumerate([(8, 3, 3, 3), (8,), (5, 8)])]


@pytest.mark.reference
@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("weight_decay", [0.0, 0.02])
def test_rmsprop_is_timms_of_tensorflow(momentum: float, weight_decay: float) -> None:
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("absent"))
    optim = pytest.importorskip("timm.optim")
    ours, theirs = parameters(), parameters()
    options: dict[str, Any] = {"lr": 0.1, "momentum": momentum}
    groups = [{"params": ours, "weight_decay": weight_decay}]
    found = follow(RMSProp(groups, **options), ours)
    reference = optim.RMSpropTF(theirs, alpha=0.9, eps=1e-3, weight_decay=weight_decay, **options)
    for one, other in zip(found, follow(reference, theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.reference
@pytest.mark.parametrize("weight_decay", [0.0, 0.02])
def test_lamb_is_timms(weight_decay: float) -> None:
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("absent"))
    optim = pytest.importorskip("timm.optim")
    ours, theirs = ([*parameters(), nn.Parameter(torch.zeros(3, 4))] for _ in range(2))  # zeros have no length
    found = follow(Lamb([{"params": ours, "weight_decay": weight_decay}], lr=0.1), ours)
    reference = optim.Lamb(theirs, lr=0.1, weight_decay=weight_decay, max_grad_norm=None)
    for one, other in zip(found, follow(reference, theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_lamb_is_its_rule_written_out() -> None:
    ours = parameters()
    plain = [parameter.detach().double() for parameter in parameters()]
    follow(Lamb([{"params": ours, "weight_decay": 0.02}], lr=0.1), ours)
    for place, p in enumerate(plain):
        mean, square = torch.zeros_like(p), torch.zeros_like(p)
        for step in range(1, 7):
            g = made(tuple(p.shape), 100 * (step - 1) + place).double() * 10.0 ** (place - 1)
            mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
            move = mean / (1 - 0.9**step) / ((square / (1 - 0.999**step)).sqrt() + 1e-6) + 0.02 * p
            p = p - 0.01 * step * p.norm() / move.norm() * move
        torch.testing.assert_close(ours[place].detach().double(), p, rtol=1e-4, atol=1e-5)


def test_rmsprop_is_its_rule_written_out() -> None:
    ours = parameters()
    plain = [parameter.detach().double() for parameter in parameters()]
    follow(RMSProp([{"params": ours, "weight_decay": 0.02}], lr=0.1), ours)
    for place, p in enumerate(plain):
        square, moving = torch.ones_like(p), torch.zeros_like(p)
        for step in range(6):
            g = made(tuple(p.shape), 100 * step + place).double() * 10.0 ** (place - 1) + 0.02 * p
            square = 0.9 * square + 0.1 * g * g
            moving = 0.9 * moving + 0.01 * (step + 1) * g / (square + 1e-3).sqrt()
            p = p - moving
        torch.testing.assert_close(ours[place].detach().double(), p, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 6), (4, 30), (30, 4), (2, 3, 5, 9), (7, 1, 9)])
def test_what_is_orthogonalised_keeps_its_directions_and_has_singular_values_near_one(shape: tuple[int, ...]) -> None:
    matrices = made(shape, 0)
    left, _, right = torch.linalg.svd(orthogonal(matrices), full_matrices=False)
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    rotation = torch.linalg.svd(matrices, full_matrices=False)
    nearest = rotation.U @ rotation.Vh
    torch.testing.assert_close(left @ right, nearest, rtol=0, atol=1e-3)
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_of_two_dimensions_is_torchs(nesterov: bool) -> None:
    ours, theirs = ([nn.Parameter(made(s, i)) for i, s in enumerate([(12, 20), (20, 7), (12, 20)])] for _ in range(2))
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.1}
    start = [parameter.detach().clone() for parameter in ours]
    found = follow(Muon(dict.fromkeys(ours, 1), [], **options), ours)
    reference = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **options)
    for one, other, begin in zip(found, follow(reference, theirs), start, strict=True):
        # Theirs computes in bfloat16.
        assert float((one - other).norm() / (other - begin).norm()) < 0.02


def test_muon_takes_each_group_of_a_convolution_for_a_matrix() -> None:
    whole, halves = (
        nn.Parameter(made((6, 2, 3, 3), 0)),
        [nn.Parameter(made((6, 2, 3, 3), 0)[i : i + 3]) for i in (0, 3)],
    )
    gradient = made((6, 2, 3, 3), 1)
    whole.grad = gradient.contiguous(memory_format=torch.channels_last)
    Muon({whole: 2}, [], lr=0.1).step()
    for half, part in zip(halves, (gradient[:3], gradient[3:]), strict=True):
        half.grad = part.clone()
    Muon(dict.fromkeys(halves, 1), [], lr=0.1).step()
    torch.testing.assert_close(whole.detach(), torch.cat([half.detach() for half in halves]), rtol=1e-5, atol=1e-6)


def test_muon_leaves_norms_biases_and_classifiers_to_adamw() -> None:
    network = build(find_layout("googlenet", num_classes=10, img_size=64), seed=0)
    recipe = tiny_recipe(opt="muon", weight_decay=0.1)
    optimizer = build_optimizer(network, recipe)
    names = {parameter: name for name, parameter in network.named_parameters()}
    muon = {names[p] for group in optimizer.param_groups if "betas" not in group for p in group["params"]}
    assert {name for name in names.values() if name not in muon and network.get_parameter(name).ndim > 1} == {
        "fc.weight",
        "aux1.fc2.weight",
        "aux2.fc2.weight",
    }
    assert all(network.get_parameter(name).ndim > 1 for name in muon)
    decayed = {names[p] for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {name for name, parameter in network.named_parameters() if parameter.ndim > 1}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)


def test_muon_of_a_depthwise_network_moves_everything() -> None:
    network = tiny_network()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = build_optimizer(network, tiny_recipe(opt="muon"))
    network(torch.randn(8, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b.detach()) for a, b in zip(before, network.parameters(), strict=True))
    assert set(optimizer.state) == set(network.parameters())
