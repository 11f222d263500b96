"""Eight-bit numbers: what a level stands for, and what rounding a layer costs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsmith.compress.quantize.numbers import LARGEST_BIAS, LEVELS, Affine, Floats, round_layer

number = st.floats(-1e4, 1e4, width=32)


def rounded(values: Floats, affine: Affine) -> Floats:
    """Values as their nearest levels stand for them, as QuantizeLinear and DequantizeLinear are defined."""
    levels = np.clip(np.rint(values / np.float32(affine.scale)) + affine.zero, 0, LEVELS)
    return ((levels - affine.zero) * np.float32(affine.scale)).astype(np.float32)


@given(number, number, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_levels_cover_their_range_and_hold_zero_exactly(first, second, places):
    low, high = min(first, second), max(first, second)
    affine = Affine.over(low, high)
    assert 0 <= affine.zero <= 255
    assert rounded(np.zeros(1, np.float32), affine)[0] == 0.0
    values = np.array([min(low, 0.0) + place * (max(high, 0.0) - min(low, 0.0)) for place in places], np.float32)
    # Half a step, and half a one more at the ends, since the zero point is a whole level.
    assert np.abs(rounded(values, affine) - values).max() <= affine.scale * (1 + 1e-3) + 1e-30


def test_a_dead_map_has_levels_too():
    assert rounded(np.zeros(3, np.float32), Affine.over(0.0, 0.0)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("per_channel", "bits"), [(True, 8), (True, 7), (False, 8)])
def test_weights_are_at_most_half_a_step_off_and_never_beyond_their_bits(per_channel, bits):
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(6, 4, 3, 3)) * np.logspace(-3, 0, 6).reshape(-1, 1, 1, 1)).astype(np.float32)
    layer = round_layer(weight, None, source=Affine(0.1, 3), per_channel=per_channel, bits=bits)
    assert layer.bias is None
    assert np.abs(layer.weight.astype(int)).max() == 2 ** (bits - 1) - 1
    assert np.abs(layer.floats - weight).max() <= layer.scales.max() / 2 * (1 + 1e-5)
    smallest = np.abs(layer.floats[0] - weight[0]).max() / np.abs(weight[0]).max()
    assert (smallest < 0.01) == per_channel, "one scale for all rounds small channels away"


def test_a_bias_that_no_int32_holds_widens_the_scale_of_its_channel():
    weight = np.array([[1.0], [1e-20]], np.float32)
    layer = round_layer(weight, np.array([3.0, 5.0], np.float32), source=Affine(0.01, 0), per_channel=True, bits=8)
    assert layer.bias is not None
    assert np.abs(layer.bias.astype(np.int64)).max() < LARGEST_BIAS
    np.testing.assert_allclose(layer.bias * (0.01 * layer.scales.astype(float)), [3.0, 5.0], rtol=1e-3)


def test_a_corrected_bias_keeps_the_expected_output():
    rng = np.random.default_rng(1)
    weight, mean = rng.normal(size=(8, 16)).astype(np.float32), rng.uniform(1, 3, (8, 16)).astype(np.float32)
    bias = rng.normal(size=8).astype(np.float32)
    wanted = (weight * mean).sum(1) + bias
    gaps: list[float] = []
    for given_mean in (None, mean):
        layer = round_layer(weight, bias, source=Affine(0.01, 0), per_channel=False, bits=7, mean=given_mean)
        assert layer.bias is not None
        found = (layer.floats * mean).sum(1) + layer.bias * 0.01 * layer.scales
        gaps.append(float(np.abs(found - wanted).max()))
    assert gaps[1] < gaps[0] / 20
