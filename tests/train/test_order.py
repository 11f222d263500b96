"""The order of pictures: exact shares of classes, every picture in its turn, nothing remembered between epochs."""

import numpy as np
import pytest

from netsmith.train.order import balanced_order, plain_order


def labels(*counts: int) -> np.ndarray:
    """Classes of these sizes, mixed."""
    made = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(0).permutation(made).astype(np.int64)


def stream(made: np.ndarray, epochs: int, *, seed: int = 0) -> np.ndarray:
    return np.concatenate([balanced_order(made, seed=seed, epoch=epoch) for epoch in range(epochs)])


@pytest.mark.parametrize("counts", [(90, 9, 1), (5, 5), (1, 1, 1, 1), (7, 100), (200, 3, 40, 11, 1)])
def test_every_class_comes_once_in_every_round(counts: tuple[int, ...]) -> None:
    made = labels(*counts)
    classes = len(counts)
    shown = stream(made, 3 * classes)
    assert len(shown) == 3 * classes * len(made)
    rounds = made[shown].reshape(-1, classes)
    assert (np.sort(rounds, axis=1) == np.arange(classes)).all()
    if classes > 2:
        assert len(np.unique(rounds[:40], axis=0)) > 3, "the order within a round is fresh"


@pytest.mark.parametrize("counts", [(90, 9, 1), (7, 100), (200, 3, 40, 11, 1)])
def test_every_picture_of_a_class_comes_before_one_comes_twice(counts: tuple[int, ...]) -> None:
    made = labels(*counts)
    shown = stream(made, 40)
    for label, size in enumerate(counts):
        members = shown[made[shown] == label]
        passes = members[: len(members) // size * size].reshape(-1, size)
        assert (np.sort(passes, axis=1) == np.flatnonzero(made == label)).all()
        if size > 5 and len(passes) > 1:
            assert (passes[0] != passes[1]).any()


def test_an_epoch_keeps_its_length_and_is_a_function_of_its_number() -> None:
    made = labels(50, 7, 2)
    for epoch in (0, 1, 17, 10**6):
        order = balanced_order(made, seed=3, epoch=epoch)
        assert len(order) == len(made)
        assert (order == balanced_order(made, seed=3, epoch=epoch)).all()
    assert (balanced_order(made, seed=3, epoch=1) != balanced_order(made, seed=4, epoch=1)).any()


def test_names_of_classes_without_pictures_do_not_matter() -> None:
    made = labels(20, 6)
    order = balanced_order(5 * made, seed=0, epoch=2)
    assert (order == balanced_order(made, seed=0, epoch=2)).all()


def test_the_plain_order_is_a_permutation() -> None:
    assert sorted(plain_order(30, seed=0, epoch=1).tolist()) == list(range(30))
