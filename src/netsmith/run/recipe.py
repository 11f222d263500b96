"""Every number that decides what training does, as one frozen record; `recipe.yaml` of a run is this record.

Defaults suit training from scratch on a few thousand photos: SGD with Nesterov momentum, cosine after a short warm-up,
label smoothing, flips and random resized crops. Schedules are functions of progress (0 at the start, 1 at the end), so
the same recipe serves any length. What the machine decides within it ("auto") is written to the plan, never back into
the recipe.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo
from yaml.composer import ComposerError

from netsmith.errors import InputError, first_line, near
from netsmith.run.files import write_text
from netsmith.run.machine import MOST_THREADS
from netsmith.run.preprocess import LARGEST_SIZE

Share = Annotated[float, Field(ge=0.0, le=1.0)]
ClassBalance = Literal["none", "sampling", "loss"]


class Recipe(BaseModel):
    """A training run, before any machine is known.

    Attributes:
        model: name of the network, as `netsmith models` lists it.
        pretrained: tag of the published weights to start from, or None for fresh ones.
        parent: hex SHA-256 of the artifact (a model folder) whose weights it starts from, or None.
        img_size: R, side of the input, pixels.
        train_size: side of the pictures trained on, pixels, or None for `img_size`. Random crops show objects larger
            than evaluation does, so a smaller side matches it better, and is faster (Touvron et al. 2019, FixRes).
        progressive: smallest side trained on as a share of the full one, and share of progress by which the full side
            is reached; sides in between follow the network's stride and take equal shares. None trains at one side.
        epochs: passes over the training split, or None when `time_s` decides.
        time_s: seconds of training, or None when `epochs` decides; exactly one of the two is given.
        batch_size: images per optimizer step.
        opt: optimizer.
        lr: peak learning rate for this batch size.
        momentum: of SGD, RMSProp and Muon; beta1 of AdamW and LAMB.
        nesterov: Nesterov's form of momentum, SGD and Muon only.
        weight_decay: L2 penalty (SGD, RMSProp) or decoupled decay (AdamW, LAMB, Muon) on what `weight_decay_on` says.
        sched: shape of the learning rate after warm-up.
        warmup: share of progress in which the rate rises linearly from 0 (for "onecycle" the rising part of the cycle).
        step_milestones: shares of progress at which "step" multiplies the rate by `step_gamma`, ascending.
        step_gamma: factor per milestone.
        final_lr_ratio: last rate of "cosine" and "onecycle" as a share of `lr`.
        smoothing: label smoothing, probability spread over all classes.
        flip: mirror half of the images left to right, drawn anew in every epoch; "alternating": a drawn half in one
            epoch and the others in the next, so that two epochs show both sides of all (Jordan 2024, arXiv 2404.00498,
            section 3.6), for short trainings.
        pad: pixels of border added before a random crop back to R; 0 is off.
        shift: largest random translation as a share of R; 0 is off.
        crop_scale: smallest and largest share of the area that a random resized crop keeps, or None for no such crop.
        crop_ratio: smallest and largest width / height of that crop.
        rotate: largest random rotation, degrees; 0 is off.
        auto_augment: "randaugment" (Cubuk et al. 2020) or "trivialaugment" (Müller and Hutter 2021, wide): randomly
            chosen operations on colour and geometry, with torchvision's tables; or "none".
        ra_ops: operations per picture of "randaugment".
        ra_magnitude: strength of each of them, 0 to 30.
        ra_std: standard deviation of that strength, drawn anew for every operation.
        ra_prob: probability of each operation; one that is left out changes nothing.
        color_jitter: largest change of brightness, contrast and saturation as a share, and of hue as a share of the
            colour circle; zeros are off.
        random_erase: probability that a box of the picture is erased (Zhong et al. 2020).
        mixup: alpha of the blends of two pictures and of their labels (Zhang et al. 2018); 0 is off.
        cutmix: alpha of pictures with a box of another, and labels alike (Yun et al. 2019); 0 is off. With `mixup`
            too, each batch gets one of the two.
        ema: decay per step of the averaged weights that are evaluated, or None for the weights themselves.
        grad_clip: largest norm of the gradient, or None.
        drop_rate: dropout before the classifier, where the network has none of its own.
        drop_path: probability of skipping the last residual block; earlier blocks skip less, linearly.
        class_balance: "sampling" shows every class equally often, "loss" weighs each picture's loss by the inverse of
            its class's share instead (Cui et al. 2019, section 4.1); "none" takes the pictures as they are.
        grad_accum: parts that a batch is computed in, one after another; more where memory is too small for them.
        on_nan: what becomes of a run whose loss is not finite: it stops, or goes back to its newest checkpoint with
            half the rate, at most three times.
        weight_decay_on: "weights" of convolutions and linear layers (He et al. 2019, section 3.1), their biases too
            ("weights+biases"), or "all", norms too, as papers before 2018 had it.
        step_every: share of progress between milestones of "step" that lie evenly, in place of `step_milestones`.
        layer_decay: factor of the rate per depth group, from the classifier down: the classifier has the whole rate,
            the last stage this times it, the one before this squared, at last the stem (Howard and Ruder 2018, section
            3.2; groups are the layout's stages). 1 is off.
        head_first: share of progress in which only the classifier is trained, the rest being as in evaluation; 1 trains
            nothing else.
        bce_loss: binary cross-entropy of every class by itself, mean over classes, in place of softmax (Wightman et al.
            2021, section 3); what ships still says softmax probabilities.
        bce_target_thresh: shares of classes above it count as 1 for `bce_loss`, all others as 0; None takes shares as
            they are.
        teachers: hex SHA-256 of the artifacts, or published weights, that it learns from; none without distillation.
        distill_loss: what is asked of its answers beside theirs: "kd" (Hinton et al. 2015), "dkd" (Zhao et al. 2022) or
            "dist" (Huang et al. 2022), see `netsmith.train.distill_losses`.
        temperature: that logits of both are divided by.
        alpha: weight of the teachers' term; of its first part where it has two.
        beta: of its second: the other classes among themselves ("dkd"), correlations over pictures ("dist").
        label_weight: weight of the labels' loss beside it.
        hints: stages whose maps are compared too, "STAGE" or "STUDENT'S:TEACHER'S" (Romero et al. 2015).
        hint_weight: weight of their mean distance.
        seed: of initialisation, order and augmentation.
        device: "auto" takes CUDA where there is a device, else Apple's GPU ("mps"), else the CPU; a TPU is "xla", taken
            only where it is named.
        dtype: of activations; "auto" is measured on the machine; "float16" needs CUDA.
        channels_last: memory layout; "auto" is measured on the machine.
        compile: torch.compile; "auto" compiles on CUDA where the run is long enough to gain by it, and never on a CPU,
            where it is slower.
        sync_bn: with several processes, statistics of batch norm over the pictures of all of them; "auto" does so where
            a process has fewer than 16 at once.
        sharded: with several processes, weights, gradients, the optimizer's memory and averaged weights are divided
            over them, for networks that do not fit into one device's memory.
        threads: CPU threads of the computation, or None for the usable cores.
        workers: threads that prepare batches ahead, >= 0, or None for one, and for a thread per usable core (16 at
            most; one less on a CPU) where there is no room for decoded pictures. Batches do not depend on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    model: str = Field(min_length=1)
    pretrained: str | None = Field(default=None, min_length=1)
    parent: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="a SHA-256 in hex")
    img_size: int = Field(ge=8, le=LARGEST_SIZE)
    train_size: int | None = Field(default=None, ge=8, le=LARGEST_SIZE)
    progressive: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], Annotated[float, Field(gt=0.0, lt=1.0)]] | None = None
    epochs: float | None = Field(default=None, gt=0.0)
    time_s: float | None = Field(default=None, gt=0.0)
    batch_size: int = Field(default=64, ge=1)

    opt: Literal["sgd", "adamw", "rmsprop", "muon", "lamb"] = "sgd"
    lr: float = Field(default=0.05, gt=0.0)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    nesterov: bool = True
    weight_decay: float = Field(default=5e-4, ge=0.0)
    sched: Literal["constant", "step", "cosine", "onecycle"] = "cosine"
    warmup: float = Field(default=0.05, ge=0.0, lt=1.0)
    step_milestones: tuple[Share, ...] = (0.5, 0.75)
    step_gamma: float = Field(default=0.1, gt=0.0, le=1.0)
    final_lr_ratio: Share = 0.0
    smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    ema: float | None = Field(default=None, gt=0.0, lt=1.0)
    grad_clip: float | None = Field(default=None, gt=0.0)
    drop_rate: float = Field(default=0.0, ge=0.0, lt=1.0)
    drop_path: float = Field(default=0.0, ge=0.0, lt=1.0)
    class_balance: ClassBalance = "none"
    grad_accum: int = Field(default=1, ge=1)
    on_nan: Literal["stop", "rewind"] = "stop"
    weight_decay_on: Literal["weights", "weights+biases", "all"] = "weights"
    step_every: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    head_first: Share = 0.0
    bce_loss: bool = False
    bce_target_thresh: Share | None = None

    teachers: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    distill_loss: Literal["kd", "dkd", "dist"] = "kd"
    temperature: float = Field(default=4.0, gt=0.0, le=1000.0)
    alpha: float = Field(default=0.9, ge=0.0)
    beta: float = Field(default=1.0, ge=0.0)
    label_weight: float = Field(default=0.1, ge=0.0)
    hints: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    hint_weight: float = Field(default=1.0, ge=0.0)

    flip: bool | Literal["alternating"] = True
    pad: int = Field(default=0, ge=0)
    shift: Share = 0.0
    crop_scale: tuple[Share, Share] | None = (0.35, 1.0)
    crop_ratio: tuple[Annotated[float, Field(gt=0.0)], Annotated[float, Field(gt=0.0)]] = (0.75, 4 / 3)
    rotate: float = Field(default=0.0, ge=0.0, le=180.0)
    auto_augment: Literal["none", "randaugment", "trivialaugment"] = "none"
    ra_ops: int = Field(default=2, ge=1, le=16)
    ra_magnitude: int = Field(default=9, ge=0, le=30)
    color_jitter: tuple[Share, Share, Share, Annotated[float, Field(ge=0.0, le=0.5)]] = (0.0, 0.0, 0.0, 0.0)
    random_erase: Share = 0.0
    mixup: float = Field(default=0.0, ge=0.0, le=100.0)
    cutmix: float = Field(default=0.0, ge=0.0, le=100.0)
    ra_std: float = Field(default=0.0, ge=0.0, le=30.0)
    ra_prob: Share = 1.0

    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|mps|(cuda|xla)(:\d{1,2})?)$",
        description="auto, cpu, cuda, cuda:N, mps, xla or xla:N",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    channels_last: Literal["auto"] | bool = "auto"
    compile: Literal["auto"] | bool = "auto"
    sync_bn: Literal["auto"] | bool = "auto"
    sharded: bool = False
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    workers: int | None = Field(default=None, ge=0, le=MOST_THREADS)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.epochs is None) == (self.time_s is None):
            raise ValueError("give exactly one of epochs and time_s")
        if list(self.step_milestones) != sorted(set(self.step_milestones)):
            raise ValueError("step_milestones must ascend")
        if self.crop_scale is not None and not 0.0 < self.crop_scale[0] <= self.crop_scale[1]:
            raise ValueError("crop_scale must be (smallest, largest) with 0 < smallest <= largest <= 1")
        if self.crop_ratio[0] > self.crop_ratio[1]:
            raise ValueError("crop_ratio must be (smallest, largest)")
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a recipe from YAML.

        Args:
            path: a mapping of the fields above; fields left out take their defaults.

        Raises:
            InputError: no such file, not YAML, unknown keys (with near names), values out of range.
        """
        return cls.from_mapping(read_fields(path), where=str(path))

    @classmethod
    def from_mapping(cls, values: dict[str, Any], *, where: str) -> Self:
        """Check values from outside (a file, flags); `where` names their origin in messages.

        Raises:
            InputError: names the first key that is wrong and the mend.
        """
        cls._refuse_unknown(values, where=where)
        try:
            return cls.model_validate({key: _tuple(value) for key, value in values.items()})
        except ValidationError as error:
            key = ".".join(str(part) for part in error.errors()[0]["loc"][:1])
            problem = _problem(error, cls.model_fields.get(key))
            given = f"{key} is {values[key]!r}; " if key in values else f"{key}: " if key else ""
            raise InputError(f"{where}: {given}{problem}") from error

    @classmethod
    def check_fields(cls, values: Mapping[str, Any], *, where: str) -> None:
        """Check values of a recipe that is not complete, each by itself; arguments as of `from_mapping`.

        Raises:
            InputError: names the first key that is wrong and the mend.
        """
        cls._refuse_unknown(values, where=where)
        for key, value in values.items():
            if (error := cls._wrong(key, _tuple(value))) is not None:
                raise InputError(f"{where}: {key} is {value!r}; {_problem(error, cls.model_fields[key])}") from error

    @classmethod
    def _refuse_unknown(cls, keys: Iterable[str], *, where: str) -> None:
        for key in keys:
            if key not in cls.model_fields:
                raise InputError(f"{where} has the unknown key {key!r}; {near(key, cls.model_fields)}")

    @classmethod
    def _wrong(cls, field: str, value: Any) -> ValidationError | None:
        try:
            TypeAdapter(cls.model_fields[field].rebuild_annotation(), config=_STRICT).validate_python(value)
        except ValidationError as error:
            return error
        return None

    @classmethod
    def check_flag(cls, flag: str, field: str, value: Any) -> None:
        """Check one value by itself, before anything is read.

        Args:
            flag: as it was typed, for the message.
            field: the key of the recipe that it sets.
            value: of it.

        Raises:
            InputError: the flag, the value and the allowed range.
        """
        if (error := cls._wrong(field, value)) is not None:
            parts: tuple[object, ...] = value if isinstance(value, tuple) else (value,)
            shown = " ".join(f"{part:g}" if isinstance(part, float) else f"{part}" for part in parts)
            raise InputError(f"{flag} is {shown}; {_problem(error, cls.model_fields[field])}") from error

    @property
    def from_scratch(self) -> bool:
        """Whether it starts from fresh weights."""
        return self.pretrained is None and self.parent is None

    def save(self, path: Path) -> None:
        """Write all fields as YAML that `load` reads back to an equal recipe."""
        write_text(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_BOUNDS = {"ge": "at least {:g}", "gt": "above {:g}", "le": "at most {:g}", "lt": "below {:g}"}
_OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}


def _tuple(value: Any) -> Any:
    """Lists as tuples: YAML has none, and strict validation takes no lists for them."""
    return tuple(value) if isinstance(value, list) else value


def _problem(error: ValidationError, field: FieldInfo | None) -> str:
    """What is wrong with a value, and where that is known, which are allowed."""
    first = error.errors(include_url=False)[0]
    if field is not None and first["type"] == "string_pattern_mismatch":
        return f"it must be {field.description}"
    if field is None or first["type"] not in _OUT_OF_RANGE:
        return first["msg"].removeprefix("Value error, ")
    limits = {name: getattr(part, name) for part in field.metadata for name in _BOUNDS if hasattr(part, name)}
    which = "it" if limits else "each"  # of several values: the bound that one of them breaks
    limits = limits or first.get("ctx", {})
    allowed = [form.format(limits[name]) for name, form in _BOUNDS.items() if name in limits]
    return f"{which} must be {' and '.join(allowed + ['finite'] * (first['type'] == 'finite_number'))}"


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads 1e-4 as a number, as YAML 1.2 does.

    Aliases are refused: a recipe has nothing to repeat, and a few lines of them stand for values without end.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node of the document."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise ComposerError(None, None, "aliases (*name) are not read, write the value out", mark)
        return super().compose_node(parent, index)


def _construct_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = next((key for position, key in enumerate(keys) if key in keys[:position]), None)
    if twice is not None:
        raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} is given twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


def _construct_float(loader: _UniqueKeyLoader, node: yaml.ScalarNode) -> float:
    return float(node.value)


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
_UniqueKeyLoader.add_implicit_resolver("!exponent", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))
_UniqueKeyLoader.add_constructor("!exponent", _construct_float)


def read_fields(path: Path) -> dict[str, Any]:
    """The keys and values of a recipe file that need not be complete; values are not checked.

    Raises:
        InputError: no such file, not YAML, or not `key: value` lines.
    """
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except FileNotFoundError as error:
        raise InputError(f"there is no recipe {path}; give the path of a YAML file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give the path of a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where} is not YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply; it must hold `key: value` lines") from error
    except (ValueError, KeyError, AttributeError) as error:  # a date such as 2024-13-01, or !!bool maybe
        raise InputError(f"{path} holds a value that is not what it says ({first_line(error)}); mend it") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{path} must hold `key: value` lines, such as `model: resnet18`")
    return value
