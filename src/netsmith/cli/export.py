"""`netsmith export`: the folder to ship, or another library's weights, from a run, an artifact or a network's name."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.errors import InputError

if TYPE_CHECKING:
    from netsmith.arch.pretrained import Weights
    from netsmith.artifact.bundle import Bundle, Preferred
    from netsmith.models.build import Network
    from netsmith.run.folder import RunFolder

EXAMPLES = """\
Examples:

  netsmith export runs/pets -o ship --golden synthetic --no-weights
                            nothing private: no photos, no float weights
  netsmith export runs/pets -o pets.onnx --format onnx
                            the graph alone
  netsmith export runs/pets-int8 -o whole --float
                            what was quantized, in float again, to go on with
  netsmith export runs/pets -o newest --checkpoint last
                            what a fit holds now, also while it goes on
  netsmith export efficientnet_b0.v1 -o b0
                            a network with published weights: ImageNet's classes
  netsmith export runs/pets -o pets.safetensors --format torchvision
                            weights that torchvision's network loads
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
    float_: Annotated[bool, Parameter(name="--float", show_default=False)] = False,
    format: Literal["artifact", "onnx", "torchvision", "timm"] = "artifact",
    pretrained: Annotated[bool, Parameter(show_default=False)] = False,
    pretrained_dir: Path | None = None,
    num_classes: int | None = None,
    img_size: int | None = None,
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
    output: Output = PLAIN,
) -> None:
    """Write the folder to ship from a run, an artifact or a name.

    A run's or artifact's model is copied to the byte; what is converted from
    weights is compared with PyTorch first and not written where it differs.

    Args:
        source: Folder of a run or of an artifact, or the name of a network: untrained, or NAME.TAG with its weights.
        out: Folder to write, or file with another --format; never replaced without --overwrite.
        checkpoint: Of a run that has a model: that, or the newest checkpoint (of a fit that of the candidate in front).
            A fit has one from the first rung of its race on, a train at its end.
        golden: Keep the examples that ship with the model, or replace them by generated pictures.
        no_weights: Leave the float weights out.
        float_: Of a quantized model: the network before it was rounded, from the float weights that ship with it.
        format: A folder with all it takes to use the model, its ONNX file alone, or its float weights for a library.
        pretrained: Take the published weights of a name without a tag.
        pretrained_dir: Folder of weights files, looked at before the cache and the net.
        num_classes: Outputs, for a name only.
        img_size: Side of the input in pixels, for a name only.
        overwrite: Replace what is there: a file, or a folder that holds an artifact and nothing else.
    """
    from netsmith.arch.names import is_layout_file
    from netsmith.run.files import write_bytes

    given = Path(source)
    from_folder = not is_layout_file(source) and (given.exists() or len(given.parts) > 1)
    if from_folder and (num_classes is not None or img_size is not None or pretrained):
        raise InputError(
            f"--num-classes, --img-size and --pretrained go with the name of a network; {source} has its own"
        )
    if checkpoint == "last" and not from_folder:
        raise InputError(f"--checkpoint last goes with the folder of a run, and there is no folder {source}")
    if float_ and (not from_folder or checkpoint == "last" or format in ("torchvision", "timm")):
        raise InputError(
            "--float goes with the folder of a quantized model, to write a folder or an ONNX file; leave it out"
        )
    if out.exists() and not overwrite:
        raise InputError(f"{out} already exists; name another with -o or give --overwrite")
    if format != "artifact" and out.is_dir():
        example = "model.onnx" if format == "onnx" else "model.safetensors"
        raise InputError(f"{out} is a folder; name a file such as {out / example} with -o")
    if format == "artifact" and out.exists():
        _refuse_replacing(out)
    if format in ("torchvision", "timm") and (no_weights or golden != "real" or checkpoint != "best"):
        raise InputError(f"--no-weights, --golden and --checkpoint do not go with --format {format}; leave them out")
    network = _Named(
        name=source,
        pretrained=pretrained,
        pretrained_dir=pretrained_dir,
        num_classes=num_classes,
        img_size=img_size,
    )

    with Console(output) as console:

        def write(folder: Path) -> "Bundle":
            choices = _Choices(synthetic=golden == "synthetic", with_weights=not no_weights, overwrite=overwrite)
            if not from_folder:
                return _by_name(network, folder, choices, console)
            if float_:
                return _in_float(given, folder, choices, console)
            return (_copy if checkpoint == "best" else _newest)(given, folder, choices, console)

        try:
            if format == "artifact":
                bundle = write(out)
                content = {path.name: path.stat().st_size for path in sorted(bundle.folder.iterdir())}
            elif format == "onnx":
                with TemporaryDirectory() as scratch:
                    model = write(Path(scratch) / "model").model_path.read_bytes()
                write_bytes(out, model)
                content = {out.name: len(model)}
            else:
                content = {out.name: _for_library(given if from_folder else network, out, format, console)}
        except OSError as error:
            raise InputError(f"{out} cannot be written ({error.strerror or error}); name another with -o") from error
        rows = [f"{out}", *(f"  {name:<18} {size / 1e6:9.3f} MB" for name, size in content.items())]
        console.result({"output": str(out), "files": content}, "\n".join(rows))


def _refuse_replacing(folder: Path) -> None:
    """Refuse to put an artifact in the place of a folder that holds anything else, which would be gone with it."""
    from netsmith.artifact.bundle import CONFIG, GOLDEN, MODEL, WEIGHTS

    if not all((folder / name).is_file() for name in (CONFIG, MODEL)):
        raise InputError(f"{folder} is not an artifact, so it is not overwritten; choose another folder")
    own = {CONFIG, MODEL, GOLDEN, WEIGHTS}
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in own or not entry.is_file())
    if others:
        more = f" and {len(others) - 1} more" if others[1:] else ""
        raise InputError(
            f"{folder} holds {others[0]!r}{more} beside an artifact, so it is not overwritten; move what is yours "
            "away or choose another folder"
        )


@dataclass(frozen=True, kw_only=True)
class _Named:
    """A network by name, and what was said about it."""

    name: str
    pretrained: bool
    pretrained_dir: Path | None
    num_classes: int | None
    img_size: int | None

    @property
    def weights(self) -> "Weights | None":
        """The published weights that it comes with."""
        from netsmith.arch.pretrained import find_weights, split_tag

        model, tag = split_tag(self.name)
        return find_weights(model, tag) if self.pretrained or tag is not None else None

    def build(self, console: Console) -> "Network":
        """The network, untrained or with its weights."""
        from netsmith.arch.names import find_layout
        from netsmith.models.build import build, load_pretrained

        if self.weights is not None:
            return load_pretrained(
                self.weights,
                num_classes=self.num_classes,
                img_size=self.img_size,
                folder=self.pretrained_dir,
                progress=console.progress,
            )
        layout = find_layout(self.name, num_classes=self.num_classes, img_size=self.img_size)
        console.say(f"{self.name} is untrained: it can be measured, and what it predicts means nothing")
        return build(layout)


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


def _in_float(source: Path, folder: Path, choices: _Choices, console: Console) -> "Bundle":
    from netsmith.artifact.bundle import Preferred, load_bundle
    from netsmith.models.build import load_model

    described = load_bundle(source, check_hashes=True)
    if described.config.precision == "float32":
        raise InputError(f"{source} is float32 already; leave --float out")
    # What rounded numbers are fastest in says nothing of floats.
    preferred = Preferred(threads=described.config.preferred.threads)
    return _of_network(load_model(source), described, folder, choices, console, preferred=preferred)


def _newest(source: Path, folder: Path, choices: _Choices, console: Console) -> "Bundle":
    from netsmith.artifact.bundle import load_bundle
    from netsmith.run.folder import RunFolder
    from netsmith.train.restore import restore_network

    run = RunFolder(source)
    if not run.marker.is_file():
        raise InputError(f"{source} is not the folder of a run; --checkpoint last needs one")
    if not run.model.is_dir():
        raise InputError(
            f"{source} has no model/ yet to take labels and preprocessing from; wait for it, or go on with --resume "
            "where the run was interrupted"
        )
    described = load_bundle(run.model)
    network = restore_network(_checkpoints(run, described), described.layout, warn=console.warn)
    return _of_network(network, described, folder, choices, console, preferred=described.config.preferred)


def _of_network(
    network: "Network",
    described: "Bundle",
    folder: Path,
    choices: _Choices,
    console: Console,
    *,
    preferred: "Preferred",
) -> "Bundle":
    """The artifact of other weights of a network; all but what it prefers is that of the one that is there."""
    from netsmith.export.network import export_network

    config = described.config
    if config.thresholds is not None:
        console.warn(f"the thresholds are those chosen for {described.folder}, not anew for these weights")
    return export_network(
        network,
        folder,
        labels=config.labels,
        preprocess=config.preprocess,
        golden=None if choices.synthetic else described.golden().encoded,
        activation=config.activation,
        thresholds=config.thresholds,
        temperature=config.temperature,
        preferred=preferred,
        provenance=config.provenance,
        with_weights=choices.with_weights,
        overwrite=choices.overwrite,
    )


def _checkpoints(run: "RunFolder", described: "Bundle") -> Path:
    """Where the checkpoints of a run's model are: its own, or in a fit those of the candidate in front."""
    from netsmith.run.clock import SystemClock
    from netsmith.run.ledger import Ledger, in_front
    from netsmith.run.recipe import Recipe

    if run.command[:1] != ["fit"]:
        return run.checkpoints
    leader = in_front(Ledger(run.ledger, clock=SystemClock()).rows)
    if leader is None:
        raise InputError(f"{run.path} has no candidate in front yet; wait for the first rung of its race")
    folder = run.candidates / leader
    recipe = Recipe.load(folder / "recipe.yaml")
    if (recipe.model, recipe.img_size) != (described.layout.name, described.config.preprocess.size):
        raise InputError(
            f"{run.model} is {described.layout.name}, but {leader} is in front now; leave --checkpoint last out, or "
            "wait until the fit is finished"
        )
    return folder / run.checkpoints.name


def _by_name(named: _Named, folder: Path, choices: _Choices, console: Console) -> "Bundle":
    from netsmith.artifact.bundle import Provenance
    from netsmith.data.pretrained import weights_preprocess
    from netsmith.export.network import export_network
    from netsmith.run.preprocess import Preprocess

    weights, network = named.weights, named.build(console)
    layout = network.layout
    if weights is None:
        preprocess, provenance = Preprocess(size=layout.resolution[0]), Provenance(weights="untrained, seed 0")
    else:
        preprocess = weights_preprocess(weights, size=layout.resolution[0])
        provenance = Provenance(weights=weights.name, licence=weights.licence)
        if layout.num_classes != len(weights.classes):
            console.say(f"{weights.name} has a new, untrained head: what it predicts means nothing before training")
    known = weights is not None and layout.num_classes == len(weights.classes)
    return export_network(
        network,
        folder,
        labels=weights.classes if weights and known else [str(index) for index in range(layout.num_classes)],
        preprocess=preprocess,
        provenance=provenance,
        with_weights=choices.with_weights,
        overwrite=choices.overwrite,
    )


def _for_library(source: "Path | _Named", out: Path, library: Literal["torchvision", "timm"], console: Console) -> int:
    from netsmith.models.build import load_model
    from netsmith.models.saving import for_library, write_weights

    network = load_model(source) if isinstance(source, Path) else source.build(console)
    saved = for_library(network.state_dict(), network.layout, library)
    console.say(f"{out}: for {library}'s {saved.model} with {network.layout.num_classes} classes")
    if saved.moved:
        console.say("the variances of its norms are moved to that library's constant, so that it computes the same")
    return write_weights(out, saved.weights)
