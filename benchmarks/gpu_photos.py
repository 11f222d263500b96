"""ResNet-50 at 224 pixels on one card: netsmith's trainer, torchvision's reference loop and timm's loader in the same
loop, in images a second. `gpu_speed.py resnet50` runs each in a process of its own.

The loops are given what their scripts switch on: bfloat16, channels last, kernels tried by cuDNN, as many workers as
there are cores. All are given the same JPEGs, whole epochs after a few updates that build kernels; netsmith has decoded
its pictures before, as in every epoch but a run's first.
"""

import argparse
import os
import sys
import tempfile
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from netsmith.arch.names import find_layout
from netsmith.data.audit import audit
from netsmith.data.cache import prepared
from netsmith.data.masters import masters
from netsmith.data.sources import open_source
from netsmith.data.splits import split
from netsmith.models.build import build
from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.devices import find_device, synchronize
from netsmith.train.feed import TrainingData
from netsmith.train.trainer import Trainer

WARM_UPS = 5  # updates before the clock runs


def made_photos(folder: Path, count: int) -> Path:
    """`folder/CLASS/N.jpg`: smooth colours with noise, 500 x 375 as ImageNet's usual photo; made once, by all cores."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(partial(_make_photo, folder), range(count)):
            pass
    return folder


def _make_photo(folder: Path, number: int) -> None:
    import PIL.Image

    path = folder / f"{number % 10}" / f"{number}.jpg"
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[0:375, 0:500]
    waves = [127 + 90 * np.sin(rows / (9 + number % 7) + c) * np.cos(columns / (7 + c)) for c in range(3)]
    noise = np.random.default_rng(number).normal(0, 12, (375, 500, 1))
    pixels = np.clip(np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)
    half = path.with_suffix(".part")
    PIL.Image.fromarray(pixels).save(half, "JPEG", quality=90)
    half.replace(path)


def speed_of_netsmith(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Images a second of netsmith's trainer."""
    size = 32 if options.tiny else 224
    found = split(audit(open_source(folder)).dataset, seed=0)
    pictures = masters(found, found.items, side=round(1.15 * size))
    pictures.fill()
    rules = Preprocess(size=size)
    recipe = Recipe(
        model="resnet50", img_size=size, epochs=float(options.passes), batch_size=options.batch, device=options.device,
        dtype=options.dtype, compile=options.compile, crop_scale=(0.08, 1.0), sched="constant", warmup=0.0,
        workers=min(4, os.cpu_count() or 1), channels_last=True,
    )  # fmt: skip
    data = TrainingData.of(pictures, prepared(found, [], rules), rules)
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as scratch:
        layout = find_layout("resnet50", num_classes=len(found.classes), img_size=size)
        plan = Plan(Path(scratch, "plan.jsonl"))
        trainer = Trainer(build(layout, seed=0), data, recipe, plan=plan, clock=clock)
        warm = min(WARM_UPS, trainer.total_steps - 1)
        trainer.advance(until=warm)
        synchronize(trainer.device)
        began = clock.now()
        trainer.advance()
        synchronize(trainer.device)
        seconds, steps = clock.now() - began, trainer.step - warm
        way = ", ".join(f"{row.kind} {row.value}" for row in plan.rows)
    return {"rate": steps * trainer.batch_size / seconds, "way": way}


def speed_of_loop(options: argparse.Namespace, folder: Path, *, timm: bool) -> dict[str, Any]:
    """Images a second of the loop of torchvision's reference script, or of timm's loader and network in that loop."""
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("missing operators of some builds"))
    torch.backends.cudnn.benchmark = True  # as both scripts have it
    size, workers = (32 if options.tiny else 224), (0 if options.tiny else os.cpu_count() or 1)
    device = find_device(options.device)
    loader, network = (timm_parts if timm else torchvision_parts)(folder, size, workers, options, device)
    network = network.to(device, memory_format=torch.channels_last).train()
    if options.compile:
        network.compile()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    dtype = torch.float16 if options.dtype == "float16" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=options.dtype == "float16")
    step = nn.functional.cross_entropy

    def update(images: torch.Tensor, targets: torch.Tensor) -> None:
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        targets = targets.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=dtype, enabled=options.dtype != "float32"):
            loss = step(network(images), targets)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    shape = (options.batch, 3, size, size)
    for _ in range(WARM_UPS):
        update(torch.rand(shape), torch.randint(10, (options.batch,)))
    synchronize(device)
    clock, pictures = SystemClock(), 0
    began = clock.now()
    for _ in range(options.passes):
        for images, targets in loader:
            update(images, targets)
            pictures += len(targets)
    synchronize(device)
    compiled = ", compiled" if options.compile else ""
    way = f"{workers} workers, {options.dtype}, channels_last{compiled}"
    return {"rate": pictures / (clock.now() - began), "way": way}


Parts = tuple[Any, nn.Module]


def torchvision_parts(
    folder: Path, size: int, workers: int, options: argparse.Namespace, device: torch.device
) -> Parts:
    """Loader and network as torchvision's reference script makes them."""
    from torchvision import datasets, models, transforms

    chain = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(folder), chain), batch_size=options.batch, shuffle=True, num_workers=workers,
        pin_memory=device.type == "cuda", drop_last=True,
    )  # fmt: skip
    return loader, models.resnet50(num_classes=10)


def timm_parts(folder: Path, size: int, workers: int, options: argparse.Namespace, device: torch.device) -> Parts:
    """Loader and network as timm's script makes them."""
    import timm
    import timm.data

    loader = timm.data.create_loader(
        timm.data.create_dataset("", str(folder)), input_size=(3, size, size), batch_size=options.batch,
        is_training=True, num_workers=workers, use_prefetcher=device.type == "cuda", device=device,
        persistent_workers=workers > 0, color_jitter=None, interpolation="bilinear",
    )  # fmt: skip
    return loader, timm.create_model("resnet50", num_classes=10)


SUBJECTS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "netsmith": speed_of_netsmith,
    "torchvision": partial(speed_of_loop, timm=False),
    "timm": partial(speed_of_loop, timm=True),
}
