"""Fine-tuning against training from scratch on a hundred photos: `python benchmarks/finetune_flowers.py --data DIR
-o RUNS`.

flowers-sample has 20 photos of each of five flowers. They are dealt into five folds, 4 of each flower in each, by a
hash of their content; a fold's 20 photos are the test split of its runs, and netsmith itself cuts validation from the
other 80. For every fold, in turn: `netsmith train FOLD --model squeezenet1_1 --pretrained`, which starts from
SqueezeNet's ImageNet weights (its authors' own, converted from Caffe), and the same without `--pretrained`: for the
same time, each with netsmith's defaults.

So that training from scratch is not judged by a default that suits tiny data badly, it is tried in other ways too, and
in each fold the way that is best on validation (then of the smallest loss there) is reported apart: it may spend three
times the time of fine-tuning.

Rows go to benchmarks/results.csv: one per fold and way, and per way one over all hundred photos, each answered by the
run that did not train on it, with McNemar's p-value of fine-tuning against that way. A finished run is not repeated
and a stopped one gone on with, so the script can be stopped and started again; one of other `--minutes` is refused. 27
minutes at a minute a run.
"""

import argparse
import hashlib
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from results import RESULTS, Row, append, made, of_run, origin, right, run

from netsmith.artifact.predictions import Predictions
from netsmith.run.files import read_jsonl, write_bytes
from netsmith.run.metrics import cross_entropy, mcnemar, wilson

MODEL, WEIGHTS = "squeezenet1_1", "squeezenet1_1.v1.pth"
FOLDS, SEED = 5, 0
TUNED, SCRATCH, CHOSEN = "fine-tuned", "from scratch", "from scratch, the best on validation"
WAYS = {
    TUNED: ["--pretrained"],
    SCRATCH: [],
    f"{SCRATCH} in batches of 16": ["--batch-size", "16"],
    f"{SCRATCH} in batches of 16 by AdamW": ["--batch-size", "16", "--opt", "adamw", "--lr", "1e-4"],
}
SHOWN = ("subject", "val_top1", "test_top1", "test_low", "test_high", "n", "note")


def photos_of(archive: Path) -> dict[str, bytes]:
    """CLASS/NAME -> content of every photo in a zip of SPLIT/CLASS/NAME."""
    with zipfile.ZipFile(archive) as packed:
        names = [name for name in packed.namelist() if not name.endswith("/")]
        photos = {name.partition("/")[2]: packed.read(name) for name in names}
    assert len(photos) == len(names), "two photos have one name"
    return photos


def deal(photos: Mapping[str, bytes]) -> list[list[str]]:
    """The names of each fold's test photos: of every class as many in each as can be; names and order do not matter."""
    classes: dict[str, list[str]] = defaultdict(list)
    for name in photos:
        classes[name.partition("/")[0]].append(name)
    folds: list[list[str]] = [[] for _ in range(FOLDS)]
    for names in classes.values():
        ordered = sorted(names, key=lambda name: hashlib.sha256(f"fold {SEED} ".encode() + photos[name]).digest())
        for place, name in enumerate(ordered):
            folds[place % FOLDS].append(name)
    return folds


def write_folds(photos: Mapping[str, bytes], output: Path) -> list[Path]:
    """Write the folds as folders `fold-1/{train,test}/CLASS/NAME` of `output`; those that are there are left alone."""
    folders: list[Path] = []
    for number, held_out in enumerate(map(set, deal(photos)), start=1):
        folders.append(output / f"fold-{number}")
        for name, content in photos.items():
            path = folders[-1] / ("test" if name in held_out else "train") / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, content)
    return folders


def chosen_on_validation(folders: Sequence[Path]) -> Path:
    """The run that is best on validation: most right answers, then the smallest loss."""

    def merit(folder: Path) -> tuple[float, float]:
        found = Predictions.load(folder / "predictions" / "val.npz")
        return float(right(folder, "val").mean()), -cross_entropy(found.logits, found.targets)

    return max(folders, key=merit)


def updates(folder: Path) -> int:
    """Updates that a finished run made, as its ledger says."""
    return next(row["after"]["steps"] for row in read_jsonl(folder / "ledger.jsonl") if row["stage"] == "train")


def pooled_rows(common: Row, runs: Mapping[str, Sequence[Path]]) -> list[Row]:
    """One row per way over the photos of all folds: accuracy, and how fine-tuning compares.

    Args:
        common: columns of every row.
        runs: way -> its finished runs in order of the folds; equal folds have equal test photos.
    """
    answers = {way: np.concatenate([right(folder, "test") for folder in folders]) for way, folders in runs.items()}
    rows: list[Row] = []
    for way, correct in answers.items():
        found = wilson(int(correct.sum()), len(correct))
        note = f"{len(runs[way])} folds"
        if way != TUNED:
            ahead = 100 * (answers[TUNED].mean() - correct.mean())
            note += f"; {TUNED} is {ahead:+.0f} points from it, McNemar p {mcnemar(answers[TUNED], correct):.3g}"
        columns = {"test_top1": found.value, "test_low": found.low, "test_high": found.high, "n": found.n}
        rows.append(common | made(*runs[way]) | columns | {"subject": way, "model": MODEL, "note": note})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of flowers-sample and SqueezeNet's weights")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--minutes", type=float, default=1.0, help="of every run")
    parser.add_argument("--folds", type=int, default=FOLDS, help="only the first of them, for a look")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--note", default="", help="what else the rows should say, such as what ran beside")
    options = parser.parse_args()
    time = f"{options.minutes:g}m"
    folds = write_folds(photos_of(options.data / "flowers-sample" / "flowers-sample.zip"), options.output / "data")
    weights = options.output / "weights"
    weights.mkdir(exist_ok=True)
    caffe = options.data / "weights-imagenet-squeezenet1_1" / "squeezenet1_1-caffe-fp16.pth"
    shutil.copyfile(caffe, weights / WEIGHTS)

    common = origin(f"train flowers-sample {time}")
    said = "; ".join(["seed 0", *([options.note] if options.note else [])])
    runs: dict[str, list[Path]] = {way: [] for way in WAYS}
    rows: list[Row] = []
    for fold in folds[: options.folds]:
        for way, flags in WAYS.items():
            folder = options.output / f"{fold.name}-{way.replace(' ', '-')}"
            where = ["--pretrained-dir", str(weights)] if "--pretrained" in flags else []
            command = ["train", str(fold), "--model", MODEL, *flags, *where, "--time", time]
            result = run(command, folder)
            runs[way].append(folder)
            typed = " ".join(["netsmith", *command]).replace(f"{options.output}/", "")
            note = f"{updates(folder)} updates; {said}"
            subject = {"subject": f"{way}, {fold.name}", "model": MODEL, "note": note, "command": typed}
            rows.append(common | made(folder) | of_run(result) | subject)
            print({key: rows[-1][key] for key in SHOWN}, flush=True)
    scratch = (folders for way, folders in runs.items() if way.startswith(SCRATCH))
    runs[CHOSEN] = [chosen_on_validation(folders) for folders in zip(*scratch, strict=True)]
    common["command"] = f"python benchmarks/finetune_flowers.py --minutes {options.minutes:g}"
    for row in pooled_rows(common, runs):
        rows.append(row | {"note": f"{row['note']}; {said}"})
        print({key: rows[-1].get(key, "") for key in SHOWN})
    append(options.results, rows)


if __name__ == "__main__":
    main()
