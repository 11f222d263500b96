"""`netsmith scale`: a network made larger or smaller to a target, without torch."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from netsmith.arch.cost import cost, parts
from netsmith.arch.layout import Layout, layout_to_json
from netsmith.arch.scale import Rule
from netsmith.cli.console import PLAIN, Console, Output
from netsmith.cli.tables import short, table
from netsmith.errors import InputError

if TYPE_CHECKING:
    from netsmith.arch.spec import Spec

EXAMPLES = """\
Examples:

  netsmith scale resnet50 --macs 2x                     twice the work, EfficientNet's way
  netsmith scale mobilenet_v2 --macs 600M --rule fast   mostly wider
  netsmith scale efficientnet_b0 --params 2M -o small.json
  netsmith profile small.json
  netsmith train photos/ --model small.json --time 10m -o runs/small
"""
NEAR = 0.9
"""Share of the target below which it is said that no step comes nearer."""


def scale(
    model: str,
    /,
    *,
    macs: str | None = None,
    params: str | None = None,
    activations: str | None = None,
    rule: Rule = "compound",
    out: Annotated[Path | None, Parameter(name=["--output", "-o"], show_default=False)] = None,
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
    img_size: int | None = None,
    num_classes: int | None = None,
    output: Output = PLAIN,
) -> None:
    """Scale a network to a cost: as near as it gets, never above.

    Give one target, as a number (600M) or a multiple of what the network
    costs now (2x, 0.5x). Rules share the growth between depth, width and
    resolution: compound as EfficientNet does, fast mostly by width, the others
    by one alone. Widths are multiples of 8 and blocks whole, so costs move in
    steps. The name that is printed is the scaled network wherever a name is
    asked for, and so is the path of the written layout.

    Args:
        model: Name of a network (netsmith models), scaled or not.
        macs: Target for the multiply-accumulates of one picture.
        params: Target for the trained numbers.
        activations: Target for the numbers that convolutions and linear layers put out.
        rule: What grows or shrinks.
        out: File for the layout, FILE.json.
        overwrite: Replace it where it exists.
        img_size: Side of the pictures to start from, pixels; the published one if not given.
        num_classes: Number of classes; the published one if not given.
    """
    from netsmith.arch.lower import lower
    from netsmith.arch.scale_to import LABELS, Measure, count, resolve, scale_to
    from netsmith.run.budget import parse_target

    given: dict[Measure, str | None] = {"macs": macs, "params": params, "activations": activations}
    targets: list[tuple[Measure, str]] = [(name, text) for name, text in given.items() if text is not None]
    if len(targets) != 1:
        raise InputError("one target is needed; give --macs, --params or --activations, such as --macs 2x")
    measure, text = targets[0]
    target = parse_target(text, what=f"--{measure}")
    if out is not None:
        _refuse_output(out, overwrite=overwrite)
    spec = _spec(model, img_size=img_size, num_classes=num_classes)
    scaled = scale_to(spec, **{measure: target}, rule=rule)
    before, after = lower(spec), lower(scaled)
    limit, reached = resolve(target, cost(before), measure), count(cost(after), measure)
    with Console(output) as console:
        if reached < NEAR * limit:
            console.say(f"no step of the rule {rule!r} comes nearer to the target; other rules may, see --rule")
        if out is not None:
            _write(out, after)
        document = {
            "rule": rule,
            "target": {"measure": measure, "limit": limit, "reached": reached},
            "before": _document(before),
            "after": _document(after),
            "output": str(out) if out is not None else None,
        }
        lines = [
            f"{before.name} -> {after.name}",
            "",
            _table(before, after),
            "",
            f"{reached:,} of {limit:,} {LABELS[measure]} ({reached / limit:.1%}), by the rule {rule}",
            *([f"{out} holds the layout"] if out is not None else []),
        ]
        console.result(document, "\n".join(lines))


def _spec(model: str, *, img_size: int | None, num_classes: int | None) -> "Spec":
    from netsmith.arch.names import find_spec, is_layout_file
    from netsmith.arch.scale import SMALLEST_MAP, for_size
    from netsmith.arch.spec import with_classes
    from netsmith.run.preprocess import LARGEST_SIZE

    if is_layout_file(model):
        raise InputError(
            f"{model} is a layout, whose widths are fixed; scale the name of a network, netsmith models lists them"
        )
    if img_size is not None and not SMALLEST_MAP <= img_size <= LARGEST_SIZE:
        raise InputError(f"--img-size is {img_size}; give {SMALLEST_MAP} to {LARGEST_SIZE} pixels")
    spec = find_spec(model)
    if num_classes is not None:
        spec = with_classes(spec, num_classes)
    return spec if img_size is None else for_size(spec, img_size)


def _refuse_output(out: Path, *, overwrite: bool) -> None:
    """Before any work: a name that no verb would take as a layout's, or something in the way."""
    if out.suffix != ".json":
        raise InputError(f"-o {out} does not end in .json, by which a layout's file is known; name one that does")
    if out.is_dir():
        raise InputError(f"{out} is a folder; name a file with -o")
    if out.exists() and not overwrite:
        raise InputError(f"{out} already exists; name another with -o or give --overwrite")


def _write(out: Path, layout: Layout) -> None:
    from netsmith.run.files import FULL_DISK, write_json

    try:
        write_json(out, layout_to_json(layout))
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise InputError(f"{out} cannot be written ({error.strerror or error}); name another with -o") from error


def _document(layout: Layout) -> dict[str, Any]:
    return {
        "name": layout.name,
        "resolution": list(layout.resolution),
        "classes": layout.num_classes,
        **asdict(cost(layout)),
        "blocks": sum(len(stage.blocks) for stage in layout.stages),
        "stages": [{"name": name, "blocks": blocks, "width": width} for name, blocks, width in _stages(layout)],
    }


def _stages(layout: Layout) -> list[tuple[str, int, int]]:
    """Name, blocks and channels of every stage."""
    last = {part.stage: part.shape[0] for part in parts(layout)}
    return [(stage.name, len(stage.blocks), last[stage.name]) for stage in layout.stages]


def _table(before: Layout, after: Layout) -> str:
    costs = cost(before), cost(after)
    numbers = (
        ("params", [spent.params for spent in costs]),
        ("MACs", [spent.macs for spent in costs]),
        ("activations", [spent.activations for spent in costs]),
        ("peak bytes", [spent.peak_bytes for spent in costs]),
    )
    rows = [[name, short(was), short(now), f"{now / was:.3f}x"] for name, (was, now) in numbers]
    sides = [str(layout.resolution[0]) for layout in (before, after)]
    rows.append(["pixels", *sides, f"{after.resolution[0] / before.resolution[0]:.3f}x"])
    blocks = [sum(len(stage.blocks) for stage in layout.stages) for layout in (before, after)]
    rows.append(["blocks", *map(str, blocks), f"{blocks[1] / blocks[0]:.3f}x"])
    for (name, was, width), (_, now, wider) in zip(_stages(before), _stages(after), strict=True):
        rows.append([f"{name}, blocks of width", f"{was} of {width}", f"{now} of {wider}", f"{wider / width:.3f}x"])
    return table(["", "before", "after", ""], rows)
