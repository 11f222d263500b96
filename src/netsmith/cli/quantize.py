"""`netsmith quantize`: the same network in int8 or bfloat16, kept only where it is faster and answers well."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.cli.recipe_flags import NONE, ConfigFile, RecipeFlags
from netsmith.cli.tables import outcome

EXAMPLES = """\
Examples:

  netsmith quantize runs/r18 -o runs/r18-int8
                            on the pictures of the run, at most 0.5 points lost
  netsmith quantize model --data photos/ --max-drop 1 -o runs/int8
                            a model folder, with pictures of its classes
  netsmith quantize runs/r18 --time 5m -o runs/r18-int8
                            where nothing else will do, train on with rounding
  netsmith quantize runs/r18 --precision int8 -o runs/r18-int8
                            int8 or nothing
  netsmith quantize runs/r18 --precision bfloat16 -o runs/r18-bf16
                            half the file, and half the bits to compute with
                            where OpenVINO is there and faster by them
  netsmith quantize runs/r18 --precision float16 -o runs/r18-half
                            half the file, the speed and answers of before
  netsmith verify runs/r18-int8
                            hold every number to its word
"""
FIXED = ("img_size", "train_size", "progressive", "drop", "drop_path", "amp", "amp_dtype", "sharded")
"""Flags of a recipe that training with rounding leaves no choice of."""


def quantize(
    source: Path,
    /,
    *,
    data: str | None = None,
    out: Annotated[Path, Parameter(name=["--output", "-o"])],
    max_drop: float = 0.5,
    precision: Literal["int8", "float16", "bfloat16"] | None = None,
    calibration: Literal["minmax", "entropy", "percentile"] | None = None,
    calibration_size: int | None = None,
    time: str | None = None,
    epochs: float | None = None,
    config: ConfigFile = None,
    resume: Annotated[bool, Parameter(show_default=False)] = False,
    strict: Annotated[bool, Parameter(show_default=False)] = False,
    flags: RecipeFlags = NONE,
    output: Output = PLAIN,
) -> None:
    """Round a trained network to int8, and keep it only where that pays.

    A ladder: a scale per channel with ranges by minmax, entropy, percentile;
    a scale per layer; the most sensitive layers in float; channels equalized
    and biases corrected; and where --time or --epochs allows it, the network
    trained on with rounding simulated, which needs netsmith[train]. Each rung
    is written, opened again, answers the validation pictures and is timed in
    turns with the float model, in ONNX Runtime and, with netsmith[openvino],
    in OpenVINO. The first that loses at most --max-drop points and is faster
    is shipped, and prefers the runtime in which it is. Where none is,
    bfloat16 is held to the same on processors that compute with it; and where
    that will not do either, exit 1 with the numbers, and the float model
    stays the better one.

    Args:
        source: Folder of a run or of an artifact in float32; only read.
        data: Labelled pictures as for netsmith train; those of the run if not given.
        out: Folder of the new run.
        max_drop: Points of top-1 (of tags mAP) that may be lost on validation.
        precision: Of the result, and no other. float16 and bfloat16 halve the file and need not be faster. Arithmetic
            stays float32, except that bfloat16 is computed as it is in OpenVINO where that is faster. int8, else
            bfloat16, if not given.
        calibration: The only way of choosing ranges of activations; all in turn if not given.
        calibration_size: Training pictures to choose them from; 256 if not given.
        time: Time that training with rounding may take, such as 5m, where all else fails. Its recipe is that of the
            source's run, at a tenth of its rate, under the flags of a recipe.
        epochs: Passes over the training pictures, in place of --time.
        config: Recipe file in the place of the recipe of the source's run, at a tenth of its rate too; flags stand
            above it. Its network, sides, length, seed, schedule, averaging, clipping, drops and number format do not
            hold.
        resume: Go on with an interrupted run in the folder.
        strict: Refuse data of which a picture would be left out.
    """
    from netsmith.errors import InputError
    from netsmith.fit.quantizing import QuantizeJob, quantize_run

    if not 0 <= max_drop <= 100:
        raise InputError(f"--max-drop is {max_drop:g}; give points of accuracy from 0 to 100, such as 0.5")
    rounds = precision in (None, "int8")
    if not rounds and (calibration is not None or calibration_size is not None):
        raise InputError(f"--calibration and --calibration-size go with int8; {precision} rounds weights alone")
    if time is not None and epochs is not None:
        raise InputError("--time and --epochs do not go together; leave one out")
    training = flags.values(time=time, epochs=epochs)
    seed = training.pop("seed", 0)
    if not rounds and (training or config is not None):
        raise InputError(f"only int8 may train, and {precision} rounds weights alone; leave what is for training out")
    if (training or config is not None) and time is None and epochs is None:
        raise InputError("how long training with rounding may take is not said; give --time or --epochs with it")
    for flag in FIXED:
        if getattr(flags, flag) is not None:
            raise InputError(
                f"--{flag.replace('_', '-')} cannot change here: training with rounding keeps the size that ranges "
                "were observed at, drops nothing and computes in float32; leave it out"
            )
    own = {
        "data": data, "max_drop": max_drop, "precision": precision, "calibration": calibration,
        "calibration_size": calibration_size, "time": time, "epochs": epochs,
    }  # fmt: skip
    command = ["quantize", str(source), "-o", str(out), *(["-c", str(config)] if config else []), *flags.typed(**own)]
    command += [*(["--resume"] if resume else []), *(["--strict"] if strict else [])]
    job = QuantizeJob(
        source=source,
        precision=precision,
        max_drop=max_drop,
        calibration=calibration,
        pictures=256 if calibration_size is None else calibration_size,
        seed=seed,
        training=training,
        config=config,
        resume=resume,
    )
    with Console(output) as console:
        session = console.session(data or "", output=out, command=command, strict=strict)
        result = quantize_run(job, session)
        console.result(result.model_dump(mode="json"), outcome(result, out))
