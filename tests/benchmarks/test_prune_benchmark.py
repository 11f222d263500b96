"""`benchmarks/prune.py`: widths that are read off pruned modules, what is printed."""

import prune
import pytest
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
    for inner in (False, True):
        pruned = prune.cut_by_torch_pruning(network, most=most, inner=inner)
        assert cost(pruned.layout).macs <= most
        assert all(block.width % 8 == 0 for stage in pruned.layout.stages for block in stage.blocks)  # pyright: ignore


def test_the_summary() -> None:
    rows = [{"subject": "a", "test_top1": value} for value in (0.5, 0.7)] + [{"subject": "b", "test_top1": 0.25}]
    assert prune.summary(rows).splitlines() == [
        "a: 60.00 % (n 2, 50.00 to 70.00, sd 14.14)",
        "b: 25.00 % (n 1, 25.00 to 25.00)",
    ]
