"""A small real artifact for tests: classes are the mean colours of a picture, so its answers are known without running it."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from PIL import Image

from netsmith.arch.names import find_layout
from netsmith.artifact.bundle import Bundle, write_bundle
from netsmith.artifact.golden import make_golden, synthetic_examples
from netsmith.artifact.runtimes import open_model
from netsmith.run.preprocess import Preprocess

SIZE = 32
LABELS = ("red", 'green, "so to say"', "blue\nas the sky")
PREPROCESS = Preprocess(size=SIZE, crop=0.9)
COLOURS = {"red": (200, 40, 60), "green": (50, 190, 30), "blue": (20, 60, 210)}


def colour_model(*, size: int = SIZE, temperature: float = 1.0, work: int = 0, gain: float = 8.0) -> bytes:
    """ONNX: logits = gain * mean of each colour channel in [0, 1]; `work` adds so many 64x64 products that change nothing."""
    zero = np.zeros((64, 64), np.float32)
    constants = {
        "scale": np.array(gain / 255, np.float32),
        "temperature": np.array(temperature, np.float32),
        "zero": zero,
        "axes": np.array([1, 2], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["work0" if work else "logits"]),
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
