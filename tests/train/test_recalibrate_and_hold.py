"""Batch norm's statistics taken again, and weights held at zero through training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from kinds_of_networks import SIDE, settled, small
from tiny_training import tiny_data, tiny_network, tiny_recipe
from torch import nn

from netsmith.errors import CheckError
from netsmith.run.clock import FakeClock
from netsmith.run.plan import Plan
from netsmith.train.holding import hold_zeros, refuse_moved
from netsmith.train.recalibrate import recalibrate
from netsmith.train.trainer import Trainer


def test_statistics_become_those_of_the_pictures() -> None:
    """The first norm's are known by hand; dropout is off, momenta and weights stay."""
    network = settled(small("mobilenet_v2"))
    weights = {name: tensor.clone() for name, tensor in network.named_parameters()}
    pixels = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), dtype=np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    momenta = [module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert recalibrate(network, pixels, mean=mean, std=std, batch_size=20) == len(momenta)
    conv, norm = network.get_submodule("features.0.0"), network.get_submodule("features.0.1")
    assert isinstance(norm, nn.BatchNorm2d)
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[
        :, None, None
    ]
    with torch.no_grad():
        maps = conv(x)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert torch.allclose(norm.running_mean, maps.mean(dim=(0, 2, 3)), atol=1e-5)
    variances = [part.var(dim=(0, 2, 3)) for part in maps.split(20)]
    assert torch.allclose(norm.running_var, torch.stack(variances).mean(dim=0), rtol=1e-4)
    assert not any(module.training for module in network.modules())
    assert [module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)] == momenta
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.named_parameters())
    assert recalibrate(settled(small("vgg11")), pixels, mean=mean, std=std) == 0


def test_norms_that_only_training_reaches_keep_their_statistics() -> None:
    network = settled(small("inception_v3"))
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items() if ".running_" in name}
    beside = {name for name in before if name.startswith("AuxLogits.")}
    assert 2 * recalibrate(network, pixels, mean=(0.5,) * 3, std=(0.2,) * 3) == len(before) - len(beside)
    moved = {name for name, tensor in before.items() if not torch.equal(network.state_dict()[name], tensor)}
    assert beside
    assert moved == before.keys() - beside


@pytest.mark.parametrize("opt", ["sgd", "adamw", "rmsprop", "lamb"])
def test_weights_stay_at_zero_and_the_others_learn(opt: str, tmp_path: Path) -> None:
    network = tiny_network()
    rng = np.random.default_rng(0)
    masks = {name: rng.random(network.get_parameter(name).shape) < 0.5 for name in ("0.weight", "3.weight", "9.weight")}
    hold_zeros(network, masks)
    before = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    recipe = tiny_recipe(opt=opt, ema=0.9, weight_decay=0.1, epochs=2.0)
    trainer = Trainer(network, tiny_data(), recipe, plan=Plan(tmp_path / "plan.jsonl"), clock=FakeClock())
    trainer.advance()
    for trained in (network, trainer.network):
        refuse_moved(trained, masks)
        for name, mask in masks.items():
            assert not trained.get_parameter(name)[~torch.from_numpy(mask)].any()
            assert not torch.equal(trained.get_parameter(name), before[name])
    with torch.no_grad():
        network.get_parameter("3.weight").add_(0.1)
    with pytest.raises(CheckError, match=r"weights of 3\.weight left the zero"):
        refuse_moved(network, masks)
