"""Training speed against the loops people write: `python benchmarks/train_speed.py --data DIR`, or `make bench-train`.

Subjects, all with the same network, initial weights, pictures, epochs, batch size, optimizer and schedule:

- `netsmith`: its trainer with a warm pixel cache, dtype, layout and threads measured by itself before the clock starts;
- `plain`: the loop of torchvision's reference script: a DataLoader over files with PIL transforms, float32, the loss
  and the accuracies read at every step;
- `tuned`: the same with channels_last, bfloat16 autocast and netsmith's allocator settings;
- `timm`: timm's own train script in bfloat16 with channels_last, where `--timm-train` names it (it is not in timm's
  package) and the network is timm's too.

DataLoaders are tried with 0, 1 and 2 workers; the best number is kept. Every measurement is a process of its own;
subjects take turns, round by round. The clock runs from the first batch asked for to the last update made, over whole
epochs, so that starting workers counts; building, importing and a few updates on a copy, which build oneDNN's kernels,
do not. Accuracy on test pictures after the last update is compared too: it is that of a run of seconds.

`--cold` adds netsmith with an empty cache: decoding counts then. `--profile` says where the time of a step goes, and
how far the step is from the machine's measured matrix-product limit.

Nothing else may run on the machine.
"""

import argparse
import contextlib
import copy
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peer_networks import peer_network
from plain_loop import PlainLoop, sgd, transform
from results import RESULTS, Row, append, origin
from torch import nn

from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout
from netsmith.arch.names import find_layout
from netsmith.data.audit import audit
from netsmith.data.cache import prepared
from netsmith.data.items import Dataset, Item
from netsmith.data.masters import Masters, masters
from netsmith.data.sources import open_source
from netsmith.data.splits import split
from netsmith.models.build import build
from netsmith.models.saving import for_library, write_weights
from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.evaluate import evaluate_network
from netsmith.train.feed import TrainingData
from netsmith.train.memory import keep_large_blocks
from netsmith.train.trainer import Trainer

HERE = Path(__file__).resolve()
WORKERS = (0, 1, 2)
WARM_UPS = 3
TEST_PICTURES = 600
CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained.

    Attributes:
        model: name of the network; `timm` that of timm's twin, None where it has none of the same shape.
        data: name of the set; side: of the input in pixels.
        pictures, epochs, batch: how much is trained.
        photos: random resized crops, else a crop behind a border of an eighth of the side.
        goals: netsmith's images/s over those of plain and of tuned that are aimed at.
    """

    model: str
    timm: str | None
    data: str
    side: int
    pictures: int
    epochs: int
    batch: int
    photos: bool
    goals: tuple[float, float]

    def recipe(self, seed: int) -> Recipe:
        """Of every subject."""
        return Recipe(
            model=self.model, img_size=self.side, time_s=600.0, batch_size=self.batch, seed=seed,
            opt="sgd", lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, sched="constant", warmup=0.0,
            smoothing=0.1, flip=True, pad=0 if self.photos else self.side // 8,
            crop_scale=(0.35, 1.0) if self.photos else None,
        )  # fmt: skip

    @property
    def layout(self) -> Layout:
        return find_layout(self.model, num_classes=CLASSES, img_size=self.side)


TASKS = {
    "resnet20": Task(
        model="resnet20_cifar", timm=None, data="cifar10", side=32, pictures=10_240, epochs=2, batch=128, photos=False,
        goals=(2.4, 1.2),
    ),
    "resnet18": Task(
        model="resnet18", timm="resnet18", data="imagenette224", side=224, pictures=384, epochs=2, batch=32,
        photos=True, goals=(2.2, 1.1),
    ),
    "efficientnet_b0": Task(
        model="efficientnet_b0", timm="efficientnet_b0", data="imagenette224", side=224, pictures=256, epochs=2,
        batch=32, photos=True, goals=(1.9, 1.4),
    ),
    "mobilenet_v2": Task(
        model="mobilenet_v2", timm=None, data="cifar10", side=32, pictures=2_560, epochs=2, batch=128, photos=False,
        goals=(3.0, 1.5),
    ),
}  # fmt: skip


# Pictures


def dataset(task: Task, data: Path, work: Path) -> Dataset:
    """The set, split; CIFAR-10 is unpacked into `work` first."""
    source = data / task.data / f"{task.data}.zip"
    if not source.exists():
        source = work / f"{task.data}.npz"
        if not source.exists():
            script = [sys.executable, str(HERE.parent / "make_npz.py"), "-o", str(work), "--data", str(data), task.data]
            subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
    return split(audit(open_source(source)).dataset, seed=0)


def chosen(found: Dataset, task: Task) -> tuple[list[Item], list[Item]]:
    """Pictures to train on and to test on: those with the smallest hashes, so every subject sees the same."""
    train, test = (sorted(found.subset(which), key=lambda item: item.key) for which in ("train", "test"))
    return train[: task.pictures], test[:TEST_PICTURES]


def training_pictures(found: Dataset, task: Task, *, warm: bool) -> Masters:
    """Those to train on; `warm`: all decoded already."""
    pictures = masters(found, chosen(found, task)[0], side=round(1.15 * task.side) if task.photos else task.side)
    if warm:
        pictures.fill()
    return pictures


def unpacked(found: Dataset, items: Iterable[Item], folder: Path) -> None:
    """Pictures as `folder/CLASS/KEY.ext` files, as DataLoaders read them; arrays become PNG files."""
    import PIL.Image

    for item in items:
        content = found.read(item)
        name = folder / str(item.label) / item.key
        name.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            name.with_suffix(".jpg").write_bytes(content)
        else:
            PIL.Image.fromarray(content).save(name.with_suffix(".png"), compress_level=1)


def answers(task: Task, network: nn.Module, test: Any) -> float:
    """Test top-1."""
    rules = Preprocess(size=task.side)
    found = evaluate_network(network.eval(), test.pixels, test.labels, mean=rules.mean, std=rules.std)
    return found.top1.value


# Subjects, each in a process of its own


def own_trainer(task: Task, seed: int, data: TrainingData, *, epochs: float | None = None) -> Trainer:
    """netsmith's trainer for a fixed number of updates, in the way that it measures to be the fastest."""
    clock, timed = SystemClock(), task.recipe(seed)
    with tempfile.TemporaryDirectory() as scratch:
        plan = Plan(Path(scratch, "measured.jsonl"))
        found = Trainer(build(task.layout, seed=seed), data, timed, plan=plan, clock=clock)
        measured = {
            "dtype": found.precision.dtype, "channels_last": found.precision.channels_last,
            "threads": torch.get_num_threads(), "time_s": None, "epochs": float(epochs or task.epochs),
        }  # fmt: skip
        recipe = Recipe.model_validate(timed.model_dump() | measured)
        plan = Plan(Path(scratch, "plan.jsonl"))
        return Trainer(build(task.layout, seed=seed), data, recipe, plan=plan, clock=clock)


def run_netsmith(task: Task, seed: int, *, data: Path, work: Path, warm: bool) -> dict[str, Any]:
    clock, rules = SystemClock(), Preprocess(size=task.side)
    found = dataset(task, data, work)
    pictures = training_pictures(found, task, warm=warm)
    trainer = own_trainer(task, seed, TrainingData.of(pictures, prepared(found, [], rules), rules))
    began = clock.now()
    trainer.advance()
    seconds = clock.now() - began
    way = f"{trainer.precision.dtype}, channels_last {trainer.precision.channels_last}"
    way += f", {torch.get_num_threads()} threads"
    test = prepared(found, chosen(found, task)[1], rules)
    return {"seconds": seconds, "way": way, "top1": answers(task, trainer.network, test)}


def run_loop(task: Task, seed: int, *, data: Path, work: Path, workers: int, tuned: bool) -> dict[str, Any]:
    """The loop of torchvision's reference script."""
    from torchvision import datasets

    clock = SystemClock()
    if tuned:
        keep_large_blocks()
    rules, recipe = Preprocess(size=task.side), task.recipe(seed)
    loop = PlainLoop(smoothing=recipe.smoothing, tuned=tuned)
    files = datasets.ImageFolder(str(work / "files" / task.model / "train"), transform(recipe, rules))
    torch.manual_seed(seed)
    loader = torch.utils.data.DataLoader(files, batch_size=task.batch, shuffle=True, num_workers=workers)
    network = loop.laid_out(peer_network(task.layout, seed=seed))
    network.train()
    twin = copy.deepcopy(network)
    twin_optimizer = sgd(twin, recipe)
    shape = (task.batch, 3, task.side, task.side)
    for _ in range(WARM_UPS):
        loop.update(twin, twin_optimizer, torch.rand(shape), torch.randint(CLASSES, (task.batch,)))
    del twin, twin_optimizer
    optimizer = sgd(network, recipe)
    began = clock.now()
    for _ in range(task.epochs):
        for images, targets in loader:
            loop.update(network, optimizer, images, targets)
    seconds = clock.now() - began
    found = dataset(task, data, work)
    return {
        "seconds": seconds, "way": f"{workers} workers",
        "top1": answers(task, network, prepared(found, chosen(found, task)[1], rules)),
    }  # fmt: skip


def run_timm(task: Task, seed: int, *, work: Path, script: Path, workers: int) -> dict[str, Any]:
    """timm's script as it comes, told the same recipe; the rate is its own count of the last epoch."""
    folder = work / "files" / task.model
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch, "start.safetensors")
        write_weights(weights, for_library(build(task.layout, seed=seed).state_dict(), task.layout, "timm").weights)
        rules = Preprocess(size=task.side)
        command = [
            str(script), str(folder), "--train-split", "train", "--val-split", "test", "--model", str(task.timm),
            "--num-classes", str(CLASSES), "--img-size", str(task.side), "--batch-size", str(task.batch),
            "--epochs", str(task.epochs), "--warmup-epochs", "0", "--sched", "step", "--decay-epochs", "1000",
            "--train-interpolation", "bilinear", "--opt", "nesterov",
            "--lr", "0.05", "--weight-decay", "5e-4", "--smoothing", "0.1", "--scale", "0.35", "1.0",
            "--color-jitter", "0", "--initial-checkpoint", str(weights),
            "--mean", *map(str, rules.mean), "--std", *map(str, rules.std), "--seed", str(seed), "--device", "cpu",
            "--amp", "--amp-dtype", "bfloat16", "--channels-last", "--workers", str(workers), "--log-interval", "1",
            "--no-prefetcher", "--output", scratch,
        ]  # fmt: skip
        program = "import sys, types, runpy; sys.modules['torchvision._meta_registrations'] = types.ModuleType('x'); "
        program += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
        done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    rates = re.findall(r"Train: (\d+).*?\(\s*[\d.]+s,\s*([\d.]+)/s\)", text)
    if done.returncode or not rates:
        raise SystemExit(f"timm's script failed:\n{text[-2000:]}")
    by_epoch = dict(rates)  # the last line of every epoch holds its average
    seconds = sum(task.pictures / float(rate) for rate in by_epoch.values())
    top1 = re.findall(r"Test:.*?Acc@1:\s*[\d.]+ \(\s*([\d.]+)\)", text)
    return {"seconds": seconds, "way": f"{workers} workers", "top1": float(top1[-1]) / 100 if top1 else None}


# Rounds


def child(task: str, subject: str, seed: int, options: argparse.Namespace, workers: int = 0) -> dict[str, Any]:
    """One measurement in a fresh process."""
    command = [sys.executable, str(HERE), "--child", task, subject, str(seed), str(workers)]
    command += ["--data", str(options.data), "--work", str(options.work)]
    command += ["--timm-train", str(options.timm_train)] if options.timm_train else []
    environment = dict(os.environ)
    if subject == "netsmith":
        environment |= {"OMP_WAIT_POLICY": "PASSIVE"}  # as the command line sets it
    if subject == "netsmith-cold":
        environment |= {"OMP_WAIT_POLICY": "PASSIVE", "NETSMITH_CACHE": tempfile.mkdtemp(dir=options.work)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{task}, {subject} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_child(words: list[str], options: argparse.Namespace) -> None:
    name, subject, seed, workers = words
    task, places = TASKS[name], {"data": options.data, "work": options.work}
    with contextlib.redirect_stdout(io.StringIO()):
        match subject:
            case "netsmith" | "netsmith-cold":
                found = run_netsmith(task, int(seed), **places, warm=subject == "netsmith")
            case "timm":
                found = run_timm(task, int(seed), work=options.work, script=options.timm_train, workers=int(workers))
            case _:
                found = run_loop(task, int(seed), **places, workers=int(workers), tuned=subject == "tuned")
    print(json.dumps(found))


def rounds(name: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All measurements of a task: one per subject and round; DataLoaders keep the best number of workers."""
    task = TASKS[name]
    subjects = ["netsmith", "plain", "tuned"]
    subjects += ["timm"] if options.timm_train and task.timm else []
    subjects += ["netsmith-cold"] if options.cold else []
    workers = {}
    for subject in subjects:
        if not subject.startswith("netsmith"):
            tried = {count: child(name, subject, 0, options, count)["seconds"] for count in WORKERS}
            workers[subject] = min(tried, key=lambda count: tried[count])
            print(f"{name}, {subject}: " + ", ".join(f"{n} workers {s:.1f} s" for n, s in tried.items()), flush=True)
    for seed in range(options.repeats):
        for subject in subjects if seed % 2 == 0 else reversed(subjects):
            found = child(name, subject, seed, options, workers.get(subject, 0))
            rate = task.epochs * task.pictures / found["seconds"]
            print(f"{name}, {subject}, round {seed + 1}: {rate:.0f} images/s, {found['way']}", flush=True)
            yield {"task": name, "subject": subject, "seed": seed, "rate": rate, **found}


def summary(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Medians of a task, and netsmith's over each peer's."""
    by_subject: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_subject.setdefault(row["subject"], []).append(row)
    ours = statistics.median(row["rate"] for row in by_subject["netsmith"])
    result = []
    for subject, found in by_subject.items():
        rates = [row["rate"] for row in found]
        top1 = [row["top1"] for row in found if row["top1"] is not None]
        middle = statistics.median(rates)
        result.append(
            {
                "task": name, "subject": subject, "images_per_s": round(middle, 1),
                "low": round(min(rates), 1), "high": round(max(rates), 1), "rounds": len(rates),
                "times": None if subject == "netsmith" else round(ours / middle, 3),
                "test_top1": round(statistics.mean(top1), 4) if top1 else None, "way": found[0]["way"],
            }
        )  # fmt: skip
    return result


# Where the time goes


def matrix_limit(dtype: torch.dtype) -> float:
    """FLOP/s of large matrix products on all threads, the best of several."""
    clock, side = SystemClock(), 2048
    left, right = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    seconds = []
    for _ in range(8):
        began = clock.now()
        left @ right
        seconds.append(clock.now() - began)
    return 2 * side**3 / min(seconds)


def profile(name: str, options: argparse.Namespace) -> None:
    """Time of a netsmith step by operation, and its FLOP/s against the limit of matrix products."""
    task, clock = TASKS[name], SystemClock()
    found = dataset(task, options.data, options.work)
    rules = Preprocess(size=task.side)
    pictures = training_pictures(found, task, warm=True)
    trainer = own_trainer(task, 0, TrainingData.of(pictures, prepared(found, [], rules), rules), epochs=100.0)
    trainer.advance(4)
    began = clock.now()
    trainer.advance(12)
    seconds = (clock.now() - began) / 8
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        trainer.advance(16)
    spent = 3 * 2 * cost(task.layout).macs * task.batch / seconds
    limits = {str(dtype): matrix_limit(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print(f"{name}: {1e3 * seconds:.0f} ms a step, {task.batch / seconds:.0f} images/s, {trainer.precision}")
    print(f"  {spent / 1e9:.0f} GFLOP/s of " + ", ".join(f"{v / 1e9:.0f} ({k})" for k, v in limits.items()))
    print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=18, max_name_column_width=48))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data", help="folder of the sets")
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "runs" / "train_speed", help="scratch folder")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--timm-train", type=Path, help="timm's train.py")
    parser.add_argument("--cold", action="store_true", help="also with an empty cache")
    parser.add_argument("--profile", action="store_true", help="only say where the time of a step goes")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="CSV file to append a row per subject and task to"
    )
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child, options)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    for name in options.tasks:
        if options.profile:
            profile(name, options)
            continue
        prepare_files(TASKS[name], options)
        rows = list(rounds(name, options))
        for line in summary(rows, name):
            print(json.dumps(line), flush=True)
            append(options.results, [row(line)])


def row(line: dict[str, Any]) -> Row:
    """A line of the summary as a row of results.csv."""
    note = f"{line['images_per_s']} images/s ({line['low']} to {line['high']}, {line['rounds']} rounds), {line['way']}"
    if line["times"] is not None:
        note += f"; netsmith is {line['times']:.2f} times as fast"
    model = TASKS[line["task"]].model
    command = "python benchmarks/train_speed.py --tasks " + line["task"]
    return origin("training speed") | {
        "subject": line["subject"], "model": f"{model} r{TASKS[line['task']].side}", "test_top1": line["test_top1"],
        "n": TEST_PICTURES, "note": note, "command": command,
    }  # fmt: skip


def prepare_files(task: Task, options: argparse.Namespace) -> None:
    """Pictures as files for the DataLoaders, and netsmith's cache, which `warm` means."""
    folder = options.work / "files" / task.model
    found = dataset(task, options.data, options.work)
    train, test = chosen(found, task)
    marker = folder / f"train-{len(train)}.whole"
    if not marker.exists():
        subprocess.run(["rm", "-rf", str(folder)], check=True)
        unpacked(found, train, folder / "train")
        unpacked(found, test, folder / "test")
        marker.touch()
    training_pictures(found, task, warm=True)


if __name__ == "__main__":
    main()
