"""`fit`: from pictures and a budget to a verified model, within a time.

Stages: audit, split, candidates on the stopwatch, race, training of the winner, artifact, measurement, validation and
test, verification in a fresh process, report. Each writes a ledger row; what time or machine decide are plan rows, so a
killed run that is started again goes on where it was and comes to the same weights. A valid artifact stands in the
folder from the first rung of the race on.
"""

from dataclasses import asdict, dataclass
from importlib.util import find_spec

from netsmith.data.cache import cache_root
from netsmith.data.items import Dataset
from netsmith.data.splits import split
from netsmith.errors import CheckError, InputError
from netsmith.fit.explaining import what_it_shows
from netsmith.fit.field import Entry, Field, choose_field
from netsmith.fit.finish import Finisher, reported
from netsmith.fit.opening import record_split, refuse_inside, training_pictures
from netsmith.fit.pace import training_speed
from netsmith.fit.race import Race
from netsmith.fit.racers import Track
from netsmith.fit.recipes import Look, look_at, preprocess_for, recipe_for, training_share
from netsmith.fit.replay import JOB, Replay
from netsmith.fit.session import Session, commands
from netsmith.fit.stopwatch import Stopwatch, label_bytes
from netsmith.fit.timetable import Timetable, least_time
from netsmith.fit.trained import Ended
from netsmith.fit.unequal import advice, refuse_sampled_tags
from netsmith.run.budget import Budget, format_duration
from netsmith.run.files import write_bytes
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.machine import machine
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import ClassBalance, Recipe
from netsmith.run.result import Result
from netsmith.run.scores import Task
from netsmith.search.candidates import Candidate, Pictures, sides_for
from netsmith.search.choose import Outlook


@dataclass(frozen=True, kw_only=True)
class Job:
    """What was asked for.

    Attributes:
        budget: hard limits, possibly none.
        time_s: wall time of everything.
        seed: of splits and training.
        class_balance: what every candidate's training does about classes of unequal size.
        replay: a finished fit of the same whose plan is obeyed.
    """

    budget: Budget
    time_s: float
    seed: int = 0
    class_balance: ClassBalance = "none"
    replay: Replay | None = None


def fit(job: Job, session: Session) -> Result:
    """Do the job in the session's folder, or go on with it where it was interrupted.

    Args:
        job: what is asked for.
        session: where the pictures are, where the run goes, who is told.

    Raises:
        InputError: data that cannot be used, a folder that holds something else.
        CheckError: a budget that nothing meets (before any training), or one that the finished model misses, or a
            replay that came to other weights.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the folder can be resumed.
    """
    clock, output = session.clock, session.output
    began = clock.now()

    refuse_inside(session.data, output)
    if find_spec("torch") is None:  # it is imported much later, when the folder is there already
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    begun = output.is_dir() and any(output.iterdir())
    audited = None if begun else session.read(seed=job.seed)  # a new folder is made only for data that can be used
    if audited is not None:
        refuse_sampled_tags(audited.dataset.task, job.class_balance)
    if audited is not None and job.replay is not None:
        job.replay.refuse_other_data(split(audited.dataset, seed=job.seed))
    elif audited is not None:
        _refuse_short(job, session, reading_s=clock.now() - began)
    with RunFolder.create(output, command=session.command, resume=begun) as run:
        ledger = Ledger(run.ledger, clock=clock)
        if (result := reported(run, ledger)) is not None:
            if job.replay is not None:
                job.replay.demand(ledger)
            return result
        plan = Plan(run.plan)
        _same_job(plan, job, session)
        if job.replay is not None:
            job.replay.lay_down(run, plan)
        spent = session.enter(run, ledger)
        audited = audited or session.read(seed=job.seed)
        for line in audited.summary():
            session.say(line)
        if told := advice(audited, job.class_balance):
            session.say(told)
        dataset = record_split(audited, seed=job.seed, run=run, ledger=ledger)
        timetable = Timetable(
            job.time_s,
            clock=clock,
            began=began,
            before=spent,
            pictures=len(dataset.subset("val")) + len(dataset.subset("test")),
            reading_s=clock.now() - began,
        )
        finisher = Finisher(
            run=run,
            dataset=dataset,
            budget=job.budget,
            plan=plan,
            ledger=ledger,
            commands=commands(ledger),
            measure_s=timetable.measure_s,
            progress=session.progress,
            replay=job.replay,
        )
        seen = look_at(audited)
        look = Look(**plan.decide("look", at=0, compute=lambda: asdict(seen), why="what the pictures are like"))
        try:
            field = _field(look, job, dataset, plan, ledger, timetable, session)
        except CheckError:
            if not begun:
                _leave_nothing(run)
            raise
        timetable.reserve_answers(max(entry.timing.p50_ms for entry in field.entries) / 1e3)
        session.say(f"{field.feasible} of {field.timed} timed candidates fit the budget; {len(field.entries)} race")
        return _train_and_finish(field, look, job, finisher, timetable, session)


def _train_and_finish(
    field: Field, look: Look, job: Job, finisher: Finisher, timetable: Timetable, session: Session
) -> Result:
    def recipe(entry: Entry) -> Recipe:
        return _recipe(look, entry.candidate, job, finisher.dataset.task)

    def preprocess(size: int) -> Preprocess:
        return preprocess_for(look, size)

    largest = max(entry.candidate.layout.input.size[0] for entry in field.entries)
    pictures = training_pictures(finisher.dataset, largest=largest, plan=finisher.plan, warn=session.warn)
    # All of them now: the race measures how fast candidates train, which decoding beside them would slow unevenly.
    pictures.fill(progress=lambda done, total: session.progress("decoding training pictures", done, total))
    track = Track(
        finisher=finisher,
        masters=pictures,
        recipe=recipe,
        preprocess=preprocess,
        clock=session.clock,
        show=session.progress,
        warn=session.warn,
    )
    threads = machine().cores_physical
    race = Race(
        field.entries,
        track,
        rungs=timetable.rungs,
        race_s=timetable.race_s(),
        train_s=timetable.training_left(),
        threads=min(threads, machine().cores_usable),
    )
    winner = race.champion(say=session.say)
    thresholds = winner.thresholds  # before the metrics are copied: this is their last row
    winner.trainer.settle()
    run = finisher.run
    winner.recipe.save(run.recipe)
    for path in (run.metrics, run.gradients):
        if (recorded := winner.folder / path.name).exists():
            write_bytes(path, recorded.read_bytes())
    for text in what_it_shows(run):
        session.say(text)
    bundle = finisher.make(
        winner.trainer.network,
        thresholds=thresholds,
        preprocess=winner.preprocess,
        recipe=winner.recipe,
    )
    steps, epochs = winner.trainer.step, winner.trainer.epoch
    result = finisher.complete(bundle, Ended(id=winner.id, steps=steps, epochs=epochs))
    if job.replay is not None:
        job.replay.demand(finisher.ledger)
        session.say(f"the weights are those of {job.replay.run.path}")
    return result


def _same_job(plan: Plan, job: Job, session: Session) -> None:
    """Refuse a folder in which something else was asked for."""
    asked: dict[str, str | float | None] = {
        "data": session.data,
        "budget": str(job.budget),
        "time_s": job.time_s,
        "seed": job.seed,
        "class_balance": None if job.class_balance == "none" else job.class_balance,
        "replay": None if job.replay is None else str(job.replay.run.path),
    }
    recorded = plan.decide(JOB, at=0, compute=lambda: asked, why="as typed")
    if different := [key for key in asked if recorded.get(key) != asked[key]]:
        key = different[0]
        raise InputError(
            f"{session.output} holds a fit with {key} {recorded.get(key)!r}, not {asked[key]!r}; "
            "type the same command to go on with it, or name another folder with -o"
        )


def _refuse_short(job: Job, session: Session, *, reading_s: float) -> None:
    """Refuse a time that reading, measuring and verifying alone would use up."""
    least = least_time(reading_s)
    if job.time_s < least:
        raise InputError(
            f"--time {format_duration(job.time_s)} is too short: reading {session.data} and measuring the finished "
            f"model take {format_duration(least)}; give at least {format_duration(2 * least)}"
        )


def _recipe(look: Look, candidate: Candidate, job: Job, task: Task) -> Recipe:
    return recipe_for(
        look,
        model=candidate.layout.name,
        size=candidate.side,
        seconds=job.time_s,
        seed=job.seed,
        task=task,
        class_balance=job.class_balance,
    )


def _field(
    look: Look,
    job: Job,
    dataset: Dataset,
    plan: Plan,
    ledger: Ledger,
    timetable: Timetable,
    session: Session,
) -> Field:
    here = machine()
    stopwatch = Stopwatch(
        cache_root(),
        threads=min(here.cores_physical, here.cores_usable),
        limit_ms=job.budget.latency_ms,
        label_bytes=label_bytes(dataset.classes, dataset.task),
        clock=session.clock,
        progress=session.progress,
    )
    train = len(dataset.subset("train"))
    pictures = Pictures(side=look.side, train=train, classes=len(dataset.classes))

    def pace(candidate: Candidate) -> float:
        return training_speed(
            candidate,
            _recipe(look, candidate, job, dataset.task),
            preprocess_for(look, candidate.side),
            classes=len(dataset.classes),
            seconds=timetable.pace_s,
            clock=session.clock,
        )

    try:
        field = choose_field(
            pictures,
            budget=job.budget,
            entries=timetable.entries,
            probe_s=timetable.probe_s,
            outlook=Outlook(
                train=train,
                seconds=timetable.winner_s,
                side=max(sides_for(pictures)),
                share=training_share(look),
            ),
            pace=pace,
            stopwatch=stopwatch,
            plan=plan,
        )
    except CheckError as error:
        ledger.add("candidates", verdict="failed", reason=str(error))
        raise
    if ledger.newest("candidates") is None:
        counts = {name: value for name, value in asdict(field).items() if name != "entries"}
        ledger.add("candidates", verdict="done", reason="those that fit, the most promising first", after=counts)
    return field


def _leave_nothing(run: RunFolder) -> None:
    """Take back the records of a fit that trained nothing, so that another budget can be tried in the same folder."""
    for path in (run.plan, run.ledger, run.data, run.marker, run.path / ".lock"):
        path.unlink(missing_ok=True)
    run.path.rmdir()
