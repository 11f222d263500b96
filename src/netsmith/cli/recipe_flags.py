"""The flags of a recipe, alike for every verb that trains: what they are called, and the fields that they set.

Names are those of timm and torchvision where these have them; a field that is called otherwise stands in `FIELDS`.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from netsmith.errors import InputError

ConfigFile = Annotated[Path | None, Parameter(name=["--config", "-c"])]
"""A recipe file under the flags, a parameter of its own: what it says is checked with its name."""
_GROUP = "Recipe"
Number = Annotated[float | None, Parameter(group=_GROUP)]
Count = Annotated[int | None, Parameter(group=_GROUP)]
Pair = Annotated[tuple[float, float] | None, Parameter(group=_GROUP)]

FIELDS = {
    "time": "time_s",
    "decay_milestones": "step_milestones",
    "decay_every": "step_every",
    "decay_rate": "step_gamma",
    "clip_grad": "grad_clip",
    "drop": "drop_rate",
    "random_crop": "crop_scale",
    "scale": "crop_scale",
    "ratio": "crop_ratio",
    "amp": "dtype",
    "amp_dtype": "dtype",
    "loss": "distill_loss",
}
"""Flags whose field of the recipe is called otherwise."""
MAY_BE_OFF = ("ema", "grad_clip", "crop_scale", "step_every", "bce_target_thresh")
"""Fields whose "off" is None; a flag says 0."""
USUAL_CROP = (0.35, 1.0)
"""What --random-crop alone means."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RecipeFlags:
    """Flags of the recipe; None where not given.

    Attributes:
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
        flip: Mirror half of the pictures. A recipe file may say alternating: each in every second epoch.
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
        compile: torch.compile; where not given, on CUDA in runs of twenty minutes and more. On a CPU it is slower.
        threads: CPU threads.
        workers: Threads that prepare batches; if not given one, or where decoded pictures have no room one per core.
        sync_bn: With torchrun: batch norm over the pictures of all processes; if not given, where each has few.
        sharded: With torchrun: divide weights and optimizer over the processes, for networks too large for one device.
    """

    img_size: Count = None
    train_size: Count = None
    progressive: Pair = None
    batch_size: Annotated[int | None, Parameter(name=["--batch-size", "-b"], group=_GROUP)] = None
    opt: Annotated[Literal["sgd", "adamw", "rmsprop", "muon", "lamb"] | None, Parameter(group=_GROUP)] = None
    lr: Number = None
    momentum: Number = None
    nesterov: Annotated[bool | None, Parameter(negative="--no-nesterov", group=_GROUP)] = None
    weight_decay: Number = None
    weight_decay_on: Annotated[Literal["weights", "weights+biases", "all"] | None, Parameter(group=_GROUP)] = None
    layer_decay: Number = None
    head_first: Number = None
    sched: Annotated[Literal["constant", "step", "cosine", "onecycle"] | None, Parameter(group=_GROUP)] = None
    warmup: Number = None
    decay_milestones: Annotated[tuple[float, ...] | None, Parameter(group=_GROUP, consume_multiple=True)] = None
    decay_every: Number = None
    decay_rate: Number = None
    final_lr_ratio: Number = None
    smoothing: Number = None
    bce_loss: Annotated[bool | None, Parameter(negative="--no-bce-loss", group=_GROUP)] = None
    bce_target_thresh: Number = None
    ema: Number = None
    clip_grad: Number = None
    drop: Number = None
    drop_path: Number = None
    class_balance: Annotated[Literal["none", "sampling", "loss"] | None, Parameter(group=_GROUP)] = None
    grad_accum: Count = None
    on_nan: Annotated[Literal["stop", "rewind"] | None, Parameter(group=_GROUP)] = None
    flip: Annotated[bool | None, Parameter(negative="--no-flip", group=_GROUP)] = None
    pad: Count = None
    shift: Number = None
    random_crop: Annotated[bool | None, Parameter(negative="--no-random-crop", group=_GROUP)] = None
    scale: Pair = None
    ratio: Pair = None
    rotate: Number = None
    auto_augment: Annotated[Literal["none", "randaugment", "trivialaugment"] | None, Parameter(group=_GROUP)] = None
    ra_ops: Count = None
    ra_magnitude: Count = None
    ra_std: Number = None
    ra_prob: Number = None
    color_jitter: Annotated[tuple[float, float, float, float] | None, Parameter(group=_GROUP)] = None
    random_erase: Number = None
    mixup: Number = None
    cutmix: Number = None
    seed: Count = None
    device: Annotated[str | None, Parameter(group=_GROUP)] = None
    amp: Annotated[bool | None, Parameter(negative="--no-amp", group=_GROUP)] = None
    amp_dtype: Annotated[Literal["bfloat16", "float16"] | None, Parameter(group=_GROUP)] = None
    channels_last: Annotated[bool | None, Parameter(negative="--no-channels-last", group=_GROUP)] = None
    compile: Annotated[bool | None, Parameter(negative="--no-compile", group=_GROUP)] = None
    threads: Count = None
    workers: Annotated[int | None, Parameter(name=["--workers", "-j"], group=_GROUP)] = None
    sync_bn: Annotated[bool | None, Parameter(negative="--no-sync-bn", group=_GROUP)] = None
    sharded: Annotated[bool | None, Parameter(negative="--no-sharded", group=_GROUP)] = None

    def values(self, **others: Any) -> dict[str, Any]:
        """Fields of the recipe that were given, each checked by itself.

        Args:
            others: flags that the verb itself has, such as model or time; None where not given.

        Raises:
            InputError: a value is out of range, or two flags contradict each other; names the flags.
        """
        from netsmith.run.budget import parse_duration
        from netsmith.run.recipe import Recipe

        if self.random_crop is False and self.scale is not None:
            raise InputError("--no-random-crop and --scale do not go together; leave one out")
        if self.amp is False and self.amp_dtype is not None:
            raise InputError("--no-amp and --amp-dtype do not go together; leave one out")
        found: dict[str, Any] = {}
        for name, value in (self._given() | _present(others)).items():
            field = FIELDS.get(name, name)
            match name:
                case "time":
                    value = parse_duration(value)
                case "amp" if self.amp_dtype is not None:
                    continue  # which follows says more
                case "amp":
                    value = "bfloat16" if value else "float32"
                case "random_crop" if value:
                    value = self.scale or USUAL_CROP
                case _:
                    pass
            found[field] = None if field in MAY_BE_OFF and not value else value
            if found[field] is not None and found[field] is not True:  # --pretrained alone names no tag yet
                Recipe.check_flag(_flag(name), field, found[field])
        return found

    def typed(self, **others: Any) -> list[str]:
        """What was given, as a person types it; arguments as of `values`."""
        return [word for name, value in (_present(others) | self._given()).items() for word in _words(name, value)]

    def _given(self) -> dict[str, Any]:
        return _present({field.name: getattr(self, field.name) for field in fields(self)})


NONE = RecipeFlags()
"""The default of every verb's `flags` argument."""


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _words(name: str, value: Any) -> list[str]:
    flag = _flag(name)
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, *(str(part) for part in (value if isinstance(value, tuple) else (value,)))]
