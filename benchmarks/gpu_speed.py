"""What is measured where a GPU is lent: `python benchmarks/gpu_speed.py TASK --data DIR`, on an idle card.

- `cifar94`, `cifar96`: ResNet-18 on CIFAR-10 to 94 % and 96 % of its test pictures: seconds and accuracies of several
  seeds. Counted as cifar10-airbench counts: after a warm-up on a copy that builds kernels, from the first batch to the
  last update, pictures decoded and evaluation apart. And with everything: a fresh process from its start to its
  accuracy, imports, decoded pictures and compiling included. A seed that misses the accuracy is reported as a miss.
- `resnet50`: images/s of ResNet-50 at 224 on the same JPEGs: netsmith's trainer; torchvision's reference loop
  (DataLoader over files, PIL transforms) and timm's (its loader with prefetcher), both in bfloat16 and channels_last,
  with as many workers as cores. All are given whole epochs, after a few updates that build kernels.
- `resnet-cifar`: `netsmith train` with the named recipe `paper/resnet-cifar`, ResNet-20, 56 and 110, five seeds each:
  test errors beside the paper's (table 6; 110: best 6.43, mean 6.61).

`--tiny` does all of it in seconds on a CPU, with numbers that mean nothing: a check of the script. Rows go to
`results.csv` unless `--tiny`. Nothing else may run on the machine.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import RESULTS, Row, append, origin, run
from torch import nn

from netsmith.arch.names import find_layout
from netsmith.data.audit import audit
from netsmith.data.cache import prepared
from netsmith.data.items import Dataset
from netsmith.data.masters import masters
from netsmith.data.sources import open_source
from netsmith.data.splits import split
from netsmith.models.build import build
from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.devices import find_device, synchronize
from netsmith.train.evaluate import evaluate_network
from netsmith.train.feed import TrainingData
from netsmith.train.trainer import Trainer

HERE = Path(__file__).resolve()
WARM_UPS = 5  # updates on a copy


@dataclass(frozen=True, kw_only=True)
class Cifar:
    """A race to an accuracy.

    Attributes:
        goal: test top-1.
        recipe: fields over netsmith's defaults.
    """

    goal: float
    recipe: dict[str, Any]


CIFAR = {
    "batch_size": 512, "lr": 0.4, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "sched": "onecycle",
    "warmup": 0.2, "smoothing": 0.2, "pad": 2, "flip": True, "crop_scale": None, "channels_last": True,
}  # fmt: skip
CIFAR_TASKS = {
    "cifar94": Cifar(goal=0.94, recipe=CIFAR | {"epochs": 14.0}),
    "cifar96": Cifar(goal=0.96, recipe=CIFAR | {"epochs": 50.0, "pad": 4, "random_erase": 0.25, "ema": 0.998}),
}
PAPER = {"resnet20_cifar": "8.75", "resnet56_cifar": "6.97", "resnet110_cifar": "6.43, mean 6.61"}
"""Test errors of He et al. 2016, table 6, per cent."""


# CIFAR-10 to an accuracy


def cifar10_npz(data: Path, work: Path) -> Path:
    """The file of CIFAR-10, made once."""
    source = work / "cifar10.npz"
    if not source.exists():
        script = [sys.executable, str(HERE.parent / "make_npz.py"), "-o", str(work), "--data", str(data), "cifar10"]
        subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
    return source


def cifar10(source: Path) -> Dataset:
    """CIFAR-10, its 50,000 training pictures all trained on."""
    found = audit(open_source(source)).dataset
    items = [replace(item, split="train" if item.split == "val" else item.split) for item in found.items]
    return replace(found, items=tuple(items))


def to_accuracy(options: argparse.Namespace) -> dict[str, Any]:
    """One seed, in a process of its own."""
    task, clock = CIFAR_TASKS[options.task], SystemClock()
    changes = {"device": options.device, "seed": options.seed, "dtype": options.dtype, "compile": options.compile}
    if options.tiny:
        changes |= {"epochs": 0.02, "batch_size": 32, "ema": None}
    model = "resnet8_cifar" if options.tiny else "resnet18"
    recipe = Recipe(**({"model": model, "img_size": 32} | task.recipe | changes))
    found, rules = cifar10(cifar10_npz(options.data, options.work)), Preprocess(size=32)
    train, test = found.subset("train"), found.subset("test")
    if options.tiny:
        train, test = train[:1600], test[:50]
    pictures = masters(found, train, side=32)
    pictures.fill()
    layout = find_layout(recipe.model, num_classes=len(found.classes), img_size=32)
    data = TrainingData.of(pictures, prepared(found, [], rules), rules)
    with tempfile.TemporaryDirectory() as scratch:
        plan = Plan(Path(scratch, "plan.jsonl"))
        trainer = Trainer(build(layout, seed=options.seed), data, recipe, plan=plan, clock=clock)
        warm_up(trainer)
        began = clock.now()
        trainer.advance()
        synchronize(trainer.device)
        seconds = clock.now() - began
        kinds = ", ".join(f"{row.kind} {row.value}" for row in plan.rows)
    answers = prepared(found, test, rules)
    values = {"mean": rules.mean, "std": rules.std, "batch_size": 1000}
    evaluation = evaluate_network(trainer.network, answers.pixels, answers.labels, **values)
    low, high, top1 = evaluation.top1.low, evaluation.top1.high, evaluation.top1.value
    return {"seconds": seconds, "top1": top1, "low": low, "high": high, "n": len(test), "way": kinds}


def warm_up(trainer: Trainer) -> None:
    """A few updates on a copy: what training runs is then built."""
    network = copy.deepcopy(trainer.network).to(trainer.device)
    with tempfile.TemporaryDirectory() as scratch:
        recipe = trainer.recipe.model_copy(update={"compile": False, "dtype": trainer.precision.dtype})
        plan = Plan(Path(scratch, "plan.jsonl"))
        other = Trainer(network, trainer.data, recipe, plan=plan, clock=SystemClock())
        other.advance(until=min(WARM_UPS, other.total_steps))
    synchronize(trainer.device)


def race(options: argparse.Namespace) -> Iterator[Row]:
    """All seeds: what airbench counts, and everything."""
    task, clock, found = CIFAR_TASKS[options.task], SystemClock(), []
    cifar10_npz(options.data, options.work)
    for seed in range(options.seeds):
        began = clock.now()
        found.append(child(options, "--seed", str(seed)) | {"everything": clock.now() - began})
        print(f"{options.task}, seed {seed}: {json.dumps(found[-1])}", flush=True)
    reached = sum(one["top1"] >= task.goal for one in found)
    seconds, everything, top1 = ([one[name] for one in found] for name in ("seconds", "everything", "top1"))
    note = (
        f"{reached} of {len(found)} seeds reach {task.goal:.0%}; mean {statistics.mean(top1):.4f}; "
        f"seconds as airbench counts {spread(seconds)}, with everything {spread(everything)}; {found[0]['way']}"
    )
    yield {"subject": "netsmith", "model": "resnet18 at 32", "test_top1": statistics.mean(top1),
           "n": found[0]["n"], "note": note}  # fmt: skip


# ResNet-50, images/s


def made_photos(folder: Path, count: int) -> Path:
    """`folder/CLASS/N.jpg`: smooth colours with noise, 500 x 375 as ImageNet's usual photo; made once."""
    import PIL.Image

    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[0:375, 0:500]
    for number in range(count):
        path = folder / f"{number % 10}" / f"{number}.jpg"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        waves = [127 + 90 * np.sin(rows / (9 + number % 7) + c) * np.cos(columns / (7 + c)) for c in range(3)]
        noise = draw.normal(0, 12, (375, 500, 1))
        pixels = np.clip(np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(path, quality=90)
    return folder


def speed_of_netsmith(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    size = 32 if options.tiny else 224
    found = split(audit(open_source(folder)).dataset, seed=0)
    pictures = masters(found, found.items, side=round(1.15 * size))
    pictures.fill()
    rules = Preprocess(size=size)
    recipe = Recipe(
        model="resnet50", img_size=size, epochs=float(options.epochs), batch_size=options.batch, device=options.device,
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
        steps = trainer.step - warm
        way = ", ".join(f"{row.kind} {row.value}" for row in plan.rows)
    return {"rate": steps * trainer.batch_size / (clock.now() - began), "way": way}


def speed_of_loop(options: argparse.Namespace, folder: Path, *, timm: bool) -> dict[str, Any]:
    """The loop of torchvision's reference script, or timm's loader and network in the same loop."""
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("missing operators of some builds"))
    size, workers = (32 if options.tiny else 224), (0 if options.tiny else os.cpu_count() or 1)
    device = find_device(options.device)
    loader, network = (timm_parts if timm else torchvision_parts)(folder, size, workers, options, device)
    network = network.to(device, memory_format=torch.channels_last).train()
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
    for _ in range(options.epochs):
        for images, targets in loader:
            update(images, targets)
            pictures += len(targets)
    synchronize(device)
    return {"rate": pictures / (clock.now() - began), "way": f"{workers} workers, {options.dtype}, channels_last"}


Parts = tuple[Any, nn.Module]


def torchvision_parts(
    folder: Path, size: int, workers: int, options: argparse.Namespace, device: torch.device
) -> Parts:
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
    "torchvision": lambda options, folder: speed_of_loop(options, folder, timm=False),
    "timm": lambda options, folder: speed_of_loop(options, folder, timm=True),
}


def speeds(options: argparse.Namespace) -> Iterator[Row]:
    """All subjects in turn, the order turned round in every second round."""
    made_photos(options.work / "photos", options.pictures)
    rates: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    ways: dict[str, str] = {}
    for turn in range(options.seeds):
        for name in list(SUBJECTS) if turn % 2 == 0 else reversed(list(SUBJECTS)):
            found = child(options, "--subject", name)
            rates[name].append(found["rate"])
            ways[name] = found["way"]
            print(f"resnet50, {name}, round {turn + 1}: {found['rate']:,.0f} images/s, {found['way']}", flush=True)
    ours = statistics.median(rates["netsmith"])
    for name, each in rates.items():
        middle = statistics.median(each)
        times = f", netsmith is {ours / middle:.2f} times as fast" if name != "netsmith" else ""
        note = f"{middle:,.0f} images/s ({min(each):,.0f} to {max(each):,.0f}, {len(each)} rounds){times}; {ways[name]}"
        yield {"subject": name, "model": "resnet50 at 224", "note": note}


# ResNets of CIFAR by the paper's recipe


def paper(options: argparse.Namespace) -> Iterator[Row]:
    """Runs of the command, gone on with where they were stopped."""
    source = cifar10_npz(options.data, options.work)
    for model, published in PAPER.items():
        errors = []
        for seed in range(options.seeds):
            command = ["train", str(source), "--recipe", "paper/resnet-cifar", "--model", model]
            command += ["--seed", str(seed), "--device", options.device]
            found = run(command, options.work / f"{model}-{seed}").final.top1.test
            assert found is not None, "CIFAR-10 has test pictures"
            errors.append(100 * (1 - found.value))
        note = f"test errors {spread(errors)} %; the paper's {published} %"
        yield {"subject": "netsmith", "model": model, "test_top1": 1 - statistics.mean(errors) / 100, "note": note}


def spread(values: list[float]) -> str:
    """Mean, and least to most."""
    return f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f}, n {len(values)})"


def child(options: argparse.Namespace, *more: str) -> dict[str, Any]:
    """One measurement in a fresh process; with an empty cache of pictures where decoding them counts."""
    command = [
        sys.executable,
        str(HERE),
        options.task,
        "--data",
        str(options.data),
        "--work",
        str(options.work),
        "--child",
    ]
    command += ["--device", options.device, "--dtype", options.dtype, "--batch", str(options.batch), *more]
    command += ["--epochs", str(options.epochs), *(["--tiny"] if options.tiny else [])]
    command += ["--compile"] if options.compile else []
    with tempfile.TemporaryDirectory() as scratch:
        cache = {"NETSMITH_CACHE": scratch} if options.task in CIFAR_TASKS else {}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | cache)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=[*CIFAR_TASKS, "resnet50", "resnet-cifar"])
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data", help="folder of the sets")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu_speed"), help="pictures, runs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--seeds", type=int, default=5, help="or rounds")
    parser.add_argument("--batch", type=int, default=256, help="of resnet50")
    parser.add_argument("--epochs", type=int, default=3, help="of resnet50's speed")
    parser.add_argument("--pictures", type=int, default=8192, help="of resnet50's speed")
    parser.add_argument("--tiny", action="store_true", help="seconds on a CPU: does the script run?")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--subject", choices=list(SUBJECTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.child:
        found = SUBJECTS[options.subject](options, options.work / "photos") if options.subject else to_accuracy(options)
        print(json.dumps(found))
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device; --tiny --device cpu checks the script")
    measured = {"resnet50": speeds, "resnet-cifar": paper}.get(options.task, race)
    about = origin("gpu_speed") | {"command": " ".join(["python", "benchmarks/gpu_speed.py", *sys.argv[1:]])}
    if options.device.startswith("cuda"):
        about["machine"] = f"{torch.cuda.get_device_name()}, {about['machine']}"
    rows = [about | row for row in measured(options)]
    for row in rows:
        print(f"{row['subject']}, {row['model']}: {row['note']}")
    if not options.tiny:
        append(RESULTS, rows)


if __name__ == "__main__":
    main()
