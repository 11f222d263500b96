"""`netsmith export`: the folder to ship, from a run, another artifact or a network's name."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.errors import InputError

if TYPE_CHECKING:
    from netsmith.artifact.bundle import Bundle

EXAMPLES = """\
Examples:

  netsmith export runs/pets -o ship --golden synthetic --no-weights
                            nothing private: no photos, no float weights
  netsmith export runs/pets -o pets.onnx --format onnx
                            the graph alone
  netsmith export runs/pets -o newest --checkpoint last
                            what training holds now, also while it goes on
  netsmith export resnet18@0.5 -o try --img-size 96 --num-classes 10
                            an untrained network, to measure
"""


def export(
    source: str,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--output", "-o"])],
    checkpoint: Literal["best", "last"] = "best",
    golden: Literal["real", "synthetic"] = "real",
    no_weights: Annotated[bool, Parameter(show_default=False)] = False,
    format: Literal["artifact", "onnx"] = "artifact",
    num_classes: int | None = None,
    img_size: int | None = None,
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
    output: Output = PLAIN,
) -> None:
    """Write the folder to ship from a run, an artifact or a name.

    A run's or artifact's model is copied to the byte; what is converted from
    weights is compared with PyTorch first and not written where it differs.

    Args:
        source: Folder of a run or of an artifact, or the name of a network (untrained).
        out: Folder to write, or file with --format onnx; never replaced without --overwrite.
        checkpoint: Of a run: its model, or the newest checkpoint.
        golden: Keep the examples that ship with the model, or replace them by generated pictures.
        no_weights: Leave the float weights out.
        format: A folder with all it takes to use the model, or its ONNX file alone.
        num_classes: Outputs, for a name only.
        img_size: Side of the input in pixels, for a name only.
        overwrite: Replace what is there.
    """
    from netsmith.run.files import write_bytes

    given = Path(source)
    from_folder = given.exists() or len(given.parts) > 1
    if from_folder and (num_classes is not None or img_size is not None):
        raise InputError(f"--num-classes and --img-size go with the name of a network; {source} has its own")
    if checkpoint == "last" and not from_folder:
        raise InputError(f"--checkpoint last goes with the folder of a run, and there is no folder {source}")
    if out.exists() and not overwrite:
        raise InputError(f"{out} already exists; name another with -o or give --overwrite")
    if format == "onnx" and out.is_dir():
        raise InputError(f"{out} is a folder; name a file such as {out / 'model.onnx'} with -o")

    with Console(output) as console:

        def write(folder: Path) -> "Bundle":
            choices = _Choices(synthetic=golden == "synthetic", with_weights=not no_weights, overwrite=overwrite)
            if not from_folder:
                return _untrained(source, folder, choices, num_classes=num_classes, img_size=img_size, console=console)
            return (_copy if checkpoint == "best" else _newest)(given, folder, choices, console)

        try:
            if format == "artifact":
                bundle = write(out)
                content = {path.name: path.stat().st_size for path in sorted(bundle.folder.iterdir())}
            else:
                with TemporaryDirectory() as scratch:
                    model = write(Path(scratch) / "model").model_path.read_bytes()
                write_bytes(out, model)
                content = {out.name: len(model)}
        except OSError as error:
            raise InputError(f"{out} cannot be written ({error.strerror or error}); name another with -o") from error
        rows = [f"{out}", *(f"  {name:<18} {size / 1e6:9.3f} MB" for name, size in content.items())]
        console.result({"output": str(out), "files": content}, "\n".join(rows))


@dataclass(frozen=True, kw_only=True)
class _Choices:
    synthetic: bool
    with_weights: bool
    overwrite: bool


def _copy(source: Path, folder: Path, choices: _Choices, console: Console) -> "Bundle":
    from netsmith.artifact.bundle import load_bundle
    from netsmith.export.repack import repack

    return repack(
        load_bundle(source, check_hashes=True),
        folder,
        synthetic=choices.synthetic,
        with_weights=choices.with_weights,
        overwrite=choices.overwrite,
        warn=console.warn,
    )


def _newest(source: Path, folder: Path, choices: _Choices, console: Console) -> "Bundle":
    from netsmith.artifact.bundle import load_bundle
    from netsmith.export.network import export_network
    from netsmith.run.folder import RunFolder
    from netsmith.train.restore import restore_network

    run = RunFolder(source)
    if not run.marker.is_file():
        raise InputError(f"{source} is not the folder of a run; --checkpoint last needs one")
    if not run.model.is_dir():
        raise InputError(f"{source} has no model/ to take labels and preprocessing from; go on with --resume")
    described = load_bundle(run.model)
    config = described.config
    return export_network(
        restore_network(run.checkpoints, described.layout, warn=console.warn),
        folder,
        labels=config.labels,
        preprocess=config.preprocess,
        golden=None if choices.synthetic else described.golden().encoded,
        activation=config.activation,
        temperature=config.temperature,
        preferred=config.preferred,
        provenance=config.provenance,
        with_weights=choices.with_weights,
        overwrite=choices.overwrite,
    )


def _untrained(
    name: str, folder: Path, choices: _Choices, *, num_classes: int | None, img_size: int | None, console: Console
) -> "Bundle":
    from netsmith.arch.names import find_layout
    from netsmith.artifact.bundle import Provenance
    from netsmith.export.network import export_network
    from netsmith.models.build import build
    from netsmith.run.preprocess import Preprocess

    layout = find_layout(name, num_classes=num_classes, img_size=img_size)
    console.say(f"{name} is untrained: it can be measured, and what it predicts means nothing")
    return export_network(
        build(layout),
        folder,
        labels=[str(index) for index in range(layout.num_classes)],
        preprocess=Preprocess(size=layout.resolution[0]),
        provenance=Provenance(weights="untrained, seed 0"),
        with_weights=choices.with_weights,
        overwrite=choices.overwrite,
    )
