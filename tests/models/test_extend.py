"""A trained network that grows, is cut, saved and shipped: the logits stay where they must."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from netsmith.arch import graph as g
from netsmith.arch.cost import cost
from netsmith.arch.deepen import deeper_counts, growth_obstacle
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.lower import lower
from netsmith.arch.names import MODELS
from netsmith.arch.scale import compound, for_size, scale
from netsmith.arch.select import select
from netsmith.arch.spec import with_classes
from netsmith.arch.ties import Ties, ties
from netsmith.arch.widen import widen
from netsmith.artifact.bundle import load_bundle
from netsmith.artifact.runtimes import open_session
from netsmith.errors import InputError
from netsmith.export.network import export_network, normalised
from netsmith.models.build import Network, build, load_model, load_weights
from netsmith.models.extend import TOLERANCE, Growth, extend, logit_difference
from netsmith.models.inherit import take
from netsmith.run.preprocess import Preprocess

SIZE = 16


def tiny(name: str, *, width: float, depth: float = 0.4, phi: float = 0.0) -> Layout:
    spec = compound(scale(MODELS[name], width=width, depth=depth), phi)
    return lower(with_classes(for_size(spec, SIZE), 5))


def trained(layout: Layout, *, seed: int = 0) -> Network:
    """A network whose norms are not as initialised."""
    network = build(layout, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor, low, high in (
                (module.weight, 0.5, 1.5), (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 1.5),
            ):  # fmt: skip
                tensor.data.uniform_(low, high, generator=generator)
    return network.eval()


def pictures(count: int = 3, *, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


LAYOUTS = {
    "basic": tiny("resnet18", width=0.125),
    "zero padded": tiny("resnet8_cifar", width=0.5, depth=1.0),
    "bottleneck": tiny("resnet50", width=0.125),
    "grouped": tiny("resnext50_32x4d", width=0.5, depth=0.3),
    "inverted residual": tiny("mobilenet_v2", width=0.1),
    "squeezed": tiny("efficientnet_b0", width=0.1),
    "mobilenet_v3": tiny("mobilenet_v3_small", width=0.15),
    "pre-activation": tiny("resnetv2_50", width=0.125, depth=0.2),
    "separable": tiny("mobilenet_v1", width=0.1),
    "fire": tiny("squeezenet1_1", width=0.15),
}


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=3)
@given(width=st.floats(1.3, 3.0), depth=st.floats(1.1, 2.1), more=st.integers(1, 9), seed=st.integers(0, 99))
def test_growing_keeps_the_logits(name: str, width: float, depth: float, more: int, seed: int) -> None:
    network = trained(LAYOUTS[name], seed=seed)
    before = {entry: tensor.clone() for entry, tensor in network.state_dict().items()}
    counts = None if name == "fire" else deeper_counts(network.layout, depth)
    grown = extend(network, Growth(width=width, counts=counts, classes=5 + more, seed=seed))
    assert logit_difference(network, grown, pictures(seed=seed)) < TOLERANCE / 50
    assert counts in (None, [len(stage.blocks) for stage in grown.layout.stages])
    assert cost(grown.layout).params > cost(network.layout).params
    assert all(torch.equal(tensor, before[entry]) for entry, tensor in network.state_dict().items())
    with torch.inference_mode():
        logits = grown(pictures(seed=seed))
    if name == "fire":  # its logits are rectified before they are averaged over the map
        assert (logits[:, 5:] <= logits[:, :5].max(dim=1, keepdim=True).values).all()
    else:
        assert torch.allclose(logits[:, 5:], logits[:, :5].mean(dim=1, keepdim=True).expand(-1, more), atol=1e-5)


def test_the_difference_can_be_seen() -> None:
    network = trained(LAYOUTS["basic"])
    grown = extend(network, Growth(width=1.5))
    with torch.no_grad():
        next(grown.parameters()).mul_(1.001)
    assert logit_difference(network, grown, pictures()) > TOLERANCE


def test_copies_part_in_training() -> None:
    """Also under Adam, which does not see the size of a gradient: no two copies get the same step."""
    network = trained(LAYOUTS["zero padded"])
    grown = extend(network, Growth(width=2.0)).train()
    rows = widen(network.layout, 2.0).slices["layer1.0.conv1.weight"].rows
    copied = [[i for i, row in enumerate(rows) if row == old] for old, count in Counter(rows).items() if count > 1]
    assert copied
    weight = grown.get_parameter("layer1.0.conv1.weight")
    # What reads them is divided unevenly, by another ratio in every row.
    reading = grown.get_parameter("layer1.0.conv2.weight").detach()
    ratio = reading[:, copied[0][0]] / reading[:, copied[0][1]]
    assert ratio.std() > 0.1
    optimizer = torch.optim.Adam(grown.parameters(), lr=1e-2)
    for step in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(grown(pictures(8, seed=step)), torch.arange(8) % 5).backward()
        optimizer.step()
    for one, other in (group[:2] for group in copied):
        apart = (weight[one] - weight[other]).norm() / weight[one].norm()
        assert apart > 1e-3


def test_a_new_block_learns() -> None:
    network = trained(LAYOUTS["squeezed"])
    counts = deeper_counts(network.layout, 2.0)
    grown = extend(network, Growth(counts=counts)).train()
    old = {entry for entry, _ in g.parameters(layout_graph(network.layout))}
    new = [(entry, tensor) for entry, tensor in grown.named_parameters() if entry not in old]
    assert new
    for step in range(2):
        grown.zero_grad()
        nn.functional.cross_entropy(grown(pictures(8, seed=step)), torch.arange(8) % 5).backward()
        with torch.no_grad():
            for parameter in grown.parameters():
                parameter.sub_(parameter.grad, alpha=0.1)
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for _, tensor in new)


def test_a_plain_block_stays_the_identity_in_training() -> None:
    """Its norms foretell the statistics of what passes, so those of a batch change little."""
    layout = LAYOUTS["zero padded"]
    stages = tuple(
        replace(stage, blocks=tuple(replace(block, shortcut=None) for block in stage.blocks)) for stage in layout.stages
    )
    network = build(replace(layout, stages=stages), seed=3).train()
    for momentum in (None, 0.5):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
        network(pictures(64))
    network.eval()
    grown = extend(network, Growth(counts=[2, 2, 2]))
    assert logit_difference(network, grown, pictures()) < TOLERANCE / 50
    scale_of = {entry: tensor for entry, tensor in grown.state_dict().items() if entry.startswith("layer2.1.bn1")}
    seen: list[Tensor] = []
    grown.get_submodule("layer2.1.bn1").register_forward_hook(lambda *of: seen.append(of[1][0]))
    with torch.inference_mode():
        grown(pictures(64, seed=5))
    mean, var = seen[0].mean(dim=(0, 2, 3)), seen[0].var(dim=(0, 2, 3))
    assert torch.allclose(scale_of["layer2.1.bn1.running_mean"], mean, atol=0.15)
    assert torch.allclose(scale_of["layer2.1.bn1.running_var"], var, atol=0.3)


def test_what_cannot_grow_so() -> None:
    network = trained(LAYOUTS["basic"])
    for growth, says in (
        (Growth(classes=5), "has 5 classes already"),
        (Growth(classes=2), "has 5 classes already"),
        (Growth(width=1.0), "give a number above 1"),
        (Growth(counts=[1]), "give a count for every stage"),
    ):
        with pytest.raises(InputError, match=says):
            extend(network, growth)


# The whole way


def least_important(found: Ties, network: Network, share: float) -> set[int]:
    """Classes of the smallest L1 norm, but never a whole layer."""
    state = network.state_dict()
    score = [
        sum(
            float(state[slot.parameter][slot.position].abs().sum())
            for slot in slots
            if slot.axis == 0 and state[slot.parameter].dim() > 1
        )
        for slots in found.slots()
    ]
    order = sorted(set(range(found.count)) - found.frozen, key=score.__getitem__)
    drop = set(order[: int(share * len(order))])
    for classes in found.channels.values():
        if drop.issuperset(classes):
            drop.discard(classes[0])
    return drop


def silenced(network: Network, found: Ties, drop: set[int]) -> Network:
    """The network with what makes the dropped channels at zero."""
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    slots = found.slots()
    for slot in (slot for number in drop for slot in slots[number] if slot.axis == 0):
        state[slot.parameter][slot.position] = 0
    return load_weights(network.layout, state, where="silenced")


def deeper(layout: Layout, factor: float) -> list[int] | None:
    """Blocks of every stage of a network with more of them; None where its blocks cannot be the identity."""
    reasons = [growth_obstacle(layout, i) for i in range(len(layout.stages))]
    if None in reasons:
        return deeper_counts(layout, factor)
    assert all("joins branches, and no shortcut goes around them" in str(reason) for reason in reasons)
    return None


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *(("resnet18", 0.125), ("mobilenet_v2", 0.1), ("efficientnet_b0", 0.1), ("mobilenet_v1", 0.1)),
        *(("googlenet", 0.1), ("inception_reduced", 0.1), ("squeezenet1_1", 0.15)),
        *(("inception_resnet_v2", 0.1), ("vgg11", 0.1)),
    ],
)
def test_base_twin_extended_pruned_shipped(name: str, width: float, tmp_path: Path) -> None:
    """With sums, gates and concatenations, classifiers for training beside, and a flattened map."""
    base, twin = tiny(name, width=width), tiny(name, width=width, phi=1.5)
    assert cost(base).macs < cost(twin).macs
    network = trained(twin, seed=1)
    grown = extend(network, Growth(width=1.5, counts=deeper(twin, 1.4), classes=7))
    assert logit_difference(network, grown, pictures()) < TOLERANCE
    found = ties(layout_graph(grown.layout))
    drop = least_important(found, grown, 0.3)
    kept = select(grown.layout, found.keep(drop))
    quiet = silenced(grown, found, drop)
    weights = take(quiet.state_dict(), kept.slices, build(kept.layout).state_dict())
    pruned = load_weights(kept.layout, weights, where="pruned")
    assert cost(pruned.layout).params < cost(grown.layout).params
    assert logit_difference(quiet, pruned, pictures()) < TOLERANCE
    preprocess = Preprocess(size=SIZE)
    export_network(pruned, tmp_path / "model", labels=list("abcdefg"), preprocess=preprocess)
    bundle = load_bundle(tmp_path / "model", check_hashes=True)
    loaded = load_model(tmp_path / "model")
    assert loaded.layout == pruned.layout
    assert all(torch.equal(tensor, loaded.state_dict()[entry]) for entry, tensor in pruned.state_dict().items())
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = loaded(normalised(pixels, preprocess)).numpy()
    found_logits = open_session(bundle).run(pixels).logits
    assert np.abs(found_logits - expected).max() < 1e-4 * np.abs(expected).max()
