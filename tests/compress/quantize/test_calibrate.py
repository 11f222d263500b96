"""Ranges of activations: what was seen, and what of it is worth a level."""

import numpy as np
import pytest

from netsmith.arch.names import find_layout
from netsmith.artifact.insides import Insides
from netsmith.compress.quantize.calibrate import BINS, entropy_range, observe, percentile_range
from netsmith.compress.quantize.graph import Graph
from netsmith.compress.quantize.numbers import Affine
from netsmith.errors import InputError
from netsmith.export.probe import probe_onnx
from netsmith.run.preprocess import Preprocess


def test_what_is_observed_is_what_the_tensors_held():
    size = 32
    graph = Graph(
        probe_onnx(find_layout("resnet20_cifar@0.5", num_classes=4, img_size=size), preprocess=Preprocess(size=size))
    )
    pixels = np.random.default_rng(0).integers(0, 256, (40, size, size, 3), dtype=np.uint8)  # more than one batch
    told: list[float] = []
    observed = observe(graph, pixels, counted=True, progress=lambda _, done, total, *rest, **more: told.append(done))
    whole = Insides(graph.model, graph.tensors()).run(pixels)
    assert observed.extremes.keys() == whole.keys()
    for name, tensor in whole.items():
        np.testing.assert_allclose(observed.extremes[name], (tensor.min(), tensor.max()), rtol=1e-4)
        assert observed.counts[name].sum() == tensor.size
    layer = next(node for node in graph.nodes if node.name == graph.layers()[4])
    np.testing.assert_allclose(
        observed.means[layer.input[0]], whole[layer.input[0]].mean(axis=(0, 2, 3)), rtol=1e-3, atol=1e-5
    )
    assert told == sorted(told)
    assert told[-1] == 80
    for method in ("minmax", "percentile", "entropy"):
        for name, (low, high) in observed.ranges(method).items():
            assert observed.extremes[name][0] - 1e-6 <= max(low, observed.extremes[name][0])
            assert high <= observed.extremes[name][1] + 1e-6
    overflowing = graph.with_constants({layer.input[1]: np.full_like(graph.constants[layer.input[1]], 3e38)})
    with pytest.raises(InputError, match="is not a finite number for a calibration picture"):
        observe(Graph(overflowing), pixels, counted=False)


@pytest.mark.parametrize("choose", [percentile_range, entropy_range])
def test_a_few_extremes_do_not_cost_all_others_their_precision(choose):
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(size=200_000)).astype(np.float32)
    values[:4] = 100.0
    counts = np.histogram(values, bins=BINS, range=(0.0, 100.0))[0]
    low, high = choose(counts, 0.0, 100.0)
    assert low <= 0.1
    assert 3.0 < high < 12.0
    kept = values[4:]

    def error(top: float) -> float:
        step = Affine.over(0.0, top).scale
        return float(np.square(np.rint(kept.clip(0.0, top) / step) * step - kept).mean())

    assert error(high) < error(100.0) / 20


@pytest.mark.parametrize("choose", [percentile_range, entropy_range])
def test_numbers_without_extremes_keep_their_range(choose):
    values = np.random.default_rng(0).uniform(-1.0, 2.0, 100_000).astype(np.float32)
    low, high = choose(np.histogram(values, bins=BINS, range=(-1.0, 2.0))[0], -1.0, 2.0)
    assert low == pytest.approx(-1.0, abs=0.05)
    assert high == pytest.approx(2.0, abs=0.05)
    assert choose(np.array([7, *[0] * (BINS - 1)]), 0.0, 0.0) == (0.0, 0.0)


def test_zeros_of_a_relu_do_not_narrow_the_range():
    """A level holds them exactly, however many there are."""
    values = np.random.default_rng(0).normal(size=50_000).clip(0).astype(np.float32)
    padded = np.concatenate([values, np.zeros(200_000, np.float32)])
    top = float(values.max())
    for each in (values, padded):
        low, high = entropy_range(np.histogram(each, bins=BINS, range=(0.0, top))[0], 0.0, top)
        assert low == 0.0
        assert high > 0.7 * top
