"""Graph: the primitives a network is made of, with the names of their parameters.

Every pass (cost, shapes, parameters, memory, ONNX, ties) is a walk over these operations and knows no block kinds.
Operations stand in execution order; `name` is unique and, for operations that have parameters, the prefix of their
names in the network's `state_dict`. Spatial attributes are tuples with one entry per dimension; paddings are pairs
(before, after), because TensorFlow pads unequally.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from netsmith.errors import InputError

Activation = Literal["relu", "relu6", "silu", "hard_swish", "sigmoid", "hard_sigmoid"]
Padding = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Conv:
    """Convolution; weight [out, in / groups, *kernel], bias [out] when `bias`."""

    name: str
    source: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding
    groups: int = 1
    bias: bool = False


@dataclass(frozen=True, kw_only=True)
class Norm:
    """Batch normalisation over channels."""

    name: str
    source: str
    channels: int
    eps: float
    momentum: float


@dataclass(frozen=True, kw_only=True)
class Activate:
    """Element-wise activation."""

    name: str
    source: str
    function: Activation


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Fully connected layer; weight [out, in], bias [out]."""

    name: str
    source: str
    in_features: int
    out_features: int


@dataclass(frozen=True, kw_only=True)
class Add:
    """Element-wise sum of equal shapes."""

    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Concat:
    """Concatenation along channels."""

    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """`source` times `gate`, where the gate has one value per channel."""

    name: str
    source: str
    gate: str


@dataclass(frozen=True, kw_only=True)
class Pad:
    """Zero channels before and behind."""

    name: str
    source: str
    front: int
    back: int


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Max or average pooling; kernel 1 with a stride is subsampling.

    Attributes:
        ceil: whether the last window may hang over the end.
        count_padding: whether an average divides by the padded positions too.
    """

    name: str
    source: str
    reduce: Literal["max", "avg"]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding
    ceil: bool = False
    count_padding: bool = False

    def __post_init__(self) -> None:
        if self.ceil and self.count_padding:
            raise InputError(f"{self.name}: a pool that rounds up cannot count its padding; give one of the two")


@dataclass(frozen=True, kw_only=True)
class AdaptivePool:
    """Average over windows that cover the map evenly: position i of n reads from floor(i * side / n) up to
    ceil((i + 1) * side / n), so windows differ and overlap where n does not divide the side."""

    name: str
    source: str
    size: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LocalNorm:
    """Local response normalisation over neighbouring channels (Krizhevsky et al. 2012, section 3.3).

    x / (k + alpha / size * sum of squares over `size` channels around) ** beta; `size` is odd.
    """

    name: str
    source: str
    size: int
    alpha: float
    beta: float
    k: float


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Every number times a constant."""

    name: str
    source: str
    factor: float


@dataclass(frozen=True, kw_only=True)
class GlobalPool:
    """Average over all positions, to size 1 in every dimension."""

    name: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Flatten:
    """All but the batch axis into one."""

    name: str
    source: str


Op = (
    Conv | Norm | Activate | Linear | Add | Concat | Gate | Pad
    | Pool | AdaptivePool | GlobalPool | Flatten | LocalNorm | Scale
)  # fmt: skip
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Operations in execution order.

    Attributes:
        input: shape of the input named "input", channels first, without the batch axis.
        ops: the operations.
        taps: feature outputs, stage name -> operation name.
        output: the operation that gives the logits.
        auxiliary: logits of training-only classifiers, name -> operation name.
    """

    input: Shape
    ops: tuple[Op, ...]
    taps: dict[str, str]
    output: str
    auxiliary: dict[str, str] = field(default_factory=dict[str, str])


def sources(op: Op) -> tuple[str, ...]:
    """Names of the operations (or "input") an operation reads."""
    match op:
        case Conv() | Norm() | Activate():  # most operations
            return (op.source,)
        case Add() | Concat():
            return op.sources
        case Gate():
            return (op.source, op.gate)
        case _:
            return (op.source,)


def needed(graph: Graph) -> tuple[Op, ...]:
    """The operations that the logits depend on, in order; classifiers for training drop out."""
    return _reach(graph, graph.output)


def classifiers(graph: Graph) -> dict[str, str]:
    """Logits, the auxiliary ones too -> the convolution or linear layer that computes them (what follows passes
    channels on)."""
    layers: dict[str, str] = {}
    for output in (graph.output, *graph.auxiliary.values()):
        layers[output] = next(op.name for op in reversed(_reach(graph, output)) if isinstance(op, Conv | Linear))
    return layers


def _reach(graph: Graph, output: str) -> tuple[Op, ...]:
    wanted = {output}
    kept: list[Op] = []
    for op in reversed(graph.ops):
        if op.name in wanted:
            kept.append(op)
            wanted.update(sources(op))
    return tuple(kept[::-1])


def _pooled(side: int, kernel: int, stride: int, padding: tuple[int, int], *, ceil: bool = False) -> int:
    span = side + sum(padding) - kernel
    if span < 0:
        raise InputError(f"a map of {side} is smaller than a kernel of {kernel}; use a larger resolution")
    out = (span + stride - 1 if ceil else span) // stride + 1
    if ceil and (out - 1) * stride >= side + padding[0]:  # the last window must start inside the map or before it
        out -= 1
    return out


def shape_of(op: Op, inputs: tuple[Shape, ...]) -> Shape:
    """Output shape of one operation, channels first, without the batch axis.

    Raises:
        InputError: when the input shapes do not fit the operation.
    """
    shape = inputs[0]
    match op:
        case Conv():
            if shape[0] != op.in_channels or op.in_channels % op.groups or op.out_channels % op.groups:
                raise InputError(
                    f"{op.name}: {shape[0]} channels reach a convolution {op.in_channels} -> {op.out_channels} "
                    f"in {op.groups} groups"
                )
            return (op.out_channels, *map(_pooled, shape[1:], op.kernel, op.stride, op.padding))
        case Activate() | LocalNorm() | Scale():
            return shape
        case Norm():
            if shape[0] != op.channels:
                raise InputError(f"{op.name}: {shape[0]} channels reach a norm over {op.channels}")
            return shape
        case Linear():
            if shape != (op.in_features,):
                raise InputError(f"{op.name}: shape {shape} reaches a linear layer of {op.in_features} features")
            return (op.out_features,)
        case Add():
            if len(set(inputs)) != 1:
                raise InputError(f"{op.name}: cannot add shapes {', '.join(map(str, inputs))}")
            return shape
        case Concat():
            if len({other[1:] for other in inputs}) != 1:
                raise InputError(f"{op.name}: cannot concatenate shapes {', '.join(map(str, inputs))}")
            return (sum(other[0] for other in inputs), *shape[1:])
        case Gate():
            if inputs[1] != (shape[0], *(1 for _ in shape[1:])):
                raise InputError(f"{op.name}: a gate of shape {inputs[1]} does not fit {shape}")
            return shape
        case Pad():
            return (op.front + shape[0] + op.back, *shape[1:])
        case Pool():
            sides = zip(shape[1:], op.kernel, op.stride, op.padding, strict=True)
            return (shape[0], *(_pooled(*side, ceil=op.ceil) for side in sides))
        case AdaptivePool():
            if len(op.size) != len(shape) - 1:
                raise InputError(f"{op.name}: a pool to {len(op.size)} sides does not fit a map of {len(shape) - 1}")
            return (shape[0], *op.size)
        case GlobalPool():
            return (shape[0], *(1 for _ in shape[1:]))
        case Flatten():
            size = 1
            for side in shape:
                size *= side
            return (size,)


def shapes(graph: Graph) -> dict[str, Shape]:
    """Shape of every operation's output (and of "input"), channels first, without the batch axis.

    Raises:
        InputError: where shapes do not fit, naming the operation.
    """
    known: dict[str, Shape] = {"input": graph.input}
    for op in graph.ops:
        known[op.name] = shape_of(op, tuple(known[name] for name in sources(op)))
    return known


def parameters(graph: Graph) -> Iterator[tuple[str, Shape]]:
    """Trainable parameters, name and shape, in execution order."""
    for name, shape, trainable in state(graph):
        if trainable:
            yield name, shape


def layers(graph: Graph) -> list[str]:
    """Names of the operations that have entries in the `state_dict`, in execution order."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name, _, _ in state(graph)))


def state(graph: Graph) -> Iterator[tuple[str, Shape, bool]]:
    """Entries of the network's `state_dict`: name, shape (() for a counter), whether trained; in execution order."""
    for op in graph.ops:
        match op:
            case Conv():
                yield f"{op.name}.weight", (op.out_channels, op.in_channels // op.groups, *op.kernel), True
                if op.bias:
                    yield f"{op.name}.bias", (op.out_channels,), True
            case Linear():
                yield f"{op.name}.weight", (op.out_features, op.in_features), True
                yield f"{op.name}.bias", (op.out_features,), True
            case Norm():
                yield f"{op.name}.weight", (op.channels,), True
                yield f"{op.name}.bias", (op.channels,), True
                yield f"{op.name}.running_mean", (op.channels,), False
                yield f"{op.name}.running_var", (op.channels,), False
                yield f"{op.name}.num_batches_tracked", (), False
            case _:
                continue
