"""Candidates: what suits the pictures, what arithmetic rules out, and that the size estimate can be trusted."""

import pytest

from netsmith.arch.layout import layout_graph
from netsmith.export.probe import probe_onnx
from netsmith.fit.stopwatch import config_bytes
from netsmith.run.budget import Budget
from netsmith.run.preprocess import Preprocess
from netsmith.search.candidates import (
    BASES,
    Pictures,
    all_candidates,
    enumerate_candidates,
    sides_for,
    within,
)

PHOTOS = Pictures(side=224, train=1700, classes=10)
ICONS = Pictures(side=32, train=5000, classes=10)


@pytest.mark.parametrize(
    ("side", "smallest", "largest"),
    [
        (8, 16, 16),
        (16, 16, 16),
        (28, 24, 28),
        (32, 24, 32),
        (64, 48, 64),
        (100, 96, 96),
        (224, 64, 224),
        (3000, 64, 320),
    ],
)
def test_sides_suit_the_pictures(side, smallest, largest):
    sides = sides_for(Pictures(side=side, train=100, classes=2))
    assert sides == sorted(set(sides))
    assert (sides[0], sides[-1]) == (smallest, largest)


def test_small_pictures_own_side_is_offered_also_where_no_table_has_it():
    assert 37 in sides_for(Pictures(side=37, train=100, classes=2))


def test_every_family_is_scaled_up_and_down_at_every_side():
    icons = all_candidates(ICONS)
    assert {candidate.base for candidate in icons} == set(BASES)
    for base in BASES:
        own = [candidate for candidate in icons if candidate.base == base]
        assert {candidate.layout.input.size[0] for candidate in own} == set(sides_for(ICONS))
        assert max(c.cost.params for c in own) > 10 * min(c.cost.params for c in own)
    assert not any(candidate.base.endswith("_cifar") for candidate in all_candidates(PHOTOS))


def test_ids_are_distinct_and_fit_for_folders():
    ids = [candidate.id for candidate in all_candidates(PHOTOS)]
    assert len(set(ids)) == len(ids)
    assert all(set(id_) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.-") for id_ in ids)


def test_the_budget_is_obeyed_and_equal_networks_stand_once():
    budget = Budget.parse("size=1MB,macs=20M,params=200k")
    found = enumerate_candidates(ICONS, budget=budget)
    assert found
    for candidate in found:
        assert candidate.cost.macs <= 20e6
        assert candidate.cost.params <= 200e3
        assert candidate.size_bytes <= 1.1e6
        assert candidate.layout.num_classes == 10
    networks = {(candidate.layout.input.size, layout_graph(candidate.layout).ops) for candidate in found}
    assert len(networks) == len(found)
    costs = [candidate.cost.macs for candidate in found]
    assert costs == sorted(costs)
    assert not enumerate_candidates(ICONS, budget=Budget.parse("params=10"))


def test_the_estimated_size_is_near_the_exported_one():
    """The estimate only decides who reaches the stopwatch; `within` allows it a tenth."""
    chosen = [c for i, c in enumerate(all_candidates(ICONS)) if i % 31 == 0 and c.cost.params < 3e6]
    assert len(chosen) >= 3
    for candidate in chosen:
        model = probe_onnx(candidate.layout, preprocess=Preprocess(size=candidate.layout.input.size[0]))
        exact = len(model) + config_bytes(candidate.layout)
        assert abs(candidate.size_bytes - exact) <= 0.1 * exact + 6000, candidate.id


def test_within_lets_the_estimate_be_a_tenth_over():
    candidate = all_candidates(ICONS)[0]
    assert within(candidate, Budget(size_bytes=round(candidate.size_bytes / 1.05)))
    assert not within(candidate, Budget(size_bytes=round(candidate.size_bytes / 1.2)))
