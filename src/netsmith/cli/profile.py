"""`netsmith profile`: where a network's parameters, work, memory and time go, and its picture, without torch."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from netsmith.arch.cost import Cost, Part, cost, parts
from netsmith.arch.layout import Layout
from netsmith.arch.scale import SMALLEST_MAP
from netsmith.cli.console import PLAIN, Console, Output
from netsmith.cli.tables import short, table
from netsmith.errors import InputError

if TYPE_CHECKING:
    from netsmith.artifact.bundle import Bundle
    from netsmith.artifact.latency import Measurement
    from netsmith.export.side_by_side import Sides

EXAMPLES = """\
Examples:

  netsmith profile resnet50                  every block, and the latency
  netsmith profile efficientnet_b0 --img-size 64 --num-classes 10
  netsmith profile resnet50@0.5 --stages     a scaled network, stages only
  netsmith profile runs/pets/model           a trained artifact
  netsmith profile --compare resnet18 mobilenet_v2 efficientnet_b0
                                             side by side, in PyTorch too where it is installed
  netsmith profile resnet50 --svg resnet50.svg --no-latency
                                             its picture, for a browser
"""


@dataclass(frozen=True)
class Subject:
    """A network to profile: a name's layout, or an artifact's layout and files."""

    name: str
    layout: Layout
    bundle: "Bundle | None"


def profile(
    model: str | None = None,
    /,
    *,
    img_size: int | None = None,
    num_classes: int | None = None,
    compare: Annotated[tuple[str, ...], Parameter(consume_multiple=True, show_default=False)] = (),
    stages: bool = False,
    latency: Annotated[bool, Parameter(negative="--no-latency")] = True,
    threads: int | None = None,
    seconds: float = 1.0,
    svg: Path | None = None,
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
    output: Output = PLAIN,
) -> None:
    """Show where a network's parameters, work, memory and time go.

    MACs are multiply-accumulates of convolutions and linear layers for one
    picture, activations what they put out, peak the most bytes of maps alive
    at once in float32. Latency is measured here, batch 1, in a fresh process;
    a name is measured with random weights, which are as fast as trained ones.

    Args:
        model: Name of a network (netsmith models), scaled or not, a layout's file, or the folder of an artifact or run.
        img_size: Side of the pictures, pixels; the published one if not given. Only for names.
        num_classes: Number of classes; the published one if not given. Only for names.
        compare: Names or folders: one line for each in place of the blocks.
        stages: Only stages, not their blocks.
        latency: Measure; --no-latency leaves it out.
        threads: Threads of the measurement; 1 for names, what the artifact prefers if it is alone.
        seconds: Time of each measurement, warm-up excluded.
        svg: File to draw the network in, as a picture; never replaced without --overwrite.
        overwrite: Replace the picture that is there.
    """
    from netsmith.run.machine import MOST_THREADS
    from netsmith.run.preprocess import LARGEST_SIZE

    if img_size is not None and not SMALLEST_MAP <= img_size <= LARGEST_SIZE:
        raise InputError(f"--img-size is {img_size}; give {SMALLEST_MAP} to {LARGEST_SIZE} pixels")
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise InputError(f"--threads is {threads}; give at least 1 and at most {MOST_THREADS}")
    if latency:
        from netsmith.artifact.latency import refuse_seconds

        refuse_seconds(seconds)
    if svg is not None and compare:
        raise InputError("--svg draws one network; leave --compare out")
    if svg is not None and svg.exists() and not overwrite:
        raise InputError(f"{svg} already exists; name another with --svg or give --overwrite")
    names = compare if model is None else (model, *compare)
    if not names:
        raise InputError("MODEL is missing; name a network, or several after --compare")
    subjects = [_find(name, img_size=img_size, num_classes=num_classes) for name in names]
    with Console(output) as console:
        if svg is not None:
            _draw(subjects[0], svg)
        if compare:
            sides = _side_by_side(subjects, threads=threads, seconds=seconds, console=console) if latency else None
            console.result({"networks": _compared(subjects, sides)}, _comparison(subjects, sides))
            return
        measured = _measure(subjects[0], threads=threads, seconds=seconds, console=console) if latency else None
        found = parts(subjects[0].layout)
        lines = [_title(subjects[0]), "", _table(found, cost(subjects[0].layout), blocks=not stages)]
        if latency:
            lines += ["", _latency(measured)]
        console.result(_document(subjects[0], measured, blocks=not stages), "\n".join(lines))


def _find(name: str, *, img_size: int | None, num_classes: int | None) -> Subject:
    """A name of a network wins over a folder of that name; `./NAME` means the folder."""
    from netsmith.arch.names import MODELS, find_layout, is_layout_file

    if name not in MODELS and not is_layout_file(name) and ("/" in name or os.path.exists(name)):
        from netsmith.artifact.bundle import load_bundle

        bundle = load_bundle(Path(name))
        for flag, value in (("--img-size", img_size), ("--num-classes", num_classes)):
            if value is not None:
                raise InputError(f"{flag} is for names of networks, and {name} is an artifact, whose own is fixed")
        return Subject(name=name, layout=bundle.layout, bundle=bundle)
    return Subject(name=name, layout=find_layout(name, num_classes=num_classes, img_size=img_size), bundle=None)


def _draw(subject: Subject, path: Path) -> None:
    from netsmith.report.diagram import network_svg
    from netsmith.run.files import write_text

    try:
        write_text(path, network_svg(subject.layout) + "\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); name another with --svg") from error


def _measure(subject: Subject, *, threads: int | None, seconds: float, console: Console) -> "Measurement | None":
    from netsmith.artifact.measure import measure, measure_many

    if subject.bundle is not None:
        folder = subject.bundle.folder
        return measure(folder, threads=threads, seconds=seconds, warn=console.warn, progress=console.progress)
    [found] = measure_many([_model(subject)], threads=threads or 1, seconds_each=seconds, progress=console.progress)
    return found


def _side_by_side(subjects: list[Subject], *, threads: int | None, seconds: float, console: Console) -> "list[Sides]":
    from netsmith.export.side_by_side import Pair, side_by_side

    pairs = [Pair(layout=subject.layout, model=_model(subject)) for subject in subjects]
    return side_by_side(pairs, threads=threads or 1, seconds_each=seconds, progress=console.progress)


def _model(subject: Subject) -> Path | bytes:
    """The ONNX file of an artifact, or that of a network with random weights."""
    if subject.bundle is not None:
        return subject.bundle.model_path
    from netsmith.export.probe import probe_onnx
    from netsmith.run.preprocess import Preprocess

    return probe_onnx(subject.layout, preprocess=Preprocess(size=subject.layout.resolution[0]))


def _document(subject: Subject, measured: "Measurement | None", *, blocks: bool) -> dict[str, Any]:
    found = parts(subject.layout)
    document: dict[str, Any] = {
        "name": subject.name,
        "family": subject.layout.family,
        "resolution": list(subject.layout.resolution),
        "classes": subject.layout.num_classes,
        "size_bytes": subject.bundle.size_bytes if subject.bundle is not None else None,
        "total": asdict(cost(subject.layout)),
        "stages": [_row(stage, group) for stage, group in _by_stage(found)],
        "latency": asdict(measured) if measured is not None else None,
    }
    if blocks:
        document["parts"] = [{"stage": part.stage, "kind": part.kind, **_row(part.name, [part])} for part in found]
    return document


def _row(name: str, group: list[Part]) -> dict[str, Any]:
    return {"name": name, "shape": list(group[-1].shape), **asdict(_sum(group))}


def _by_stage(found: list[Part]) -> list[tuple[str, list[Part]]]:
    stages: dict[str, list[Part]] = {}
    for part in found:
        stages.setdefault(part.stage, []).append(part)
    return list(stages.items())


def _sum(group: list[Part]) -> Cost:
    return Cost(
        params=sum(part.cost.params for part in group),
        macs=sum(part.cost.macs for part in group),
        activations=sum(part.cost.activations for part in group),
        peak_bytes=max(part.cost.peak_bytes for part in group),
    )


def _title(subject: Subject) -> str:
    layout = subject.layout
    size = " x ".join(map(str, (layout.input.channels, *layout.resolution)))
    shipped = f", {subject.bundle.size_bytes / 1e6:.2f} MB" if subject.bundle is not None else ""
    return f"{subject.name}: {layout.family}, input {size}, {layout.num_classes} classes{shipped}"


def _table(found: list[Part], whole: Cost, *, blocks: bool) -> str:
    rows: list[list[str]] = []
    for stage, group in _by_stage(found):
        rows.append([stage, "", *_cells(group[-1].shape, _sum(group))])
        if blocks and group[0].kind != stage:
            rows += [[f"  {part.name}", part.kind, *_cells(part.shape, part.cost)] for part in group]
    rows.append(["total", "", *_cells(None, whole)])
    return table(["part", "block", "output", "params", "MACs", "activations", "peak bytes"], rows, left=2)


def _cells(shape: tuple[int, ...] | None, spent: Cost) -> list[str]:
    output = "x".join(map(str, shape)) if shape else ""
    return [output, f"{spent.params:,}", f"{spent.macs:,}", short(spent.activations), short(spent.peak_bytes)]


def _compared(subjects: list[Subject], sides: "list[Sides] | None") -> list[dict[str, Any]]:
    documents: list[dict[str, Any]] = []
    for i, subject in enumerate(subjects):
        document = _document(subject, sides[i].get("onnxruntime") if sides else None, blocks=False)
        in_torch = sides[i].get("torch") if sides else None
        document["size_bytes"], document["size_estimated"] = _size(subject), subject.bundle is None
        documents.append(document | {"latency_torch": asdict(in_torch) if in_torch is not None else None})
    return documents


def _size(subject: Subject) -> int:
    """Bytes of the files that a predictor opens: an artifact's own, or what arithmetic says of a network's export."""
    if subject.bundle is not None:
        return subject.bundle.size_bytes
    from netsmith.search.candidates import estimated_bytes

    return estimated_bytes(subject.layout)


def _comparison(subjects: list[Subject], sides: "list[Sides] | None") -> str:
    runtimes = list(sides[0]) if sides else []
    rows: list[list[str]] = []
    for i, subject in enumerate(subjects):
        whole, size = cost(subject.layout), str(subject.layout.resolution[0])
        row = [subject.name, size, *map(short, (whole.params, whole.macs, whole.activations, whole.peak_bytes))]
        row.append(f"{_size(subject) / 1e6:.2f}")
        for runtime in runtimes:
            found = sides[i][runtime] if sides else None
            row += [f"{found.p50_ms:.3f}", f"{found.p90_ms:.3f}"] if found is not None else ["-", "-"]
        rows.append(row)
    header = ["network", "pixels", "params", "MACs", "activations", "peak bytes", "MB"]
    for runtime in runtimes:
        header += [f"{runtime} p50 ms", "p90 ms"]
    lines = [table(header, rows)]
    known = [found for side in sides or () for found in side.values() if found is not None]
    if known:
        threads = f"{known[0].threads} thread{'s' if known[0].threads > 1 else ''}"
        noise = max(found.noise for found in known)
        lines += ["", f"latency here: {threads}, all in turns in one fresh process; noise of the machine {noise:.2f}"]
    if any(subject.bundle is None for subject in subjects):
        lines += [*([] if known else [""]), "MB of names are estimates of what they export to"]
    return "\n".join(lines)


def _latency(found: "Measurement | None") -> str:
    if found is None:
        return "latency  not measured in time; give more --seconds"
    return (
        f"latency  p50 {found.p50_ms:.3f} ms  p90 {found.p90_ms:.3f} ms  (95 % {found.low:.3f} to {found.high:.3f}), "
        f"{_how(found)}; noise of the machine {found.noise:.2f}"
    )


def _how(found: "Measurement") -> str:
    return f"{found.runtime}, {found.threads} thread{'s' if found.threads > 1 else ''}"
