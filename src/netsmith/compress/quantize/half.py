"""Weights in sixteen bits: half the file, the arithmetic of float32.

The graph keeps every layer's weights in float16 or bfloat16 behind a Cast, which a runtime carries out once when it
opens the file. So the file is half as large, no slower, and only the weights are rounded. Biases, which are few, stay.
bfloat16 has float32's range and eight bits of precision, float16 eleven bits and nothing beyond 65504.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from netsmith.compress.quantize.graph import LAYERS, Graph, write_model
from netsmith.errors import InputError

Half = Literal["float16", "bfloat16"]


def halve(graph: Graph, kind: Half) -> bytes:
    """The model with its layers' weights in sixteen bits.

    Args:
        graph: float; not changed.
        kind: of numbers.

    Raises:
        InputError: a weight is too large for float16.
    """
    weights = _weights(graph)
    if kind == "float16" and (why := beyond_float16(graph)):
        raise InputError(f"{why}; use --precision bfloat16")
    casts = [
        helper.make_node("Cast", [f"{name}/half"], [name], name=f"{name}/cast", to=TensorProto.FLOAT)
        for name in sorted(weights)
    ]
    constants: dict[str, NDArray[Any] | TensorProto] = {
        (f"{name}/half" if name in weights else name): (
            _half(f"{name}/half", value, kind) if name in weights else value
        )
        for name, value in graph.constants.items()
    }
    return write_model(graph.proto, [*casts, *graph.nodes], constants)


def beyond_float16(graph: Graph) -> str:
    """Why float16 cannot hold the weights of a model's layers; "" where it can."""
    for name in sorted(_weights(graph)):
        if float(np.abs(graph.constants[name]).max(initial=0.0)) > float(np.finfo(np.float16).max):
            return f"{name} holds weights beyond 65504, which float16 ends at"
    return ""


def _weights(graph: Graph) -> set[str]:
    """Names of the constants that layers are made of."""
    return {node.input[1] for node in graph.nodes if node.op_type in LAYERS and node.input[1] in graph.constants}


def _half(name: str, value: NDArray[Any], kind: Half) -> TensorProto:
    if kind == "float16":
        return numpy_helper.from_array(value.astype(np.float16), name)
    # To the nearest, ties to even: numpy has no bfloat16, which is the upper half of a float32.
    bits = value.astype("<f4").view("<u4").astype(np.uint64)
    upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return TensorProto(name=name, dims=value.shape, data_type=TensorProto.BFLOAT16, raw_data=upper.tobytes())
