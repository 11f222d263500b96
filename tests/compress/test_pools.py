"""Pools of channels, what they cost, and the choice among them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds_of_networks import EVERY_KIND, small

from netsmith.arch.cost import cost
from netsmith.arch.names import find_layout
from netsmith.arch.select import select
from netsmith.compress.prune.choice import Losses, Spread, choose, path
from netsmith.compress.prune.importance import Importance
from netsmith.compress.prune.pools import Pools, find_pools
from netsmith.compress.prune.spending import Kept, Measure, Spending, spent
from netsmith.errors import InputError

MEASURES: tuple[Measure, ...] = ("macs", "params")
SPREADS: tuple[Spread, ...] = ("global", "per-layer")


def drawn(pools: Pools, seed: int, *, across: bool = False) -> Importance:
    rng = np.random.default_rng(seed)
    return Importance(rng.integers(0, 9, pools.ties.count) / 4 + rng.integers(0, 2) / 8, across=across)


def any_levels(pools: Pools, seed: int) -> Kept:
    rng = np.random.default_rng(seed)
    return np.array([rng.choice(pool.levels) for pool in pools.pools])


def test_pools_of_resnet20_by_hand():
    """Three pools on the zero-padded stream, one for each stage at which channels join it; one inside each block."""
    pools = find_pools(find_layout("resnet20_cifar")).pools
    stream = [pool for pool in pools if "fc" in {*pool.counts} or "avgpool" in {*pool.counts}]
    assert [len(pool.classes) for pool in stream] == [16, 16, 32]
    assert [pool.levels for pool in stream] == [(16, 8), (16, 8), (32, 24, 16, 8)]
    assert len(pools) == 3 + 9


@pytest.mark.parametrize(("round_to", "min_width", "levels"), [
    (8, 1, (20, 16, 8)), (1, 18, (20, 19, 18)), (8, 9, (20, 16)), (16, 1, (20, 16)), (32, 1, (20,)), (1, 30, (20,)),
])  # fmt: skip
def test_levels_round_and_end_where_asked(round_to: int, min_width: int, levels: tuple[int, ...]):
    layout = select(find_layout("resnet18"), {"layer1.0.conv1": range(20)}).layout
    pools = find_pools(layout, round_to=round_to, min_width=min_width).pools
    assert next(pool for pool in pools if pool.name == "layer1.0.conv1").levels == levels


def test_groups_stay_and_lose_equally_many():
    """ResNeXt-50's first block: 32 groups of 4, so a class is a channel of every group, 32 in all."""
    layout = find_layout("resnext50_32x4d")
    pools = find_pools(layout)
    inner = {pool.name: pool for pool in pools.pools if pool.name.startswith("layer1.0.conv")}
    assert inner["layer1.0.conv1"].levels == inner["layer1.0.conv2"].levels == (4, 3, 2, 1)
    losses = Losses(pools, drawn(pools, 0))
    kept = choose(losses, Spending.of(pools, "macs"), most=cost(layout).macs // 2, measure="macs")
    blocks = [
        block for stage in select(layout, pools.ties.keep(losses.drop(kept))).layout.stages for block in stage.blocks
    ]
    assert {block.groups for block in blocks} == {32}  # pyright: ignore
    assert all(block.width % 32 == 0 for block in blocks)  # pyright: ignore


@pytest.mark.parametrize("name", EVERY_KIND)
@settings(max_examples=3)
@given(seed=st.integers(0, 10**6), round_to=st.sampled_from([1, 4, 8]))
def test_spending_is_the_cost_of_the_pruned_layout(name: str, seed: int, round_to: int):
    pools = find_pools(small(name), round_to=round_to)
    kept, other = any_levels(pools, seed), any_levels(pools, seed + 1)
    losses = Losses(pools, drawn(pools, seed))
    pruned = select(pools.layout, pools.ties.keep(losses.drop(kept))).layout
    for measure in MEASURES:
        spending = Spending.of(pools, measure)
        assert spending.total(pools.most) == spent(pools.layout, measure)
        assert spending.total(kept) == spent(pruned, measure)
        for number, change in enumerate(spending.change(kept, other)):
            one = kept.copy()
            one[number] = other[number]
            assert round(change) == spending.total(one) - spending.total(kept)


@pytest.mark.parametrize("name", ["resnet14_cifar", "googlenet", "efficientnet_b0", "resnext50_32x4d", "vgg11"])
@pytest.mark.parametrize("spread", SPREADS)
@settings(max_examples=6)
@given(
    seed=st.integers(0, 10**6), share=st.floats(0.15, 1.0), round_to=st.sampled_from([1, 8]),
    measure=st.sampled_from(MEASURES), across=st.booleans(),
)  # fmt: skip
def test_the_choice(name: str, spread: Spread, seed: int, share: float, round_to: int, measure: Measure, across: bool):
    layout = small(name, width=0.5)
    pools, spending = (found := find_pools(layout, round_to=round_to)), Spending.of(found, measure)
    importance = drawn(pools, seed, across=across)
    most = int(share * spent(layout, measure))
    losses = Losses(pools, importance)
    if spending.total(pools.least) > most:
        with pytest.raises(InputError, match=f"the least is {spending.total(pools.least):,}"):
            choose(losses, spending, most=most, measure=measure, spread=spread)
        return
    kept = choose(losses, spending, most=most, measure=measure, spread=spread)
    assert spending.total(kept) <= most
    assert all(count in pool.levels for pool, count in zip(pools.pools, kept, strict=True))
    # Pure: made again from nothing it is the same, and only ratios of importances count.
    again = find_pools(layout, round_to=round_to)
    scaled = Importance(importance.scores * 64, across=across)
    same = choose(Losses(again, scaled), Spending.of(again, measure), most=most, measure=measure, spread=spread)
    assert same.tolist() == kept.tolist()
    # Of a pool the most important stay.
    drop = losses.drop(kept)
    assert len(drop) == int((pools.most - kept).sum())
    for pool in pools.pools:
        gone = [importance.scores[number] for number in pool.classes if number in drop]
        left = [importance.scores[number] for number in pool.classes if number not in drop]
        assert max(gone, default=0.0) <= min(left)
    if spread == "global":  # nothing that fits was left out
        for number, pool in enumerate(pools.pools):
            more = kept.copy()
            more[number] = pool.above(int(kept[number]))
            assert spending.total(more) > most or spending.total(more) == spending.total(kept)
    elif round_to == 1:  # an even share, rounded up
        shares = [(count - 1) / most for count, most in zip(kept, pools.most, strict=True) if count < most]
        assert max(shares, default=0.0) <= min(kept / pools.most)


def test_a_path_ends_at_the_least():
    pools = find_pools(small("inception_reduced"), round_to=2)
    spending = Spending.of(pools, "macs")
    for spread in SPREADS:
        totals = [spending.total(kept) for kept in path(Losses(pools, drawn(pools, 1)), spending, spread=spread)]
        assert totals[0] == cost(pools.layout).macs
        assert totals[-1] == spending.total(pools.least)
        assert totals == sorted(totals, reverse=True)


def test_losses_weigh_pools_only_where_they_compare():
    pools = find_pools(find_layout("resnet20_cifar"))
    scores = np.ones(pools.ties.count)
    scores[list(pools.pools[2].classes)] = 2.0**-10  # one pool that hardly matters
    spending = Spending.of(pools, "macs")

    def steps(scores: np.ndarray, *, across: bool) -> list[list[int]]:
        ways = path(Losses(pools, Importance(scores, across=across)), spending, spread="global")
        return [kept.tolist() for kept in ways]

    assert steps(scores, across=True)[1][2] < pools.most[2]
    even = steps(np.ones(pools.ties.count), across=False)
    assert steps(scores, across=False) == even
    assert even[1][2] == pools.most[2]


def test_what_matters_nothing_goes_first():
    pools = find_pools(small("resnet18", width=0.5), round_to=1)
    scores = 1 + np.random.default_rng(0).random(pools.ties.count)
    dead = [pool.classes[1] for pool in pools.pools]
    scores[dead] = 0.0
    importance = replace(drawn(pools, 0), scores=scores)
    steps = path(Losses(pools, importance), Spending.of(pools, "macs"), spread="global")
    after = [next(steps) for _ in range(len(dead) + 1)][-1]
    assert Losses(pools, importance).drop(after) == set(dead)


@pytest.mark.parametrize(
    ("given_", "says"), [({"round_to": 0}, "--round-to is 0"), ({"min_width": -1}, "--min-width is -1")]
)
def test_numbers_out_of_range(given_: dict[str, int], says: str):
    with pytest.raises(InputError, match=says):
        find_pools(small("resnet18"), **given_)
