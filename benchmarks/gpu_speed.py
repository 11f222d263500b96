"""What is measured on a GPU: `python benchmarks/gpu_speed.py TASK --data DIR`, on an idle card.

- `cifar94`, `cifar96`: ResNets on CIFAR-10 to 94 % and 96 % of its test pictures: seconds and accuracies of several
  seeds. Counted as cifar10-airbench counts: after a warm-up on a copy that builds kernels, with the pictures on the
  card, from the first batch to the last update; evaluation apart. And with everything: a fresh process from its start
  to its accuracy, imports, decoded pictures and compiling included. A seed that misses the accuracy is said to.
- `resnet-cifar`: ResNet-20, 56 and 110 by the named recipe `paper/resnet-cifar`, on all 50,000 training pictures as in
  the paper, five seeds each: test errors beside the paper's (table 6; 110: best 6.43, mean 6.61). `--at-once 5` trains
  as many at a time, because small networks leave a card idle; their seconds are then not those of one alone.
- `resnet50`: images/s at 224 beside torchvision's loop and timm's, see `gpu_photos`.

Recipes are chosen on training pictures: `--held-out` trains on 45,000 and answers the other 5,000, and writes no row.

Made for a card that one has for minutes: what a task has measured is kept in `--work`, one file for each seed or round,
and is not measured again; a training of `resnet-cifar` that was killed goes on from its newest checkpoint. What was
begun on other pictures, with other batches, beside more trainings or on another device is refused; rows carry the
commits that their measurements were made at. `--seeds`, `--models` and `--rounds` ask for a part. DIR holds `cifar10/`
as packed (100 MB) or `cifar10.npz`.

`--tiny` does all of it in seconds on a CPU, with numbers that mean nothing: a check of the script. Rows go to
`--results` unless `--tiny`. Nothing else may run on the machine.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import torch
from gpu_photos import SUBJECTS, WARM_UPS, made_photos
from results import RESULTS, Row, append, begun, card, origin, origin_of
from torch import nn

from netsmith.arch.names import find_layout
from netsmith.data.audit import audit
from netsmith.data.cache import prepared
from netsmith.data.items import Dataset, Item
from netsmith.data.masters import masters
from netsmith.data.sources import open_source
from netsmith.models.build import build
from netsmith.run.clock import SystemClock
from netsmith.run.files import write_json
from netsmith.run.named_recipes import find_recipe
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.devices import synchronize
from netsmith.train.evaluate import evaluate_network
from netsmith.train.feed import TrainingData
from netsmith.train.trainer import Trainer

HERE = Path(__file__).resolve()
SWITCHES = ("compile", "graphs", "held_out", "tiny")


@dataclass(frozen=True, kw_only=True)
class Cifar:
    """A race to an accuracy.

    Attributes:
        goal: test top-1.
        model: that is trained.
        recipe: fields over netsmith's defaults.
    """

    goal: float
    model: str
    recipe: dict[str, Any]


# Rate, batch, momentum and decay are Page's ("How to train your ResNet", 2018), whose 18-layer ResNet took 24 to 35
# epochs to 94 %; label smoothing, small translations of short runs and flips are Jordan's (2024, arXiv 2404.00498). To
# 96 % a ResNet-18 takes 200 with cutout (DeVries and Taylor 2017: 3.99 % error; Jordan's baseline): a wider one fewer,
# and erasing every picture is much like cutout. Both lengths are guesses, to be chosen with `--held-out`.
CIFAR = {
    "batch_size": 512, "lr": 0.4, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "sched": "onecycle",
    "warmup": 0.2, "flip": "alternating", "crop_scale": None, "channels_last": True,
}  # fmt: skip
SHORT = CIFAR | {"epochs": 24.0, "pad": 2, "smoothing": 0.2}
LONG = CIFAR | {"epochs": 100.0, "pad": 4, "smoothing": 0.1, "random_erase": 1.0}
CIFAR_TASKS = {
    "cifar94": Cifar(goal=0.94, model="resnet18", recipe=SHORT),
    "cifar96": Cifar(goal=0.96, model="resnet18@1.5", recipe=LONG),
}
PAPER = {"resnet20_cifar": "8.75", "resnet56_cifar": "6.97", "resnet110_cifar": "6.43, mean 6.61"}
"""Test errors of He et al. 2016, table 6, per cent."""


# CIFAR-10


def cifar10_npz(data: Path, work: Path) -> Path:
    """The file of CIFAR-10: of the data folder, or made once."""
    found = next((path for path in (data / "cifar10.npz", work / "cifar10.npz") if path.exists()), None)
    if found is not None:
        return found
    script = [sys.executable, str(HERE.parent / "make_npz.py"), "-o", str(work), "--data", str(data), "cifar10"]
    subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
    return work / "cifar10.npz"


def cifar10(source: Path) -> Dataset:
    """CIFAR-10, its 50,000 training pictures all trained on."""
    found = audit(open_source(source)).dataset
    items = [replace(item, split="train" if item.split == "val" else item.split) for item in found.items]
    return replace(found, items=tuple(items))


def divided(found: Dataset, options: argparse.Namespace) -> tuple[Sequence[Item], Sequence[Item]]:
    """Pictures to train on and to answer: every tenth of training's, or test's."""
    train, asked = found.subset("train"), found.subset("test")
    if options.held_out:
        train, asked = [item for n, item in enumerate(train) if n % 10], train[::10]
    return (train[:1600], asked[:50]) if options.tiny else (train, asked)


def recipe_of(options: argparse.Namespace) -> Recipe:
    """What a process that trains one network is asked to do."""
    if options.task in CIFAR_TASKS:
        fields = CIFAR_TASKS[options.task].recipe
    else:
        fields = dict(find_recipe("paper/resnet-cifar").fields) | {"channels_last": True}
        if options.model == "resnet110_cifar":
            fields["warmup"] = 0.00625  # about 400 updates, as the paper has it
    changes = {"device": options.device, "seed": options.seed, "dtype": options.dtype, "compile": options.compile}
    if options.epochs:
        changes["epochs"] = options.epochs
    if options.workers is not None:
        changes["workers"] = options.workers
    if options.tiny:
        changes |= {"epochs": 0.02, "batch_size": 32, "threads": 1}
    model = "resnet8_cifar" if options.tiny else options.model
    return Recipe(**({"model": model, "img_size": 32} | fields | changes))


def train_one(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One network, in a process of its own.

    Args:
        options: of the command, with `model` and `seed`.
        folder: of plan and checkpoints; where there are some, training goes on.
    """
    clock, recipe, rules = SystemClock(), recipe_of(options), Preprocess(size=32)
    found = cifar10(cifar10_npz(options.data, options.work))
    train, asked = divided(found, options)
    pictures = masters(found, train, side=32)
    pictures.fill()
    layout = find_layout(recipe.model, num_classes=len(found.classes), img_size=32)
    data = TrainingData.of(pictures, prepared(found, [], rules), rules)
    races = options.task in CIFAR_TASKS
    if options.graphs:
        nn.Module.compile = partialmethod(nn.Module.compile, options={"triton.cudagraphs": True})
    plan = Plan(folder / "plan.jsonl")
    trainer = Trainer(
        build(layout, seed=options.seed),
        data,
        recipe,
        plan=plan,
        clock=clock,
        checkpoints=None if races else folder / "checkpoints",
    )
    if races:
        warm_up(trainer)
    else:
        trainer.resume()
    before = trainer.seconds
    trainer.feed.delivered(0)  # brings all pictures to the card
    synchronize(trainer.device)
    began = clock.now()
    trainer.advance()
    synchronize(trainer.device)
    seconds = clock.now() - began + (0.0 if races else before)
    answers = prepared(found, asked, rules)
    evaluation = evaluate_network(
        trainer.network, answers.pixels, answers.labels, mean=rules.mean, std=rules.std, batch_size=1000
    )
    top1, way = evaluation.top1, ", ".join(f"{row.kind} {row.value}" for row in plan.rows)
    return {"seconds": seconds, "top1": top1.value, "low": top1.low, "high": top1.high, "n": len(asked), "way": way}


def warm_up(trainer: Trainer) -> None:
    """A few updates on a copy: what training runs is then built."""
    network = copy.deepcopy(trainer.network).to(trainer.device)
    with tempfile.TemporaryDirectory() as scratch:
        recipe = trainer.recipe.model_copy(update={"compile": False, "dtype": trainer.precision.dtype})
        plan = Plan(Path(scratch, "plan.jsonl"))
        other = Trainer(network, trainer.data, recipe, plan=plan, clock=SystemClock())
        other.advance(until=min(WARM_UPS, other.total_steps))
    synchronize(trainer.device)


def trained(options: argparse.Namespace, models: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """What every model and seed came to, in the order of the seeds."""
    cifar10_npz(options.data, options.work)
    jobs = [(model, seed) for model in models for seed in options.seeds]

    def do(job: tuple[str, int]) -> dict[str, Any]:
        return measured(options, f"{job[0]}-seed{job[1]}", "--model", job[0], "--seed", str(job[1]))

    with ThreadPoolExecutor(options.at_once) as pool:
        found = list(pool.map(do, jobs))
    return {model: [one for (of, _), one in zip(jobs, found, strict=True) if of == model] for model in models}


def race(options: argparse.Namespace) -> Iterator[Row]:
    """All seeds: what airbench counts, and everything."""
    task = CIFAR_TASKS[options.task]
    models = options.models or [task.model]
    for model, found in trained(options, models).items():
        reached = sum(one["top1"] >= task.goal for one in found)
        seconds, everything, top1 = ([one[name] for one in found] for name in ("seconds", "everything", "top1"))
        note = (
            f"{reached} of {len(found)} seeds reach {task.goal:.0%}; mean {statistics.mean(top1):.4f}; "
            f"seconds as airbench counts {spread(seconds)}, with everything {spread(everything)}; {found[0]['way']}"
        )
        yield {"subject": "netsmith", "model": f"{model} at 32", "test_top1": statistics.mean(top1),
               "n": found[0]["n"], "note": note, **of_all(found)}  # fmt: skip


def paper(options: argparse.Namespace) -> Iterator[Row]:
    """Test errors beside the paper's."""
    for model, found in trained(options, options.models or list(PAPER)).items():
        errors = [100 * (1 - one["top1"]) for one in found]
        minutes = spread([one["seconds"] / 60 for one in found])
        note = (
            f"test errors {spread(errors)} %; the paper's {PAPER[model]} %; "
            f"minutes {minutes}, {options.at_once} at once; {found[0]['way']}"
        )
        yield {"subject": "netsmith", "model": model, "test_top1": 1 - statistics.mean(errors) / 100,
               "n": found[0]["n"], "note": note, **of_all(found)}  # fmt: skip


def speeds(options: argparse.Namespace) -> Iterator[Row]:
    """All subjects in turn, the order turned round in every second round."""
    made_photos(options.work / "photos", options.pictures)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in SUBJECTS}
    for turn in range(options.rounds):
        for name in list(SUBJECTS) if turn % 2 == 0 else reversed(list(SUBJECTS)):
            rounds[name].append(measured(options, f"{name}-round{turn}", "--subject", name))
    ours = statistics.median([one["rate"] for one in rounds["netsmith"]])
    for name, found in rounds.items():
        each = [one["rate"] for one in found]
        middle = statistics.median(each)
        times = f", netsmith is {ours / middle:.2f} times as fast" if name != "netsmith" else ""
        note = f"{middle:,.0f} images/s ({min(each):,.0f} to {max(each):,.0f}, {len(each)} rounds){times}; "
        note += found[-1]["way"]
        yield {"subject": name, "model": "resnet50 at 224", "note": note, **of_all(found)}


def spread(values: list[float]) -> str:
    """Mean, and least to most."""
    return f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f}, n {len(values)})"


def of_all(found: Sequence[dict[str, Any]]) -> Row:
    """When and at which commits measurements were made."""
    return origin_of(each for one in found for each in one["made"])


# Measurements, each in a process of its own, kept


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """What decides a measurement beside what its folder is named after."""
    names = ("batch", "passes", "pictures") if options.task == "resnet50" else ("data", "at_once")
    return {name: str(getattr(options, name)) for name in ("device", *names)}


def measured(options: argparse.Namespace, name: str, *more: str) -> dict[str, Any]:
    """A measurement that is kept, or made now."""
    settings = [options.dtype, *(each for each in SWITCHES if getattr(options, each))]
    settings += [f"{options.epochs:g}epochs"] if options.epochs else []
    settings += [f"{options.workers}workers"] if options.workers is not None else []
    folder = options.work / options.task / "-".join([name, *settings])
    kept = folder / "result.json"
    folder.parent.mkdir(parents=True, exist_ok=True)
    known = begun(folder, finished=kept.exists(), asked=conditions(options))
    if not kept.exists():
        clock = SystemClock()
        began = clock.now()
        found = child(options, folder, *more)
        write_json(kept, found | {"everything": clock.now() - began})
    found = json.loads(kept.read_text()) | {"made": known}
    print(f"{options.task}, {folder.name}: {json.dumps(found)}", flush=True)
    return found


def child(options: argparse.Namespace, folder: Path, *more: str) -> dict[str, Any]:
    """One measurement in a fresh process; with an empty cache of pictures where decoding them counts."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "data": options.data, "work": options.work, "device": options.device, "dtype": options.dtype,
        "batch": options.batch, "passes": options.passes, "epochs": options.epochs, "folder": folder,
        "workers": options.workers,
    }  # fmt: skip
    command = [sys.executable, str(HERE), options.task, *more]
    command += [part for name, value in values.items() if value is not None for part in (f"--{name}", str(value))]
    command += [f"--{name.replace('_', '-')}" for name in SWITCHES if getattr(options, name)]
    errors = folder / "stderr.log"
    with tempfile.TemporaryDirectory() as scratch, errors.open("w") as handle:
        cache = {"NETSMITH_CACHE": scratch} if options.task in CIFAR_TASKS else {}
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=handle, text=True, check=False, env=os.environ | cache
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors.read_text()[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=[*CIFAR_TASKS, "resnet50", "resnet-cifar"])
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data", help="folder of the sets")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu_speed"), help="what is kept between calls")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file that rows are added to")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of the CIFAR tasks")
    parser.add_argument("--models", nargs="+", help="of the CIFAR tasks, in place of theirs")
    parser.add_argument("--epochs", type=float, default=0.0, help="of the CIFAR tasks, in place of the recipe's")
    parser.add_argument("--workers", type=int, help="threads that prepare batches, of the CIFAR tasks; 0 for none")
    parser.add_argument("--held-out", action="store_true", help="judge by training pictures that are left out")
    parser.add_argument("--at-once", type=int, default=1, help="trainings at a time")
    parser.add_argument("--rounds", type=int, default=5, help="of resnet50")
    parser.add_argument("--batch", type=int, default=256, help="of resnet50")
    parser.add_argument("--passes", type=int, default=3, help="over the pictures, of resnet50")
    parser.add_argument("--pictures", type=int, default=8192, help="of resnet50")
    parser.add_argument("--tiny", action="store_true", help="seconds on a CPU: does the script run?")
    for name, kind in (("folder", Path), ("model", str), ("seed", int), ("subject", str)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)  # of a process that measures one thing
    parser.add_argument(
        "--graphs",
        action="store_true",
        help="with --held-out --compile: by CUDA graphs, which netsmith does not use yet",
    )
    options = parser.parse_args(arguments)
    if options.graphs and not (options.held_out and options.compile):
        parser.error("--graphs is an experiment: give --held-out and --compile with it")
    if options.task in CIFAR_TASKS and options.at_once > 1 and not options.held_out:
        parser.error("trainings that are timed have the card to themselves; --at-once is for --held-out there")
    if options.task == "resnet-cifar" and (unknown := set(options.models or ()) - set(PAPER)):
        parser.error(f"the paper has no {', '.join(sorted(unknown))} (there are {', '.join(PAPER)})")
    return options


def main() -> None:
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.folder:
        photos = options.work / "photos"
        found = SUBJECTS[options.subject](options, photos) if options.subject else train_one(options, options.folder)
        print(json.dumps(found))
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device; --tiny --device cpu checks the script")
    about = origin("gpu_speed")  # first: where a commit is not known, nothing need be measured
    rows = list({"resnet50": speeds, "resnet-cifar": paper}.get(options.task, race)(options))
    about |= {"command": " ".join(["python", "benchmarks/gpu_speed.py", *sys.argv[1:]])}
    about["machine"] = card(options.device) + about["machine"]
    for row in rows:
        print(f"{row['subject']}, {row['model']}: {row['note']}")
    if not (options.tiny or options.held_out):
        append(options.results, [about | row for row in rows])


if __name__ == "__main__":
    main()
