"""How much each layer alone hurts: the error of the logits when nothing but it is rounded.

Errors are measured, not estimated from weights, because what a layer's error does to the logits depends on all that
follows. A layer's error includes that of its input and its output; sums and concatenations are looked at too, since
what flows past the layers of a residual network is rounded there.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact.runtimes import open_model
from netsmith.compress.quantize.calibrate import Ranges
from netsmith.compress.quantize.graph import LAYERS, Graph
from netsmith.compress.quantize.qdq import Rounding, quantize
from netsmith.run.progress import Progress, silent

LOOKED_AT = (*LAYERS, "Add", "Concat")


def rank(
    graph: Graph,
    ranges: Ranges,
    rounding: Rounding,
    pixels: NDArray[np.uint8],
    *,
    threads: int = 1,
    progress: Progress = silent,
) -> list[tuple[str, float]]:
    """Nodes and the error that each alone makes, the worst first.

    Args:
        graph: float.
        ranges: of its tensors.
        rounding: of the layers; what it excludes is not looked at.
        pixels: uint8 [N,R,R,3], pictures to answer.
        threads: of the runtime.
        progress: told the number of nodes that are done.

    Returns:
        Name and error: mean squared difference of the logits over their variance.
    """
    kinds = {node.name: node.op_type for node in graph.nodes}
    names = [name for name in graph.candidates() if kinds[name] in LOOKED_AT and name not in rounding.excluded]
    answer = _answering(pixels, threads=threads)
    wanted = answer(graph.model)
    spread = float(wanted.var()) or 1.0
    errors: list[tuple[str, float]] = []
    for done, name in enumerate(names):
        progress("looking for sensitive layers", done, len(names))
        found = answer(quantize(graph, ranges, replace(rounding, only=frozenset({name}))))
        errors.append((name, float(np.square(found - wanted).mean()) / spread))
    return sorted(errors, key=lambda pair: (-pair[1], pair[0]))


def _answering(pixels: NDArray[np.uint8], *, threads: int) -> Callable[[bytes], NDArray[np.float64]]:
    def answer(model: bytes) -> NDArray[np.float64]:
        session = open_model(model, threads=threads)
        parts: Sequence[NDArray[np.float32]] = [
            session.run(np.ascontiguousarray(pixels[start : start + 64])).logits for start in range(0, len(pixels), 64)
        ]
        return np.concatenate(parts).astype(np.float64)

    return answer
