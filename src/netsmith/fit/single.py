"""`train`: one network by one recipe, from pictures to a verified run; `fit` without the choice.

Stages: audit, split, training, artifact, measurement, validation and test, verification in a fresh process. Once a run
began, only what does not change what is computed may be given anew. A run that goes on with a model of the same classes
says whether the new one is better than that.

A layout's file is a network like a name is; the run keeps its own copy, so that it goes on as it began.

`--time` is the time of training, its evaluations and checkpoints included, and what its first epoch decodes; reading
the pictures and decoding those of validation before, and measuring the artifact after, come on top. How long it took is
said, and entered in the ledger.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from netsmith.arch.layout import layout_to_json
from netsmith.arch.names import is_layout_file
from netsmith.artifact.bundle import Bundle, artifact_hash
from netsmith.artifact.runtimes import REFERENCE
from netsmith.data.items import Dataset
from netsmith.errors import CheckError, InputError, cause
from netsmith.fit.composing import given_layers, refuse_taught
from netsmith.fit.explaining import what_it_shows
from netsmith.fit.finish import Finisher, reported
from netsmith.fit.job import Opened, TrainJob, open_job
from netsmith.fit.judged import Judged
from netsmith.fit.named import replaced
from netsmith.fit.opening import record_split, refuse_inside, training_pictures
from netsmith.fit.parent import Parent, open_parent, record_lineage
from netsmith.fit.session import Session, commands
from netsmith.fit.stage import BROKEN, Stage
from netsmith.fit.starting import Continued
from netsmith.fit.trained import FRESH, TRAIN, Ended, is_worse, row_of
from netsmith.fit.unequal import advice
from netsmith.run.budget import Budget, format_duration
from netsmith.run.files import write_json
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.plan import Plan
from netsmith.run.recipe import Recipe
from netsmith.run.result import Result
from netsmith.run.scores import METRICS
from netsmith.run.world import World

if TYPE_CHECKING:
    from netsmith.train.feed import TrainingData
    from netsmith.train.loop import Trained
    from netsmith.train.objectives import MakeObjective
    from netsmith.train.ranks import Ranks

FREE = frozenset({"time_s", "device", "threads", "workers", "on_nan", "sharded"})
"""What a resumed run may have anew; what became of the rest is in its plan and its weights."""
LEFT_ALONE = (
    "this processor has instructions for bfloat16, which a run by --epochs leaves alone, because it measures nothing; "
    "--amp takes them and is usually faster, --time finds out"
)


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
        found = found if check is None else check(found)
        if begun is None and (parent := comparable(found, session, classes=found.dataset.classes)) is not None:
            session.share(lambda: _refuse_not_running(parent))
        return found

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


def _refuse_not_running(parent: Parent) -> None:
    """Raise InputError where a model that will be judged in the end cannot run here; where another runtime stands in
    for its own, the finisher's says so."""
    parent.refuse_not_running(lambda _: None)


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
    record_lineage(run, dataset, opened.parents)
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
        from netsmith.train.precision import leaves_bfloat16
        from netsmith.train.ranks import ALONE
        from netsmith.train.requirements import choose_device

        recipe, session = self.opened.recipe, self.session
        decided = any(row.kind == "dtype" for row in self.finisher.plan.rows)
        if not decided and leaves_bfloat16(recipe, choose_device(recipe)):
            session.say(LEFT_ALONE)
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
        """Enter a training in the ledger whose outcome is judged in another row."""
        assert trained.val is not None, "every run has validation pictures"
        metric = METRICS[self.finisher.dataset.task]
        self._training(trained).enter_unjudged(self.finisher.ledger, metric, trained.val.headline)

    def conclude(self, trained: "Trained") -> Result:
        """From the trained network to the verified run and its report."""
        assert trained.val is not None, "every run has validation pictures"
        bundle = self.finisher.make(
            trained.network,
            thresholds=trained.val.thresholds,
            preprocess=self.opened.preprocess,
            recipe=self.opened.recipe,
        )
        training = self._training(trained)
        if (parent := comparable(self.opened, self.session, classes=self.finisher.dataset.classes)) is not None:
            training = self._compare(parent, bundle, training)
        return self.finisher.complete(bundle, training)

    def _training(self, trained: "Trained") -> Ended:
        start = self.opened.start
        alone = FRESH
        if isinstance(start, Continued):
            path, config, classes = start.parent.path, start.parent.bundle.config, self.finisher.dataset.classes
            alone = f"it began with {path}, "
            if self.session.is_step:
                alone += "and the run that this is a step of compares"
            elif config.labels != classes:
                same = set(config.labels) == set(classes)
                alone += "whose classes are in another order" if same else "which has other classes"
            else:
                alone += f"whose graph is rounded to {config.precision}, by its float weights"
        elif start.weights is not None:
            alone = f"it began with the published weights {start.weights}"
        return Ended(
            id=self.opened.recipe.model,
            steps=trained.steps,
            epochs=trained.epochs,
            seconds=trained.seconds,
            alone=alone,
        )

    def _compare(self, parent: Parent, bundle: Bundle, training: Ended) -> Ended:
        """Enter and say what the training made of the model that it went on with; where that cannot be judged any more,
        the training has come to its end all the same, and stands alone."""
        ledger, session, doubtful = self.finisher.ledger, self.session, self.finisher.doubtful
        row = row_of(ledger, artifact_hash(bundle.folder))
        if row is None:
            audited = self.opened.audited
            stage = Stage(name=TRAIN, parent=parent, session=session, audited=audited, finisher=self.finisher)
            try:
                if open_parent(parent.path).artifact != parent.artifact:
                    raise InputError(f"{parent.path} is another model now")
                before, after = _judged(stage, parent.bundle, bundle)
            except BROKEN as error:
                alone = f"{parent.path} could not be judged beside it: {cause(error)}"
                session.warn(alone)
                return replace(training, alone=alone)
            row = training.enter_beside(ledger, before, after, name=str(parent.path), doubtful=doubtful)
        (session.warn if is_worse(row) else session.say)(f"{TRAIN}: {row.reason}")
        return training


def _judged(stage: Stage, before: Bundle, after: Bundle) -> tuple[Judged, ...]:
    """Two models beside each other; once more where the machine was in the way, because a training that came to its end
    gets no other verdict."""
    try:
        return stage.judge(before, after)
    except CheckError as error:
        stage.session.warn(f"{cause(error)}; it is tried once more")
        return stage.judge(before, after)


def comparable(opened: Opened, session: Session, *, classes: tuple[str, ...]) -> Parent | None:
    """The model that a training goes on with, where what comes out is judged beside it: it answers the same, by the
    weights that the training begins with; a larger run compares its steps.

    Args:
        opened: the training.
        session: of the run.
        classes: of what comes out, in their order.
    """
    if not isinstance(opened.start, Continued) or session.is_step:
        return None
    parent = opened.start.parent
    same = parent.bundle.config.labels == classes and parent.bundle.config.precision == "float32"
    return parent if same else None


def told(name: str, trained: "Trained") -> str:
    """How a training went, in one line."""
    assert trained.val is not None, "every run has validation pictures"
    steps = f"{trained.steps:,} step{'' if trained.steps == 1 else 's'}"
    spent = format_duration(trained.seconds)
    return f"{name}: {steps}, {trained.epochs:.1f} epochs in {spent}, {trained.val.shown} on validation"


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
        if was != given and key == "epochs":
            raise InputError(
                f"{run.path} was begun with {_length(was)}, not {_length(given)}, and a length in epochs is part of a "
                "run, because all learning rates follow from it; leave it out, and once the run is finished netsmith "
                f"train --from {run.path} goes on with its model"
            )
        if was != given and key not in FREE:
            raise InputError(
                f"{run.path} was begun with {key} {was}, not {given}; go on with {was} or name another folder with -o"
            )


def _length(epochs: float | None) -> str:
    return "--time" if epochs is None else f"--epochs {epochs:g}"
