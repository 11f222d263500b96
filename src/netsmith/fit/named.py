"""What `--recipe NAME` puts under a recipe file and flags, and what is said when these change it.

A recipe's rates belong to its optimizer: where a stronger layer names another, they are left out, and that optimizer's
own hold. All else that is replaced field by field.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from netsmith.errors import InputError
from netsmith.run.folder import RunFolder
from netsmith.run.named_recipes import find_recipe
from netsmith.run.recipe import Recipe
from netsmith.run.scores import Task

if TYPE_CHECKING:
    from netsmith.models.build import Network

_FLAG = "--recipe"
OF_THE_OPTIMIZER = frozenset({"opt", "lr", "momentum", "nesterov", "weight_decay", "grad_clip"})

ONE_CLASS_ONLY = frozenset({"smoothing", "bce_loss", "bce_target_thresh"})  # what recipes say of one class per picture

Layer = tuple[str, Mapping[str, Any]]


def recipe_layer(name: str, stronger: Sequence[Layer]) -> tuple[str, dict[str, Any]]:
    """The fields of a named recipe, and where they are from.

    Args:
        name: of the recipe.
        stronger: recipe file and flags, the strongest last.

    Raises:
        InputError: there is no such recipe.
    """
    fields = dict(find_recipe(name).fields)
    opt = _last(stronger, "opt")
    if opt is not None and opt != fields.get("opt"):
        fields = {key: value for key, value in fields.items() if key not in OF_THE_OPTIMIZER}
    return f"{_FLAG} {name}", fields


def for_task(layers: Sequence[Layer], task: Task) -> list[Layer]:
    """Layers of which a named recipe, made for one class per picture, leaves its targets to the defaults of tags."""
    return [
        (where, {key: value for key, value in fields.items() if key not in ONE_CLASS_ONLY})
        if task == "tag" and where.startswith(_FLAG)
        else (where, fields)
        for where, fields in layers
    ]


def refuse_other_name(run: RunFolder, name: str | None) -> None:
    """Raise InputError where a run that goes on was begun by another name than the one that is given now, if any is."""
    typed = ["", *run.command]
    before = next((word for flag, word in pairwise(typed) if flag == "--recipe"), None)
    if name is not None and name != before:
        begun = f"--recipe {before}" if before else "no named recipe"
        raise InputError(
            f"{run.path} was begun with {begun}, not {name}; leave --recipe out to go on, or take another -o"
        )


def replaced(name: str, recipe: Recipe, *, given: Sequence[Layer], pictures: int, task: Task) -> list[str]:
    """What of a named recipe does not hold, and what follows from it, in words.

    Args:
        name: of the recipe.
        recipe: what became of it.
        given: recipe file and flags, which stood above it.
        pictures: to train on.
        task: what their labels are.
    """
    named = find_recipe(name)
    told = [f"recipe {name}: {named.summary} ({named.source})"]
    if (epochs := named.fields.get("epochs")) is not None and epochs != recipe.epochs:
        length = f"{recipe.time_s:g} s" if recipe.epochs is None else f"{recipe.epochs:g}"
        told.append(f"the {epochs:g} epochs of {name} are replaced by {length}: its schedule keeps its shape over them")
    if (opt := named.fields.get("opt")) is not None and opt != recipe.opt:
        told.append(f"{name} is a recipe for {opt}: rates, momentum and weight decay are the defaults of {recipe.opt}")
    elif (size := named.fields.get("batch_size")) is not None and _last(given, "lr") is None:
        batch = min(recipe.batch_size, pictures)
        if batch != size:
            told.append(
                f"the learning rate {recipe.lr:g} of {name} is for batches of {size}; for these of {batch} the linear "
                f"rule (Goyal et al. 2017) gives --lr {recipe.lr * batch / size:.2g}"
            )
    if task == "tag" and (left := sorted(ONE_CLASS_ONLY & named.fields.keys())):
        told.append(f"{name} was made for one class per picture: its {', '.join(left)} is left out for tags")
    if named.fields.get("progressive") and recipe.progressive is None and _last(given, "progressive") is None:
        told.append(
            f"{name} lets pictures grow in training, and {recipe.model} for {recipe.img_size} pixels takes no smaller "
            "ones: all are trained at one side"
        )
    if not named.sides[0] <= recipe.img_size <= named.sides[1]:
        low, high = named.sides
        meant = f"{low} to {high} pixels" if high < 1 << 16 else f"{low} pixels and more"
        told.append(f"{name} was made for {meant}; these are {recipe.img_size}")
    return told


def as_network_takes(recipe: Recipe, network: "Network", *, name: str | None, given: Sequence[Layer]) -> Recipe:
    """The recipe with pictures that grow only where the network can be trained at smaller sides.

    Args:
        recipe: of the run.
        network: to be trained.
        name: of the named recipe that it was made of, if any.
        given: recipe file and flags, which stood above it.

    Raises:
        InputError: it cannot, and growing pictures were asked for other than by a named recipe.
    """
    from netsmith.train.sides import Sides

    try:
        Sides.of(recipe, network)
    except InputError:
        if name is None or _last(given, "progressive") is not None:
            raise
        return recipe.model_copy(update={"progressive": None})
    return recipe


def _last(layers: Sequence[Layer], key: str) -> Any:
    return next((values[key] for _, values in reversed(layers) if values.get(key) is not None), None)
