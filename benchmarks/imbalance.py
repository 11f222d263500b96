"""Classes of unequal size and several labels per picture, on real photos: `python benchmarks/imbalance.py --data DIR
-o RUNS`.

Both sets are made of imagenette224, are trained by `netsmith train` with its defaults for a fixed number of epochs, at
64 pixels, with several seeds, and are judged on test photos, of which every class has 60.

- `unequal`: of every second class only a tenth of the training photos is left, 20 of 200, chosen by a hash of their
  content. Trained as it is, and with `--class-balance sampling` and `loss`. Macro accuracy is the mean of the classes'
  accuracies; what a way is ahead of none is compared seed by seed.
- `pairs`: the middle halves of two photos side by side, 224 pixels square, and a table of the labels of both. Training
  photos are in two pictures each, with different partners, and none of training validates. Judged by mean average
  precision beside that of chance, the share of pictures that have a label; and by the share of pictures whose labels
  are all right, at the artifact's thresholds, beside the most frequent answer of validation given to all.

Rows go to benchmarks/results.csv, one per run and one per way. A finished run is not repeated and a stopped one gone
on with; one of other `--epochs` is refused. Accuracy does not depend on what else the machine does; about 25 minutes of
one core.
"""

import argparse
import csv
import hashlib
import io
import random
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from results import RESULTS, Row, append, made, of_run, origin, origin_of, run

from netsmith.artifact.bundle import load_bundle
from netsmith.artifact.predictions import Predictions
from netsmith.run.files import write_bytes
from netsmith.run.result import Result
from netsmith.run.tagging import mean_average_precision, probabilities_of

MODEL, SIDE = "resnet18@0.25", 64
TENTH, EVERY = 10, 2
"""Rare classes keep one photo in ten; every second class is rare."""
VALIDATION = 30
"""Training photos of each class from which the pairs of validation are made."""
WAYS = {"none": [], "sampling": ["--class-balance", "sampling"], "loss": ["--class-balance", "loss"]}
Photos = dict[str, bytes]


def photos_of(archive: Path) -> Photos:
    """SPLIT/CLASS/NAME -> content of every photo in the zip, in an order that only their content decides."""
    with zipfile.ZipFile(archive) as packed:
        found = {name: packed.read(name) for name in packed.namelist() if not name.endswith("/")}
    return dict(sorted(found.items(), key=lambda each: hashlib.sha256(each[1]).digest()))


def class_of(name: str) -> str:
    return name.split("/")[1]


def rare_classes(names: Iterable[str]) -> list[str]:
    """Every second class."""
    return sorted({class_of(name) for name in names})[1::EVERY]


def unequal(photos: Photos) -> Photos:
    """The photos that are left where rare classes lose nine in ten to train on."""
    rare, seen = rare_classes(photos), Counter[str]()
    left: Photos = {}
    for name, content in photos.items():
        if name.startswith("train/") and class_of(name) in rare:
            seen[class_of(name)] += 1
            if seen[class_of(name)] % TENTH:
                continue
        left[name] = content
    return left


def write_unequal(photos: Photos, folder: Path) -> Path:
    """Write `unequal` as folders."""
    for name, content in unequal(photos).items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name, content)
    return folder


def pairs(names: Iterable[str]) -> list[tuple[str, str, str]]:
    """(split, left, right) of every picture: within its split, test photos once, the others twice."""
    splits: dict[str, list[str]] = defaultdict(list)
    seen = Counter[str]()
    for name in names:
        given, kind, _ = name.split("/")
        seen[f"{given} {kind}"] += 1
        held_out = seen[f"{given} {kind}"] <= VALIDATION
        splits["test" if given == "val" else "val" if held_out else "train"].append(name)
    found: list[tuple[str, str, str]] = []
    for split, members in splits.items():
        for turn in range(1 if split == "test" else 2):
            order = members.copy()
            random.Random(f"{split} {turn}").shuffle(order)
            found += [(split, *two) for two in zip(order[::2], order[1::2], strict=False)]
    return found


def beside(left: bytes, right: bytes) -> bytes:
    """A JPEG of 224 x 224: the middle halves of two photos."""
    canvas = Image.new("RGB", (224, 224))
    for place, content in ((0, left), (112, right)):
        with Image.open(io.BytesIO(content)) as photo:
            canvas.paste(photo.convert("RGB").crop((56, 0, 168, 224)), (place, 0))
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_pairs(photos: Photos, folder: Path) -> Path:
    """Write the pairs and their table; the path of the table."""
    rows: list[tuple[str, str, str]] = []
    for number, (split, left, right) in enumerate(pairs(photos)):
        name = f"{number:04}.jpg"
        if not (folder / name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name, beside(photos[left], photos[right]))
        rows.append((name, ";".join(sorted({class_of(left), class_of(right)})), split))
    text = io.StringIO()
    csv.writer(text).writerows([("image_path", "labels", "split"), *rows])
    write_bytes(folder / "pairs.csv", text.getvalue().encode())
    return folder / "pairs.csv"


def accuracies(folder: Path) -> np.ndarray:
    """Accuracy of each class on the test photos, float64 [C]."""
    found = Predictions.load(folder / "predictions" / "test.npz")
    right = found.logits.argmax(1) == found.targets
    return np.array([right[found.targets == each].mean() for each in range(found.logits.shape[1])])


def macro(folder: Path, rare: Sequence[str]) -> dict[str, float]:
    """Mean accuracy of all classes, of the rare ones and of the others."""
    labels = load_bundle(folder / "model").config.labels
    each, few = accuracies(folder), np.isin(labels, rare)
    return {"macro": float(each.mean()), "rare": float(each[few].mean()), "others": float(each[~few].mean())}


def tagged(folder: Path) -> dict[str, float]:
    """mAP and share of pictures with all labels right on the test pictures, each beside what needs no picture."""
    found, known = (Predictions.load(folder / "predictions" / f"{split}.npz") for split in ("test", "val"))
    thresholds = np.array(load_bundle(folder / "model").config.thresholds)
    exact = ((probabilities_of(found.logits) >= thresholds) == found.targets).all(1)
    usual = Counter(map(bytes, known.targets)).most_common(1)[0][0]
    as_usual = np.array([bytes(row) == usual for row in found.targets])
    return {
        "mAP": mean_average_precision(found.logits, found.targets),
        "chance": float(found.targets.mean()),
        "exact": float(exact.mean()),
        "the usual answer": float(as_usual.mean()),
    }


def told(found: Mapping[str, float]) -> str:
    """Shares in words."""
    return ", ".join(f"{name} {value:.1%}" for name, value in found.items())


def summary(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the seeds."""
    return {name: float(np.mean([found[name] for found in each])) for name in each[0]}


def ahead(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]]) -> str:
    """By how much macro accuracy is ahead of another way's, seed by seed."""
    differences = np.array([one["macro"] - other["macro"] for one, other in zip(ours, theirs, strict=True)])
    error = differences.std(ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else np.nan
    return f"macro {100 * differences.mean():+.1f} points from none, standard error {100 * error:.1f}"


def columns(result: Result) -> Row:
    """What a run fills of a row; not its latency: other work may go on beside it."""
    if result.final.top1 is not None:
        return {name: value for name, value in of_run(result).items() if not name.startswith("latency")}
    test = result.final.headline.test
    assert test is not None, "there are test photos"
    return {"n": test.n, "size_bytes": result.final.size_bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds imagenette224/imagenette224.zip")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--sets", nargs="+", choices=("unequal", "pairs"), default=["unequal", "pairs"])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    photos = photos_of(options.data / "imagenette224" / "imagenette224.zip")
    rare = rare_classes(photos)
    rows: list[Row] = []
    for name in options.sets:
        write = write_unequal if name == "unequal" else write_pairs
        source = write(photos, options.output / "data" / name)
        ways = WAYS if name == "unequal" else {"none": []}
        common = origin(f"{name} imagenette224 {options.epochs} epochs") | {"model": f"{MODEL} r{SIDE}"}
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        of_way: dict[str, list[Row]] = {way: [] for way in ways}
        for seed in range(options.seeds):
            for way, flags in ways.items():
                command = ["train", str(source), "--model", MODEL, "--img-size", str(SIDE), "--train-size", str(SIDE),
                           "--epochs", str(options.epochs), "--seed", str(seed), "--threads", "1", *flags]  # fmt: skip
                folder = options.output / f"{name}-{way}-{seed}"
                result = run(command, folder)
                found[way].append(macro(folder, rare) if name == "unequal" else tagged(folder))
                typed = " ".join(["netsmith", *command]).replace(str(source), source.name)
                row = {"subject": way, "note": f"seed {seed}; {told(found[way][-1])}", "command": typed}
                of_way[way].append(common | made(folder) | columns(result) | row)
                rows.append(of_way[way][-1])
        for way, each in found.items():
            note = f"mean of {len(each)} seeds; {told(summary(each))}"
            if way != "none":
                note += f"; {ahead(each, found['none'])}"
            command = f"python benchmarks/imbalance.py --sets {name} --epochs {options.epochs} --seeds {len(each)}"
            compared = origin_of([*of_way[way], *of_way["none"]])
            rows.append(common | compared | {"subject": way, "note": note, "command": command})
            print(f"{name}, {way}: {note}", flush=True)
    append(options.results, rows)


if __name__ == "__main__":
    main()
