"""Training speed against the loops people write: `python benchmarks/train_speed.py --data DIR`, or `make bench-train`.

Subjects, all with the same network, initial weights, pictures, epochs, batch size, optimizer and schedule:

- `netsmith`: its trainer with a warm pixel cache, dtype, layout and threads measured by itself before the clock starts;
- `plain`: the loop of torchvision's reference script: a DataLoader over files with PIL transforms, float32, the loss
  and the accuracies read at every step;
- `tuned`: the same with channels_last, bfloat16 autocast and netsmith's allocator settings;
- `timm`: timm's own train script in bfloat16 with channels_last, where `--timm-train` names it and the network is
  timm's too. The script is in no package of timm, so one content of it is known here and others are refused: `curl -o
  train.py https://raw.githubusercontent.com/huggingface/pytorch-image-models/a6da4da1740cd57eaf864803f9dd65683cbcf6d7/train.py`
  (July 2026; the library beside it is the pinned one).

All but netsmith open and decode a file for every picture, of CIFAR-10 too, which people often hold in memory: that is
part of what netsmith gains there.

DataLoaders are tried with 0, 1 and 2 workers; numbers within a tenth of the fastest are tried twice more, in turns, and
the one with the lowest median is kept. Every measurement is a process of its own; subjects take turns, round by round.
The clock runs from the first batch asked for to the last update made, over whole epochs, so that starting workers
counts; building, importing and a few updates on a copy, which build oneDNN's kernels, do not; timm's script, which
makes no such updates, trains for one epoch more, of which the first does not count. Every measurement says with which
weights it began and how many pictures it trained on; a round in which these differ ends the benchmark. Accuracy on test
pictures after the last update is compared too, but for timm's: it is that of a run of seconds.

`--cold` adds netsmith with an empty pixel cache: decoding counts then (the files themselves have been read before, by
every subject). `--profile` adds, after the rounds, where the time of a step goes and how far the step is from the
machine's measured matrix-product limit; `--repeats 0 --profile` is that alone. The last lines name every goal, met or
missed, and what was not compared.

Nothing else may run on the machine.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from results import RESULTS, Row, append, origin
from step_profile import Profile
from train_subjects import (
    TASKS,
    TEST_PICTURES,
    prepare_files,
    run_loop,
    run_netsmith,
    run_profile,
    run_timm,
    timm_script,
)

from netsmith.run.waiting import waiting

HERE = Path(__file__).resolve()
WORKERS = (0, 1, 2)
NEAR = 1.1  # times the fastest number's seconds: one try does not tell these apart
REPEATS = 5
OURS = ("netsmith", "netsmith-cold", "profile")


def child(task: str, subject: str, seed: int, options: argparse.Namespace, workers: int = 0) -> dict[str, Any]:
    """One measurement in a fresh process."""
    command = [sys.executable, str(HERE), "--child", task, subject, str(seed), str(workers)]
    command += ["--data", str(options.data), "--work", str(options.work)]
    command += ["--timm-train", str(options.timm_train)] if options.timm_train else []
    environment = dict(os.environ)
    if subject in OURS:
        environment |= waiting(environment)  # as the command line sets it
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
            case "profile":
                found = run_profile(task, int(seed), **places)
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
    workers = {each: best_workers(name, each, options) for each in subjects if each not in OURS}
    for seed in range(options.repeats):
        starts: set[str] = set()
        for subject in subjects if seed % 2 == 0 else reversed(subjects):
            found = child(name, subject, seed, options, workers.get(subject, 0))
            starts.add(found["start"])
            if len(starts) > 1 or found["pictures"] != task.epochs * task.pictures:
                raise SystemExit(f"{name}, {subject}, seed {seed}: other weights or pictures than the others': {found}")
            rate = task.epochs * task.pictures / found["seconds"]
            print(f"{name}, {subject}, round {seed + 1}: {rate:.0f} images/s, {found['way']}", flush=True)
            yield {"task": name, "subject": subject, "seed": seed, "rate": rate, **found}


def best_workers(name: str, subject: str, options: argparse.Namespace) -> int:
    """The number of workers with which a loop is fastest."""
    tried = {count: [child(name, subject, 0, options, count)["seconds"]] for count in WORKERS}
    least = min(seconds for (seconds,) in tried.values())
    near = [count for count in WORKERS if tried[count][0] <= NEAR * least]
    for again in (reversed(near), near) if len(near) > 1 else ():
        for count in again:
            tried[count].append(child(name, subject, 0, options, count)["seconds"])
    shown = (f"{count} workers {' '.join(f'{each:.1f}' for each in seconds)} s" for count, seconds in tried.items())
    print(f"{name}, {subject}: {', '.join(shown)}", flush=True)
    return min(near, key=lambda count: statistics.median(tried[count]))


def summary(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Medians of a task.

    Returns:
        A line per subject. `times`: netsmith's median over it, of peers; `goal`: that is aimed at, where there is one;
        `of_warm`: its median over netsmith's, of the cold cache.
    """
    by_subject: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_subject.setdefault(row["subject"], []).append(row)
    ours = statistics.median(row["rate"] for row in by_subject["netsmith"])
    goals = dict(zip(("plain", "tuned"), TASKS[name].goals, strict=True))
    result = []
    for subject, found in by_subject.items():
        rates = [row["rate"] for row in found]
        top1 = [row["top1"] for row in found if row["top1"] is not None]
        middle = statistics.median(rates)
        result.append(
            {
                "task": name, "subject": subject, "images_per_s": round(middle, 1),
                "low": round(min(rates), 1), "high": round(max(rates), 1), "rounds": len(rates),
                "times": None if subject in OURS else round(ours / middle, 3), "goal": goals.get(subject),
                "of_warm": round(middle / ours, 3) if subject == "netsmith-cold" else None,
                "test_top1": round(statistics.mean(top1), 4) if top1 else None, "way": found[0]["way"],
            }
        )  # fmt: skip
    return result


def verdict(line: dict[str, Any]) -> str:
    """What became of the goal of a line that has one."""
    return f"aimed at {line['goal']:g}: {'met' if line['times'] >= line['goal'] else 'missed'}"


def not_compared(options: argparse.Namespace) -> Iterator[str]:
    """What the goals name and this call leaves out, with the reason."""
    for name in options.tasks:
        if TASKS[name].timm is None:
            yield f"{name}: timm's script has no network of this shape"
        elif options.timm_train is None:
            yield f"{name}: timm's script, because --timm-train does not name it"
    yield from (f"{name}: --tasks leaves it out" for name in TASKS if name not in options.tasks)
    yield from () if options.cold else ("a cold cache: --cold was not given",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data", help="folder of the sets")
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "runs" / "train_speed", help="scratch folder")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--repeats", type=int, default=REPEATS, help="rounds, 0 for none")
    parser.add_argument("--timm-train", type=timm_script, metavar="FILE", help="timm's train.py, see above")
    parser.add_argument("--cold", action="store_true", help="also with an empty cache")
    parser.add_argument("--profile", action="store_true", help="also say where the time of a step goes")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="CSV file to append a row per subject and task to"
    )
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child, options)
        return
    options.work.mkdir(parents=True, exist_ok=True)
    goals: list[str] = []
    for name in options.tasks:
        prepare_files(TASKS[name], data=options.data, work=options.work)
        lines = summary(list(rounds(name, options)), name) if options.repeats else []
        for line in lines:
            print(json.dumps(line), flush=True)
        append(options.results, [row(line, options) for line in lines])
        aims = [line for line in lines if line["goal"] is not None]
        goals += [f"{name}: {line['times']:.2f} times {line['subject']}, {verdict(line)}" for line in aims]
        if options.profile:
            append(options.results, [profile_row(name, child(name, "profile", 0, options), options)])
    if options.repeats:
        print(*goals, *(f"not compared: {each}" for each in not_compared(options)), sep="\n")


def typed(name: str, options: argparse.Namespace) -> str:
    """The command that makes a task's rows."""
    words = ["--tasks", name, *(["--cold"] if options.cold else []), *(["--profile"] if options.profile else [])]
    words += ["--timm-train", "train.py"] if options.timm_train else []
    words += ["--repeats", str(options.repeats)] if options.repeats != REPEATS else []
    return " ".join(["python benchmarks/train_speed.py", *words])


def row(line: dict[str, Any], options: argparse.Namespace) -> Row:
    """A line of the summary as a row of results.csv."""
    note = f"{line['images_per_s']} images/s ({line['low']} to {line['high']}, {line['rounds']} rounds), {line['way']}"
    if line["times"] is not None:
        note += f"; netsmith is {line['times']:.2f} times as fast"
    if line["goal"] is not None:
        note += f", {verdict(line)}"
    if line["of_warm"] is not None:
        note += f"; {line['of_warm']:.2f} of the rate with a warm cache"
    return origin("training speed") | {
        "subject": line["subject"], "model": shown(line["task"]), "test_top1": line["test_top1"],
        "n": "" if line["test_top1"] is None else TEST_PICTURES, "note": note, "command": typed(line["task"], options),
    }  # fmt: skip


def profile_row(name: str, found: dict[str, Any], options: argparse.Namespace) -> Row:
    """Where the time of netsmith's step goes, printed with its operations, as a row."""
    way, profile = found.pop("way"), Profile(**found)
    print(f"{name}, profile: {profile}, {way}\n{profile.table}", flush=True)
    row = {"subject": "profile of netsmith's step", "model": shown(name), "note": f"{profile}; {way}"}
    return origin("training speed") | row | {"command": typed(name, options)}


def shown(name: str) -> str:
    """The network of a task and its side."""
    return f"{TASKS[name].model} r{TASKS[name].side}"


if __name__ == "__main__":
    main()
