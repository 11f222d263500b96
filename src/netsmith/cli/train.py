"""`netsmith train`: one network, trained by one recipe and finished like a fit."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.cli.tables import outcome
from netsmith.errors import InputError
from netsmith.run.named_recipes import list_in_words
from netsmith.run.world import refuse_several

EXAMPLES = """\
Examples:

  netsmith train photos/ --model resnet18 --time 10m -o runs/r18
  netsmith train photos/ --model resnet18 --pretrained --time 10m -o runs/tuned
                            from weights trained on ImageNet
  netsmith train digits --model resnet20_cifar --epochs 10 -o runs/digits
  netsmith train photos/ -c recipe.yaml --lr 0.02 -o runs/again
  netsmith train photos/ --resume -o runs/r18       go on after an interruption
  netsmith train photos/ --model resnet18 --find-lr -o .
                            which learning rate suits; the curve goes to lr.svg
  netsmith train photos/ --model resnet18 --recipe finetune --time 10m -o runs/tuned
  netsmith train photos/ --model resnet50 --recipe paper/resnet --epochs 30 -o runs/he

Recipes (docs/recipes.md); a recipe file and flags stand above them:

""" + list_in_words()

_GROUP = "Recipe"
Number = Annotated[float | None, Parameter(group=_GROUP)]
Count = Annotated[int | None, Parameter(group=_GROUP)]
Pair = Annotated[tuple[float, float] | None, Parameter(group=_GROUP)]


def train(
    data: str,
    /,
    *,
    model: str | None = None,
    pretrained: Annotated[bool, Parameter(show_default=False)] = False,
    pretrained_dir: Path | None = None,
    time: str | None = None,
    epochs: float | None = None,
    out: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    resume: Annotated[bool, Parameter(show_default=False)] = False,
    find_lr: Annotated[bool, Parameter(show_default=False)] = False,
    recipe: str | None = None,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    strict: Annotated[bool, Parameter(show_default=False)] = False,
    tensorboard: Annotated[bool, Parameter(show_default=False)] = False,
    img_size: Count = None,
    train_size: Count = None,
    progressive: Pair = None,
    batch_size: Annotated[int | None, Parameter(name=["--batch-size", "-b"], group=_GROUP)] = None,
    opt: Annotated[Literal["sgd", "adamw", "rmsprop", "muon", "lamb"] | None, Parameter(group=_GROUP)] = None,
    lr: Number = None,
    momentum: Number = None,
    nesterov: Annotated[bool | None, Parameter(negative="--no-nesterov", group=_GROUP)] = None,
    weight_decay: Number = None,
    weight_decay_on: Annotated[Literal["weights", "weights+biases", "all"] | None, Parameter(group=_GROUP)] = None,
    layer_decay: Number = None,
    head_first: Number = None,
    sched: Annotated[Literal["constant", "step", "cosine", "onecycle"] | None, Parameter(group=_GROUP)] = None,
    warmup: Number = None,
    decay_milestones: Annotated[tuple[float, ...] | None, Parameter(group=_GROUP, consume_multiple=True)] = None,
    decay_every: Number = None,
    decay_rate: Number = None,
    final_lr_ratio: Number = None,
    smoothing: Number = None,
    bce_loss: Annotated[bool | None, Parameter(negative="--no-bce-loss", group=_GROUP)] = None,
    bce_target_thresh: Number = None,
    ema: Number = None,
    clip_grad: Number = None,
    drop: Number = None,
    drop_path: Number = None,
    class_balance: Annotated[Literal["none", "sampling", "loss"] | None, Parameter(group=_GROUP)] = None,
    grad_accum: Count = None,
    on_nan: Annotated[Literal["stop", "rewind"] | None, Parameter(group=_GROUP)] = None,
    flip: Annotated[bool | None, Parameter(negative="--no-flip", group=_GROUP)] = None,
    pad: Count = None,
    shift: Number = None,
    random_crop: Annotated[bool | None, Parameter(negative="--no-random-crop", group=_GROUP)] = None,
    scale: Pair = None,
    ratio: Pair = None,
    rotate: Number = None,
    auto_augment: Annotated[Literal["none", "randaugment", "trivialaugment"] | None, Parameter(group=_GROUP)] = None,
    ra_ops: Count = None,
    ra_magnitude: Count = None,
    ra_std: Number = None,
    ra_prob: Number = None,
    color_jitter: Annotated[tuple[float, float, float, float] | None, Parameter(group=_GROUP)] = None,
    random_erase: Number = None,
    mixup: Number = None,
    cutmix: Number = None,
    seed: Count = None,
    device: Annotated[str | None, Parameter(group=_GROUP)] = None,
    amp: Annotated[bool | None, Parameter(negative="--no-amp", group=_GROUP)] = None,
    amp_dtype: Annotated[Literal["bfloat16", "float16"] | None, Parameter(group=_GROUP)] = None,
    channels_last: Annotated[bool | None, Parameter(negative="--no-channels-last", group=_GROUP)] = None,
    compile: Annotated[bool | None, Parameter(negative="--no-compile", group=_GROUP)] = None,
    threads: Count = None,
    workers: Annotated[int | None, Parameter(name=["--workers", "-j"], group=_GROUP)] = None,
    sync_bn: Annotated[bool | None, Parameter(negative="--no-sync-bn", group=_GROUP)] = None,
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
        time: Time of training, such as 90s, 10m or 1h30m.
        epochs: Passes over the training pictures, in place of --time.
        out: Folder of the run; with --find-lr, of the chart.
        resume: Go on with the interrupted run in the folder.
        find_lr: Begin no run: try rising learning rates on a copy of the network, and suggest one.
        recipe: Named recipe under the file and the flags; they are listed below.
        config: Recipe file under the flags, such as the recipe.yaml of a run.
        strict: Refuse data of which a picture would be left out.
        tensorboard: Write event files for TensorBoard too, into tensorboard/ of the run.
        img_size: Side of the input in pixels.
        train_size: Side trained on, where it is another: smaller is faster, and random crops enlarge what they show.
        progressive: Train on smaller pictures first: the smallest share of the side, and the share of training by which
            the full side is reached, as 0.5 0.7.
        batch_size: Pictures per update.
        opt: Optimizer.
        lr: Peak learning rate.
        momentum: Of SGD, RMSProp and Muon; beta1 of AdamW and LAMB.
        nesterov: Nesterov's form of momentum.
        weight_decay: On weights of convolutions and linear layers.
        weight_decay_on: Or on their biases too, or on all, norms too, as papers before 2018.
        layer_decay: Factor of the rate per stage from the classifier down to the stem, for --pretrained; 0.7 is usual.
        sched: Shape of the learning rate.
        warmup: Share of training in which the rate rises.
        head_first: Share of training in which only the classifier learns, three times as fast; 1 trains nothing else.
        decay_milestones: Shares of training at which --sched step lowers the rate.
        decay_every: Or at evenly so many shares of training.
        decay_rate: Factor at each of them.
        final_lr_ratio: Last rate of cosine and onecycle as a share of --lr.
        smoothing: Label smoothing.
        bce_loss: Binary cross-entropy of every class by itself in place of softmax, for mixup and cutmix.
        bce_target_thresh: Shares of a class above it count as whole for --bce-loss; 0 takes shares as they are.
        ema: Decay of the averaged weights, which ship; 0 for the plain ones.
        clip_grad: Largest norm of the gradient; 0 for no limit.
        drop: Dropout before the classifier.
        drop_path: Stochastic depth of the last block.
        class_balance: For classes of very unequal size: sampling shows each equally often, loss weighs rare ones up.
        grad_accum: Parts that a batch is computed in, for less memory; more by itself where memory runs out.
        on_nan: Where the loss is not finite: stop, or go back to the newest checkpoint with half the rate.
        flip: Mirror half of the pictures.
        pad: Border in pixels before a random crop back.
        shift: Largest random translation as a share of the side.
        random_crop: Random resized crops.
        scale: Smallest and largest share of the area they keep.
        ratio: Smallest and largest width over height of them.
        rotate: Largest random rotation in degrees; 10 suits scans and scenes, 180 what has no upright.
        auto_augment: Random operations on colour and geometry, for long runs; trivialaugment needs no tuning.
        ra_ops: Operations per picture of randaugment.
        ra_magnitude: Their strength, 0 to 30.
        ra_std: Standard deviation of that strength.
        ra_prob: Probability of each of them.
        color_jitter: Largest change of brightness, contrast, saturation and hue (0.5 at most), as 0.4 0.4 0.4 0.1.
        random_erase: Probability of erasing a box, so that no single part decides; 0.1 to 0.25 is usual.
        mixup: Blend pairs of pictures and their labels; 0.2 is usual, for long runs.
        cutmix: Paste boxes of one picture into another, labels alike; 1 is usual. With --mixup: one of both per batch.
        seed: Of splits, initial weights, order and augmentation.
        device: auto (CUDA, else mps, else cpu), cpu, cuda, cuda:N, mps, or xla for a TPU.
        amp: bfloat16 activations, or float32 ones; measured if not given with --time.
        amp_dtype: Activations of --amp; float16 needs CUDA, and its loss is scaled.
        channels_last: Memory layout; measured if not given with --time.
        compile: torch.compile; where not given, on CUDA in runs of twenty minutes and more.
        threads: CPU threads.
        workers: Threads that prepare batches.
        sync_bn: With torchrun: batch norm over the pictures of all processes; if not given, where each has few.
    """
    from netsmith.run.budget import parse_duration
    from netsmith.run.recipe import Recipe

    if out is None and not find_lr:
        raise InputError("where the run goes is not said; name its folder with -o")
    if find_lr:
        refuse_several("--find-lr", "type it without torchrun")
    if tensorboard and find_spec("tensorboard") is None:  # it is imported much later, when the folder is there already
        raise ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")
    if find_lr and resume:
        raise InputError("--find-lr begins no run, so there is none to go on with; leave --resume out")
    if random_crop and scale is None:
        scale = (0.35, 1.0)
    elif random_crop is False and scale is not None:
        raise InputError("--no-random-crop and --scale do not go together; leave one out")
    if amp is False and amp_dtype is not None:
        raise InputError("--no-amp and --amp-dtype do not go together; leave one out")
    given: list[tuple[str, str, Any]] = [
        ("--model", "model", model),
        ("--pretrained", "pretrained", pretrained or None),
        ("--time", "time_s", time),
        ("--epochs", "epochs", epochs),
        ("--img-size", "img_size", img_size),
        ("--train-size", "train_size", train_size),
        ("--progressive", "progressive", progressive),
        ("--batch-size", "batch_size", batch_size),
        ("--opt", "opt", opt),
        ("--lr", "lr", lr),
        ("--momentum", "momentum", momentum),
        ("--nesterov", "nesterov", nesterov),
        ("--weight-decay", "weight_decay", weight_decay),
        ("--weight-decay-on", "weight_decay_on", weight_decay_on),
        ("--layer-decay", "layer_decay", layer_decay),
        ("--head-first", "head_first", head_first),
        ("--sched", "sched", sched),
        ("--warmup", "warmup", warmup),
        ("--decay-milestones", "step_milestones", decay_milestones),
        ("--decay-every", "step_every", decay_every),
        ("--decay-rate", "step_gamma", decay_rate),
        ("--final-lr-ratio", "final_lr_ratio", final_lr_ratio),
        ("--smoothing", "smoothing", smoothing),
        ("--bce-loss", "bce_loss", bce_loss),
        ("--bce-target-thresh", "bce_target_thresh", bce_target_thresh),
        ("--ema", "ema", ema),
        ("--clip-grad", "grad_clip", clip_grad),
        ("--drop", "drop_rate", drop),
        ("--drop-path", "drop_path", drop_path),
        ("--class-balance", "class_balance", class_balance),
        ("--grad-accum", "grad_accum", grad_accum),
        ("--on-nan", "on_nan", on_nan),
        ("--flip", "flip", flip),
        ("--pad", "pad", pad),
        ("--shift", "shift", shift),
        ("--random-crop", "crop_scale", None if scale else random_crop),
        ("--scale", "crop_scale", scale),
        ("--ratio", "crop_ratio", ratio),
        ("--rotate", "rotate", rotate),
        ("--auto-augment", "auto_augment", auto_augment),
        ("--ra-ops", "ra_ops", ra_ops),
        ("--ra-magnitude", "ra_magnitude", ra_magnitude),
        ("--ra-std", "ra_std", ra_std),
        ("--ra-prob", "ra_prob", ra_prob),
        ("--color-jitter", "color_jitter", color_jitter),
        ("--random-erase", "random_erase", random_erase),
        ("--mixup", "mixup", mixup),
        ("--cutmix", "cutmix", cutmix),
        ("--seed", "seed", seed),
        ("--device", "device", device),
        ("--amp", "dtype", amp if amp_dtype is None else None),
        ("--amp-dtype", "dtype", amp_dtype),
        ("--channels-last", "channels_last", channels_last),
        ("--compile", "compile", compile),
        ("--threads", "threads", threads),
        ("--workers", "workers", workers),
        ("--sync-bn", "sync_bn", sync_bn),
    ]
    flags = {field: value for _, field, value in given if value is not None}
    if time is not None:
        flags["time_s"] = parse_duration(time)
    if amp is not None and amp_dtype is None:
        flags["dtype"] = "bfloat16" if amp else "float32"
    # Fields whose "off" is None.
    may_be_off = ("ema", "grad_clip", "crop_scale", "step_every", "bce_target_thresh")
    flags |= {field: None for field in may_be_off if field in flags and not flags[field]}
    for flag, field, value in given:
        if value is not None and flags[field] is not None and flags[field] is not True:  # no tag is named yet
            Recipe.check_flag(flag, field, flags[field])
    command = ["train", data, *(["--recipe", recipe] if recipe else []), *(["-c", str(config)] if config else [])]
    command += ["-o", str(out)] if out else []
    command += ["--pretrained-dir", str(pretrained_dir)] if pretrained_dir else []
    command += ["--resume"] if resume else []
    command += ["--strict"] if strict else []
    command += ["--tensorboard"] if tensorboard else []
    command += [word for flag, _, value in given if value is not None for word in _typed(flag, value)]

    from netsmith.fit.session import Session
    from netsmith.fit.single import TrainJob, train_run

    if find_lr and time is None:
        flags.setdefault("epochs", 1.0)  # a rate is the same for any length
    job = TrainJob(
        flags=flags,
        config=config,
        recipe=recipe,
        resume=resume,
        pretrained_dir=pretrained_dir,
        board=tensorboard,
    )
    with Console(output) as console:
        session = Session(
            data=data,
            output=out or Path(),
            command=command,
            strict=strict,
            progress=console.progress,
            say=console.say,
            warn=console.warn,
        )
        if find_lr:
            from netsmith.fit.rate import find_rate

            found = find_rate(job, session, folder=out)
            console.result(found.document(), str(found))
            return
        if (result := train_run(job, session)) is not None:  # else another process has it
            console.result(result.model_dump(mode="json"), outcome(result, session.output))


def _typed(flag: str, value: Any) -> list[str]:
    """A flag as a person types it."""
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, *(str(part) for part in (value if isinstance(value, tuple) else (value,)))]
