"""Weights that follow a network whose shape changes: cut, widened and deepened networks take theirs from the old one.

`netsmith.arch.select`, `widen` and `deepen` decide what is taken from where; here the tensors are made. Deliberate
choice: the weights that read copies of a channel are divided unevenly, differently for every number. The sum stays what
it was, and the copies learn different things: with even parts, or one ratio for a whole channel, their gradients would
be equal or proportional, and adaptive optimizers would keep them alike.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from netsmith.arch import graph as g
from netsmith.arch.deepen import Deepening
from netsmith.arch.layout import layout_graph
from netsmith.arch.select import Kept, Slices
from netsmith.nn.layers import ACTIVATIONS

UNEVENNESS = 0.5
"""How far the parts of a divided weight go from even ones, as a share of these."""

Weights = dict[str, Tensor]


def take(old: Mapping[str, Tensor], slices: Slices, fresh: Mapping[str, Tensor], *, seed: int = 0) -> Weights:
    """The `state_dict` of a selected network.

    Args:
        old: the `state_dict` of the network that was selected from.
        slices: what to take (`Selection.slices`).
        fresh: a `state_dict` of the new network, for positions that are new; it is not changed.
        seed: of how weights are divided among copied channels; equal seeds divide alike.

    Returns:
        Entries in the order and with the types of `fresh`; counters as in `old`.
    """
    found: Weights = {}
    for name, start in fresh.items():
        part = slices.get(name)
        if part is None:  # a counter
            found[name] = old[name].clone()
            continue
        if part.columns is None:
            value = _along(old[name], part.rows, axis=0)
            known = _known(part.rows)
        else:
            groups = part.columns
            if all(columns == groups[0] for columns in groups):
                groups = groups[:1]
            each = len(part.rows) // len(groups)
            rows = [part.rows[i * each : (i + 1) * each] for i in range(len(groups))]
            generator = _generator(f"{seed} {name}")
            value = torch.cat([
                _block(old[name], of, columns, generator) for of, columns in zip(rows, groups, strict=True)
            ])  # fmt: skip
            known = torch.cat([
                _known(of)[:, None] & _known(columns) for of, columns in zip(rows, groups, strict=True)
            ])  # fmt: skip
        mask = known.reshape(*known.shape, *(1,) * (start.dim() - known.dim()))
        found[name] = torch.where(mask, value, start)
    return found


def _block(old: Tensor, rows: Kept, columns: Kept, generator: torch.Generator) -> Tensor:
    """Some rows and columns of a weight; columns that are taken several times divide what they hold."""
    value = _along(_along(old, rows, axis=0), columns, axis=1)
    known = [column for column in columns if column is not None]
    if len(set(known)) == len(known):
        return value
    index = torch.tensor([-1 if column is None else column for column in columns]) + 1
    count = torch.bincount(index, minlength=old.shape[1] + 1).double()
    draw = torch.rand((len(rows), len(columns)), dtype=torch.float64, generator=generator)
    mean = torch.zeros((len(rows), old.shape[1] + 1), dtype=torch.float64).index_add_(1, index, draw) / count.clamp(1)
    share = (1 + 2 * UNEVENNESS * (draw - mean[:, index])) / count[index]
    return (value * share.reshape(*share.shape, *(1,) * (value.dim() - 2))).to(old.dtype)


def _along(old: Tensor, positions: Kept, *, axis: int) -> Tensor:
    """Positions of an axis; new ones hold anything."""
    return old.index_select(axis, torch.tensor([0 if position is None else position for position in positions]))


def _known(positions: Kept) -> Tensor:
    return torch.tensor([position is not None for position in positions])


def _generator(seed: str) -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little"))


def continue_deeper(old: Mapping[str, Tensor], deeper: Deepening, fresh: Mapping[str, Tensor]) -> Weights:
    """The `state_dict` of a network made deeper.

    A new norm that passes on what reaches it gets the statistics of it as running ones, so that it stays close to the
    identity in training, where norms use the batch's: the moments of a normal distribution with the shift and scale of
    the norm before it, after the activation between them.

    Args:
        old: the `state_dict` of the network as it was.
        deeper: what became of it.
        fresh: a `state_dict` of the new network; it is not changed.

    Returns:
        Entries in the order and with the types of `fresh`.
    """
    graph = layout_graph(deeper.layout)
    known = {op.name: op for op in graph.ops}
    found: Weights = {}
    for name, start in fresh.items():
        owner, _, entry = name.rpartition(".")
        if owner in deeper.names:
            found[name] = old[f"{deeper.names[owner]}.{entry}"].clone()
        elif owner in deeper.zero and entry in ("weight", "bias"):
            found[name] = torch.zeros_like(start)
        else:
            found[name] = start.clone()
    for name, passed in deeper.identity.items():
        match op := known[name]:
            case g.Conv():
                found |= _copying(op, fresh[f"{name}.weight"])
            case g.Norm():
                found |= _passing(op, *_moments(passed, known, found, channels=op.channels))
            case _:
                continue
    return {name: found[name] for name in fresh}


def _copying(op: g.Conv, like: Tensor) -> Weights:
    """Weights of a convolution that puts out what it reads."""
    weight = torch.zeros_like(like)
    row = torch.arange(op.out_channels)
    weight[(row, row % (op.in_channels // op.groups), *(before for before, _ in op.padding))] = 1.0
    return {f"{op.name}.weight": weight} | ({f"{op.name}.bias": like.new_zeros(op.out_channels)} if op.bias else {})


def _passing(op: g.Norm, mean: Tensor, var: Tensor) -> Weights:
    """Weights of a norm with these statistics that puts out what it reads."""
    return {
        f"{op.name}.weight": (var.double() + op.eps).sqrt().to(var.dtype),
        f"{op.name}.bias": mean,
        f"{op.name}.running_mean": mean.clone(),
        f"{op.name}.running_var": var,
    }


def _moments(
    name: str, known: Mapping[str, g.Op], weights: Mapping[str, Tensor], *, channels: int
) -> tuple[Tensor, Tensor]:
    """Mean and variance of a map's channels as its norm's weights foretell them; 0 and 1 where none does."""
    functions: list[g.Activation] = []
    op = known.get(name)
    while isinstance(op, g.Activate):
        functions.insert(0, op.function)
        op = known.get(op.source)
    if not isinstance(op, g.Norm):
        return torch.zeros(channels), torch.ones(channels)
    points = torch.linspace(-5.0, 5.0, 1001, dtype=torch.float64)
    share = torch.exp(-(points**2) / 2)
    share /= share.sum()
    shift, scale = (weights[f"{op.name}.{entry}"].double()[:, None] for entry in ("bias", "weight"))
    value = shift + scale * points  # [channels, points]
    for function in functions:
        value = ACTIVATIONS[function]()(value)
    mean = (value * share).sum(dim=1)
    var = ((value - mean[:, None]) ** 2 * share).sum(dim=1)
    return mean.float(), var.float()
