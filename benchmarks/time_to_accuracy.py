"""Time to an accuracy, against the loop people write: `python benchmarks/time_to_accuracy.py --data DIR`.

Goals: Fashion-MNIST 92 %, CIFAR-10 85 %, digits 98.5 % (in at most 3 s), on test pictures, in a run that ends: its
schedule finished, its last weights counted. What the engine gains and what the recipe gains are told apart by four
cells, with the same network, initial weights and pictures:

- `loop-plain`: a DataLoader with PIL transforms, float32, the best of 0, 1 and 2 workers; SGD, a tenth of the rate at
  half and at three quarters (He et al. 2016, section 4.2);
- `loop-fast`: that loop with netsmith's recipe `fast`, but at one side: the loop cannot let pictures grow, so what
  netsmith gains on it is the engine's gain and that of growing pictures together;
- `netsmith-plain`: `netsmith train --time T` with the plain recipe;
- `netsmith-fast`: `netsmith train --time T --recipe fast`.

How long each trains is chosen on validation pictures: for netsmith the shortest T of a grid with which all selection
seeds are two standard errors above the goal (the shortest that just reaches it misses it on other pictures as often as
not), found by halving the grid; for the loop the epochs that netsmith made in that T with the same recipe, because it
has no clock. A recipe with which no length suffices gets the longest, and what is said of it is "at least". A goal that
names its seconds leaves nothing to choose. Then other seeds train and are asked on test pictures, once. Seconds count
from the first thing done with the pictures in memory to the last update, netsmith's measuring of dtype and threads and
both sides' first kernels included; starting Python and decoding the set do not count.

Every run is a process of its own, and its result stays in the work folder under its cell, length, seed and recipe, with
the commit it was made at, which is that of its row. So the script can be stopped and started again, and runs in pieces:
`--sets fashion-mnist --cells netsmith-fast`. A cell of the loop needs the selection of its recipe, which is made where
it is missing. `--list` says what is there.

Nothing else may run on the machine. On two cores of 2022: digits a minute, Fashion-MNIST about an hour, CIFAR-10 about
three, of which the loop takes two thirds.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy_jobs import CELLS, GOALS, Goal, Job
from peer_networks import peer_network
from plain_loop import PlainLoop, sgd, transform
from results import RESULTS, Row, append, begun, origin, origin_of

from netsmith.data.audit import audit
from netsmith.data.cache import Prepared, prepared
from netsmith.data.items import Dataset
from netsmith.data.masters import Masters, masters
from netsmith.data.sources import open_source
from netsmith.data.splits import split
from netsmith.models.build import build
from netsmith.run.clock import SystemClock
from netsmith.run.files import write_bytes
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.waiting import waiting
from netsmith.train.evaluate import evaluate_network
from netsmith.train.feed import TrainingData
from netsmith.train.schedules import learning_rate
from netsmith.train.trainer import Trainer

HERE = Path(__file__).resolve()
WORKERS = (0, 1, 2)
WORKERS_PICTURES = 4096  # that each number of workers is tried on
SELECTION_SEEDS = (100, 101)
SEEDS = (0, 1, 2)


# Pictures


def dataset(goal: Goal, options: argparse.Namespace) -> Dataset:
    """The set with its published test pictures and 15 % of the rest for validation; packed ones are unpacked first."""
    if goal.data == "digits":
        return split(audit(open_source("digits")).dataset, seed=0)
    source = options.work / f"{goal.data}.npz"
    if not source.exists():
        script = [
            sys.executable,
            str(HERE.parent / "make_npz.py"),
            "-o",
            str(options.work),
            "--data",
            str(options.data),
        ]
        subprocess.run([*script, goal.data], check=True, stdout=subprocess.DEVNULL)
    return split(audit(open_source(source)).dataset, seed=0)


@dataclass(frozen=True)
class Pictures:
    """To train on, decoded already; none, for a trainer that is not to evaluate; to be asked about."""

    train: Masters
    none: Prepared
    asked: Prepared
    rules: Preprocess


def pictures(goal: Goal, options: argparse.Namespace, *, asked: str) -> Pictures:
    """Of a set."""
    found, rules = dataset(goal, options), Preprocess(size=goal.side)
    train = masters(found, found.subset("train"), side=goal.side)
    train.fill()
    return Pictures(train, prepared(found, [], rules), prepared(found, found.subset(asked), rules), rules)


# Runs, each in a process of its own


def run_netsmith(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    goal, recipe, clock = GOALS[job.goal], job.fields(), SystemClock()
    found = pictures(goal, options, asked=job.asked)
    network = build(goal.layout, seed=job.seed)
    began = clock.now()
    with tempfile.TemporaryDirectory() as scratch:
        data = TrainingData.of(found.train, found.none, found.rules)
        trainer = Trainer(network, data, recipe, plan=Plan(Path(scratch, "plan.jsonl")), clock=clock)
        trainer.advance()
    seconds = clock.now() - began
    way = f"{trainer.precision.dtype}, channels_last {trainer.precision.channels_last}"
    return {
        "seconds": seconds, "epochs": trainer.epoch, "way": f"{way}, {torch.get_num_threads()} threads",
        "top1": answers(trainer.network, found), "n": len(found.asked.labels),
    }  # fmt: skip


class Loaded(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Pictures in memory, each made a PIL image and changed when it is asked for, as torchvision's CIFAR10 does."""

    def __init__(self, pixels: list[np.ndarray], labels: list[int], change: Any) -> None:
        self.pixels, self.labels, self.change = pixels, labels, change

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        import PIL.Image

        return self.change(PIL.Image.fromarray(self.pixels[index])), self.labels[index]


def run_loop(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    goal, recipe, clock = GOALS[job.goal], job.fields(), SystemClock()
    found = pictures(goal, options, asked=job.asked)
    pixels = [np.array(found.train[index]) for index in range(len(found.train))]
    network = peer_network(goal.layout, seed=job.seed)
    torch.manual_seed(job.seed)
    began = clock.now()
    files = Loaded(pixels, found.train.labels.tolist(), transform(recipe, found.rules))
    loader = torch.utils.data.DataLoader(
        files, batch_size=recipe.batch_size, shuffle=True, num_workers=job.workers, drop_last=True
    )
    loop, optimizer = PlainLoop(smoothing=recipe.smoothing), sgd(network, recipe)
    total = math.ceil(job.pictures / recipe.batch_size) if job.pictures else round(job.epochs * len(loader))
    step = 0
    while step < total:
        for images, targets in loader:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, (step + 0.5) / total)
            loop.update(network, optimizer, images, targets)
            step += 1
            if step == total:
                break
    seconds = clock.now() - began
    return {
        "seconds": seconds, "epochs": step / len(loader), "way": f"{job.workers} workers",
        "top1": None if job.pictures else answers(network, found),
    }  # fmt: skip


def answers(network: torch.nn.Module, found: Pictures) -> float:
    """Top-1 on the pictures asked about."""
    rules, asked = found.rules, found.asked
    evaluation = evaluate_network(network.eval(), asked.pixels, asked.labels, mean=rules.mean, std=rules.std)
    return evaluation.top1.value


def result(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Of a run: kept, or made now. `made` says of which commit it is."""
    paths = [options.work / job.goal / f"{name}.json" for name in job.names]
    path = next((path for path in paths if path.exists()), paths[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    known = begun(path, finished=path.exists())
    if not path.exists():
        command = [sys.executable, str(HERE), "--child", json.dumps(job.__dict__)]
        command += ["--data", str(options.data), "--work", str(options.work)]
        environment = dict(os.environ)
        if job.engine == "netsmith":
            environment |= waiting(environment)  # as the command line sets it
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{job} failed:\n{done.stderr[-3000:]}")
        write_bytes(path, done.stdout.splitlines()[-1].encode())
    found = json.loads(path.read_text()) | {"made": known}
    if found["top1"] is not None:
        length = f"{job.seconds:g} s" if job.engine == "netsmith" else f"{job.epochs:g} epochs"
        came = f"{100 * found['top1']:.2f} % {job.asked}, {found['seconds']:.1f} s, {found['epochs']:.2f} epochs"
        came += f", commit {origin_of(known)['commit']}"
        print(f"{job.goal}, {job.engine}, {job.recipe}, {length}, seed {job.seed}: {came}", flush=True)
    return found


# Lengths, chosen on validation pictures


def selection(name: str, recipe: str, seconds: float, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Runs of the selection seeds."""
    for seed in SELECTION_SEEDS:
        yield result(Job(goal=name, engine="netsmith", recipe=recipe, seed=seed, asked="val", seconds=seconds), options)


def chosen(name: str, recipe: str, options: argparse.Namespace) -> tuple[float, bool]:
    """The shortest time of the grid with which all selection seeds are two standard errors above the goal.

    Returns:
        It and True, or the longest and False where with none they are.
    """
    goal = GOALS[name]
    if len(goal.seconds) == 1:
        return goal.seconds[0], True

    def reaches(seconds: float) -> bool:
        return all(
            found["top1"] >= goal.top1 + 2 * math.sqrt(goal.top1 * (1 - goal.top1) / found["n"])
            for found in selection(name, recipe, seconds, options)
        )

    low, high = 0, len(goal.seconds)  # the answer lies in grid[low:high + 1], where the last means none
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(goal.seconds[middle]) else (middle + 1, high)
    if low == len(goal.seconds):
        return goal.seconds[-1], False
    return goal.seconds[low], True


def best_workers(name: str, recipe: str, options: argparse.Namespace) -> int:
    """Workers of the loop's DataLoader that are fastest here."""
    tried = {
        workers: result(
            Job(
                goal=name, engine="loop", recipe=recipe, seed=0, asked="val", epochs=1.0, workers=workers,
                pictures=WORKERS_PICTURES,
            ),
            options,
        )["seconds"]
        for workers in WORKERS
    }  # fmt: skip
    print(f"{name}, loop: " + ", ".join(f"{count} workers {s:.1f} s" for count, s in tried.items()), flush=True)
    return min(tried, key=lambda workers: tried[workers])


# Cells


def cell(name: str, which: str, options: argparse.Namespace) -> dict[str, Any]:
    """A line of the table."""
    engine, recipe = which.split("-")
    recipe = "fast-even" if which == "loop-fast" else recipe
    given, suffices = chosen(name, recipe, options)
    if engine == "netsmith":
        jobs = [Job(goal=name, engine=engine, recipe=recipe, seed=seed, asked="test", seconds=given) for seed in SEEDS]
    else:
        made = [each["epochs"] for each in selection(name, recipe, given, options)]
        epochs, workers = math.ceil(10 * statistics.mean(made)) / 10, best_workers(name, recipe, options)
        jobs = [
            Job(goal=name, engine=engine, recipe=recipe, seed=seed, asked="test", epochs=epochs, workers=workers)
            for seed in SEEDS
        ]
    found = [result(job, options) for job in jobs]
    seconds, top1 = [each["seconds"] for each in found], [each["top1"] for each in found]
    return {
        "set": name, "cell": which, "seconds": statistics.median(seconds), "low": min(seconds), "high": max(seconds),
        "given": jobs[0].seconds or None, "epochs": statistics.mean(each["epochs"] for each in found),
        "top1": statistics.mean(top1), "least": min(top1), "reached": sum(each >= GOALS[name].top1 for each in top1),
        "way": found[0]["way"], "suffices": suffices, "made": origin_of(one for each in found for one in each["made"]),
    }  # fmt: skip


def table(lines: list[dict[str, Any]]) -> str:
    """Lines of one set in Markdown, each with how many times longer it takes than netsmith with `fast`."""
    ours = next((line["seconds"] for line in lines if line["cell"] == "netsmith-fast"), None)
    rows = [
        f"| {line['cell']} | {line['seconds']:.1f} ({line['low']:.1f} to {line['high']:.1f}) | {line['epochs']:.1f} | "
        f"{100 * line['top1']:.2f} ({100 * line['least']:.2f}) | {line['reached']} of {len(SEEDS)} | "
        f"{'' if ours is None else ('' if line['suffices'] else 'at least ') + format(line['seconds'] / ours, '.2f')} |"
        for line in lines
    ]
    goal = GOALS[lines[0]["set"]]
    title = f"{lines[0]['set']} to {100 * goal.top1:g} %, {goal.model} at {goal.side} pixels"
    head = "| cell | seconds (least to most) | epochs | test top-1 (least) | reached | times |"
    return "\n".join([title, "", head, "|---" * 6 + "|", *rows, ""])


def gains(lines: Iterable[dict[str, Any]]) -> str:
    """What the engine gains with each recipe, and what the recipe gains in each engine, where times were chosen."""
    compared = {line["cell"]: line for line in lines if len(GOALS[line["set"]].seconds) > 1}
    pairs = (
        ("the engine, plain recipe", "loop-plain", "netsmith-plain"),
        ("the engine and pictures that grow, fast", "loop-fast", "netsmith-fast"),
        ("the recipe, in the loop", "loop-plain", "loop-fast"),
        ("the recipe, in netsmith", "netsmith-plain", "netsmith-fast"),
        ("both", "loop-plain", "netsmith-fast"),
    )
    known = [(what, compared[slow], compared[quick]) for what, slow, quick in pairs if {slow, quick} <= set(compared)]
    return "\n".join(
        f"{what}: {'' if slow['suffices'] or not quick['suffices'] else 'at least '}"
        f"{slow['seconds'] / quick['seconds']:.2f} times"
        for what, slow, quick in known
    )


def row(line: dict[str, Any]) -> Row:
    """A line of the table as a row of results.csv."""
    goal = GOALS[line["set"]]
    given = f"{line['given']:g} s given, " if line["given"] else ""
    given = given if line["suffices"] else f"no length tried suffices on validation; {given}"
    note = (
        f"{given}{line['seconds']:.1f} s ({line['low']:.1f} to {line['high']:.1f}), {line['epochs']:.1f} epochs; "
        f"{line['reached']} of {len(SEEDS)} seeds reach {100 * goal.top1:g} %, the least {100 * line['least']:.2f} %; "
        f"{line['way']}"
    )
    return origin("time to accuracy") | line["made"] | {
        "subject": line["cell"], "budget": f"{line['set']} {100 * goal.top1:g} %",
        "model": f"{goal.model} r{goal.side}",
        "test_top1": round(line["top1"], 4), "n": 10_000 if line["set"] != "digits" else "", "note": note,
        "command": f"python benchmarks/time_to_accuracy.py --sets {line['set']}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data", help="folder of the sets")
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "runs" / "time_to_accuracy", help="kept runs")
    parser.add_argument("--sets", nargs="+", choices=list(GOALS), default=list(GOALS))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV file to append a row per cell to")
    parser.add_argument("--no-results", action="store_true", help="append nothing")
    parser.add_argument("--list", action="store_true", help="only say which runs are there")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.child:
        job = Job(**options.child)
        print(json.dumps((run_netsmith if job.engine == "netsmith" else run_loop)(job, options)))
        return
    for name in options.sets:
        if options.list:
            kept = sorted((options.work / name).glob("*.json"))
            print(f"{name}: {len(kept)} runs", *(f"  {path.stem} {path.read_text()}" for path in kept), sep="\n")
            continue
        lines = [cell(name, which, options) for which in options.cells if which in GOALS[name].cells]
        if lines:
            print(f"\n{table(lines)}\n{gains(lines)}\n", flush=True)
        if not options.no_results:
            append(options.results, [row(line) for line in lines])


if __name__ == "__main__":
    main()
