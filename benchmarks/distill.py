"""A teacher against none: `python benchmarks/distill.py --data DIR -o RUNS --minutes 10`.

A student learns CIFAR-10 from the published ResNet-56 (93.39 %), and beside it the same network, with the same seed and
recipe, on the labels alone, each for the same time; the student's holds its teacher's answers. Three seeds.

The weights of ResNet-56 saw all 50,000 training pictures, so all of these are trained on here and none is validated on:
of the 10,000 test pictures a fixed half, 500 of each class (`cifar_weights.py`), is the validation split on which
`netsmith distill` gives its verdict, and the other half is what is reported.

A cell is one of two commands with the same recipe: `netsmith distill STUDENT --teacher resnet56_cifar.akamaster
--no-twin` and `netsmith train --model STUDENT`. (`distill` itself trains the twin and refuses; here both have to be
reported, whatever comes out.) Every other seed takes them in the opposite order. Rows go to benchmarks/results.csv: one
per cell, with the seconds that it trained, and per way the mean over seeds with a 95 % interval (Student's t) of it and
of its difference from none, seed by seed. A finished cell is not repeated and a stopped one gone on with; one of
another student, length, device or number of threads is another folder. Half an hour a way at ten minutes a cell, an
hour with `kd` and none.

Other pictures, at full length, such as CIFAR-100 on a GPU:

    python benchmarks/distill.py --pictures cifar100.npz --teacher runs/teacher --student resnet20_cifar \\
        --epochs 240 --device cuda -o RUNS

`--pictures` is anything that netsmith reads with all three splits in it (folders train, val and test, or a column
`split`), so that both ways have the same, which is checked; `--teacher` is a run on them, or anything that `netsmith
distill` takes. `--epochs` are as many for both, as papers have it: the answers of the teacher come on top.
"""

import argparse
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from cifar_weights import FILES, halves_npz
from results import RESULTS, Row, append, card, made, of_run, origin, origin_of, run

from netsmith.run.files import read_jsonl

TEACHER = "resnet56_cifar.akamaster"
NONE = "none"
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t for a two-sided 95 % interval of the mean of so many."""
SHOWN = ("subject", "val_top1", "test_top1", "n", "note")


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % interval in per cent or points; the mean alone of one."""
    if len(values) < 2:
        return f"{100 * values[0]:.2f}"
    half = T_95[len(values)] * stdev(values) / math.sqrt(len(values))
    return f"{100 * mean(values):.2f} ({100 * (mean(values) - half):.2f} to {100 * (mean(values) + half):.2f})"


def summary(common: Row, cells: dict[str, list[Row]]) -> list[Row]:
    """One row per way: the mean over its seeds, and what the teacher made of it.

    Args:
        common: columns of every row.
        cells: way -> its rows in order of the seeds.
    """
    alone = [row["test_top1"] for row in cells[NONE]]
    rows: list[Row] = []
    for way, found in cells.items():
        reached = [row["test_top1"] for row in found]
        note = f"mean of {len(found)} seeds {interval(reached)} %"
        if way != NONE:
            gains = [one - other for one, other in zip(reached, alone, strict=True)]
            note += f"; {interval(gains)} points over {NONE}"
        columns = {"subject": f"teacher: {way}", "test_top1": mean(reached), "n": found[0]["n"], "note": note}
        rows.append(common | origin_of([*found, *(cells[NONE] if way != NONE else [])]) | columns)
    return rows


def cell(options: argparse.Namespace, way: str, seed: int) -> str:
    """Name of its folder, which says all that makes it another one."""
    pictures = f"{options.pictures.stem}-" if options.pictures else ""
    length = f"{options.epochs:g}e" if options.epochs else f"{options.minutes:g}m"
    device = f"{options.device}-" if options.device else ""
    threads = f"{options.threads}-threads-" if options.threads else ""
    return f"{pictures}{options.student}-{length}-{device}{threads}{way}-{seed}"


def command_of(options: argparse.Namespace, pictures: Path, taught: Sequence[str], way: str, seed: int) -> list[str]:
    """What is typed for a cell.

    Args:
        options: of the benchmark.
        pictures: to train on.
        taught: the teacher, and where its weights are.
        way: a loss, or none.
        seed: of the training.
    """
    length = ["--epochs", f"{options.epochs:g}"] if options.epochs else ["--time", f"{60 * options.minutes:g}s"]
    recipe = ["--recipe", "fast", *length, *(["--threads", str(options.threads)] if options.threads else [])]
    recipe += [*(["--device", options.device] if options.device else []), "--seed", str(seed)]
    if way == NONE:
        return ["train", str(pictures), "--model", options.student, *recipe]
    return ["distill", options.student, "--data", str(pictures), *taught, "--loss", way, "--no-twin", *recipe]


def refuse_unlike(folders: Sequence[Path]) -> None:
    """Refuse cells that divided the pictures in ways of their own: nothing would follow from their difference."""
    prints = {json.loads((folder / "data.json").read_text())["fingerprint"] for folder in folders}
    if len(prints) > 1:
        raise SystemExit(f"{folders[-1]} has other splits than the cells before; give --pictures with all three in it")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of cifar10 and of the published weights")
    parser.add_argument("--pictures", type=Path, help="with their splits, in place of CIFAR-10 with half of its test")
    parser.add_argument("--teacher", help="of --pictures: a run, a model, or a network with published weights")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--student", default="resnet20_cifar@0.5")
    parser.add_argument("--losses", nargs="+", default=["kd"], choices=["kd", "dkd", "dist"])
    parser.add_argument("--minutes", type=float, default=10.0, help="of every cell")
    parser.add_argument("--epochs", type=float, help="of every cell, in place of minutes")
    parser.add_argument("--device", help="of the trainings, such as cuda; netsmith's choice if not given")
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, max(T_95) + 1), metavar="N")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--note", default="", help="what else the rows should say, such as what ran beside")
    options = parser.parse_args(arguments)
    if bool(options.pictures) != bool(options.teacher):
        parser.error("--pictures and --teacher go together")
    if bool(options.pictures) == bool(options.data):
        parser.error("give --data for CIFAR-10 and its published weights, or --pictures and --teacher for others")
    return options


def ground_of(options: argparse.Namespace) -> tuple[Path, list[str]]:
    """The pictures, and flags that name the teacher."""
    if options.pictures:
        return options.pictures, ["--teacher", options.teacher]
    weights = options.output / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(options.data / "weights-cifar10-resnet" / FILES["resnet56_cifar"], weights / f"{TEACHER}.pth")
    return halves_npz(options.data, options.output), ["--teacher", TEACHER, "--pretrained-dir", str(weights)]


def main() -> None:
    options = parse()
    pictures, taught = ground_of(options)
    length = f"{options.epochs:g} epochs" if options.epochs else f"{60 * options.minutes:g}s"
    name = options.pictures.stem if options.pictures else "cifar10"
    common = origin(f"distill {name} {length}") | {"model": options.student}
    common["machine"] = card(options.device or "cpu") + common["machine"]
    cells: dict[str, list[Row]] = {way: [] for way in (NONE, *options.losses)}
    folders: list[Path] = []
    rows: list[Row] = []
    for seed in range(options.seeds):
        for way, found in cells.items() if seed % 2 == 0 else reversed(cells.items()):
            command = command_of(options, pictures, taught, way, seed)
            result = run(command, folder := options.output / cell(options, way, seed))
            refuse_unlike(folders := [*folders, folder])
            after = next(row["after"] for row in read_jsonl(folder / "ledger.jsonl") if row["stage"] == "train")
            seconds = max(row.get("seconds", 0.0) for row in read_jsonl(folder / "metrics.jsonl"))
            said = "; ".join([f"seed {seed}", *([options.note] if options.note else [])])
            note = f"{after['epochs']:.1f} epochs, {after['steps']:,} updates, {seconds:.0f} s; {said}"
            typed = " ".join(["netsmith", *command]).replace(f"{options.output}/", "")
            found.append(
                common | made(folder) | of_run(result) | {"subject": f"teacher: {way}", "note": note, "command": typed}
            )
            rows.append(found[-1])
            print({key: rows[-1][key] for key in SHOWN}, flush=True)
    asked = f"--epochs {options.epochs:g}" if options.epochs else f"--minutes {options.minutes:g}"
    common["command"] = f"python benchmarks/distill.py --student {options.student} {asked}"
    common["command"] += f" --pictures {name} --teacher {options.teacher}" if options.pictures else ""
    for row in summary(common, cells):
        rows.append(row)
        print({key: row.get(key, "") for key in SHOWN})
    append(options.results, rows)


if __name__ == "__main__":
    main()
