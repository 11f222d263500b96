"""`netsmith fit`: from a folder of pictures and a budget to a verified model."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.cli.tables import outcome

EXAMPLES = """\
Examples:

  netsmith fit photos/ --budget latency=5ms,size=4MB --time 30m -o runs/photos
  netsmith fit digits --time 1m -o runs/digits     scikit-learn's digits, no limits
  netsmith verify runs/photos                      measure all of it again
  netsmith predict runs/photos new.jpg             use it
  netsmith fit photos/ --replay runs/photos -o runs/again
                                                   the same weights, by the same plan
"""


def fit(
    data: str,
    /,
    *,
    budget: str | None = None,
    time: str | None = None,
    output_folder: Annotated[Path, Parameter(name=["--output", "-o"])],
    resume: Annotated[bool, Parameter(show_default=False)] = False,
    replay: Path | None = None,
    seed: int | None = None,
    class_balance: Literal["none", "sampling", "loss"] | None = None,
    strict: Annotated[bool, Parameter(show_default=False)] = False,
    output: Output = PLAIN,
) -> None:
    """Find and train the most accurate classifier that fits a budget.

    Scaled networks of every family are timed untrained on this machine, those
    that fit race, the best trains for the rest of the time, and a fresh
    process measures the finished model again. Typed again on the folder of an
    interrupted fit, the same command goes on with it.

    Args:
        data: Folder, zip, tar, tar shards ('x-{000..127}.tar', '*.tar'), CSV (image_path,label[,split];
            for any number of labels per picture image_path,labels[,split]), .npz (images,labels[,split]) or the name
            digits.
        budget: Limits such as latency=5ms,size=4MB,macs=300M,params=2M; none when left out.
        time: Wall time of everything, such as 90s, 10m or 1h30m; 10m when left out.
        output_folder: Folder of the run.
        resume: Go on with the interrupted fit in the folder (also without this flag).
        replay: Folder of a finished fit of the same data: obey its plan, with its budget, time and seed.
        seed: Of the splits, the initial weights and the order; 0 when left out.
        class_balance: For classes of very unequal size: sampling shows each equally often, loss weighs rare ones up.
            The race still goes by accuracy on validation, as unequal as it is.
        strict: Refuse data of which a picture would be left out.
    """
    from netsmith.fit.pipeline import Job
    from netsmith.fit.pipeline import fit as fit_job
    from netsmith.fit.replay import Replay
    from netsmith.run.budget import Budget, parse_duration
    from netsmith.run.recipe import Recipe

    if seed is not None:
        Recipe.check_flag("--seed", "seed", seed)
    limits = Budget.parse(budget) if budget else None
    if replay is not None:
        record = Replay.of(replay)
        record.refuse_other(
            budget=limits,
            time_s=parse_duration(time) if time is not None else None,
            seed=seed,
            class_balance=class_balance,
        )
        job = Job(
            budget=record.budget,
            time_s=record.time_s,
            seed=record.seed,
            class_balance=record.class_balance,
            replay=record,
        )
    else:
        job = Job(
            budget=limits or Budget(),
            time_s=parse_duration(time or "10m"),
            seed=seed or 0,
            class_balance=class_balance or "none",
        )
    command = ["fit", data, *(["--budget", budget or str(job.budget)] if job.budget.limits() else [])]
    command += ["--time", time or f"{job.time_s:g}s", "-o", str(output_folder)]
    command += ["--seed", str(job.seed)] if job.seed else []
    command += ["--class-balance", job.class_balance] if job.class_balance != "none" else []
    command += ["--strict"] if strict else []
    command += ["--replay", str(replay)] if replay is not None else []
    with Console(output) as console:
        session = console.session(data, output=output_folder, command=command, strict=strict)
        result = fit_job(job, session)
        console.result(result.model_dump(mode="json"), outcome(result, output_folder))
