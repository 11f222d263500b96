"""`netsmith distill`: a student learns from trained networks, and is kept only where that helped."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.cli.recipe_flags import NONE, ConfigFile, RecipeFlags
from netsmith.cli.tables import outcome
from netsmith.errors import InputError

EXAMPLES = """\
Examples:

  netsmith distill mobilenet_v3_small --teacher runs/r50 --time 20m -o runs/small
                            on the pictures that the teacher was trained on
  netsmith distill runs/pruned --teacher runs/r50 --time 20m -o runs/again
                            go on with a model of ours, such as a pruned one
  netsmith distill resnet20_cifar --teacher runs/a runs/b --loss dist --epochs 40 -o runs/two
                            from two teachers, their probabilities averaged
  netsmith distill resnet18 --teacher runs/r50 --unlabelled more/ --time 1h -o runs/more
                            pictures without labels help too
"""

_GROUP = "Distillation"


def distill(
    student: str,
    /,
    *,
    teacher: Annotated[tuple[str, ...], Parameter(consume_multiple=True)],
    data: str | None = None,
    time: str | None = None,
    epochs: float | None = None,
    out: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    resume: Annotated[bool, Parameter(show_default=False)] = False,
    twin: Annotated[bool, Parameter(negative="--no-twin")] = True,
    loss: Annotated[Literal["kd", "dkd", "dist"] | None, Parameter(group=_GROUP)] = None,
    temperature: Annotated[float | None, Parameter(group=_GROUP)] = None,
    alpha: Annotated[float | None, Parameter(group=_GROUP)] = None,
    beta: Annotated[float | None, Parameter(group=_GROUP)] = None,
    label_weight: Annotated[float | None, Parameter(group=_GROUP)] = None,
    hints: Annotated[tuple[str, ...] | None, Parameter(group=_GROUP, consume_multiple=True)] = None,
    hint_weight: Annotated[float | None, Parameter(group=_GROUP)] = None,
    unlabelled: Annotated[Path | None, Parameter(group=_GROUP)] = None,
    recipe: str | None = None,
    config: ConfigFile = None,
    pretrained_dir: Path | None = None,
    strict: Annotated[bool, Parameter(show_default=False)] = False,
    flags: RecipeFlags = NONE,
    output: Output = PLAIN,
) -> None:
    """Train a small network to answer as larger ones do.

    Teachers answer the very crops and mixtures the student gets; it learns
    from their answers and from the labels. Then its twin, the same network
    on the labels alone with the same compute, is trained too, and a student
    below its twin on validation is refused: exit 1, both numbers in the
    ledger. So it takes twice the time, unless --no-twin takes your word.

    Args:
        student: Network as netsmith models lists it, scaled such as resnet18@0.5, file of a layout, or folder of an
            artifact or run of ours to go on with.
        teacher: Folders of artifacts or runs with the same classes, or networks with published weights such as
            resnet56_cifar.akamaster; of several the probabilities are averaged.
        data: What to learn on, as of netsmith train; by default the pictures of the student's run, else of the first
            teacher's.
        time: Time of the student's training, its teachers' answers included, such as 90s, 10m or 1h30m; the twin gets
            as much.
        epochs: Passes over the training pictures, in place of --time; the twin gets as many multiply-adds.
        out: Folder of the run.
        resume: Go on with the interrupted run in the folder.
        twin: Train the twin, and refuse a student below it.
        loss: kd: match probabilities (Hinton 2015). dkd: the class and the others apart (Zhao 2022). dist: match the
            order of classes and of pictures (Huang 2022); suits strong teachers and mixed pictures.
        temperature: That logits of both are divided by; 4 unless given.
        alpha: Weight of the teacher's term; kd 0.9, dkd 1 (of the class), dist 1 (over classes).
        beta: Weight of its second part; dkd 8 (of the other classes), dist 1 (over pictures).
        label_weight: Weight of the labels' loss; kd 0.1, dkd and dist 1.
        hints: Stages whose maps are compared with the first teacher's too, as stage2, or stage2:stage3 where its is
            called otherwise; netsmith profile shows them.
        hint_weight: Weight of that; 1 unless given.
        unlabelled: Folder of more pictures to train on, for which the teacher's answer is all there is.
        recipe: Named recipe under the file and the flags, see netsmith train.
        config: Recipe file under the flags, such as the recipe.yaml of a run.
        pretrained_dir: Folder of weights files, looked at before the cache and the net.
        strict: Refuse data of which a picture would be left out.
    """
    if out is None:
        raise InputError("where the run goes is not said; name its folder with -o")
    taught = {
        "loss": loss,
        "temperature": temperature,
        "alpha": alpha,
        "beta": beta,
        "label_weight": label_weight,
        "hints": hints,
        "hint_weight": hint_weight,
    }
    own = {"time": time, "epochs": epochs, **taught}
    given = flags.values(**own)
    command = ["distill", student, "--teacher", *teacher, *(["--data", data] if data else []), "-o", str(out)]
    command += ["--recipe", recipe] if recipe else []
    command += ["-c", str(config)] if config else []
    command += ["--pretrained-dir", str(pretrained_dir)] if pretrained_dir else []
    command += ["--unlabelled", str(unlabelled)] if unlabelled else []
    command += ["--resume"] if resume else []
    command += ["--strict"] if strict else []
    command += [] if twin else ["--no-twin"]
    command += flags.typed(**own)

    from netsmith.fit.distilling import DistillJob, distill_run
    from netsmith.fit.job import TrainJob

    job = DistillJob(
        student=student,
        teachers=teacher,
        train=TrainJob(flags=given, config=config, recipe=recipe, resume=resume, pretrained_dir=pretrained_dir),
        unlabelled=unlabelled,
        twin=twin,
    )
    with Console(output) as console:
        session = console.session(data or "", output=out, command=command, strict=strict)
        result = distill_run(job, session)
        console.result(result.model_dump(mode="json"), outcome(result, session.output))
