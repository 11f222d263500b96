"""What `train` is asked for, and that opened: the pictures, the recipe and the network, all of it known to be usable.

The recipe is, from the bottom up: defaults for what the pictures are like, what weights to start from change about
them, the named recipe, the recipe file, the flags. Once a run began, its `recipe.yaml` takes the place of all but the
flags.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsmith.data.audit import Audit
from netsmith.data.items import Dataset
from netsmith.errors import InputError
from netsmith.fit.composing import compose_recipe, given_layers, last_given
from netsmith.fit.named import Layer, as_network_takes, recipe_layer, refuse_other_name
from netsmith.fit.parent import Parent
from netsmith.fit.recipes import look_at
from netsmith.fit.session import Session
from netsmith.fit.starting import FROM, Continued, Start, find_start
from netsmith.run.folder import RunFolder
from netsmith.run.named_recipes import find_recipe
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.run.world import World

if TYPE_CHECKING:
    from netsmith.models.build import Network


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What was asked for.

    Attributes:
        flags: recipe fields that were given as flags.
        config: a recipe file under the flags.
        recipe: name of a recipe under both.
        resume: go on with an interrupted run.
        parent: folder of the artifact to start from.
        parent_as: as what that folder is typed.
        pretrained_dir: folder of weights files, looked at before the cache and the net.
        board: write event files for TensorBoard too.
        under: recipe fields below all others but defaults that follow from the pictures, and where they are from.
    """

    flags: Mapping[str, Any]
    config: Path | None = None
    recipe: str | None = None
    resume: bool = False
    parent: Path | None = None
    parent_as: str = FROM
    pretrained_dir: Path | None = None
    board: bool = False
    under: Layer | None = None


@dataclass(frozen=True)
class Opened:
    """What a job trains, all of it known to be usable; `dataset` is that of a new run, `parents` are the models that it
    goes on with or learns from."""

    audited: Audit
    dataset: Dataset
    recipe: Recipe
    network: "Network"
    start: Start
    parents: Sequence[Parent] = ()

    @property
    def preprocess(self) -> Preprocess:
        """Of evaluation."""
        return self.start.preprocess(look_at(self.audited), self.recipe.img_size)


def open_job(job: TrainJob, session: Session, begun: RunFolder | None) -> Opened:
    """Everything that can be refused before anything is written; what costs little first."""
    audited, dataset, recipe, start = session.share(lambda: _read(job, session, begun))
    network = trainable(recipe, lambda: start.network(recipe, dataset, progress=session.progress))
    recipe = as_network_takes(recipe, network, name=job.recipe, given=given_layers(job.config, job.flags))
    parents = [start.parent] if isinstance(start, Continued) else []
    return Opened(audited, dataset, recipe, network, start, parents)


def trainable(recipe: Recipe, make: "Callable[[], Network]") -> "Network":
    """The network that a recipe is to train.

    Args:
        recipe: of the training.
        make: gives the network.

    Raises:
        InputError: the recipe asks for what this machine or the network does not have.
        CheckError: there is no memory for the network.
    """
    # Lazily: torch takes seconds to import, and mistakes are to be told before.
    from netsmith.train.requirements import choose_device, refuse_with_sharded, smallest_part
    from netsmith.train.shortage import enough_to_begin

    processes = World.here().size
    choose_device(recipe)
    refuse_with_sharded(recipe, processes=processes)
    network = enough_to_begin(make)
    smallest_part(network, recipe, recipe.batch_size, processes=processes)
    return network


def _read(job: TrainJob, session: Session, begun: RunFolder | None) -> tuple[Audit, Dataset, Recipe, Start]:
    """The pictures, also with the splits of a new run, the recipe, and what the network starts as."""
    layers = _layers(job, begun)
    start = find_start(
        layers, parent=job.parent, parent_as=job.parent_as, pretrained_dir=job.pretrained_dir, begun=begun
    )
    layers[-1] = (layers[-1][0], {**layers[-1][1], **start.fields})
    if not any(values.get(key) is not None for _, values in layers for key in ("time_s", "epochs")):
        raise InputError("how long to train is not said; give --time such as 10m, or --epochs")
    audited = session.read(seed=last_given(layers, "seed", 0))
    share = find_recipe(job.recipe).train_share if job.recipe else None
    recipe = compose_recipe(audited, start, layers=layers, train_share=share)
    return audited, start.pictures(audited, seed=recipe.seed), recipe, start


def _layers(job: TrainJob, begun: RunFolder | None) -> list[tuple[str, dict[str, Any]]]:
    given = given_layers(job.config, job.flags)
    if begun is not None:
        refuse_other_name(begun, job.recipe)
        return [(str(begun.recipe), Recipe.load(begun.recipe).model_dump()), *given]
    under = [(job.under[0], dict(job.under[1]))] if job.under is not None else []
    return [*under, *([recipe_layer(job.recipe, given)] if job.recipe else []), *given]
