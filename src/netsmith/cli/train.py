"""`netsmith train`: one network, trained by one recipe and finished like a fit."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.cli.recipe_flags import NONE, ConfigFile, RecipeFlags
from netsmith.cli.tables import outcome
from netsmith.errors import InputError
from netsmith.run.named_recipes import list_in_words
from netsmith.run.world import refuse_several

EXAMPLES = """\
Examples:

  netsmith train photos/ --model resnet18 --time 10m -o runs/r18
  netsmith train photos/ --model resnet18 --pretrained --time 10m -o runs/tuned
                            from weights trained on ImageNet
  netsmith train other/ --from runs/tuned --recipe finetune --time 10m -o runs/other
                            from a model of ours, for other pictures
  netsmith train digits --model resnet20_cifar --epochs 10 -o runs/digits
  netsmith train photos/ -c recipe.yaml --lr 0.02 -o runs/again
  netsmith train photos/ --resume -o runs/r18       go on after an interruption
  netsmith train photos/ --model resnet18 --find-lr -o .
                            which learning rate suits; the curve goes to lr.svg
  netsmith train photos/ --model resnet18 --recipe finetune --time 10m -o runs/tuned
  netsmith train photos/ --model resnet50 --recipe paper/resnet --epochs 30 -o runs/he

Recipes (docs/recipes.md); a recipe file and flags stand above them:

""" + list_in_words()


def train(
    data: str,
    /,
    *,
    model: str | None = None,
    pretrained: Annotated[bool, Parameter(show_default=False)] = False,
    pretrained_dir: Path | None = None,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    time: str | None = None,
    epochs: float | None = None,
    out: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    resume: Annotated[bool, Parameter(show_default=False)] = False,
    find_lr: Annotated[bool, Parameter(show_default=False)] = False,
    recipe: str | None = None,
    config: ConfigFile = None,
    strict: Annotated[bool, Parameter(show_default=False)] = False,
    tensorboard: Annotated[bool, Parameter(show_default=False)] = False,
    flags: RecipeFlags = NONE,
    output: Output = PLAIN,
) -> None:
    """Train one network and finish it like a fit.

    Pictures are audited and split, the network is trained with checkpoints,
    and the finished model is exported, measured, and verified in a fresh
    process. What is not given follows from the pictures; netsmith fit also
    chooses the network.

    Args:
        data: Folder, zip, tar, tar shards ('x-{000..127}.tar', '*.tar'), CSV (image_path,label[,split];
            for any number of labels per picture image_path,labels[,split]), .npz (images,labels[,split]) or the name
            digits.
        model: Network, as netsmith models lists it, scaled such as resnet18@0.5, or with published weights resnet18.v1.
        pretrained: Start from the network's published weights; they bring their preprocessing and gentler steps.
        pretrained_dir: Folder of weights files, looked at before the cache and the net.
        from_: Start from the network and weights of an artifact or run of ours, trained, grown or cut; it brings its
            preprocessing and gentler steps. Classes of the same name keep what the classifier knows of them; where all
            are the same, the new model is judged beside that one.
        time: Time of training alone, such as 90s, 10m or 1h30m; reading the pictures and decoding those of validation
            come before, exporting, measuring and verifying after it. (netsmith fit counts all.)
        epochs: Passes over the training pictures, in place of --time. Nothing is measured then: on a CPU float32 on all
            cores, unless --amp and --threads say otherwise.
        out: Folder of the run; with --find-lr, of the chart.
        resume: Go on with the interrupted run in the folder.
        find_lr: Begin no run: try rising learning rates on a copy of the network, and suggest one. Of a recipe that
            changes on its way it tries the moment of the highest rate at which all layers learn.
        recipe: Named recipe under the file and the flags; they are listed below.
        config: Recipe file under the flags, such as the recipe.yaml of a run.
        strict: Refuse data of which a picture would be left out.
        tensorboard: Write event files for TensorBoard too, into tensorboard/ of the run.
    """
    if out is None and not find_lr:
        raise InputError("where the run goes is not said; name its folder with -o")
    if find_lr:
        refuse_several("--find-lr", "type it without torchrun")
    if tensorboard and find_spec("tensorboard") is None:  # it is imported much later, when the folder is there already
        raise ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")
    if find_lr and resume:
        raise InputError("--find-lr begins no run, so there is none to go on with; leave --resume out")
    own = {"model": model, "pretrained": pretrained or None, "time": time, "epochs": epochs}
    given = flags.values(**own)

    from netsmith.fit.job import TrainJob
    from netsmith.fit.single import train_run
    from netsmith.fit.starting import FROM

    command = ["train", data, *(["--recipe", recipe] if recipe else []), *(["-c", str(config)] if config else [])]
    command += ["-o", str(out)] if out else []
    command += ["--pretrained-dir", str(pretrained_dir)] if pretrained_dir else []
    command += [FROM, str(from_)] if from_ else []
    command += ["--resume"] if resume else []
    command += ["--strict"] if strict else []
    command += ["--tensorboard"] if tensorboard else []
    command += flags.typed(**own)

    if find_lr and time is None:
        given.setdefault("epochs", 1.0)  # a rate is the same for any length
    job = TrainJob(
        flags=given,
        config=config,
        recipe=recipe,
        resume=resume,
        parent=from_,
        pretrained_dir=pretrained_dir,
        board=tensorboard,
    )
    with Console(output) as console:
        session = console.session(data, output=out or Path(), command=command, strict=strict)
        if find_lr:
            from netsmith.fit.rate import find_rate

            found = find_rate(job, session, folder=out)
            console.result(found.document(), str(found))
            return
        if (result := train_run(job, session)) is not None:  # else another process has it
            console.result(result.model_dump(mode="json"), outcome(result, session.output))
