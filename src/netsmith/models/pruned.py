"""A trained network without some of its channels: the layout that `select` gives, with the weights that stay."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from netsmith.arch.select import select
from netsmith.models.build import Network, build, load_weights
from netsmith.models.inherit import take

MARK = "+pruned"
"""Behind the name of a pruned layout, once however often it is pruned; no name that `find_layout` knows."""


def prune_network(network: Network, keep: Mapping[str, Sequence[int | None]]) -> Network:
    """The network of the channels that stay, in evaluation mode, float32, on the CPU.

    Args:
        network: trained; it is not changed.
        keep: as `netsmith.arch.select.select` takes it; `Ties.keep` makes it.

    Raises:
        InputError: as `select`.
    """
    selection = select(network.layout, keep)
    layout = replace(selection.layout, name=f"{network.layout.name.removesuffix(MARK)}{MARK}")
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    return load_weights(layout, take(state, selection.slices, build(layout).state_dict()), where=layout.name)
