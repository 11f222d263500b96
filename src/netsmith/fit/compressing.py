"""`compress`: from a trained model to the best artifact that fits a budget.

    netsmith compress runs/r18 --budget latency=3ms,size=2MB --time 30m -o runs/fits

What needs no training comes first: the model as it is, rounded, halved. Where none of that fits and is as good, the
orders of distilling, pruning and quantizing that make sense (`netsmith.search.orders`) share the time, each aiming at
what untrained files were measured to allow (`netsmith.fit.forecast`). Every stage is a run of its own in `stages/`
(`netsmith.fit.steps`) that never reads the test pictures. In the end all that fits is judged in one fresh process: the
most accurate on validation wins, of those that are as good within chance the smallest and fastest, and it alone answers
the test pictures. Where nothing fits, the run ends refused, with what came nearest.
"""

from importlib.util import find_spec
from typing import NoReturn

from netsmith.artifact.bundle import WEIGHTS, Bundle, artifact_hash, external_files, load_bundle
from netsmith.data.audit import Audit
from netsmith.data.lineage import add_lineage, read_lineage
from netsmith.data.unlabelled import refuse_useless
from netsmith.errors import CheckError, InputError
from netsmith.fit.composing import FLAGS, compose_recipe
from netsmith.fit.distilling import refuse_unlabelled
from netsmith.fit.doing import CompressJob, Finalist
from netsmith.fit.finish import ATTEMPTS
from netsmith.fit.going_on import trained_before
from netsmith.fit.job import trainable
from netsmith.fit.judged import Found, Judged, best, verdict
from netsmith.fit.opening import refuse_inside
from netsmith.fit.parent import Parent, open_parent
from netsmith.fit.reaching import near
from netsmith.fit.session import Session
from netsmith.fit.stage import Stage, run_stage
from netsmith.fit.starting import Continued
from netsmith.fit.steps import FOLDER
from netsmith.fit.trying import Trying
from netsmith.report.stages import FINALIST
from netsmith.run.budget import format_duration
from netsmith.run.files import write_bytes
from netsmith.run.folder import RunFolder
from netsmith.run.result import Result

STAGE = "compress"
"""Row of the ledger: the outcome."""
WINNER = "compress.winner"
"""Row of the plan: the order that is shipped."""
USUAL_S = 600.0
"""Of training, where it is not said and not known how long the model was trained."""

BUSY = 2.0
"""By what factor other work on the machine may make a measured latency too long, at most."""


def compress_run(job: CompressJob, session: Session) -> Result:
    """Do the job in the session's folder, or go on with it where it was interrupted.

    Args:
        job: what is asked for.
        session: where the pictures are ("": those of the model's run), where the run goes, who is told.

    Raises:
        InputError: model, budget, pictures or folder cannot be used; before anything was written, where the folder is
            new.
        CheckError: nothing fits, with what came nearest; or the finished run does not keep its word.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the folder can be resumed.
    """
    if not job.budget.limits():
        raise InputError("what the result must fit is not said; give --budget such as latency=5ms,size=4MB")
    parent = open_parent(job.source)
    parent.refuse_quantized(STAGE)
    parent.check_weights()
    if outside := external_files(parent.bundle.model_path):
        raise InputError(f"{parent.path} keeps tensors in {outside[0]}; export it again with all of them in model.onnx")
    parent.refuse_not_running(session.warn)
    seconds, why = _training_time(job, parent)
    if job.unlabelled is not None:
        if not seconds:
            raise InputError(f"--unlabelled is for what is trained, and nothing is ({why}); leave it out")
        refuse_inside(str(job.unlabelled), session.output)

    def work(stage: Stage) -> Result:
        stage.hold_to(job.wishes())
        row = stage.ledger.newest(STAGE)
        if row is not None and row.verdict == "refused":
            raise CheckError(row.reason)
        if row is not None:
            return stage.ship(_made(stage, row.output or ""))
        if seconds:
            stage.session.say(f"{format_duration(seconds)} of training, {why}")
        trying = Trying(job, stage, seconds=seconds, untrained=why)
        return _finish(trying, trying.finalists())

    def check(audited: Audit) -> None:
        if seconds:
            _refuse_recipe(job, parent, audited, seconds=seconds)

    return run_stage(
        STAGE, parent, session, work, resume=job.resume, seed=job.seed, budget=job.budget, measure_s=job.measure_s,
        check=check,
    )  # fmt: skip


def _refuse_recipe(job: CompressJob, parent: Parent, audited: Audit, *, seconds: float) -> None:
    """Raise InputError where file and flags make no recipe that trains a model here."""
    start = Continued(parent)
    flags = {**job.recipe, "time_s": seconds, **start.fields}
    recipe = compose_recipe(audited, start, layers=[(FLAGS, flags)])
    trainable(recipe, parent.network)
    if job.unlabelled is not None:
        refuse_unlabelled(recipe, audited.dataset)
        refuse_useless(audited.dataset, job.unlabelled)


def _training_time(job: CompressJob, parent: Parent) -> tuple[float, str]:
    """Seconds of training and why so many, or why there is none."""
    if job.time_s == 0:
        return 0.0, "--time is 0"
    if find_spec("torch") is None:
        return 0.0, "torch is not installed, pip install 'netsmith[train]' brings it"
    if not (parent.bundle.folder / WEIGHTS).is_file():
        return 0.0, f"{parent.path} is shipped without its weights"
    if job.time_s is not None:
        return job.time_s, "as asked"
    before = trained_before(parent)
    if before is None:
        return USUAL_S, f"because it is not known how long {parent.path} was trained; --time says another"
    return before[0], f"as long as {parent.path} was trained; --time says another"


def _finish(trying: Trying, found: list[Finalist]) -> Result:
    """Choose among what came to an end, and ship it."""
    stage = trying.stage
    begun = next((row.value for row in stage.finisher.plan.rows if row.kind == WINNER), None)
    if begun is not None and all(each.name != begun for each in found):
        raise InputError(
            f"{stage.run.path} chose {begun} in an earlier session, and that is not there any more; give back its "
            f"{FOLDER}/, or compress again into another folder"
        )
    before, judged = trying.judged(found)
    refusals = [trying.refusal(before, each) for each in judged]
    for _ in range(ATTEMPTS - 1):  # other work on the machine only ever slows one
        if not all(refusals) or not any(_only_late(trying, each) for each in judged):
            break
        before, judged = trying.judged(found)
        refusals = [trying.refusal(before, each) for each in judged]
    fitting = [one for one, why in zip(judged, refusals, strict=True) if not why]
    won = None
    if fitting:
        won = stage.finisher.plan.decide(
            WINNER,
            at=0,
            compute=lambda: found[judged.index(best(fitting))].name,
            why="the most accurate that fits, or a lighter one that is as good",
        )
    late = won is None and any(_only_late(trying, each) for each in judged)
    for each, one, why in zip(found, judged, refusals, strict=True):
        said = verdict(before, one).reason
        reason = f"{each.name}: " + (f"{why}: {said}" if why else f"it fits, {said}")
        stage.session.say(reason)
        there = any(row.stage == FINALIST and row.after["order"] == each.name for row in stage.ledger.own)
        if not late and not there:
            entered = Found(why is None, reason)
            stage.enter(before, one, entered, stage=FINALIST, more={"order": each.name, "won": each.name == won})
    if won is None:
        _refuse(trying, before, found, judged, late=late)
    chosen, winner = next(pair for pair in zip(found, judged, strict=True) if pair[0].name == won)
    _keep_record(chosen, stage.run)
    stage.settle(before, winner, Found(True, f"{chosen.name}: {verdict(before, winner).reason}"))
    return stage.ship(chosen.bundle)


def _only_late(trying: Trying, judged: Judged) -> bool:
    """Whether it might fit on a quieter machine."""
    missed = trying.missed(judged)
    return [row.name for row in missed] == ["latency_ms"] and near(missed, "")[0] <= BUSY


def _refuse(trying: Trying, before: Judged, found: list[Finalist], judged: list[Judged], *, late: bool) -> NoReturn:
    """End a run of which nothing fits; where something is only late, a session of it, because another may measure less.

    Raises:
        CheckError: always.
    """
    stage, budget = trying.stage, trying.job.budget
    lossy = [(each, one) for each, one in zip(found, judged, strict=True) if not trying.missed(one)]
    if lossy:
        each, one = max(lossy, key=lambda pair: pair[1].score.value)
        sentence = (
            f"what fits the budget {budget} loses too much; the nearest is {each.name}: {trying.refusal(before, one)}"
        )
        mend = "allow more with --max-drop, raise the limits"
    else:
        rows = [trying.missed(one) for one in judged]
        tried = [
            near(missed, f"{each.name} with {', '.join(map(str, missed))}")
            for each, missed in zip(found, rows, strict=True)
        ]
        one = judged[min(range(len(tried)), key=lambda at: tried[at][0])]
        _, text = min([*tried, *trying.near])
        sentence, mend = f"nothing fits the budget {budget}; the nearest is {text}", "raise the limits or drop one"
    mend += "" if trying.seconds else f", or let it train ({trying.untrained})"
    if late:
        stage.ledger.add("budget", verdict="failed", reason=sentence)
        raise CheckError(
            f"{sentence}: {mend}, or measure again with --resume when the machine is quiet; see {stage.run.ledger}"
        )
    reason = f"{sentence}: {mend}; see {stage.run.ledger}"
    stage.enter(before, one, Found(False, reason))
    raise CheckError(reason)


def _keep_record(winner: Finalist, run: RunFolder) -> None:
    """What the winner was last trained by, and how it learned, as every run that trains has it."""
    if winner.trained is None:
        return
    for path in (winner.trained.recipe, winner.trained.metrics, winner.trained.gradients):
        if path.exists():
            write_bytes(run.path / path.name, path.read_bytes())
    add_lineage(run.lineage, read_lineage(winner.trained.lineage))


def _made(stage: Stage, artifact: str) -> Bundle:
    """The winner of an earlier session."""
    if (there := stage.made(artifact)) is not None:
        return there
    for folder in sorted(stage.run.path.glob(f"{FOLDER}/*/*/{stage.run.model.name}")):
        if artifact_hash(folder) == artifact:
            return load_bundle(folder)
    raise InputError(f"{stage.run.path} has lost the model that it kept; compress again into another folder")
