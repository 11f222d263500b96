"""The speed of training is measured on copies: the network stays as it was, and a larger one takes longer."""

import torch

from netsmith.arch.names import find_layout
from netsmith.models.build import build
from netsmith.run.clock import SystemClock
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.speed import seconds_per_update


def test_a_larger_network_takes_longer_and_none_is_changed():
    recipe = Recipe(model="x", img_size=32, train_size=32, epochs=1.0, batch_size=16, threads=1)
    found = []
    for width in (0.25, 2.0):
        network = build(find_layout(f"resnet20_cifar@width={width}"))
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        seconds = seconds_per_update(network, recipe, Preprocess(size=32), classes=10, seconds=0.2, clock=SystemClock())
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
        found.append(seconds)
    assert 0 < found[0] < found[1]
