"""RandAugment and TrivialAugment against torchvision: tables, draws, and what operations do to the same pictures."""

import numpy as np
import pytest
import torch
from reference_transforms import as_pillow, as_tensor, photos, torchvision_transforms
from tiny_training import tiny_recipe

from netsmith.train.augment.policies import BINS, OPERATIONS, SIGNED, Drawn, Policy, apply_policy

BORDER = (124, 116, 104)
GEOMETRIC = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}


def policy(name: str, size: int, **recipe: object) -> Policy:
    found = Policy.of(tiny_recipe(auto_augment=name, **recipe), size=size)
    assert found is not None
    return found


@pytest.mark.reference
@pytest.mark.parametrize("size", [32, 160, 224])
@pytest.mark.parametrize("name", ["randaugment", "trivialaugment"])
def test_tables_are_torchvisions(name: str, size: int) -> None:
    transforms = torchvision_transforms()
    if name == "randaugment":
        space = transforms.RandAugment()._augmentation_space(BINS, (size, size))
    else:
        space = transforms.TrivialAugmentWide()._augmentation_space(BINS)
    assert tuple(space) == OPERATIONS
    assert {key for key, (_, signed) in space.items() if signed} == SIGNED
    for row, (magnitudes, _) in zip(policy(name, size).strengths, space.values(), strict=True):
        assert row.tolist() == magnitudes.double().expand(BINS).tolist()


def test_draws_are_even_and_signed() -> None:
    uniform = np.random.default_rng(0)
    drawn = policy("randaugment", 32, ra_ops=3, ra_magnitude=12).draw(uniform.random((14000, 9)))
    assert drawn.operation.shape == drawn.strength.shape == (14000, 3)
    counts = np.bincount(drawn.operation.reshape(-1), minlength=14)
    assert np.abs(counts - 3000).max() < 250
    table = policy("randaugment", 32).strengths[:, 12]
    for number, name in enumerate(OPERATIONS):
        strengths = drawn.strength[drawn.operation == number]
        assert set(np.unique(strengths)) == ({-table[number], table[number]} if name in SIGNED else {table[number]})
        if name in SIGNED:
            assert abs((strengths > 0).mean() - 0.5) < 0.05
    trivial = policy("trivialaugment", 32).draw(uniform.random((14000, 3)))
    rotations = trivial.strength[trivial.operation == OPERATIONS.index("Rotate")]
    assert trivial.operation.shape == (14000, 1)
    assert len(np.unique(np.abs(rotations))) == BINS
    assert np.abs(rotations).max() == 135.0
    assert abs(np.abs(rotations).mean() - 67.5) < 5


def test_strengths_vary_normally_and_some_operations_are_left_out() -> None:
    draws, varied = (np.random.default_rng(seed).random((20000, 6)) for seed in (0, 1))
    noisy = policy("randaugment", 32, ra_magnitude=18, ra_std=1.5, ra_prob=0.5)
    plain = policy("randaugment", 32, ra_magnitude=18)
    assert (noisy.varies, plain.varies) == (True, False)
    found, before = noisy.draw(draws, varied), plain.draw(draws)
    same = found.operation == before.operation
    assert set(found.operation[~same].tolist()) == {OPERATIONS.index("Identity")}
    assert abs(same.mean() - (0.5 + 0.5 / 14)) < 0.01  # the identity can be drawn too
    rotate = found.operation == OPERATIONS.index("Rotate")
    bins = np.abs(found.strength[rotate])  # a degree each
    assert np.allclose(bins, np.rint(bins), atol=1e-5)
    assert abs(bins.mean() - 18) < 0.1
    assert abs(bins.std() - np.hypot(1.5, 1 / np.sqrt(12))) < 0.1
    assert (np.sign(found.strength[rotate]) == np.sign(before.strength[rotate])).all()
    ends = policy("randaugment", 32, ra_magnitude=30, ra_std=5.0).draw(draws, varied)
    assert np.abs(ends.strength[ends.operation == OPERATIONS.index("Rotate")]).max() == 30.0


@pytest.mark.reference
@pytest.mark.parametrize("name", ["randaugment", "trivialaugment"])
def test_colours_come_out_as_torchvisions_one_picture_at_a_time(name: str) -> None:
    apply_op = torchvision_transforms().autoaugment._apply_op
    chosen = policy(name, 24, ra_ops=1)
    colours = [number for number, operation in enumerate(OPERATIONS) if operation not in GEOMETRIC]
    operation = np.repeat(colours, 12)[:, None]
    uniform = np.random.default_rng(0).random((len(operation), 3))
    drawn = Drawn(operation, np.take_along_axis(_all_strengths(chosen, uniform), operation, axis=1))
    images = photos(len(operation), 24)
    ours = images.clone()
    apply_policy(ours, drawn, border=BORDER)
    for image, got, (number,), (strength,) in zip(images, ours, drawn.operation, drawn.strength, strict=True):
        expected = apply_op(as_pillow(image), OPERATIONS[number], float(strength), None, None)
        assert torch.equal(got, as_tensor(expected)), (OPERATIONS[number], strength)


def _all_strengths(chosen: Policy, uniform: np.ndarray) -> np.ndarray:
    """Of every picture, what each operation would have: [B, operations]."""
    rows = []
    for number in range(len(OPERATIONS)):
        forced = uniform.copy()
        forced[:, 0] = (number + 0.5) / len(OPERATIONS)
        drawn = chosen.draw(forced)
        assert (drawn.operation == number).all()
        rows.append(drawn.strength[:, 0])
    return np.stack(rows, axis=1)


def test_rounds_follow_each_other_and_pictures_do_not_touch() -> None:
    drawn = policy("randaugment", 16, ra_ops=2, ra_magnitude=20).draw(np.random.default_rng(3).random((40, 6)))
    images = photos(40, 16)
    together = images.clone()
    apply_policy(together, drawn, border=BORDER)
    for index in range(40):
        alone = images[index : index + 1].clone()
        for turn in range(2):
            part = slice(index, index + 1)
            one = Drawn(drawn.operation[part, turn : turn + 1], drawn.strength[part, turn : turn + 1])
            apply_policy(alone, one, border=BORDER)
        assert torch.equal(alone[0], together[index])
