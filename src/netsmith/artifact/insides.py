"""A model opened so that tensors inside it can be read: what calibration looks at.

Only fusions that leave every named tensor as it is are made, so the numbers are those of the graph as it was written.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Insides:
    """An ONNX model in ONNX Runtime that gives chosen float tensors besides its logits.

    Args:
        model: content of an ONNX file.
        names: of float32 tensors in it, graph inputs excluded.
        threads: >= 1.
    """

    def __init__(self, model: bytes, names: Sequence[str], *, threads: int = 1) -> None:
        import onnx
        import onnxruntime

        graph = onnx.load_model_from_string(model)
        given = {output.name for output in graph.graph.output}
        graph.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in names
            if name not in given
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 4
        self._names = [*names]
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, images: NDArray[np.uint8]) -> dict[str, Floats]:
        """The chosen tensors, each [N,...], for images uint8 [N,R,R,3]."""
        found = cast(list[Floats], self._session.run(self._names, {"image": images}))
        return dict(zip(self._names, found, strict=True))
