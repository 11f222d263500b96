"""A small real artifact and run for tests: logits are the mean colours of a picture, so its answers are known."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from PIL import Image

from netsmith.arch.cost import cost
from netsmith.arch.names import find_layout
from netsmith.artifact.bundle import Bundle, Provenance, artifact_hash, write_bundle
from netsmith.artifact.evaluate import evaluate
from netsmith.artifact.golden import make_golden, synthetic_examples
from netsmith.artifact.latency import Measurement
from netsmith.artifact.predictions import Predictions
from netsmith.artifact.runtimes import open_model, open_session
from netsmith.data.audit import audit
from netsmith.data.prepare import prepare
from netsmith.data.record import to_data_json
from netsmith.data.sources import open_source
from netsmith.run.budget import Budget
from netsmith.run.files import write_json
from netsmith.run.folder import RunFolder
from netsmith.run.machine import machine, versions
from netsmith.run.preprocess import Preprocess
from netsmith.run.result import Final, Latency, Result, Top1

SIZE = 32
LABELS = ("red", 'green, "so to say"', "blue\nas the sky")
PREPROCESS = Preprocess(size=SIZE, crop=0.9)
COLOURS = {"red": (200, 40, 60), "green": (50, 190, 30), "blue": (20, 60, 210)}


def colour_model(
    *,
    size: int = SIZE,
    temperature: float = 1.0,
    work: int = 0,
    order: Sequence[int] = (0, 1, 2),
    scale: float = 8.0,
) -> bytes:
    """ONNX: logits = `scale` * mean of the colour channels `order`, in [0, 1]; `work` adds 64x64 products of no
    effect."""
    zero = np.zeros((64, 64), np.float32)
    constants = {
        "scale": np.array(scale / 255, np.float32),
        "temperature": np.array(temperature, np.float32),
        "zero": zero,
        "axes": np.array([1, 2], np.int64),
        "order": np.array(order, np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Gather", ["mean", "order"], ["ordered"], axis=1),
        helper.make_node("Mul", ["ordered", "scale"], ["work0" if work else "logits"]),
    ]
    if work:  # depends on the image, so that it is not computed when the model is opened
        nodes += [
            helper.make_node("ReduceMean", ["work0"], ["level"], keepdims=1),
            helper.make_node("Add", ["zero", "level"], ["m0"]),
            *(helper.make_node("MatMul", [f"m{i}", "zero"], [f"m{i + 1}"]) for i in range(work)),
            helper.make_node("ReduceMean", [f"m{work}"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["work0", "nothing"], ["logits"]),
        ]
    nodes += [
        helper.make_node("Div", ["logits", "temperature"], ["cooled"]),
        helper.make_node("Softmax", ["cooled"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", size, size, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3]),
        ],
        [
            helper.make_tensor(
                name,
                TensorProto.INT64 if value.dtype == np.int64 else TensorProto.FLOAT,
                value.shape,
                value.tobytes(),
                raw=True,
            )
            for name, value in constants.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def write_colours(folder: Path, *, model: bytes | None = None, **changes: Any) -> Bundle:
    """Write the colour artifact; `changes` go to `write_bundle`."""
    content = model or colour_model(temperature=changes.get("temperature", 1.0))
    session = open_model(content)
    golden = make_golden(
        synthetic_examples(PREPROCESS, count=3), PREPROCESS, lambda pixels: session.run(pixels).probabilities
    )
    settings: dict[str, Any] = {
        "model": content,
        "layout": find_layout("resnet20_cifar", num_classes=3, img_size=SIZE),
        "labels": LABELS,
        "preprocess": PREPROCESS,
        "golden": golden,
    }
    return write_bundle(folder, **settings | changes)


def colour_picture(colour: str, *, seed: int = 0, kind: str = "PNG", size: tuple[int, int] = (40, 48)) -> bytes:
    """An encoded noisy picture of a colour in `COLOURS`; every seed gives other bytes."""
    rng = np.random.default_rng(seed)
    pixels = np.array(COLOURS[colour]) + rng.integers(-20, 21, (*size, 3))
    content = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(content, kind)
    return content.getvalue()


def write_colour_run(root: Path, *, latency: Measurement, budget: str = "latency=1s,size=1MB") -> RunFolder:
    """Write `root/data` (folders of pictures, one in four of another colour) and a finished run on it in `root/run`."""
    for split, count in (("train", 2), ("val", 8), ("test", 8)):
        for index, colour in enumerate(COLOURS):
            folder = root / "data" / split / LABELS[index].replace("\n", " ")
            folder.mkdir(parents=True)
            for number in range(count):
                shown = list(COLOURS)[(index + (number % 4 == 3)) % 3]
                seed = int.from_bytes(hashlib.sha256(f"{split} {colour} {number}".encode()).digest()[:4], "little")
                (folder / f"{number}.png").write_bytes(colour_picture(shown, seed=seed))
    dataset = audit(open_source(root / "data")).dataset
    # Folders come in the order of their names, the model's outputs in that of the colours.
    order = [next(i for i, label in enumerate(LABELS) if label.replace("\n", " ") == name) for name in dataset.classes]
    bundle = write_colours(
        root / "run" / "model",
        model=colour_model(order=order),
        labels=dataset.classes,
        provenance=Provenance(data=dataset.fingerprint),
    )
    run = RunFolder(root / "run")
    write_json(run.marker, {"format": 1, "command": ["fit", str(root / "data"), "--budget", budget]})
    write_json(run.data, to_data_json(dataset, seed=0))
    session, top1 = open_session(bundle), {}
    for split in ("val", "test"):
        chosen = dataset.subset(split)
        pixels = np.stack([prepare(dataset.read(item), PREPROCESS) for item in chosen])
        targets = np.array([item.label for item in chosen])
        found = evaluate(session, pixels, targets)
        top1[split] = found.top1
        Predictions(tuple(item.key for item in chosen), targets, found.logits).save(run.predictions(split))
    counted = cost(bundle.layout)
    final = Final(
        model=bundle.layout.name,
        precision="float32",
        runtime=latency.runtime,
        threads=latency.threads,
        params=counted.params,
        macs=counted.macs,
        size_bytes=bundle.size_bytes,
        memory_bytes=latency.peak_memory_bytes,
        latency_ms=Latency(
            p50=latency.p50_ms, p90=latency.p90_ms, low=latency.low, high=latency.high, noise=latency.noise
        ),
        top1=Top1(**top1),
    )
    measured = {"latency_ms": latency.high, "size_bytes": bundle.size_bytes}
    Result(
        final=final,
        budget=Budget.parse(budget).rows(measured | {"macs": final.macs, "params": final.params}),
        machine=machine(),
        versions=versions(),
        commands=["netsmith fit"],
        artifact=artifact_hash(run.model),
    ).save(run.results)
    return run
