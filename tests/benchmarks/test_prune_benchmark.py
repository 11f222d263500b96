"""`benchmarks/prune.py`: widths that are read off pruned modules, what is printed."""

import prune
import pytest
import torch
from kinds_of_networks import settled
from torch import nn

from netsmith.arch.cost import cost
from netsmith.arch.names import find_layout


def test_widths_are_read_off_modules() -> None:
    network = settled(find_layout("resnet20_cifar", num_classes=10))
    assert cost(prune.layout_as_wide_as(network, network.layout)) == cost(network.layout)
    # Eight of the stream's channels go, and four inside one block.
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and (name == "conv1" or name.endswith("conv2")):
            module.weight = nn.Parameter(module.weight[8:])
        if name == "layer2.1.conv1":
            assert isinstance(module, nn.Conv2d)
            module.weight = nn.Parameter(module.weight[4:])
    found = prune.layout_as_wide_as(network, network.layout)
    assert [stage.blocks[-1].out for stage in found.stages] == [8, 24, 56]  # pyright: ignore
    assert [block.width for block in found.stages[1].blocks] == [32, 28, 32]  # pyright: ignore


def test_torch_pruning_cuts_to_the_target() -> None:
    pytest.importorskip("torch_pruning", reason="torch-pruning is not installed")
    network = settled(find_layout("resnet8_cifar", num_classes=10))
    most = int(0.7 * cost(network.layout).macs)
    images = torch.randn(4, 3, *network.layout.resolution, generator=torch.Generator().manual_seed(0))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    kept: list[list[float]] = []
    for importance, inner in (("l2", False), ("l2", True), ("taylor", False), ("hessian", False)):
        pruned = prune.cut_by_torch_pruning(
            network, most=most, images=images, labels=torch.arange(4), importance=importance, inner=inner
        )
        assert cost(pruned.layout).macs <= most
        assert all(block.width % 8 == 0 for stage in pruned.layout.stages for block in stage.blocks)  # pyright: ignore
        kept.append([tensor.abs().sum().item() for tensor in pruned.parameters()])
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert len({tuple(each) for each in kept[1:]}) == 3  # each keeps other channels


def test_torch_pruning_is_given_gradients_of_single_pictures() -> None:
    layer = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(layer.weight)  # so the gradient of a picture is (1/2 - one-hot label) times the picture
    images, labels = torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 1])
    prune.give_gradients(layer, images, labels, squared=False)
    assert torch.allclose(layer.weight.grad, torch.tensor([[-0.5, 1.0], [0.5, -1.0]]))
    prune.give_gradients(layer, images, labels, squared=True)
    assert torch.allclose(layer.weight.grad, torch.tensor([[0.5, 2.0], [0.5, 2.0]]))


def test_the_peer_is_the_one_that_is_best_on_validation() -> None:
    def row(subject: str, val: float, test: float) -> dict[str, object]:
        made = {"date": "2026-11-01", "commit": subject}
        return {"subject": subject, "val_top1": val, "test_top1": test, **made}

    ours = [row("netsmith", 0.9, 0.92), row("netsmith", 0.9, 0.94)]
    weaker = [row("torch-pruning", 0.90, 0.99), row("torch-pruning", 0.90, 0.99)]
    better = [row("torch-pruning-hessian", 0.91, 0.91), row("torch-pruning-hessian", 0.91, 0.91)]
    found = prune.against_peer([*weaker, *ours, *better])
    assert found is not None
    assert found["subject"] == "netsmith against torch-pruning-hessian"
    assert found["commit"] == "netsmith torch-pruning-hessian"
    assert found["note"].startswith("93.00 against 91.00 %, +2.00 points, standard error 1.00, seeds 2 and 2; best on")
    assert prune.against_peer(ours) is None


def test_the_peer_has_the_importance_that_netsmith_has() -> None:
    assert prune.PEERS[prune.USUAL[-1]] == "hessian"
    assert {*prune.USUAL} <= {*prune.CELLS}
    assert prune.DERIVED.keys() == {*prune.PEERS.values()}


def test_the_summary() -> None:
    rows = [{"subject": "a", "test_top1": value} for value in (0.5, 0.7)] + [{"subject": "b", "test_top1": 0.25}]
    assert prune.summary(rows).splitlines() == [
        "a: 60.00 % (n 2, 50.00 to 70.00, sd 14.14)",
        "b: 25.00 % (n 1, 25.00 to 25.00)",
    ]
