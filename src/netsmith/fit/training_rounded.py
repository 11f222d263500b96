"""The last rung of int8: the float network is trained on while it computes as the int8 graph made of it will.

Only where a length was given for it. The recipe is that of the parent's run, or a file in its place, at a tenth of its
rate, down to nothing by a cosine (Krishnamoorthi 2018, arXiv 1806.08342, section 4: from the float weights on, at small
rates), or what weights that were trained before are given where there is neither. Pictures have the side they are
judged at, because ranges were observed there. What comes out are float weights like any others, which are exported and
rounded as before.

This module needs torch only where it trains.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netsmith.artifact.bundle import WEIGHTS, Provenance
from netsmith.fit.composing import compose_recipe
from netsmith.fit.finish import recipe_hash
from netsmith.fit.going_on import Training
from netsmith.fit.single import refuse_other_recipe, told
from netsmith.fit.stage import Parent, Stage
from netsmith.fit.starting import Continued
from netsmith.run.recipe import Recipe, read_fields

if TYPE_CHECKING:
    from netsmith.export.network import Exported
    from netsmith.models.network import Network

SLOWER = 10
"""Times the parent's rate is above this training's."""
UNLIKE = {"model", "pretrained", "parent", "img_size", "epochs", "time_s", "teachers", "hints", "lr", "seed"}
"""Fields of a recipe that belong to another training's beginning or length."""
OF_MACHINE = {"device", "threads", "workers", "channels_last", "grad_accum"}
"""And those of the parent's that belong to the machine of that time."""
OF_OPTIMIZER = {"momentum", "nesterov", "weight_decay"}
"""And those that, as its rate, say nothing of another optimizer."""
HOW: Mapping[str, Any] = {
    "sched": "cosine", "final_lr_ratio": 0.0, "train_size": None, "progressive": None, "ema": None, "head_first": 0.0,
    "drop_rate": 0.0, "drop_path": 0.0, "grad_clip": 1.0, "dtype": "float32", "compile": False, "sharded": False,
}  # fmt: skip
"""What training on with rounding is, whatever the parent's was: rounding is simulated in float32, and with batch norm
as it stands nothing but the clipped gradient bounds an update."""

FIXED = frozenset({"img_size", "train_size", "progressive", "drop_rate", "drop_path", "dtype", "sharded"})
"""Fields of it that flags have no say in."""


@dataclass(frozen=True)
class Learned:
    """What training on gave.

    Attributes:
        model: content of the float `model.onnx`.
        weights: content of `model.safetensors`, of which it is made.
        provenance: of what is made of them.
        steps, epochs: that it took.
    """

    model: bytes
    weights: bytes
    provenance: Provenance
    steps: int
    epochs: float


def obstacle(parent: Parent) -> str | None:
    """Why a model cannot be trained on here; None where it can."""
    if find_spec("torch") is None:
        return "it needs torch: pip install 'netsmith[train]'"
    if not (parent.bundle.folder / WEIGHTS).is_file():
        return f"it needs the float weights, and {parent.path} was shipped without {WEIGHTS}"
    return None


def compose(stage: Stage, flags: Mapping[str, Any], *, seed: int, config: Path | None = None) -> Recipe:
    """The recipe of the training, which the run's folder keeps from its beginning on.

    Args:
        stage: at work.
        flags: fields that were given, its length among them, unless the folder has the recipe.
        seed: of it.
        config: a recipe file in the place of the recipe of the parent's run.

    Raises:
        InputError: what was given does not go together, or not here or with these pictures; the training that the
            folder holds was begun by another one.
    """
    from netsmith.train.class_weights import balanced_weights
    from netsmith.train.requirements import choose_device

    start, run = Continued(stage.parent), stage.run
    begun = Recipe.load(run.recipe) if run.recipe.exists() else None
    under: list[tuple[str, Mapping[str, Any]]] = [] if begun is None else [(str(run.recipe), begun.model_dump())]
    if begun is None or config is not None:
        under += [_slower(stage.parent, config, opt=flags.get("opt")), ("training with rounding", HOW)]
    layers = [*under, ("the flags", {**flags, **start.fields, "seed": seed})]
    recipe = compose_recipe(stage.audited, start, layers=layers)
    if begun is not None:
        refuse_other_recipe(run, begun, recipe)
    choose_device(recipe)
    if recipe.class_balance == "loss" and stage.audited.dataset.task == "classify":
        labels = np.array([item.label for item in stage.dataset.subset("train")], dtype=np.int64)
        balanced_weights(labels, classes=len(stage.dataset.classes))
    return recipe


def _slower(parent: Parent, config: Path | None, *, opt: str | None) -> tuple[str, dict[str, Any]]:
    """What a recipe file, or else the parent's run, says of training, at a lower rate; by another optimizer where one
    was given."""
    if config is not None:
        where, fields = str(config), read_fields(config)
    elif parent.run is not None and parent.run.recipe.exists():
        where, fields = str(parent.run.recipe), Recipe.load(parent.run.recipe).model_dump(exclude=OF_MACHINE)
    else:
        return "the defaults", {}
    other = opt not in (None, fields.get("opt", "sgd"))
    left_out = UNLIKE | OF_OPTIMIZER if other else UNLIKE
    rate = {"lr": fields["lr"] / SLOWER} if "lr" in fields and not other else {}
    return where, {key: value for key, value in fields.items() if key not in left_out} | rate


def float_model(parent: Parent, network: "Network") -> "Exported":
    """A network of the parent's layout as the parent's artifact has its own: in float, with the same activation.

    Raises:
        CheckError: the graph does not compute what the network does.
    """
    from netsmith.export.network import convert_network

    config = parent.bundle.config
    return convert_network(
        network,
        labels=config.labels,
        preprocess=config.preprocess,
        activation=config.activation,
        temperature=config.temperature,
    )


def train_rounded(stage: Stage, network: "Network", rounded: bytes, recipe: Recipe, *, bits: int) -> Learned:
    """Train on, or go on where that was interrupted.

    Args:
        stage: at work; its run gets the checkpoints and metrics.
        network: the parent's; trained in place.
        rounded: the int8 graph that was made of it.
        recipe: of the training.
        bits: of that graph's weights.

    Raises:
        CheckError: the loss is not finite.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the training goes on with the run.
    """
    from netsmith.train.rounded import Rounded

    parent = stage.parent
    config = parent.bundle.config
    module = Rounded(network, rounded, preprocess=config.preprocess, bits=bits)
    trained = Training(stage, recipe, config.preprocess, trains=True).train(module, stage.run, stage.finisher.plan)
    stage.session.say(told("training with rounding", trained))
    network.load_state_dict(trained.network.state_dict())  # the averaged weights, where there are some
    found = float_model(parent, network)
    origin = f"{parent.bundle.layout.name} of artifact {parent.artifact}, trained on with rounding simulated"
    return Learned(
        model=found.model,
        weights=found.weights,
        provenance=config.provenance.model_copy(update={"weights": origin, "recipe": recipe_hash(recipe)}),
        steps=trained.steps,
        epochs=trained.epochs,
    )
