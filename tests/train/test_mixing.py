"""Erasing, mixup and cutmix against torchvision's rules, and what they promise about pictures and labels."""

import math

import numpy as np
import pytest
import torch
from reference_transforms import photos, torchvision_transforms
from tiny_training import tiny_recipe

from netsmith.train.augment.erasing import ERASE_DRAWS, RATIO, SCALE, TRIES, erase, erased_boxes
from netsmith.train.augment.mixing import Mixing, Mixture, mix, mixed_targets
from netsmith.train.draws import beta


def box_by_rejection(size: int, draws: list[float], probability: float) -> tuple[int, int, int, int] | None:
    """One box to erase, written as torchvision's loop."""
    if draws[0] >= probability:
        return None
    for n in range(TRIES):
        area = size * size * (SCALE[0] + (SCALE[1] - SCALE[0]) * draws[1 + 2 * n])
        low, high = math.log(RATIO[0]), math.log(RATIO[1])
        aspect = math.exp(low + (high - low) * draws[2 + 2 * n])
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height < size and width < size:
            return int(draws[-2] * (size - height + 1)), int(draws[-1] * (size - width + 1)), height, width
    return None


@pytest.mark.parametrize("size", [2, 8, 32, 224])
def test_erased_boxes_equal_the_loop(size: int) -> None:
    draws = np.random.default_rng(size).random((400, ERASE_DRAWS))
    for box, row in zip(erased_boxes(draws, size=size, probability=0.4).tolist(), draws.tolist(), strict=True):
        expected = box_by_rejection(size, row, 0.4)
        if expected is None:
            assert box[2:] == [0, 0]
        else:
            assert box == list(expected)
            assert box[0] + box[2] <= size
            assert box[1] + box[3] <= size


@pytest.mark.reference
def test_erased_areas_are_spread_as_torchvisions() -> None:
    get_params = torchvision_transforms().RandomErasing.get_params
    torch.manual_seed(0)
    empty = torch.zeros(3, 32, 32)
    theirs = np.array([get_params(empty, SCALE, RATIO, [0.0])[:4] for _ in range(3000)])
    ours = erased_boxes(np.random.default_rng(0).random((3000, ERASE_DRAWS)), size=32, probability=1.0)
    np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), rtol=0.05)
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.05)


def test_erasing_changes_the_box_alone() -> None:
    images = photos(6, 12).permute(0, 2, 3, 1).contiguous().numpy()
    before = images.copy()
    boxes = np.array([[0, 0, 0, 0], [2, 3, 4, 5], [0, 0, 11, 11], [5, 5, 1, 7], [8, 0, 4, 4], [1, 1, 0, 0]])
    erase(torch.from_numpy(images).permute(0, 3, 1, 2), boxes, (1, 2, 3))
    for image, was, (top, left, height, width) in zip(images, before, boxes.tolist(), strict=True):
        expected = was.copy()
        expected[top : top + height, left : left + width] = (1, 2, 3)
        assert (image == expected).all()


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 2.5, 40.0])
def test_shares_have_the_beta_distribution(alpha: float) -> None:
    ours = beta(np.random.default_rng(0).random((40000, 2)), alpha)
    theirs = np.random.default_rng(1).beta(alpha, alpha, 40000)
    assert ((ours >= 0) & (ours <= 1)).all()
    places = np.linspace(0, 1, 21)[1:-1]
    ours_below, theirs_below = ((shares[:, None] < places).mean(axis=0) for shares in (ours, theirs))
    np.testing.assert_allclose(ours_below, theirs_below, atol=0.012)  # the noise of 40,000 is 0.0035
    assert np.isfinite(beta(np.array([[0.0, 0.0], [0.0, 0.25], [1 - 2**-53, 0.9]]), alpha)).all()


def test_mixup_is_the_blend_to_half_a_level() -> None:
    images = photos(7, 10).contiguous(memory_format=torch.channels_last)
    before = images.double()
    for share in (0.0, 0.13, 0.5, 0.77, 1.0):
        mixed = mix(images.clone(memory_format=torch.preserve_format), Mixture(share, None))
        exact = share * before + (1 - share) * before.roll(1, 0)
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        assert (mixed.double() - exact).abs().max() <= 0.5 + 1e-4
    # On average nothing is lost: cut instead of rounded, every blend would be darker by half a level.
    noise = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exact = 0.3 * noise.double() + 0.7 * noise.double().roll(1, 0)
    assert abs((mix(noise, Mixture(0.3, None)).double() - exact).mean()) < 0.01


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_pictures_and_labels_are_mixed_as_by_torchvision(kind: str) -> None:
    v2 = torchvision_transforms().v2
    images, labels = photos(6, 16), np.array([3, 0, 1, 1, 2, 0])
    mixing = Mixing.of(tiny_recipe(**{kind: 0.7}))
    assert mixing is not None
    for step in range(20):
        mixture = mixing.draw(seed=0, step=step, size=16)
        transform = (v2.MixUp if kind == "mixup" else v2.CutMix)(num_classes=4)
        if mixture.box is None:
            params = {"lam": mixture.share}
        else:
            top, left, bottom, right = mixture.box
            params = {"box": (left, top, right, bottom), "lam_adjusted": mixture.share}
        transform.make_params = lambda inputs, params=params: params
        expected, targets = transform(images.float(), torch.from_numpy(labels))
        mixed = mix(images.contiguous(memory_format=torch.channels_last), mixture)
        assert (mixed.float() - expected).abs().max() <= 0.5 + 1e-3
        torch.testing.assert_close(mixed_targets(labels, mixture, classes=4), targets)


@pytest.mark.reference
def test_cutmix_draws_boxes_as_torchvision() -> None:
    transform = torchvision_transforms().v2.CutMix(alpha=1.0, num_classes=4)
    torch.manual_seed(0)
    blank = [torch.zeros(2, 3, 20, 30)[..., :20]]
    theirs = [transform.make_params(blank) for _ in range(4000)]
    mixing = Mixing(mixup=0.0, cutmix=1.0)
    ours = [mixing.draw(seed=0, step=step, size=20) for step in range(4000)]
    their_boxes = np.array([params["box"] for params in theirs])[:, [1, 0, 3, 2]]
    our_boxes = np.array([mixture.box for mixture in ours])
    np.testing.assert_allclose(our_boxes.mean(axis=0), their_boxes.mean(axis=0), atol=0.5)
    np.testing.assert_allclose(our_boxes.std(axis=0), their_boxes.std(axis=0), atol=0.3)
    shares = np.array([mixture.share for mixture in ours])
    np.testing.assert_allclose(shares.mean(), np.mean([params["lam_adjusted"] for params in theirs]), atol=0.02)


def test_both_are_one_of_the_two_per_batch() -> None:
    both = Mixing(mixup=0.2, cutmix=1.0)
    cut = [both.draw(seed=3, step=step, size=32).box is not None for step in range(1000)]
    assert 430 < sum(cut) < 570
    assert Mixing.of(tiny_recipe()) is None
    assert all(Mixing(0.2, 0.0).draw(seed=3, step=step, size=32).box is None for step in range(50))
