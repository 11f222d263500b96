"""The recipe of a run: what was asked for, in layers, over defaults for what the pictures are like and what the network
starts as."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netsmith.arch.graph import Norm
from netsmith.arch.layout import layout_graph
from netsmith.data.audit import Audit
from netsmith.errors import InputError
from netsmith.fit.named import for_task
from netsmith.fit.recipes import look_at, recipe_for, training_side
from netsmith.fit.starting import Start
from netsmith.fit.unequal import refuse_sampled_tags
from netsmith.run.preprocess import LARGEST_SIZE
from netsmith.run.recipe import Recipe, read_fields

SMALLEST_SIDE = 16
"""Pixels below which small pictures are enlarged when no --img-size is given."""
OPTIMIZERS: Mapping[Any, Mapping[str, float]] = {
    "adamw": {"lr": 2e-3, "weight_decay": 0.05},
    # EfficientNet's 0.256 for 4096 pictures is 0.004 for 64, in runs of 350 epochs; shorter ones need more.
    "rmsprop": {"lr": 1e-2, "weight_decay": 1e-5},
    # Above AdamW's rate, of which its steps have the size: they do not suffer from single large gradients.
    "muon": {"lr": 1e-2, "weight_decay": 0.05, "momentum": 0.95},
    # Its rate is the share of their length by which weights move; Wightman et al. 2021 have 8e-3 for 2048 pictures.
    "lamb": {"lr": 5e-3, "weight_decay": 0.02, "grad_clip": 1.0},
}
"""What an optimizer has instead of the defaults of SGD."""
FINE_TUNING = {
    opt: {"lr": rate}
    for opt, rate in {"sgd": 0.003, "adamw": 3e-4, "rmsprop": 5e-4, "muon": 3e-4, "lamb": 5e-4}.items()
}
"""What weights that were trained before go on with: steps small enough to keep what they know (see benchmarks/LOG.md;
0.003 as Kolesnikov et al. 2020, Big Transfer)."""
FLAGS = "the flags"
"""Origin of what was given as flags."""
UNNORMALISED = 0.1, 1.0
"""Share of the rates above, and largest norm of the gradient, for networks without batch norm from scratch: nothing
bounds their activations, and at the full rates their last units are dead after ten updates (benchmarks/LOG.md)."""


def given_layers(config: Path | None, flags: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """A recipe file and flags as layers, every value checked by itself.

    Args:
        config: the file, if any.
        flags: fields that were given as flags.

    Raises:
        InputError: an unknown key, a value out of range, two lengths.
    """
    file: list[tuple[str, dict[str, Any]]] = []
    if config is not None:
        where, fields = str(config), read_fields(config)
        # What weights a network has is asked later, and of true, which names the default.
        Recipe.check_fields({key: value for key, value in fields.items() if key != "pretrained"}, where=where)
        file.append((where, fields))
    given = [*file, (FLAGS, dict(flags))]
    for where, fields in given:
        if fields.get("epochs") is not None and fields.get("time_s") is not None:
            raise InputError(f"{where}: give --epochs or --time and not both")
    return given


def last_given(layers: Sequence[tuple[str, Mapping[str, Any]]], key: str, default: Any = None) -> Any:
    """The strongest layer's word on a field."""
    return next((values[key] for _, values in reversed(layers) if values.get(key) is not None), default)


def compose_recipe(
    audited: Audit,
    start: Start,
    *,
    layers: Sequence[tuple[str, Mapping[str, Any]]],
    train_share: float | None = None,
) -> Recipe:
    """The recipe of a run: layers over defaults for what the pictures are like.

    Args:
        audited: the pictures.
        start: what the network starts as.
        layers: (origin for messages, fields), the strongest last; the last that gives a length decides it.
        train_share: side of the photos trained on over that of evaluation, where it is not the default.

    Raises:
        InputError: a field that does not exist or a value out of range, with its origin.
    """
    look = look_at(audited)
    given: dict[str, Any] = {}
    task = audited.dataset.task
    for _, values in for_task(layers, task):
        for one, other in (("epochs", "time_s"), ("time_s", "epochs")):
            if values.get(one) is not None:
                given.pop(other, None)
        given |= {key: value for key, value in values.items() if key not in ("epochs", "time_s") or value is not None}
    # What was trained before keeps the side that it knows, for smaller pictures too.
    size = start.known or max(SMALLEST_SIDE, min(start.layout.resolution[0], look.side))
    wanted = given.get("img_size", size)
    # What is out of range is refused below, by name.
    if isinstance(wanted, int) and SMALLEST_SIDE <= wanted <= LARGEST_SIZE:
        size = wanted
    defaults = recipe_for(look, model=start.model, size=size, seconds=1.0, seed=0, task=task)
    fields = defaults.model_dump(exclude={"time_s", "epochs"})
    if train_share is not None:
        fields["train_size"] = training_side(look, size, share=train_share)
    if "crop_scale" in given and given["crop_scale"] is None:
        fields["train_size"] = None  # without crops that enlarge, training sees what evaluation sees
    fields |= OPTIMIZERS.get(given.get("opt"), {})
    if start.known:
        fields |= FINE_TUNING.get(given.get("opt", "sgd"), {})  # an unknown one is refused below
    elif not any(isinstance(op, Norm) for op in layout_graph(start.layout).ops):
        share, largest = UNNORMALISED
        fields |= {"lr": share * fields["lr"], "grad_clip": largest}
    recipe = Recipe.from_mapping(fields | given, where=" over ".join(where for where, _ in reversed(layers)))
    if task == "tag":
        refuse_sampled_tags("tag", recipe.class_balance)
        _refuse_for_tags(recipe)
    return recipe


def refuse_taught(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuse a recipe of distillation where nobody teaches: its training would not be what it says.

    Args:
        layers: as of `compose_recipe`.

    Raises:
        InputError: one names teachers or hints.
    """
    for where, values in layers:
        for key in ("teachers", "hints"):
            if values.get(key):
                raise InputError(
                    f"{where}: {key} are for netsmith distill, and nobody teaches here; take teachers and hints out "
                    "of a copy of it, or type netsmith distill"
                )


def _refuse_for_tags(recipe: Recipe) -> None:
    if recipe.bce_loss or recipe.bce_target_thresh is not None:
        raise InputError(
            "--bce-loss is for pictures of one class; with several labels each has its binary cross-entropy anyway, "
            "so leave it and --bce-target-thresh out"
        )
