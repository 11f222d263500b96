"""Draws equal a scalar SplitMix64 and depend on nothing but their arguments."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from netsmith.train.draws import bits, permutation, permutations, stream_key, uniforms

MASK = 2**64 - 1


def splitmix64(state: int) -> tuple[int, int]:
    """The published generator, one number at a time: (next state, output)."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return state, z ^ (z >> 31)


def test_bits_are_the_outputs_of_splitmix64() -> None:
    key = stream_key(7, "flip", 3)
    state, expected = key, []
    for _ in range(12):
        state, number = splitmix64(state)
        expected.append(number)
    assert bits(key, np.arange(4), 3).reshape(-1).tolist() == expected


def test_published_first_outputs_of_seed_zero() -> None:
    # The reference implementation's test vector for seed 0.
    assert bits(0, np.arange(2))[:, 0].tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_a_position_does_not_depend_on_the_others(seed: int, positions: list[int]) -> None:
    key = stream_key(seed, "crop", 0)
    together = uniforms(key, np.array(positions), 5)
    alone = np.concatenate([uniforms(key, np.array([position]), 5) for position in positions])
    assert (together == alone).all()
    assert ((together >= 0) & (together < 1)).all()


def test_streams_differ_by_every_part_of_their_name() -> None:
    keys = {stream_key(seed, name, index) for seed in (0, 1, 10) for name in ("crop", "pad") for index in (0, 1, 10)}
    assert len(keys) == 18


def test_uniforms_fill_the_interval_evenly() -> None:
    values = uniforms(stream_key(0, "test", 0), np.arange(50_000), 2)
    counts = np.histogram(values, bins=20, range=(0, 1))[0]
    assert abs(counts - 5000).max() < 5 * np.sqrt(5000)
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.02


def test_permutations_hold_everything_once_and_change_with_the_epoch() -> None:
    first, second = (permutation(stream_key(0, "order", epoch), 1000) for epoch in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(1000))
    assert (first == second).sum() < 10


def test_rows_of_permutations_do_not_depend_on_the_others() -> None:
    key = stream_key(2, "class order", 0)
    together = permutations(key, np.arange(30), 7)
    assert (np.sort(together, axis=1) == np.arange(7)).all()
    assert (permutations(key, np.array([4, 21]), 7) == together[[4, 21]]).all()
    assert (permutation(key, 7) == together[0]).all()
    assert len(np.unique(together, axis=0)) == 30
