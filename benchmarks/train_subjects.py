"""What `train_speed.py` measures: its tasks, their pictures, and one training of every subject.

A measurement says in how many seconds it made its updates (`seconds`), how (`way`), with which weights it began
(`start`), how many pictures it trained on (`pictures`) and what it answers of the test pictures (`top1`).
"""

import argparse
import contextlib
import copy
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peer_networks import peer_network
from plain_loop import PlainLoop, sgd, transform
from step_profile import profiled
from torch import Tensor, nn

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
WARM_UPS = 3
TEST_PICTURES = 600
CLASSES = 10
TIMM_SCRIPT = "f0bb70b9e1c8c576eb1f7beba9cb46953d01ec1308d68c59ec055a6266f76388"
"""SHA-256 of timm's train.py at commit a6da4da1, which the options below are given to."""


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


def prepare_files(task: Task, *, data: Path, work: Path) -> None:
    """Pictures as files for the DataLoaders, and netsmith's cache, which `warm` means."""
    folder = work / "files" / task.model
    found = dataset(task, data, work)
    train, test = chosen(found, task)
    marker = folder / f"train-{len(train)}.whole"
    if not marker.exists():
        subprocess.run(["rm", "-rf", str(folder)], check=True)
        unpacked(found, train, folder / "train")
        unpacked(found, test, folder / "test")
        marker.touch()
    training_pictures(found, task, warm=True)


def answers(task: Task, network: nn.Module, test: Any) -> float:
    """Test top-1."""
    rules = Preprocess(size=task.side)
    found = evaluate_network(network.eval(), test.pixels, test.labels, mean=rules.mean, std=rules.std)
    return found.top1.value


# Subjects, each in a process of its own


def digest(weights: Iterable[Tensor]) -> str:
    """Equal for equal weights, whatever their names and however they lie in memory."""
    values = (each.detach().float().contiguous().numpy().tobytes() for each in weights if each.is_floating_point())
    every = sorted(hashlib.sha256(value).hexdigest() for value in values)
    return hashlib.sha256("".join(every).encode()).hexdigest()[:12]


def measured_recipe(task: Task, seed: int, data: TrainingData) -> Recipe:
    """Of a fixed number of updates, in the way that netsmith's trainer measures to be the fastest."""
    timed = task.recipe(seed)
    with tempfile.TemporaryDirectory() as scratch:
        plan = Plan(Path(scratch, "measured.jsonl"))
        found = Trainer(build(task.layout, seed=seed), data, timed, plan=plan, clock=SystemClock())
        measured = {
            "dtype": found.precision.dtype, "channels_last": found.precision.channels_last,
            "threads": torch.get_num_threads(), "time_s": None, "epochs": float(task.epochs),
        }  # fmt: skip
    return Recipe.model_validate(timed.model_dump() | measured)


@contextlib.contextmanager
def own_trainer(task: Task, recipe: Recipe, data: TrainingData) -> Iterator[Trainer]:
    """netsmith's trainer."""
    with tempfile.TemporaryDirectory() as scratch:
        plan = Plan(Path(scratch, "plan.jsonl"))
        yield Trainer(build(task.layout, seed=recipe.seed), data, recipe, plan=plan, clock=SystemClock())


@contextlib.contextmanager
def empty_cache(work: Path) -> Iterator[None]:
    """Pixels are kept in a new folder meanwhile."""
    before = os.environ.get("NETSMITH_CACHE")
    with tempfile.TemporaryDirectory(dir=work) as folder:
        os.environ["NETSMITH_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["NETSMITH_CACHE"]
            if before is not None:
                os.environ["NETSMITH_CACHE"] = before


def run_netsmith(task: Task, seed: int, *, data: Path, work: Path, warm: bool) -> dict[str, Any]:
    clock, rules = SystemClock(), Preprocess(size=task.side)
    found = dataset(task, data, work)
    none, test = prepared(found, [], rules), prepared(found, chosen(found, task)[1], rules)
    decoded = TrainingData.of(training_pictures(found, task, warm=True), none, rules)
    recipe = measured_recipe(task, seed, decoded)
    with contextlib.nullcontext() if warm else empty_cache(work):
        pictures = decoded if warm else TrainingData.of(training_pictures(found, task, warm=False), none, rules)
        with own_trainer(task, recipe, pictures) as trainer:
            start = digest(trainer.network.state_dict().values())
            began = clock.now()
            trainer.advance()
            seconds = clock.now() - began
    way = f"{trainer.precision.dtype}, channels_last {trainer.precision.channels_last}"
    way += f", {torch.get_num_threads()} threads"
    return {
        "seconds": seconds, "way": way, "start": start, "pictures": trainer.step * trainer.batch_size,
        "top1": answers(task, trainer.network, test),
    }  # fmt: skip


def run_profile(task: Task, seed: int, *, data: Path, work: Path) -> dict[str, Any]:
    """The fields of a `Profile` of netsmith's steps, and the way they are computed."""
    found, rules = dataset(task, data, work), Preprocess(size=task.side)
    pictures = TrainingData.of(training_pictures(found, task, warm=True), prepared(found, [], rules), rules)
    recipe = measured_recipe(task, seed, pictures).model_copy(update={"epochs": 100.0})
    with own_trainer(task, recipe, pictures) as trainer:
        profile = profiled(trainer, task.layout)
    way = f"{trainer.precision.dtype}, {torch.get_num_threads()} threads"
    return asdict(profile) | {"way": way}


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
    start = digest(network.state_dict().values())
    network.train()
    twin = copy.deepcopy(network)
    twin_optimizer = sgd(twin, recipe)
    shape = (task.batch, 3, task.side, task.side)
    for _ in range(WARM_UPS):
        loop.update(twin, twin_optimizer, torch.rand(shape), torch.randint(CLASSES, (task.batch,)))
    del twin, twin_optimizer
    optimizer = sgd(network, recipe)
    pictures = 0
    began = clock.now()
    for _ in range(task.epochs):
        for images, targets in loader:
            loop.update(network, optimizer, images, targets)
            pictures += len(targets)
    seconds = clock.now() - began
    found = dataset(task, data, work)
    return {
        "seconds": seconds, "way": f"{workers} workers", "start": start, "pictures": pictures,
        "top1": answers(task, network, prepared(found, chosen(found, task)[1], rules)),
    }  # fmt: skip


def run_timm(task: Task, seed: int, *, work: Path, script: Path, workers: int) -> dict[str, Any]:
    """timm's script as it comes, told the same recipe; the rate is its own count of every epoch.

    It trains for one epoch more, and the first, in which oneDNN builds its kernels, does not count: the other subjects
    make updates on a copy before the clock starts. Its weights are then of more updates than the others', so its
    accuracy is none that is compared.
    """
    folder = work / "files" / task.model
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch, "start.safetensors")
        given = for_library(build(task.layout, seed=seed).state_dict(), task.layout, "timm").weights
        write_weights(weights, given)
        rules = Preprocess(size=task.side)
        command = [
            str(script), str(folder), "--train-split", "train", "--val-split", "test", "--model", str(task.timm),
            "--num-classes", str(CLASSES), "--img-size", str(task.side), "--batch-size", str(task.batch),
            "--epochs", str(task.epochs + 1), "--warmup-epochs", "0", "--sched", "step", "--decay-epochs", "1000",
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
    updates = dict(re.findall(r"Train: (\d+) \[\s*(\d+)/", text))  # numbered from 0 in every epoch
    counted = [epoch for epoch in by_epoch if epoch != "0"]
    return {
        "seconds": sum(task.pictures / float(by_epoch[epoch]) for epoch in counted),
        "way": f"{workers} workers, timm {version('timm')}", "top1": None, "start": digest(given.values()),
        "pictures": task.batch * sum(int(updates[epoch]) + 1 for epoch in counted),
    }  # fmt: skip


def timm_script(text: str) -> Path:
    """A path to timm's script, of the content that is known."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}; --help says where timm's train.py is")
    if hashlib.sha256(path.read_bytes()).hexdigest() != TIMM_SCRIPT:
        raise argparse.ArgumentTypeError(
            f"{path} is not the train.py that this benchmark was made with (SHA-256 {TIMM_SCRIPT}); --help says where "
            "that is"
        )
    return path
