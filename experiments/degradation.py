"""Do deeper networks get worse, and do shortcuts mend it? Plain, residual and pre-activation networks on CIFAR-10.

    python experiments/degradation.py [--small | --full] [--seeds N] [--data DIR] [--estimate]

**Hypothesis.** Without shortcuts a network of 56 or 110 layers ends with a *lower training accuracy* than one of 20
layers, although it could copy those 20 layers and do nothing in the others. With shortcuts it does not.

**Source.** He, Zhang, Ren and Sun 2016, Deep Residual Learning (arXiv 1512.03385), section 4.2, figure 6 and table 6;
pre-activation: Identity Mappings in Deep Residual Networks (arXiv 1603.05027). Test errors there: ResNet 8.75 % (20
layers), 6.97 % (56), 6.43 % (110).

**What would refute it.** Plain networks of 56 and 110 layers whose training accuracy is not below that of 20 layers
(the interval of the difference reaches 0 or lies above), or residual ones that fall behind as plain ones do.

**What popular accounts get wrong.**

- *"Deep plain networks overfit."* An overfitted network is good on its training pictures. These are bad on them, which
  is why the table's last column compares training accuracy. It is a failure to optimise: degradation.
- *"Shortcuts cure vanishing gradients."* Batch norm is in all three kinds here. The paper itself checked that gradients
  of its plain networks do not vanish (section 4.1). Theory says that batch norm without shortcuts makes them *explode*
  towards the first layers at initialisation (Yang et al. 2019, arXiv 1902.08129), and that a few updates change that.
  Hence the gradient's norm by depth, at initialisation and along training.
- *"A ResNet is a deep network with batch norm."* The addition is the point: the twins here differ in nothing else. With
  zero-padded identities (option A) `plain56_cifar` and `resnet56_cifar` have the same parameters, to the digit.

**Design.** Three kinds at three depths, the paper's recipe: SGD 0.1, momentum 0.9, weight decay 1e-4, batches of 128,
rate divided by 10 at one half and three quarters, pad-crop and flip. Differences: a tenth of the training pictures is
left out (no kind sees them), weight decay spares norms and biases, and every network warms up over the first share of
training, as the paper does for 110 layers only. Nothing is chosen, so test accuracy along training is shown as in the
paper's figure 6; the numbers are those after the last update.

**What a small run cannot show.** It has 16 x 16 pixels, a tenth of the pictures and 390 updates: deep networks have no
time to converge, so it shows how fast each kind learns. Whether the gap remains is a question for `--full`.
"""

import copy
import sys
from dataclasses import dataclass

import torch
from intervals import Row, difference, mean_curve, mean_of, over_seeds, percent
from picture_sets import Pictures
from study import Cell, Study, finite, script
from torch import nn

from netsmith.arch.names import MODELS, find_layout
from netsmith.errors import InputError
from netsmith.report.charts import Series
from netsmith.run.metrics import Interval
from netsmith.run.recipe import Recipe
from netsmith.train.objectives import Classify

KINDS = {"plain": "plain{depth}_cifar", "residual": "resnet{depth}_cifar", "pre-activation": "preresnet{depth}_cifar"}
GRADIENT_PICTURES = 128
MOMENTS = {"start": (0, "at initialisation"), "early": (1, "after a first part of training"), "end": (-1, "at the end")}
"""Points of the curve at which gradients are drawn."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How large the experiment is.

    Attributes:
        data: name of the data set.
        depths: layers, the first the one that deeper ones are compared with.
        side: of the pictures, pixels.
        train, test: pictures at most, None for all.
        epochs: passes over the training pictures.
        batch: pictures per update.
        warmup: share of training in which the rate rises.
        marks: points of the curves before the last.
    """

    data: str = "cifar10"
    depths: tuple[int, ...] = (20, 56, 110)
    side: int = 32
    train: int | None = None
    test: int | None = None
    epochs: float
    batch: int = 128
    warmup: float
    marks: int


SMALL = Setting(side=16, train=5_000, test=1_000, epochs=5.0, batch=64, warmup=0.1, marks=5)
FULL = Setting(epochs=182.0, warmup=0.01, marks=45)  # the paper's 64,000 updates on 45,000 pictures


def main(study: Study, setting: Setting | None = None) -> None:
    """Train every kind at every depth with every seed, then draw."""
    setting = setting or (FULL if study.options.full else SMALL)
    pictures = study.pictures(setting.data, side=setting.side, train=setting.train, test=setting.test)
    cells = [
        cell(kind, depth, seed, setting=setting, pictures=pictures, threads=study.options.threads)
        for seed in study.seeds
        for depth in setting.depths
        for kind in KINDS
    ]
    rows = study.run(cells)
    if rows:
        show(study, rows, depths=setting.depths)


def cell(kind: str, depth: int, seed: int, *, setting: Setting, pictures: Pictures, threads: int | None) -> Cell:
    """One training."""
    name = KINDS[kind].format(depth=depth)
    if name not in MODELS:
        raise InputError(f"this netsmith has no network {name}, which the experiment compares; update it")
    recipe = Recipe(
        model=name, img_size=setting.side, epochs=setting.epochs, batch_size=setting.batch, seed=seed, threads=threads,
        opt="sgd", lr=0.1, momentum=0.9, nesterov=False, weight_decay=1e-4, smoothing=0.0,
        sched="step", step_milestones=(0.5, 0.75), step_gamma=0.1, warmup=setting.warmup,
        flip=True, pad=setting.side // 8, crop_scale=None,
    )  # fmt: skip
    return Cell(
        network=name,
        layout=find_layout(name, num_classes=pictures.classes, img_size=setting.side),
        pictures=pictures,
        recipe=recipe,
        factors={"kind": kind, "depth": depth},
        marks=setting.marks,
        watch=("train", "test"),
        look=gradients,
    )


def gradients(network: nn.Module, pictures: Pictures) -> Row:
    """Norms of the gradient and of the weights of every convolution, from the first layer to the last.

    The loss is that of the first training pictures, unaugmented, in training mode. A copy computes it, so the norms'
    running statistics and the gradients of the training stay as they were.
    """
    rules = pictures.preprocess
    twin = Classify(copy.deepcopy(network).train(), mean=rules.mean, std=rules.std)
    twin.zero_grad(set_to_none=True)
    device = next(network.parameters()).device
    images = torch.from_numpy(pictures.train.pixels[:GRADIENT_PICTURES]).permute(0, 3, 1, 2).to(device)
    targets = torch.from_numpy(pictures.train.labels[:GRADIENT_PICTURES]).to(device)
    twin(images, targets).loss.backward()
    weights = [module.weight for module in twin.modules() if isinstance(module, nn.Conv2d)]
    return {
        "gradients": [finite(rounded(weight.grad.norm())) for weight in weights if weight.grad is not None],
        "weights": [finite(rounded(weight.norm())) for weight in weights],
    }


def rounded(norm: torch.Tensor) -> float:
    """A norm to six digits, which is what fits into rows that are kept."""
    return float(f"{norm.item():.6g}")


def show(study: Study, rows: list[Row], *, depths: tuple[int, ...]) -> None:
    """The table, accuracy along training by kind, and gradients by depth of layer."""

    def of(kind: str, depth: int) -> list[Row]:
        return [row for row in rows if (row["kind"], row["depth"]) == (kind, depth)]

    shallow = depths[0]
    lines: list[list[str]] = []
    gaps: dict[str, Interval | None] = {}
    for kind in KINDS:
        for depth in depths:
            found, gap = of(kind, depth), ""
            if depth != shallow:
                title = f"{kind}, {depth} layers"
                gaps[title] = difference(found, of(kind, shallow), "train_top1")
                gap = percent(gaps[title], sign=True)
            accuracies = [percent(over_seeds(found, name)) for name in ("train_top1", "test_top1")]
            lines.append([f"`{found[0]['network']}`", f"{found[0]['params']:,}", *accuracies, gap])
    gap_title = f"training top-1 less that of {shallow} layers, points"
    study.table(["network", "params", "training top-1, %", "test top-1, %", gap_title], lines)

    study.forest(
        "gaps.svg", gaps, label=gap_title, about=f"Training accuracy of deeper networks less that of {shallow} layers"
    )
    curves = {
        kind: [
            mean_curve(of(kind, depth), f"{split}_top1", title=title, colour=place, dashed=split == "train")
            for place, depth in enumerate(depths)
            for split, title in (("test", f"{depth} layers, test"), ("train", f"{depth} layers, training"))
        ]
        for kind in KINDS
    }
    top = max((bound for series in curves.values() for line in series for bound in (*line.high, *line.y)), default=1.0)
    for kind, series in curves.items():
        about = f"Accuracy of {kind} networks on training and test pictures along training"
        study.chart(
            f"curves-{kind}.svg", series, across="share of training", label=f"{kind}: top-1, %", about=about,
            share=True, within=(0.0, min(1.0, 1.05 * top)),
        )  # fmt: skip
    for depth in depths:
        for name, (point, when) in MOMENTS.items():
            series = [by_layer(of(kind, depth), point, title=kind) for kind in KINDS]
            study.chart(
                f"gradients-{depth}-{name}.svg", [line for line in series if line.y],
                across="layer", label=f"gradient {when}", log_y=True,
                about=f"Norm of the gradient of every convolution of {depth}-layer networks {when}",
            )  # fmt: skip


def by_layer(rows: list[Row], point: int, *, title: str) -> Series:
    """Gradients over the layers at one point of the curve, mean over seeds."""
    seen = [row["curve"][point]["gradients"] for row in rows if not row["diverged"]]
    layers = enumerate(zip(*seen, strict=True), start=1)
    values = {layer: mean_of(together).value for layer, together in layers if None not in together}
    return Series(title=title, x=list(values), y=list(values.values()))


if __name__ == "__main__":
    sys.exit(script("degradation", __doc__ or "", main))
