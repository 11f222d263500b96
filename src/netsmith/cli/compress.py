"""`netsmith compress`: from a trained model to the best artifact that fits a budget."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.cli.recipe_flags import NONE, ConfigFile, RecipeFlags
from netsmith.cli.tables import outcome
from netsmith.errors import InputError

EXAMPLES = """\
Examples:

  netsmith compress runs/r18 --budget latency=3ms --time 30m -o runs/quick
                            half an hour of training, shared by what is tried
  netsmith compress runs/r18 --budget latency=3ms,size=2MB -o runs/fits
                            trained for as long as runs/r18 was
  netsmith compress runs/r18 --budget size=12MB --time 0 -o runs/small
                            what fits without any training
  netsmith compress model --data photos/ --budget macs=300M --max-drop 2 --time 1h -o runs/lean
                            refused where it costs more than two points
"""


def compress(
    source: Path,
    /,
    *,
    budget: str | None = None,
    data: str = "",
    time: str | None = None,
    max_drop: float | None = None,
    unlabelled: Path | None = None,
    config: ConfigFile = None,
    out: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    resume: Annotated[bool, Parameter(show_default=False)] = False,
    strict: Annotated[bool, Parameter(show_default=False)] = False,
    flags: RecipeFlags = NONE,
    output: Output = PLAIN,
) -> None:
    """Make the best of a trained model that fits a budget.

    First what needs no training: the model as it is, in int8, with half the
    bytes, and, where latency is limited, in bfloat16 (in OpenVINO). int8 is
    judged in ONNX Runtime and, with netsmith[openvino], in OpenVINO.
    Where none of that fits and is as good, it is pruned, taught to
    smaller networks of its family, and quantized, in the orders that make
    sense: each aims at what was measured here to fit, and they share --time.
    The best that fits on validation pictures is shipped; of those that are as
    good within chance the smallest and fastest.

    The ledger has every stage with the numbers of both sides, kept and
    refused, and why an order was not tried. The test pictures are read once,
    by the winner. Where nothing fits, exit 1 with what came nearest.

    Args:
        source: Folder of a run or of an artifact in float32; only read.
        budget: Limits, such as latency=5ms,size=4MB,macs=300M,params=2M; latency is measured on this machine.
        data: Labelled pictures as for netsmith train; those of the run if not given.
        time: Of all training together, such as 90s, 30m or 2h; 0 for none. As long as SOURCE was trained if not given,
            ten minutes where its run does not tell.
        max_drop: Points of validation accuracy (of tags mAP) that the result may lose; if not given, no limit but five
            points for rounding.
        unlabelled: Folder of more pictures, without labels, for all that is taught by the model.
        config: Recipe file under the flags, for all that is trained; networks, sides, drops, lengths and how is taught
            are not its to say here. Its rate holds after a cut too, for which that of a first training is high.
        out: Folder of the new run.
        resume: Go on with the interrupted run in the folder.
        strict: Refuse data of which a picture would be left out.
    """
    if out is None:
        raise InputError("where the run goes is not said; name its folder with -o")
    if budget is None:
        raise InputError("what the result must fit is not said; give --budget such as latency=5ms,size=4MB")
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise InputError(f"--max-drop is {max_drop:g}; give points of accuracy, 0 to 100")
    for flag, value in (("--img-size", flags.img_size), ("--drop", flags.drop), ("--drop-path", flags.drop_path)):
        if value is not None:
            raise InputError(
                f"{flag} cannot change here: every network is made for the pictures as they are; leave it out"
            )

    from netsmith.fit.compressing import compress_run
    from netsmith.fit.doing import CompressJob
    from netsmith.run.budget import Budget, parse_duration

    seconds = None if time is None else 0.0 if time in ("0", "0s") else parse_duration(time, what="--time")
    job = CompressJob(
        source=source,
        budget=Budget.parse(budget),
        time_s=seconds,
        max_drop=max_drop,
        flags=flags.values(),
        config=config,
        unlabelled=unlabelled,
        resume=resume,
    )
    command = ["compress", str(source), "--budget", budget, *(["--data", data] if data else []), "-o", str(out)]
    command += ["--unlabelled", str(unlabelled)] if unlabelled else []
    command += ["-c", str(config)] if config else []
    command += [*(["--time", time] if time else []), *(["--strict"] if strict else [])]
    command += flags.typed(max_drop=max_drop)
    with Console(output) as console:
        session = console.session(
            data, output=out, command=[*command, *(["--resume"] if resume else [])], strict=strict
        )
        result = compress_run(job, session)
        console.result(result.model_dump(mode="json"), outcome(result, out))
