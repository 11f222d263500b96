"""Importances: norms against single slots, effects against gradients of the weights."""

import copy

import numpy as np
import pytest
import torch
from kinds_of_networks import CLASSES, EVERY_KIND, SIDE, settled, small
from numpy.typing import NDArray

from netsmith.arch import graph as g
from netsmith.compress.prune.importance import Effects, Importance, layers_that_read, norm_scales, norms
from netsmith.compress.prune.masks import magnitude_masks, zeros
from netsmith.compress.prune.pools import Pools, find_pools
from netsmith.errors import InputError
from netsmith.models.build import Network
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.effects import channel_effects

Array = NDArray[np.float64]
PREPROCESS = Preprocess(size=SIDE)


def weights_of(network: Network) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


def by_slots(pools: Pools, weights: dict[str, NDArray[np.float32]], *, order: int) -> Array:
    """The same from the definition, slot by slot, with norms folded by hand."""
    folded = {name: value.astype(np.float64) for name, value in weights.items()}
    for op in pools.ties.graph.ops:
        readers = [other for other in pools.ties.graph.ops if op.name in g.sources(other)]
        if isinstance(op, g.Conv) and [type(each) for each in readers] == [g.Norm]:
            norm = readers[0]
            assert isinstance(norm, g.Norm)
            scale = weights[f"{norm.name}.weight"] / np.sqrt(weights[f"{norm.name}.running_var"] + norm.eps)
            name = f"{op.name}.weight"
            folded[name] = folded[name] * scale.reshape(-1, *(1,) * (folded[name].ndim - 1))
    layers = {f"{op.name}.weight" for op in pools.ties.graph.ops if isinstance(op, g.Conv | g.Linear)}
    found = np.full(pools.ties.count, np.nan)
    slots = pools.ties.slots()
    for pool in pools.pools:
        masses: dict[tuple[str, int], list[float]] = {}
        for number in pool.classes:
            mine: dict[tuple[str, int], float] = {}
            for slot in slots[number]:
                if slot.parameter not in layers:
                    continue
                weight = folded[slot.parameter]
                part = weight[slot.position] if slot.axis == 0 else weight[slot.first : slot.last, slot.position]
                key = (slot.parameter, slot.axis)
                mine[key] = mine.get(key, 0.0) + float((np.abs(part) ** order).sum())
            for key, value in mine.items():
                masses.setdefault(key, []).append(value ** (1 / order))
        rows = [np.array(values) / np.mean(values) for values in masses.values()]
        found[list(pool.classes)] = np.mean(rows, axis=0)
    return found


@pytest.mark.parametrize("name", ["resnet14_cifar", "resnext50_32x4d", "googlenet", "efficientnet_b0", "vgg11"])
@pytest.mark.parametrize("order", [1, 2])
def test_norms_are_those_of_the_slots(name: str, order: int):
    pools, weights = find_pools(small(name)), weights_of(settled(small(name)))
    scores = norms(pools, weights, order=1 if order == 1 else 2).scores
    movable = pools.pool_of >= 0
    assert np.allclose(scores[movable], by_slots(pools, weights, order=order)[movable], rtol=1e-6)


def test_norm_scales():
    network = settled(small("mobilenet_v3_small"))
    pools, weights = find_pools(network.layout, round_to=1), weights_of(network)
    importance = norm_scales(pools, weights)
    pool = next(pool for pool in pools.pools if pool.name.endswith("block.0.0"))  # an expansion, then depthwise
    first, second = (np.abs(weights[f"{pool.name[:-3]}{i}.1.weight"]) for i in (0, 1))
    expected = (first / first.mean() + second / second.mean()) / 2
    assert np.allclose(importance.scores[list(pool.classes)], expected)
    # Squeezed widths have no norm: nothing is known of them, and they stay.
    silent = importance.silent(pools)
    assert {pool.name.rpartition(".")[2] for pool, says in zip(pools.pools, silent, strict=True) if says} >= {"fc1"}
    assert not importance.silent(pools.restricted(silent)).any()
    with pytest.raises(InputError, match="has no batch norm"):
        norm_scales(find_pools(small("vgg11")), weights_of(settled(small("vgg11"))))


def some_pictures(count: int = 6) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8), rng.integers(0, CLASSES, count)


def effects_of(network: Network, pools: Pools, *, batch_size: int) -> tuple[Effects, Array]:
    """What is added up, and the sum over pictures of each class's derivative."""
    pixels, labels = some_pictures()
    effects, total = Effects.none(pools), np.zeros(pools.ties.count)
    sources = {op.name: op.source for op in pools.ties.graph.ops if isinstance(op, g.Conv | g.Linear)}
    recipe = Recipe(model="any", img_size=SIDE, epochs=1.0, smoothing=0.1)
    layers = layers_that_read(pools)
    for read in channel_effects(
        network, layers, pixels, labels, every=labels, preprocess=PREPROCESS, recipe=recipe, batch_size=batch_size
    ):
        effects = effects.seen(read)
        for name, derivative in read.items():
            np.add.at(total, list(pools.ties.channels[sources[name]]), derivative.sum(axis=0))
    return effects, total


@pytest.mark.parametrize("name", EVERY_KIND)
def test_effects_are_what_gradients_of_the_reading_weights_say(name: str):
    """A factor on a channel wherever it is read is one on all weights that read it: sum of weight times gradient."""
    # In float32 rounding, another one on every kind of processor, moves values across the kinks of a deep network.
    network = settled(small(name)).double()
    network.register_forward_pre_hook(lambda _, images: (images[0].double(),))
    pools = find_pools(network.layout)
    effects, total = effects_of(network, pools, batch_size=6)
    assert all(parameter.requires_grad for parameter in network.parameters())
    pixels, labels = some_pictures()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PREPROCESS.mean, PREPROCESS.std))
    exact = copy.deepcopy(network)
    logits = exact((images - mean) / std)
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), label_smoothing=0.1, reduction="sum").backward()
    products = {
        key: (parameter * parameter.grad).detach()
        for key, parameter in exact.named_parameters()
        if parameter.grad is not None
    }
    expected = np.zeros(pools.ties.count)
    for number, slots in enumerate(pools.ties.slots()):
        for slot in slots:
            if slot.axis == 1 and slot.parameter in products:
                expected[number] += float(products[slot.parameter][slot.first : slot.last, slot.position].sum())
    largest = np.abs(expected).max()
    assert largest > 0
    assert np.allclose(total, expected, atol=1e-4 * largest)
    # Absolute values and squares are those of single pictures, however they are divided into batches.
    again, _ = effects_of(network, pools, batch_size=4)
    assert again.pictures == effects.pictures == 6
    for kind in ("taylor", "hessian"):
        scores = effects.importance(kind)
        assert scores.across
        assert np.allclose(again.importance(kind).scores, scores.scores, rtol=1e-3, atol=1e-6 * scores.scores.max())
    assert (effects.absolute >= np.abs(total) * (1 - 1e-6)).all()
    assert (effects.squared * 6 >= effects.absolute**2 * (1 - 1e-6)).all()


def test_effects_tell_which_channel_matters():
    """The channel whose loss to the network is largest by trying is among the most important; dead ones are last."""
    network = settled(small("vgg11_bn", width=0.125))
    pools = find_pools(network.layout, round_to=1)
    pool = max(pools.pools, key=lambda pool: "classifier.0" in pool.counts)
    with torch.no_grad():
        network.get_parameter("classifier.0.weight")[2] = 0.0
        network.get_parameter("classifier.0.bias")[2] = -1.0  # rectified: always zero
    effects, _ = effects_of(network, pools, batch_size=6)
    for kind in ("taylor", "hessian"):
        scores = effects.importance(kind).scores[list(pool.classes)]
        assert scores[2] == 0.0
        assert (scores > 0).any()


@pytest.mark.parametrize("per_layer", [False, True])
def test_masks_leave_the_largest(per_layer: bool):
    network = settled(small("resnet14_cifar"))
    weights = weights_of(network)
    masks = magnitude_masks(network.layout, weights, sparsity=0.9, per_layer=per_layer)
    assert zeros(masks) == pytest.approx(0.9, abs=2e-3)
    assert all(mask.any() for mask in masks.values())
    kept = np.concatenate([np.abs(weights[name][mask]) for name, mask in masks.items()])
    gone = np.concatenate([np.abs(weights[name][~mask]) for name, mask in masks.items()])
    shares = [1 - mask.mean() for mask in masks.values()]
    if per_layer:
        assert np.ptp(shares) < 0.1
        assert all(np.abs(weights[n][~m]).max() <= np.abs(weights[n][m]).min() for n, m in masks.items())
    else:
        assert np.sort(kept)[len(masks) :].min() >= gone.max()  # but for one of each layer
        assert np.ptp(shares) > 0.1
    with pytest.raises(InputError, match="--unstructured is 1;"):
        magnitude_masks(network.layout, weights, sparsity=1.0)
    even = {name: np.ones_like(value) for name, value in weights.items()}
    assert zeros(magnitude_masks(network.layout, even, sparsity=0.5)) == pytest.approx(0.5, abs=1e-4)


def test_scores_are_never_negative():
    pools = find_pools(small("resnet18"))
    importance = norms(pools, weights_of(settled(small("resnet18"))), order=2)
    assert isinstance(importance, Importance)
    assert not importance.across
    assert (importance.scores[pools.pool_of >= 0] >= 0).all()
