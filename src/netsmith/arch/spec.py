"""Spec: a network as its paper's table states it, with the multipliers that scale it.

Deliberate choices: the table stays unscaled and the multipliers stand beside it, so scaling composes without rounding
twice and every decision (is there an expand convolution, a skip, a projection) is made on the paper's widths, never on
rounded ones.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from netsmith.arch.blocks.kinds import BlockSpec
from netsmith.arch.blocks.pieces import PieceSpec
from netsmith.arch.codec import added, from_json, to_json
from netsmith.arch.graph import Activation
from netsmith.arch.heads import Auxiliary, HeadSpec
from netsmith.arch.limits import (
    MAX_BLOCKS,
    MAX_SIDE,
    MAX_WIDTH,
    check_name,
    check_norm,
    check_rate,
    check_template,
    check_window,
)
from netsmith.arch.widths import Repeats, paper_width
from netsmith.errors import InputError

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Input:
    """What the network reads: `size` has one entry per dimension, so 1-D and 3-D networks are the same records."""

    kind: Literal["image"] = "image"
    channels: int = 3
    size: tuple[int, ...] = (224, 224)

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= 1024:
            raise InputError(f"an input of {self.channels} channels is outside 1..1024")
        if not 1 <= len(self.size) <= 3 or not all(1 <= side <= MAX_SIDE for side in self.size):
            shown = " x ".join(map(str, self.size[:4]))
            raise InputError(f"an input of size {shown or '()'} is not one to three sides of 1..{MAX_SIDE} positions")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the paper's table: a block and how often it stands in a row.

    `name` takes the place of the network's template for block names; blocks that scaling adds get a number behind it.
    """

    block: BlockSpec
    repeats: Repeats = 1
    name: str | None = added(None)

    def __post_init__(self) -> None:
        repeats = paper_width(self.repeats)
        if not 1 <= repeats <= MAX_BLOCKS:
            raise InputError(f"repeats is {repeats}; it must be within 1..{MAX_BLOCKS}")
        if self.name is not None:
            check_name(self.name)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Rows at one resolution; the first block of the stage strides."""

    rows: tuple[Row, ...]
    stride: int = 1

    def __post_init__(self) -> None:
        if not self.rows:
            raise InputError("a stage needs at least one row")
        check_window("stage", kernel=1, stride=self.stride)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A network as a value: the unscaled table and its multipliers.

    Attributes:
        format: 1.
        family: the key of the network class.
        name: what the network is called; scaled ones are derived names.
        input, stem, stages, head: the paper's table.
        small_stem: the stem for pictures too small for `stem`.
        block_name: template of a block's parameter prefix, with {stage} from 1, {index} from 0 within the stage,
            {running} from 1 over all, {layer} the number of layers before it from 0.
        auxiliary: classifiers for training only.
        activation, norm_eps, norm_momentum: of every block.
        drop_path: rate of the last block in training, growing linearly from 0.
        width, depth: the multipliers.
    """

    format: int = FORMAT
    family: str
    name: str
    input: Input
    stem: tuple[PieceSpec, ...]
    small_stem: tuple[PieceSpec, ...]
    stages: tuple[Stage, ...]
    head: HeadSpec
    block_name: str
    activation: Activation = "relu"
    norm_eps: float = 1e-5
    norm_momentum: float = 0.1
    drop_path: float = 0.0
    width: float = 1.0
    depth: float = 1.0
    auxiliary: tuple[Auxiliary, ...] = added(())

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise InputError(f"spec format {self.format} is not known; this netsmith reads format {FORMAT}")
        if not self.stages:
            raise InputError(f"{self.name}: a network needs at least one stage")
        check_template("block_name", self.block_name, ("stage", "index", "running", "layer"))
        check_norm(self.norm_eps, self.norm_momentum)
        check_rate("drop_path", self.drop_path)
        for name, multiplier in (("width", self.width), ("depth", self.depth)):
            if not (multiplier > 0.0 and math.isfinite(multiplier)):
                raise InputError(f"{self.name}: the {name} multiplier is {multiplier:g}; it must be above 0")


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """Plain JSON values of a spec; `spec_from_json` reads them back to an equal spec."""
    return to_json(spec)


def spec_from_json(document: Any, *, where: str = "spec") -> Spec:
    """Read a spec strictly.

    Args:
        document: plain JSON values.
        where: how an error names the document, such as "search.json: spec".

    Raises:
        InputError: unknown, missing or ill-typed fields, numbers that no network has; the message names the place.
    """
    return from_json(Spec, document, where=where)


def with_classes(spec: Spec, classes: int) -> Spec:
    """The same network with another number of classes (at least 1)."""
    if not 1 <= classes <= MAX_WIDTH:
        raise InputError(f"num_classes is {classes}; it must be between 1 and {MAX_WIDTH}")
    auxiliary = tuple(replace(each, head=replace(each.head, classes=classes)) for each in spec.auxiliary)
    return replace(spec, head=replace(spec.head, classes=classes), auxiliary=auxiliary)


def with_channels(spec: Spec, channels: int) -> Spec:
    """The same network for inputs of another number of channels (at least 1)."""
    return replace(spec, input=replace(spec.input, channels=channels))
