"""Static int8 of an exported network, by ONNX Runtime's own quantizer: the plain recipe, and nothing more.

What its documentation advises for processors with VNNI: QDQ format, activations as uint8, weights as int8 per output
channel, ranges by min-max over training pictures, its pre-processing first. Everything it can quantize is quantized,
but the softmax behind the logits, which ranks nothing. There is no pass over sensitive layers, no bias correction, no
clipping of ranges, no training: a network that loses accuracy here may well be saved by one of them, so a loss is one
of this recipe and no verdict on the network.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

CALIBRATION = 256
"""Training pictures, at most, over which ranges are taken: unaugmented, classes in turn."""
_BATCH = 32


class _Batches(CalibrationDataReader):
    """Prepared pictures for the calibration."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        starts = range(0, len(pixels), _BATCH)
        self._left: Iterator[dict[str, Any]] = iter([{"image": pixels[start : start + _BATCH]} for start in starts])

    def get_next(self) -> dict[str, Any] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The next input of the model; None after the last, which is what the quantizer waits for."""
        return next(self._left, None)


def quantized(model: bytes, pixels: NDArray[np.uint8]) -> bytes:
    """A classifier in int8: the same inputs and outputs as before.

    Args:
        model: content of `model.onnx`, float32.
        pixels: uint8 [N,R,R,3], prepared pictures; the first `CALIBRATION` give the ranges.

    Returns:
        The content of the quantized ONNX file.
    """
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)  # it warns of what is meant, such as a type it cannot infer
    try:
        with tempfile.TemporaryDirectory(prefix="netsmith-int8-") as scratch:
            given, prepared, path = (Path(scratch, f"{name}.onnx") for name in ("given", "prepared", "int8"))
            given.write_bytes(model)
            quant_pre_process(given, prepared, skip_symbolic_shape=True)
            softmax = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Softmax"]
            quantize_static(
                prepared,
                path,
                _Batches(pixels[:CALIBRATION]),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=softmax,
            )
            return path.read_bytes()
    finally:
        logger.setLevel(before)
