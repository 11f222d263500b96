"""The network that a checkpoint holds, to evaluate or export without going on with its training."""

from collections.abc import Callable
from pathlib import Path

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph
from netsmith.errors import InputError
from netsmith.models.build import Network, load_weights
from netsmith.train.checkpoints import load_checkpoint


def restore_network(checkpoints: Path, layout: Layout, *, warn: Callable[[str], None]) -> Network:
    """The network of the newest checkpoint that is whole, in evaluation mode; its averaged weights where there are any.

    Args:
        checkpoints: folder of checkpoints.
        layout: of the network.
        warn: told about each damaged checkpoint that is passed over.

    Raises:
        InputError: no checkpoint, damaged ones only, or one of another network.
    """
    shapes = {f"network.{name}": shape for name, shape, _ in g.state(layout_graph(layout))}
    checkpoint = load_checkpoint(checkpoints, identity=None, shapes=shapes, warn=warn)
    if checkpoint is None:
        raise InputError(f"{checkpoints} holds no checkpoint; the run has not come that far")
    kind = "averaged." if any(name.startswith("averaged.") for name in checkpoint.tensors) else "network."
    weights = {name.removeprefix(kind): tensor for name, tensor in checkpoint.tensors.items() if name.startswith(kind)}
    return load_weights(layout, weights, where=str(checkpoint.path))
