"""Weight decay and rates by what a parameter is and how deep it lies."""

import pytest
import torch
from tiny_training import tiny_network, tiny_recipe
from torch import nn

from netsmith.arch.names import find_layout
from netsmith.errors import InputError
from netsmith.models.build import build
from netsmith.train.feed import Batch
from netsmith.train.objectives import Outcome
from netsmith.train.optimizers import build_optimizer
from netsmith.train.precision import Precision
from netsmith.train.step import update


def groups_by_name(network: nn.Module, optimizer: torch.optim.Optimizer, key: str) -> dict[str, float]:
    names = {parameter: name for name, parameter in network.named_parameters()}
    found = {names[p]: group[key] for group in optimizer.param_groups for p in group["params"]}
    assert found.keys() == set(names.values())
    return found


@pytest.mark.parametrize("opt", ["sgd", "lamb"])
def test_decay_acts_on_what_the_recipe_says(opt: str) -> None:
    network = build(find_layout("mobilenet_v3_small@0.5", num_classes=3, img_size=32))  # norms, and layers with biases
    norms = {name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for what in ("weights", "weights+biases", "all"):
        recipe = tiny_recipe(opt=opt, weight_decay=0.1, weight_decay_on=what)
        decay = groups_by_name(network, build_optimizer(network, recipe), "weight_decay")
        for name, parameter in network.named_parameters():
            bias = name.rpartition(".")[0] not in norms and parameter.ndim == 1
            wanted = parameter.ndim > 1 or what == "all" or (what == "weights+biases" and bias)
            assert decay[name] == (0.1 if wanted else 0.0), (name, what)


@pytest.mark.parametrize("opt", ["sgd", "adamw", "rmsprop", "muon", "lamb"])
def test_rates_fall_stage_by_stage_from_the_classifier_to_the_stem(opt: str) -> None:
    network = build(find_layout("resnet18", num_classes=3, img_size=32))
    optimizer = build_optimizer(network, tiny_recipe(opt=opt, layer_decay=0.5))
    factors = groups_by_name(network, optimizer, "rate_factor")
    depths = {"fc": 0, "layer4": 1, "layer3": 2, "layer2": 3, "layer1": 4, "conv1": 5, "bn1": 5}
    assert factors == {name: 0.5 ** depths[name.partition(".")[0]] for name in factors}


def test_all_classifiers_have_the_whole_rate() -> None:
    network = build(find_layout("googlenet", num_classes=3, img_size=64))
    factors = groups_by_name(network, build_optimizer(network, tiny_recipe(layer_decay=0.5)), "rate_factor")
    assert {name.partition(".")[0] for name, factor in factors.items() if factor == 1.0} == {"fc", "aux1", "aux2"}
    with pytest.raises(InputError, match="layer_decay"):
        build_optimizer(tiny_network(), tiny_recipe(layer_decay=0.5))


def test_an_update_moves_each_group_at_its_rate() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))

        def forward(self, images: torch.Tensor, targets: torch.Tensor) -> Outcome:
            return Outcome((self.a + self.b).sum(), images)

    objective = Sum()
    groups = [{"params": [objective.a]}, {"params": [objective.b], "rate_factor": 0.25}]
    batch = Batch(torch.zeros(2), torch.zeros(2))
    update(objective, torch.optim.SGD(groups, lr=9.0), batch, rate=0.5, precision=Precision("float32", False))
    assert objective.a.tolist() == [-0.5, -0.5]
    assert objective.b.tolist() == [-0.125, -0.125]
