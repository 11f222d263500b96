"""Run folders as `fit` and `train` leave them, written through the run's own records, with answers drawn at random."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from netsmith.arch.names import find_layout
from netsmith.artifact.bundle import artifact_hash, write_bundle
from netsmith.artifact.golden import Golden
from netsmith.artifact.predictions import Predictions
from netsmith.data.items import fingerprint
from netsmith.run.budget import Budget
from netsmith.run.clock import FakeClock
from netsmith.run.files import append_jsonl, write_json
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.machine import Machine
from netsmith.run.metrics import top_k_correct, wilson
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.run.result import Final, Latency, Result, Top1

CLASSES = (
    *("tench", "english_springer", "cassette_player", "chain_saw", "church"),
    *("french_horn", "garbage_truck", "gas_pump", "golf_ball", "parachute"),
)
SIDE = 96
MACHINE = Machine(
    cpu="AMD EPYC 9454 48-Core Processor",
    arch="x86_64",
    cores_physical=2,
    cores_logical=2,
    cores_usable=2,
    memory_bytes=8 * 2**30,
    os="Linux 6.1",
    flags=["avx2", "fma", "avx512f", "avx512_vnni"],
)


def fit_run(
    path: Path,
    *,
    classes: Sequence[str] = CLASSES,
    train: int = 1500,
    val: int = 400,
    test: int = 600,
    finished: bool = True,
    budget: str = "latency=5ms,size=4MB",
    names: str = "photos/{label}/n{number:08d}.JPEG",
) -> RunFolder:
    """A run of `fit`; with `finished=False` it was stopped in its race."""
    command = ["fit", "photos", "--budget", budget, "--time", "10m", "-o", str(path)]
    with RunFolder.create(path, command=command) as run:
        clock = FakeClock(start=1000.0)
        ledger, plan = Ledger(run.ledger, clock=clock), Plan(run.plan)
        items = _data(run, classes, {"train": train, "val": val, "test": test}, names=names)
        counts = {name: sum(row["label"] == label for row in items.values()) for label, name in enumerate(classes)}
        ledger.add(
            "audit",
            verdict="done",
            reason=f"{len(items)} pictures of {len(classes)} classes can be used",
            after={
                "pictures": len(items),
                "classes": counts,
                "skipped": [
                    {"name": "photos/church/broken.jpg", "reason": "it is cut short"},
                    {"name": "photos/church/notes.txt", "reason": "it is no picture"},
                    {"name": "photos/tench/empty.png", "reason": "it is empty"},
                ],
                "duplicates": 7,
                "shorter_side": {"min": 143, "median": 224, "max": 400},
            },
        )
        notes = ["There is no test split, so val became test and a new val was cut from train."]
        ledger.add(
            "split",
            verdict="done",
            reason="stratified by class, duplicates together",
            splits_read=["train"],
            after={"train": train, "val": val, "test": test, "notes": notes},
        )
        plan.record("threads", 2, at=0, why="recipe, or the usable cores")
        timings = {f"mobilenet_v2-d1-w0.5-r{side}": [1.5, 1.9, 1_500_000] for side in range(64, 128, 8)}
        plan.record("fit.timings", timings, at=0, why="p50, upper p90 in ms and bytes of untrained candidates")
        ledger.add(
            "candidates",
            verdict="done",
            reason="6 candidates race",
            after={"considered": 412, "within_arithmetic": 240, "timed": 40, "feasible": 27},
        )
        _race(ledger, rungs=3 if finished else 1)
        if not finished:
            return run
        recipe = Recipe(model="mobilenet_v2", img_size=SIDE, time_s=360.0, batch_size=64)
        recipe.save(run.recipe)
        plan.record("dtype", "bfloat16", at=0, why="1.9 times as fast as float32 on this machine")
        plan.record("total_steps", 2810, at=0, why="360 s at 0.128 s a step")
        _training(run, steps=2810)
        answers = {name: _answers(run, name, items, len(classes)) for name in ("val", "test")}
        _finish(run, ledger, classes, answers, budget=budget, model="mobilenet_v2 d1.0 w0.75", commands=command)
    return run


def train_run(path: Path) -> RunFolder:
    """A run of `train`: no audit of candidates, no race, no budget."""
    command = ["train", "photos", "--model", "resnet18", "--epochs", "12", "-o", str(path)]
    with RunFolder.create(path, command=command) as run:
        ledger = Ledger(run.ledger, clock=FakeClock(start=1000.0))
        items = _data(run, CLASSES, {"train": 300, "val": 100, "test": 100}, names="{label}/{number}.png")
        Recipe(model="resnet18", img_size=SIDE, epochs=12.0).save(run.recipe)
        Plan(run.plan).record("total_steps", 56, at=0, why="12 epochs")
        _training(run, steps=56)
        answers = {name: _answers(run, name, items, len(CLASSES)) for name in ("val", "test")}
        _finish(run, ledger, CLASSES, answers, budget=None, model="resnet18", commands=command)
    return run


def _data(run: RunFolder, classes: Sequence[str], counts: dict[str, int], *, names: str) -> dict[str, dict[str, Any]]:
    items: dict[str, dict[str, Any]] = {}
    for split, count in counts.items():
        for number in range(count):
            label = number % len(classes) if number % 7 else (number // 7) % max(1, len(classes) // 3)
            hash_ = hashlib.sha256(f"{split} {number}".encode()).hexdigest()
            name = names.format(label=classes[label], number=len(items))
            items[hash_] = {"label": label, "split": split, "group": hash_, "name": name}
    document = {
        "format": 1,
        "source": "photos",
        "fingerprint": fingerprint((hash_, classes[int(row["label"])], row["split"]) for hash_, row in items.items()),
        "classes": list(classes),
        "seed": 0,
        "items": items,
    }
    write_json(run.data, document)
    return items


def _race(ledger: Ledger, *, rungs: int) -> None:
    field = [
        ("mobilenet_v2-d1-w0.75-r96", 96, 1_370_000, 61_000_000, 3_310_000, 3.9),
        ("mobilenet_v2-d1-w0.5-r128", 128, 690_000, 58_000_000, 2_020_000, 3.1),
        ("efficientnet_b0-d0.7-w0.6-r96", 96, 1_150_000, 44_000_000, 3_610_000, 4.4),
        ("resnet20_cifar-d1-w1-r64", 64, 272_000, 163_000_000, 1_100_000, 2.2),
        ("resnet18-d0.5-w0.35-r96", 96, 930_000, 71_000_000, 3_700_000, 1.3),
        ("mobilenet_v2-d1-w0.25-r64", 64, 240_000, 6_100_000, 1_010_000, 0.8),
    ]
    alive = list(range(len(field)))
    leaves = {0: {5: 1e-7}, 1: {3: 0.0004, 4: 0.021}, 2: {}}
    for rung in range(rungs):
        entries = []
        for place in alive:
            id_, side, params, macs, size, latency = field[place]
            out = leaves[rung].get(place)
            entries.append(
                {
                    "id": id_,
                    "model": id_.split("-")[0],
                    "side": side,
                    "params": params,
                    "macs": macs,
                    "size_bytes": size,
                    "latency_ms": latency,
                    "steps": 120 * (rung + 1),
                    "epochs": 5.1 * (rung + 1),
                    "top1": [0.66, 0.65, 0.645, 0.6, 0.61, 0.45][place] + 0.08 * rung,
                    "loss": 1.2 - 0.2 * rung,
                    "p_value": None if place == 0 else out or 0.4,
                    "kept": out is None,
                }
            )
        ledger.add(
            "race",
            verdict="done",
            reason=f"{len(alive) - len(leaves[rung])} of {len(alive)} go on",
            splits_read=["train", "val"],
            after={"rung": rung + 1, "entries": entries},
        )
        alive = [place for place in alive if place not in leaves[rung]]


def _training(run: RunFolder, *, steps: int) -> None:
    rng = np.random.default_rng(1)
    for step in range(0, steps, max(1, steps // 60)):
        progress = step / steps
        row: dict[str, object] = {
            "step": step,
            "progress": progress,
            "epoch": 40 * progress,
            "lr": float(0.05 * min(1.0, progress / 0.05) * (1 + np.cos(np.pi * progress)) / 2),
            "loss": float(0.7 + 1.6 * np.exp(-4 * progress) + rng.normal(0, 0.03)),
            "images_per_s": 480.0,
        }
        if step and not (step // max(1, steps // 60)) % 6:
            loss = float(0.5 + 1.2 * np.exp(-3 * progress))
            row["val"] = {"top1": float(0.86 - 0.5 * np.exp(-4 * progress)), "top5": 0.99, "loss": loss}
        append_jsonl(run.metrics, row)


def _answers(
    run: RunFolder, split: Literal["val", "test"], items: dict[str, dict[str, Any]], classes: int
) -> NDArray[np.bool_]:
    hashes = [hash_ for hash_, row in items.items() if row["split"] == split]
    targets = np.array([items[hash_]["label"] for hash_ in hashes], np.int64)
    rng = np.random.default_rng(len(split))
    logits = rng.normal(0, 1, (len(targets), classes)).astype(np.float32)
    logits[np.arange(len(targets)), targets] += rng.normal(3.6 + targets % 3 * 0.5, 1).astype(np.float32)
    logits[np.arange(len(targets)), (targets + 1) % classes] += rng.normal(1, 1, len(targets)).astype(np.float32)
    Predictions(tuple(hashes), targets, logits).save(run.predictions(split))
    return top_k_correct(logits, targets, k=1)


def _finish(
    run: RunFolder,
    ledger: Ledger,
    classes: Sequence[str],
    answers: dict[str, NDArray[np.bool_]],
    *,
    budget: str | None,
    model: str,
    commands: list[str],
) -> None:
    top1 = {split: wilson(int(right.sum()), len(right)) for split, right in answers.items()}
    after = {"id": "mobilenet_v2-d1-w0.75-r96", "steps": 2810, "epochs": 119.9, "images_per_s": 498.2}
    ledger.add(
        "train",
        verdict="done",
        reason="trained for the rest of the time",
        splits_read=["train", "val"],
        after=after | {"top1": top1["val"].model_dump()},
    )
    preprocess = Preprocess(size=SIDE, crop=0.9)
    golden = Golden((b"picture",), np.zeros((1, SIDE, SIDE, 3), np.uint8), np.zeros((1, len(classes)), np.float32))
    layout = find_layout("mobilenet_v2", num_classes=len(classes), img_size=SIDE)
    write_bundle(run.model, model=b"onnx", layout=layout, labels=tuple(classes), preprocess=preprocess, golden=golden)
    artifact = artifact_hash(run.model)
    ledger.add("export", verdict="done", reason="the graph agrees with the network", output=artifact)
    ledger.add(
        "calibrate",
        verdict="refused",
        reason="the validation loss did not fall",
        splits_read=["val"],
        before={"loss": 0.4823, "top1": 0.8575},
        after={"loss": 0.4829, "top1": 0.8575},
    )
    ledger.add(
        "test",
        verdict="done",
        reason="read once, after everything was decided",
        inputs=[artifact],
        splits_read=["test"],
    )
    latency = Latency(p50=3.62, p90=3.91, low=3.84, high=4.137, noise=0.031)
    measured = {"latency_ms": latency.high, "size_bytes": 3_312_889, "macs": 61_204_480, "params": 1_371_234}
    result = Result(
        final=Final(
            model=model,
            precision="float32",
            runtime="onnxruntime",
            threads=2,
            params=1_371_234,
            macs=61_204_480,
            size_bytes=3_312_889,
            memory_bytes=71_400_000,
            latency_ms=latency,
            top1=Top1(val=top1["val"], test=top1["test"]),
        ),
        budget=Budget.parse(budget).rows(measured) if budget else [],
        machine=MACHINE,
        versions={"python": "3.11.9", "netsmith": "0.1.0", "onnxruntime": "1.31.0", "torch": "2.13.0"},
        commands=[" ".join(["netsmith", *commands])],
        artifact=artifact,
    )
    result.save(run.results)
    ledger.add("verify", verdict="done", reason="33 checks in a fresh process", inputs=[artifact])
