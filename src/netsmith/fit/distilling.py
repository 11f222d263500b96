"""`distill`: a student learns from frozen teachers, and is kept only where it beats its twin without.

    netsmith distill resnet20_cifar --teacher runs/big --data photos/ --time 20m -o runs/small

The student is trained as `train` trains, with another objective (`netsmith.train.distill`). Its twin is the same
network with the same seed and recipe on the labels alone, given the same compute, the teachers' part included: as many
seconds as `--time` says, or under `--epochs` as many multiply-adds. Both are exported, opened again and answer the
validation pictures; a student below its twin is refused, because all that its teachers cost was for nothing. Only what
is kept ever sees the test pictures.

Teachers are recorded in the recipe by hash, so a run that goes on refuses others. Pictures that the runs of teachers
and student knew keep the split that they had there: what one was trained on says nothing about what it does not know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout, at_size
from netsmith.artifact.bundle import Bundle
from netsmith.data.items import Dataset
from netsmith.data.lineage import add_lineage
from netsmith.data.masters import Masters
from netsmith.data.unlabelled import refuse_useless, with_unlabelled
from netsmith.errors import CheckError, Diverged, InputError
from netsmith.fit.job import Opened, TrainJob
from netsmith.fit.judged import Found, verdict
from netsmith.fit.lengths import enter_time, time_of
from netsmith.fit.opening import refuse_inside
from netsmith.fit.parent import Parent, keeping_splits, open_parent
from netsmith.fit.session import Session
from netsmith.fit.single import AtWork, run_job, told
from netsmith.fit.stage import Stage, made_in
from netsmith.fit.teaching import Source, open_teacher, refuse_other
from netsmith.run.folder import RunFolder
from netsmith.run.plan import Plan
from netsmith.run.recipe import Recipe, read_fields
from netsmith.run.result import Result

if TYPE_CHECKING:
    from netsmith.train.loop import Trained
    from netsmith.train.teachers import Knowledge

STAGE = "distill"
AS_STUDENT = "a folder as STUDENT"
"""How a network to go on with is typed."""
LOSSES: Mapping[str, Mapping[str, float]] = {
    "kd": {"temperature": 4.0, "label_weight": 0.1, "alpha": 0.9},
    "dkd": {"temperature": 4.0, "label_weight": 1.0, "alpha": 1.0, "beta": 8.0},
    "dist": {"temperature": 4.0, "label_weight": 1.0, "alpha": 1.0, "beta": 1.0},
}
"""What a loss has unless asked otherwise: as the code of Zhao et al. 2022 has the first two for CIFAR-100, and that of
Huang et al. 2022 the third."""


@dataclass(frozen=True, kw_only=True)
class DistillJob:
    """What was asked for.

    Attributes:
        student: name of a network, file of a layout, or folder of an artifact or run to go on with.
        teachers: names of networks with published weights, or folders.
        train: how the student is trained; its flags hold the fields of the recipe that were given.
        unlabelled: folder of pictures without labels, or None.
        twin: whether the student has to beat one without a teacher.
    """

    student: str
    teachers: Sequence[str]
    train: TrainJob
    unlabelled: Path | None = None
    twin: bool = True


def distill_run(job: DistillJob, session: Session) -> Result:
    """Do the job in the session's folder, or go on with it where it was interrupted.

    Args:
        job: what is asked for.
        session: its `data` may be "": the pictures of the student's run, else of the first teacher's that has one.

    Raises:
        InputError: teachers, student, data or folder cannot be used, or do not go together; before anything was
            written, where the folder is new.
        CheckError: the student is refused, or the finished run does not keep its word.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the folder can be resumed.
    """
    teachers = [open_teacher(name, folder=job.train.pretrained_dir, session=session) for name in job.teachers]
    twice = [one.name for at, one in enumerate(teachers) if one.sha256 in {each.sha256 for each in teachers[:at]}]
    if twice:
        raise InputError(f"--teacher {twice[0]} is there twice; name each once")
    for teacher in teachers:
        if teacher.parent is not None:
            teacher.parent.refuse_onto(session.output)
    if job.unlabelled is not None:
        refuse_inside(str(job.unlabelled), session.output)
    student = Path(job.student)
    flags = {**job.train.flags, "teachers": tuple(teacher.sha256 for teacher in teachers)}
    train = replace(job.train, under=_defaults(job.train), flags=flags, parent_as=AS_STUDENT)
    if student.is_dir():
        train = replace(train, parent=student)
    else:
        train = replace(train, flags={**flags, "model": job.student})
    session = replace(session, data=session.data or _source_of(student, teachers))
    if not session.data:
        raise InputError("which pictures to train on is not said, and no run tells it; give --data")
    lesson = _Lesson(job, session, teachers)
    result = run_job(train, session, lesson.work, check=lesson.check)
    assert result is not None, "one process has the result"
    return result


def _defaults(train: TrainJob) -> tuple[str, Mapping[str, Any]]:
    """The weights of the loss that is asked for."""
    config = {} if train.config is None else read_fields(train.config)
    loss = train.flags.get("distill_loss") or config.get("distill_loss") or "kd"
    return f"--loss {loss}", {"distill_loss": loss, **LOSSES.get(loss, {})}  # another is refused with the recipe


def _source_of(student: Path, teachers: Sequence[Source]) -> str:
    parents = [open_parent(student)] if student.is_dir() else []
    parents += [teacher.parent for teacher in teachers if teacher.parent is not None]
    return next((parent.source for parent in parents if parent.source), "")


class _Lesson:
    """A student and its teachers, checked and then at work.

    Args:
        job: what is asked for.
        session: who is told.
        teachers: opened.
    """

    def __init__(self, job: DistillJob, session: Session, teachers: Sequence[Source]) -> None:
        self._job, self._session, self._teachers = job, session, teachers
        self._knowledge: list[Knowledge] = []
        self._more: dict[str, Any] = {}  # what the ledger says of pictures without labels
        self._asking = 0  # multiply-adds of all teachers' answers on a training picture

    def check(self, opened: Opened) -> Opened:
        """Refuse what does not go together; pictures keep the splits that the runs of all of them had them in."""
        from netsmith.train.distill import find_hints
        from netsmith.train.teachers import Knowledge, Teacher

        dataset, recipe = opened.dataset, opened.recipe
        _refuse_unlike(recipe, dataset, unlabelled=self._job.unlabelled)
        for teacher in self._teachers:
            refuse_other(teacher, dataset)
        known = [*opened.parents, *(teacher.parent for teacher in self._teachers if teacher.parent is not None)]
        dataset = keeping_splits(dataset, known, seed=recipe.seed)
        if self._job.unlabelled is not None:
            refuse_useless(dataset, self._job.unlabelled)
        self._knowledge = [
            Knowledge(
                network=teacher.network(),
                name=teacher.name,
                sha256=teacher.sha256,
                places=[teacher.labels.index(name) for name in dataset.classes],
                preprocess=teacher.preprocess,
            )
            for teacher in self._teachers
        ]
        find_hints(recipe.hints, opened.network.layout, self._knowledge[0].network.layout)
        side = recipe.train_size or recipe.img_size
        sides = [Teacher(each, side=recipe.img_size).side_for(side) for each in self._knowledge]
        self._asking = sum(_macs(each.network.layout, at) for each, at in zip(self._knowledge, sides, strict=True))
        return replace(opened, dataset=dataset, parents=known)

    def work(self, at: AtWork) -> Result:
        """Train the student, and its twin; judge both; ship what is kept."""
        ledger = at.finisher.ledger
        row = ledger.newest(STAGE)
        made = None if row is None or row.output is None else made_in(at.run, row.output)
        if row is not None and row.verdict == "refused":
            where = "" if made is None else f"; what is refused lies in {made.folder}"
            raise CheckError(f"{STAGE} was refused, {row.reason}; see {ledger.path}{where}")
        if made is not None:
            return self._stage(at, made).ship(made)
        trained, pictures = self._taught(at)
        if not self._job.twin:
            if not self._session.is_step:  # whose other orders are the comparison
                self._session.say("the student is not compared with a twin without a teacher (--no-twin)")
            if row is None:
                ledger.add(
                    STAGE,
                    verdict="done",
                    reason="not compared with a twin without a teacher, as asked",
                    inputs=[teacher.sha256 for teacher in self._teachers],
                    after=self._learned(at),
                )
            return at.conclude(trained)
        student = self._exported(at, at.run.candidates / "student", trained, at.opened.recipe)
        at.enter(trained)
        folder, recipe = RunFolder(at.run.candidates / "twin"), self._twin_recipe(at, pictures)
        try:
            alone = self._alone(at, folder, recipe)
        except Diverged as error:
            raise Diverged(
                f"the training of the twin broke down, so it cannot judge the student: {error.where}",
                "go on with --resume and --on-nan rewind, or with --resume and --no-twin to ship the student without a "
                "verdict",
            ) from error
        twin = self._exported(at, folder.model, alone, recipe)
        stage = self._stage(at, twin)
        before, after = stage.judge(twin, student)
        found = verdict(before, after, max_drop=0.0)
        compute = f"{recipe.time_s:g} s each" if recipe.time_s is not None else f"{recipe.epochs:.3g} epochs for it"
        reason = f"beside its twin without a teacher ({compute}): {found.reason}"
        stage.obey(row or stage.enter(before, after, Found(found.kept, reason), more=self._learned(at)))
        return stage.ship(student)

    def _learned(self, at: AtWork) -> dict[str, Any]:
        """From whom, how and what on, for the ledger."""
        teachers = [{"name": teacher.name, "sha256": teacher.sha256} for teacher in self._teachers]
        return {"teachers": teachers, "loss": at.opened.recipe.distill_loss, **self._more}

    def _stage(self, at: AtWork, beside: Bundle) -> Stage:
        """What judges and ships, beside another model of this run."""
        return Stage(
            name=STAGE,
            parent=Parent(beside.folder, beside, None),
            session=self._session,
            audited=at.opened.audited,
            finisher=at.finisher,
        )

    def _taught(self, at: AtWork) -> "tuple[Trained, int]":
        """The student, trained, and how many pictures on."""
        from netsmith.train.devices import release
        from netsmith.train.distill import Teaching
        from netsmith.train.requirements import choose_device

        dataset = self._pictures(at)
        names = ", ".join(teacher.name for teacher in self._teachers)
        self._session.say(f"{at.opened.recipe.model} learns from {names} ({at.opened.recipe.distill_loss})")
        if at.opened.recipe.hints and len(self._teachers) > 1:
            self._session.say(f"hints are maps of {self._teachers[0].name}, the first of its teachers")
        data, recipe, plan = at.data(dataset), at.opened.recipe, at.finisher.plan
        pictures = data.images
        assert isinstance(pictures, Masters), "pictures come from a cache"
        if recipe.time_s is not None:
            enter_time(plan, recipe.time_s)
        teaching = Teaching(
            knowledge=self._knowledge,
            images=pictures,
            keys=pictures.keys,
            look=pictures.look,
            plan=plan,
            clock=self._session.clock,
            progress=self._session.progress,
            say=self._session.say,
            warn=self._session.warn,
        )
        trained = at.train(data, teaching)
        assert trained is not None, "one process trains"
        for teacher in self._knowledge:  # the device is for what is measured from here on
            teacher.network.cpu()
        self._knowledge.clear()
        release(choose_device(recipe))
        return trained, len(pictures)

    def _pictures(self, at: AtWork) -> Dataset:
        """The run's, and those without a label, which are written down before the first is trained on."""
        dataset, folder = at.finisher.dataset, self._job.unlabelled
        if folder is None:
            return dataset
        whole, left_out = with_unlabelled(
            dataset,
            folder,
            say=self._session.say,
            progress=lambda done, total: self._session.progress("reading", done, total),
        )
        found = whole.items[len(dataset.items) :]
        add_lineage(at.run.lineage, {item.group: "train" for item in found})
        self._more = {"unlabelled": {"folder": str(folder), "pictures": len(found), "left_out": left_out}}
        return whole

    def _alone(self, at: AtWork, folder: RunFolder, recipe: Recipe) -> "Trained":
        """The twin, trained on the labels."""
        from netsmith.train.loop import train

        recipe.save(folder.recipe)
        session = self._session

        def show(title: str, done: float, total: float | None, note: str = "", *, left: float | None = None) -> None:
            session.progress(f"{title} the twin", done, total, note, left=left)

        alone = train(
            at.opened.start.network(recipe, at.finisher.dataset, progress=session.progress),
            at.data(),
            recipe,
            run=folder,
            plan=Plan(folder.plan),
            clock=session.clock,
            resume=True,
            show=show,
            warn=session.warn,
        )
        session.say(f"its twin without a teacher: {told(recipe.model, alone)}")
        return alone

    def _twin_recipe(self, at: AtWork, pictures: int) -> Recipe:
        """The student's without teachers, for the time that the student had, whatever was typed after; where passes are
        counted, as many as the same multiply-adds make: three times those of an answer for learning from it, and the
        teachers' answers, once each where they are remembered.
        """
        from netsmith.train.distill import remembers

        recipe = at.opened.recipe
        plain = {"teachers": (), "hints": ()}
        if recipe.epochs is None:
            return recipe.model_copy(update=plain | {"time_s": time_of(at.finisher.plan)})
        own = 3 * _macs(at.opened.network.layout, recipe.train_size or recipe.img_size)
        passes = 1.0 if remembers(recipe) else recipe.epochs
        work = pictures * (recipe.epochs * own + passes * self._asking)
        labelled = len(at.finisher.dataset.subset("train"))
        return recipe.model_copy(update=plain | {"epochs": work / (labelled * own)})

    @staticmethod
    def _exported(at: AtWork, folder: Path, trained: "Trained", recipe: Recipe) -> Bundle:
        assert trained.val is not None, "every run has validation pictures"
        return at.finisher.export(
            trained.network,
            folder,
            preprocess=at.opened.preprocess,
            recipe=recipe,
            thresholds=trained.val.thresholds,
        )


def _macs(layout: Layout, side: int) -> int:
    return cost(at_size(layout, side)).macs


def _refuse_unlike(recipe: Recipe, dataset: Dataset, *, unlabelled: Path | None) -> None:
    """Refuse losses that say nothing about such pictures."""
    loss = recipe.distill_loss
    if dataset.task == "tag" and loss != "kd":
        raise InputError(f"--loss {loss} is for pictures of one class each; for labels of any number take --loss kd")
    if loss == "dist" and len(dataset.classes) < 3:
        raise InputError(
            "--loss dist compares the order of classes, of which two have one only; take --loss kd or more classes"
        )
    if loss == "dkd" and (recipe.mixup or recipe.cutmix):
        raise InputError(
            "--loss dkd takes apart the class of a picture and the others, and a mixture has two; leave --mixup and "
            "--cutmix out, or take --loss kd or dist"
        )
    if unlabelled is not None:
        refuse_unlabelled(recipe, dataset)


def refuse_unlabelled(recipe: Recipe, dataset: Dataset) -> None:
    """Raise InputError where pictures without a label make no sense beside others."""
    if dataset.task == "tag":
        raise InputError(
            "--unlabelled is for pictures of one class each: of labels of any number, none is a label too; leave it out"
        )
    if recipe.class_balance == "sampling":
        raise InputError(
            "--class-balance sampling shows every class equally often, and --unlabelled pictures are of none; leave "
            "one of them out, or take --class-balance loss"
        )
