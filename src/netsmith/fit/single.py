"""`train`: one network by one recipe, from pictures to a verified run; `fit` without the choice.

Stages: audit, split, training, artifact, measurement, validation and test, verification in a fresh process. The
recipe is, from the bottom up: defaults for what the pictures are like, what weights to start from change about them,
the named recipe, the recipe file, the flags. Once a run began, its `recipe.yaml` takes the place of all but the flags,
and only what does not change what is computed may be given anew.

A layout's file is a network like a name is; the run keeps its own copy, so that it goes on as it began.

`--time` is the time of training, its evaluations and checkpoints included, and what its first epoch decodes; reading
the pictures before and measuring the artifact after come on top.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsmith.arch.layout import layout_to_json
from netsmith.arch.names import is_layout_file
from netsmith.artifact.runtimes import REFERENCE
from netsmith.data.audit import Audit
from netsmith.data.items import Dataset
from netsmith.errors import InputError
from netsmith.fit.composing import compose_recipe, given_layers, last_given, refuse_taught
from netsmith.fit.explaining import what_it_shows
from netsmith.fit.finish import Finisher, reported
from netsmith.fit.named import Layer, as_network_takes, recipe_layer, refuse_other_name, replaced
from netsmith.fit.opening import record_split, refuse_inside, training_pictures
from netsmith.fit.parent import Parent
from netsmith.fit.recipes import look_at
from netsmith.fit.session import Session, commands
from netsmith.fit.starting import FROM, Continued, Start, find_start
from netsmith.fit.unequal import advice
from netsmith.run.budget import Budget
from netsmith.run.files import write_json
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.named_recipes import find_recipe
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.run.result import Result
from netsmith.run.world import World

if TYPE_CHECKING:
    from netsmith.models.build import Network
    from netsmith.train.feed import TrainingData
    from netsmith.train.loop import Trained
    from netsmith.train.objectives import MakeObjective
    from netsmith.train.ranks import Ranks

FREE = frozenset({"time_s", "device", "threads", "workers", "on_nan", "sharded"})
"""What a resumed run may have anew; what became of the rest is in its plan and its weights."""


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


def train_run(job: TrainJob, session: Session) -> Result | None:
    """Do the job in the session's folder, or go on with it where it was interrupted.

    Started by torchrun as several processes, they do it together: the leading one reads, writes, speaks and finishes.

    Args:
        job: what is asked for.
        session: where the pictures are, where the run goes, who is told.

    Returns:
        What came out; None in processes that do not lead.

    Raises:
        InputError: data, recipe or folder cannot be used; before anything was written, where the folder is new.
        CheckError: loss or weights are not finite, another process ended, or the finished run does not keep its word.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the folder can be resumed.
    """
    world = World.here()
    if not world.several:
        return run_job(job, session, _conclude, check=_untaught)
    # Lazily: torch takes seconds to import, which only several processes need before anything else.
    from netsmith.train.ranks import joined

    with joined(world) as ranks:
        ranks.same(shlex.join(session.command), "the same command, with the same --output")
        again = world.restarts > 0  # after a process was lost
        return run_job(
            replace(job, resume=job.resume or again),
            session.among(world, ranks.once),
            _conclude,
            check=_untaught,
            ranks=ranks,
        )


def run_job(
    job: TrainJob,
    session: Session,
    work: "Callable[[AtWork], Result | None]",
    *,
    check: "Callable[[Opened], Opened] | None" = None,
    ranks: "Ranks | None" = None,
) -> Result | None:
    """Open a job, take its folder, write down what it trains on what, and do the work.

    Args:
        job, session: as of `train_run`.
        work: trains and finishes the run.
        check: looks at what was opened and gives what of it holds, before anything is written where the folder is new.
        ranks: the processes that do it together.

    Returns:
        What the work gives; of a run whose report alone was missing its result.

    Raises:
        InputError, CheckError, KeyboardInterrupt: as `train_run`.
    """

    def opened_for(begun: RunFolder | None) -> Opened:
        found = open_job(job, session, begun)
        if isinstance(found.start, Continued):
            found.start.parent.refuse_onto(session.output)
        return found if check is None else check(found)

    refuse_inside(session.data, session.output)
    begun = session.share(lambda: session.output.is_dir() and any(session.output.iterdir()))
    opened = None if begun else opened_for(None)
    held: list[RunFolder] = []  # by the leading process
    session.share(lambda: held.append(RunFolder.create(session.output, command=session.command, resume=job.resume)))
    with held[0] if held else RunFolder(session.output) as run:
        ledger = session.share(lambda: Ledger(run.ledger, clock=session.clock))
        if (result := session.share(lambda: reported(run, ledger))) is not None:
            return result if ranks is None or ranks.leads else None
        begun = session.share(run.recipe.exists)
        opened = opened or opened_for(run if begun else None)
        start = opened.start
        ledger = session.share(lambda: ledger if ledger.rows else start.ledger(run, session))
        dataset = session.share(lambda: _begin(job, session, run, ledger, opened, begun=begun))
        doubts = [doubt for parent in opened.parents if (doubt := parent.doubt(dataset))]
        for doubt in doubts if not session.is_step else []:
            session.warn(doubt)
        plan = Plan(run.plan, share=session.share)
        finisher = Finisher(
            run=run,
            dataset=dataset,
            budget=Budget(),
            plan=plan,
            ledger=ledger,
            commands=commands(ledger),
            progress=session.progress,
            weights=start.weights,
            licence=start.licence,
            doubtful=bool(doubts),
            step=session.is_step,
            runtime=start.parent.runtime(plan, warn=session.warn) if isinstance(start, Continued) else REFERENCE,
        )
        return work(AtWork(job=job, session=session, run=run, opened=opened, finisher=finisher, ranks=ranks))


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
    """
    # Lazily: torch takes seconds to import, and mistakes are to be told before.
    from netsmith.train.requirements import choose_device, refuse_with_sharded, smallest_part

    processes = World.here().size
    choose_device(recipe)
    refuse_with_sharded(recipe, processes=processes)
    network = make()
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


def _begin(job: TrainJob, session: Session, run: RunFolder, ledger: Ledger, opened: Opened, *, begun: bool) -> Dataset:
    """Write down what the run trains on what, or hold against what was; gives the pictures with their splits."""
    recipe = opened.recipe
    if begun:
        refuse_other_recipe(run, Recipe.load(run.recipe), recipe)
    elif is_layout_file(recipe.model):
        write_json(run.layout, layout_to_json(opened.start.layout))
    recipe.save(run.recipe)
    session.enter(run, ledger)
    session.tell(opened.audited)
    if told := advice(opened.audited, recipe.class_balance):
        session.say(told)
    dataset = record_split(opened.audited, seed=recipe.seed, run=run, ledger=ledger, dataset=opened.dataset)
    for note in dataset.notes:
        if note not in opened.audited.dataset.notes:  # which the summary told
            session.say(f"note: {note}")
    if job.recipe and not begun:
        pictures = len(dataset.subset("train"))
        given = given_layers(job.config, job.flags)
        for line in replaced(job.recipe, recipe, given=given, pictures=pictures, task=dataset.task):
            session.say(line)
    return dataset


@dataclass(frozen=True, kw_only=True)
class AtWork:
    """A job in its locked folder, ready to train.

    Attributes:
        job, session, opened: what is asked for and what was found.
        run: the folder.
        finisher: the pictures with their splits, plan and ledger, and how the run ends.
        ranks: the processes that do it together.
    """

    job: TrainJob
    session: Session
    run: RunFolder
    opened: Opened
    finisher: Finisher
    ranks: "Ranks | None"

    def data(self, dataset: Dataset | None = None) -> "TrainingData":
        """What is trained and validated on.

        Args:
            dataset: the pictures in place of the run's own, with the same ones for validation.
        """
        from netsmith.train.feed import TrainingData

        recipe, preprocess = self.opened.recipe, self.opened.preprocess
        pictures = training_pictures(
            dataset or self.finisher.dataset,
            largest=max(recipe.img_size, recipe.train_size or 0),
            plan=self.finisher.plan,
            warn=self.session.warn,
        )
        return TrainingData.of(pictures, self.finisher.prepared("val", preprocess), preprocess)

    def train(self, data: "TrainingData", objective: "MakeObjective | None" = None) -> "Trained | None":
        """Train to the end of the plan and say how it went; None in processes that do not lead.

        Args:
            data: what on.
            objective: makes what is minimised, where it is not what the labels ask for.
        """
        from netsmith.train.loop import train
        from netsmith.train.objectives import objective_of
        from netsmith.train.ranks import ALONE

        recipe, session = self.opened.recipe, self.session
        trained = train(
            self.opened.network,
            data,
            recipe,
            run=self.run,
            plan=self.finisher.plan,
            clock=session.clock,
            objective=objective or objective_of,
            resume=True,
            board=self.job.board,
            show=session.progress,
            warn=session.warn,
            ranks=self.ranks or ALONE,
        )
        if self.ranks is not None:
            self.ranks.leave()
            if not self.ranks.leads:
                return None
        session.say(told(recipe.model, trained))
        for text in what_it_shows(self.run):
            session.say(text)
        return trained

    def enter(self, trained: "Trained") -> None:
        """Enter the training in the ledger."""
        assert trained.val is not None, "every run has validation pictures"
        self.finisher.enter(
            self.opened.recipe.model, steps=trained.steps, epochs=trained.epochs, val=trained.val.headline
        )

    def conclude(self, trained: "Trained") -> Result:
        """From the trained network to the verified run and its report."""
        assert trained.val is not None, "every run has validation pictures"
        self.enter(trained)
        return self.finisher.conclude(
            trained.network,
            thresholds=trained.val.thresholds,
            preprocess=self.opened.preprocess,
            recipe=self.opened.recipe,
        )


def told(name: str, trained: "Trained") -> str:
    """How a training went, in one line."""
    assert trained.val is not None, "every run has validation pictures"
    steps = f"{trained.steps:,} step{'' if trained.steps == 1 else 's'}"
    return f"{name}: {steps}, {trained.epochs:.1f} epochs, {trained.val.shown} on validation"


def _conclude(at: AtWork) -> Result | None:
    trained = at.train(at.data())
    return None if trained is None else at.conclude(trained)


def _untaught(opened: Opened) -> Opened:
    refuse_taught([("the recipe", opened.recipe.model_dump())])
    return opened


def refuse_other_recipe(run: RunFolder, before: Recipe, now: Recipe) -> None:
    """Raise InputError where a resumed run's recipe differs in more than may be given anew (`FREE`)."""
    for key in Recipe.model_fields:
        was, given = getattr(before, key), getattr(now, key)
        if was != given and key not in FREE:
            raise InputError(
                f"{run.path} was begun with {key} {was}, not {given}; go on with {was} or name another folder with -o"
            )
