"""`netsmith import-weights`: a checkpoint from elsewhere becomes a folder to use and ship."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.errors import InputError
from netsmith.run.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

if TYPE_CHECKING:
    from netsmith.arch.layout import Layout

EXAMPLES = """\
Examples:

  netsmith import-weights resnet20.th --model resnet20_cifar --num-classes 10 \\
      -o model --labels plane,car,bird,cat,deer,dog,frog,horse,ship,truck
                            a CIFAR-10 network with names for its classes
  netsmith import-weights b0.safetensors --model efficientnet_b0 -o b0 \\
      --crop 0.875 --interpolation bicubic --labels imagenet.txt
                            ImageNet weights of torchvision or timm
"""


def import_weights(
    file: Path,
    /,
    *,
    model: str,
    out: Annotated[Path, Parameter(name=["--output", "-o"])],
    num_classes: int | None = None,
    labels: str | None = None,
    img_size: int | None = None,
    keep_strides: Annotated[bool, Parameter(show_default=False)] = False,
    resize: Literal["shorter", "squash"] = "shorter",
    crop: float = 1.0,
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear",
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    licence: str | None = None,
    output: Output = PLAIN,
) -> None:
    """Make a model folder from a checkpoint of another project.

    Reads safetensors and torch files with this project's, torchvision's or
    timm's names, or those of the usual CIFAR ResNets; nothing in the file is
    ever run. How the weights' author prepared pictures is not in the file:
    say it here, it decides the accuracy.

    Args:
        file: The checkpoint.
        model: Network that the weights are for; netsmith models lists them.
        out: Folder to write; never replaced.
        num_classes: Outputs of the network; those published if not given.
        labels: Text file with a class name per line, or names with commas between; 0, 1, ... if not given.
        img_size: Side of the input in pixels; the published one if not given. Small ones drop strides, as for training.
        keep_strides: Keep the published stem and strides at any --img-size.
        resize: shorter: the shorter side, then cut the centre; squash: both sides.
        crop: Share of the shorter side that the centre cut keeps.
        interpolation: Filter of the resize.
        mean: Of red, green and blue, subtracted from values in 0 to 1.
        std: Of red, green and blue, divided by.
        licence: Licence of the weights, kept with them.
    """
    if out.exists():
        raise InputError(f"{out} already exists; name another with -o")
    layout = _layout(model, num_classes=num_classes, img_size=img_size, keep_strides=keep_strides)
    names = _labels(labels, layout.num_classes)
    preprocess = _preprocess(
        size=layout.resolution[0], resize=resize, crop=crop, interpolation=interpolation, mean=mean, std=std
    )  # fmt: skip

    from netsmith.arch.layout import at_size
    from netsmith.arch.names import find_layout
    from netsmith.artifact.bundle import Provenance
    from netsmith.data.items import encodable
    from netsmith.export.network import export_network
    from netsmith.models.build import load_weights
    from netsmith.models.keymaps import convert_weights
    from netsmith.models.weights import entries_of, read_weights

    with Console(output) as console:
        published = find_layout(model, num_classes=num_classes)
        converted = convert_weights(read_weights(file), published if keep_strides else layout, where=str(file))
        layout = at_size(converted.layout, layout.resolution[0])
        console.say(f"{file}: {len(converted.weights)} entries of {model}, named as by {converted.source}")
        try:
            bundle = export_network(
                load_weights(layout, entries_of(layout, converted.weights), where=str(file)),
                out,
                labels=names,
                preprocess=preprocess,
                provenance=Provenance(weights=encodable(file.name), licence=licence),
            )
        except OSError as error:
            raise InputError(f"{out} cannot be written ({error.strerror or error}); name another with -o") from error
        document = {"output": str(out), "model": model, "source": converted.source, "size_bytes": bundle.size_bytes}
        console.result(document, f"{out}: {model}, {len(names)} classes, {bundle.size_bytes / 1e6:.2f} MB")


def _layout(model: str, *, num_classes: int | None, img_size: int | None, keep_strides: bool) -> "Layout":
    from netsmith.arch.layout import at_size
    from netsmith.arch.names import find_layout

    if keep_strides and img_size is not None:
        return at_size(find_layout(model, num_classes=num_classes), img_size)
    return find_layout(model, num_classes=num_classes, img_size=img_size)


def _labels(labels: str | None, count: int) -> list[str]:
    """Class names, from a file where there is one of that name."""
    if labels is None:
        return [str(index) for index in range(count)]
    if os.path.isfile(labels):  # unlike Path's, it takes a list too long for a file name
        try:
            names = [line.strip() for line in Path(labels).read_text("utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"--labels {labels} cannot be read ({error}); give a text file, a name per line"
            ) from error
    elif "," in labels or count == 1:
        names = [name.strip() for name in labels.split(",")]
    else:
        raise InputError(f"--labels {labels}: there is no such file; give one, or names with commas between")
    if len(names) != count or len(set(names)) != count or "" in names:
        raise InputError(
            f"--labels {labels} gives {len(set(names) - {''})} different names for {count} classes; "
            "give one per class, or the right --num-classes"
        )
    return names


def _preprocess(
    *,
    size: int,
    resize: Literal["shorter", "squash"],
    crop: float,
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Preprocess:
    from pydantic import ValidationError

    try:
        return Preprocess(size=size, resize=resize, crop=crop, interpolation=interpolation, mean=mean, std=std)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:
            problem = first["msg"].removeprefix("Value error, ")
            raise InputError(f"--crop is {crop:g}, and {problem}; give a larger share") from error
        raise InputError(f"--{first['loc'][0]}: {first['msg'].lower()}, not {first['input']}") from error
