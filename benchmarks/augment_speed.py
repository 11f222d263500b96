"""Pictures per second of processor time of every augmentation, beside torchvision's on Pillow pictures.

    python benchmarks/augment_speed.py [--repeats 5]

Batches of 128 pictures of 32 pixels and of 64 of 224, one thread and its processor time, so that other work on the
machine counts less; the median of the repeats, alternating between the two. torchvision's side is what a loader's
worker does to one picture after another; the conversion of its pictures to tensors is left out. Where torchvision is
not installed its columns stay empty.
"""

import argparse
import statistics
import sys
import time
import types
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.augment.colour import hue
from netsmith.train.augment.mixing import Mixture, mix
from netsmith.train.augment.pipeline import Augmentation
from netsmith.train.augment.policies import OPERATIONS, Drawn, Policy, apply_policy
from netsmith.train.memory import keep_large_blocks

BORDER = (124, 116, 104)
BATCHES = {32: 128, 224: 64}

Work = Callable[[], object]


def made_pictures(count: int, side: int) -> np.ndarray:
    """uint8 [count,side,side,3]: smooth colours with noise."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[0:side, 0:side]
    waves = 127 + 90 * np.sin(rows / 9)[..., None] * np.cos(columns / 7 + np.arange(3)[:, None, None]).transpose(
        1, 2, 0
    )
    return np.clip(waves + draw.normal(0, 10, (count, side, side, 3)), 0, 255).astype(np.uint8)


def policy_works(side: int, pictures: np.ndarray) -> dict[str, tuple[Work, Work | None]]:
    """Every operation of the policies at RandAugment's magnitude 9, and the hue."""
    recipe = Recipe(model="m", img_size=side, epochs=1.0, auto_augment="randaugment")
    policy = Policy.of(recipe, size=side)
    assert policy is not None
    planes = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    strengths = policy.strengths[:, 9]
    pillow = [Image.fromarray(picture) for picture in pictures]
    transforms = torchvision_transforms()
    works: dict[str, tuple[Work, Work | None]] = {}
    for number, name in enumerate(OPERATIONS[1:], start=1):
        count = len(pictures)
        drawn = Drawn(np.full((count, 1), number), np.full((count, 1), strengths[number]))

        def ours(drawn: Drawn = drawn) -> object:
            return apply_policy(planes.clone(), drawn, border=BORDER)

        def theirs(name: str = name, strength: float = float(strengths[number])) -> object:
            bilinear = transforms.InterpolationMode.BILINEAR
            apply = transforms.autoaugment._apply_op
            return [apply(picture, name, strength, bilinear, list(BORDER)) for picture in pillow]

        works[name] = ours, theirs if transforms else None
    turns = torch.full((len(pictures),), 0.1)
    works["Hue"] = (
        lambda: hue(planes, turns),
        (lambda: [transforms.functional.adjust_hue(picture, 0.1) for picture in pillow]) if transforms else None,
    )
    return works


def recipe_works(side: int, pictures: np.ndarray) -> dict[str, tuple[Work, Work | None]]:
    """What recipes ask for, framing included, as the feed does it."""
    transforms = torchvision_transforms()
    pillow = [Image.fromarray(picture) for picture in pictures]
    positions = np.arange(len(pictures))
    shapes = np.array([picture.shape[:2] for picture in pictures])
    sources = list(pictures)

    def ours(**changes: object) -> Work:
        values = {"model": "m", "img_size": side, "epochs": 1.0, "crop_scale": None, "flip": False} | changes
        augmentation = Augmentation.of(Recipe.model_validate(values), Preprocess(size=side))

        def work() -> object:
            return augmentation.render(sources, augmentation.draw(shapes, seed=0, epoch=0, positions=positions))

        return work

    def theirs(*names: Callable[[types.ModuleType], Callable[[Image.Image], Image.Image]]) -> Work | None:
        if transforms is None:
            return None
        chain = transforms.Compose([name(transforms) for name in names])
        return lambda: [chain(picture) for picture in pillow]

    bilinear = transforms.InterpolationMode.BILINEAR if transforms else None
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    return {
        "pad-crop, flip": (
            ours(pad=side // 8, flip=True),
            theirs(lambda t: t.RandomCrop(side, side // 8), lambda t: t.RandomHorizontalFlip()),
        ),
        "random resized crop, flip": (
            ours(crop_scale=(0.35, 1.0), flip=True),
            theirs(lambda t: t.RandomResizedCrop(side, (0.35, 1.0)), lambda t: t.RandomHorizontalFlip()),
        ),
        "rotation": (ours(rotate=15.0), theirs(lambda t: t.RandomRotation(15, bilinear, fill=BORDER))),
        "RandAugment": (
            ours(auto_augment="randaugment"),
            theirs(lambda t: t.RandAugment(interpolation=bilinear, fill=list(BORDER))),
        ),
        "TrivialAugment": (
            ours(auto_augment="trivialaugment"),
            theirs(lambda t: t.TrivialAugmentWide(interpolation=bilinear, fill=list(BORDER))),
        ),
        "colour jitter": (
            ours(color_jitter=(0.4, 0.4, 0.4, 0.1)),
            theirs(lambda t: t.ColorJitter(0.4, 0.4, 0.4, 0.1)),
        ),
        "erasing": (ours(random_erase=1.0), None),
        "mixup": (lambda: mix(batch, Mixture(0.3, None)), None),
        "cutmix": (lambda: mix(batch.clone(), Mixture(0.5, (0, 0, side // 2, side // 2))), None),
    }


def torchvision_transforms() -> types.ModuleType | None:
    """`torchvision.transforms`, or None where it is not installed."""
    # Its compiled operators may be missing beside this torch; nothing here needs them.
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("absent"))
    try:
        import torchvision.transforms.autoaugment
        import torchvision.transforms.functional
    except ImportError:
        return None
    return torchvision.transforms


def seconds(work: Work) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    keep_large_blocks()  # as training does
    print("| operation | side | images/s | torchvision | ratio |\n|---|---:|---:|---:|---:|")
    for side, count in BATCHES.items():
        pictures = made_pictures(count, side)
        for name, (ours, theirs) in (recipe_works(side, pictures) | policy_works(side, pictures)).items():
            pairs = [(seconds(ours), seconds(theirs) if theirs else 0.0) for _ in range(repeats + 1)][1:]
            own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
            peer = f"{count / other:,.0f} | {other / own:.1f}" if theirs else " | "
            print(f"| {name} | {side} | {count / own:,.0f} | {peer} |", flush=True)


if __name__ == "__main__":
    main()
