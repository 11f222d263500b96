"""Rounding held against onnxruntime.quantization, which does the same to any graph by way of files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netsmith.arch.names import find_layout
from netsmith.artifact.runtimes import open_model
from netsmith.compress.quantize.calibrate import observe
from netsmith.compress.quantize.graph import Graph
from netsmith.compress.quantize.qdq import Rounding, quantize
from netsmith.export.probe import probe_onnx
from netsmith.run.preprocess import Preprocess

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)


class _Pictures:
    """A CalibrationDataReader."""

    def __init__(self) -> None:
        self._left: Iterator[dict[str, Any]] = iter({"image": PIXELS[at : at + 8]} for at in range(0, 32, 8))

    def get_next(self) -> dict[str, Any] | None:
        return next(self._left, None)


@pytest.mark.parametrize("name", ["resnet20_cifar@0.5", pytest.param("mobilenet_v2@0.35", marks=pytest.mark.slow)])
def test_the_logits_are_as_near_to_the_float_ones(name, tmp_path: Path):
    library = pytest.importorskip("onnxruntime.quantization")
    layout = find_layout(name, num_classes=10, img_size=32)
    graph = Graph(probe_onnx(layout, preprocess=Preprocess(size=32)))
    (tmp_path / "float.onnx").write_bytes(graph.model)
    library.quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "int8.onnx",
        _Pictures(),
        quant_format=library.QuantFormat.QDQ,
        activation_type=library.QuantType.QUInt8,
        weight_type=library.QuantType.QInt8,
        per_channel=True,
        calibrate_method=library.CalibrationMethod.MinMax,
    )
    ours = quantize(graph, observe(graph, PIXELS, counted=False).ranges("minmax"), Rounding())
    wanted, found, theirs = (
        open_model(model).run(PIXELS).logits for model in (graph.model, ours, (tmp_path / "int8.onnx").read_bytes())
    )
    errors = [float(np.square(each - wanted).mean() / wanted.var()) for each in (found, theirs)]
    assert errors[0] < 1.3 * errors[1], "neither may be much further from the float logits"
    assert len(ours) < 1.1 * (tmp_path / "int8.onnx").stat().st_size
