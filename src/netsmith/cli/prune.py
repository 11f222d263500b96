"""`netsmith prune`: a trained network with fewer channels, trained on, judged beside the one it came from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.cli.recipe_flags import NONE, ConfigFile, RecipeFlags
from netsmith.cli.tables import outcome
from netsmith.compress.prune.kinds import Kind
from netsmith.errors import InputError

if TYPE_CHECKING:
    from netsmith.arch.scale_to import Target
    from netsmith.fit.cutting import Milliseconds, Wish

EXAMPLES = """\
Examples:

  netsmith prune runs/r18 --macs 0.5 --time 10m -o runs/half
                            half the work, trained on for ten minutes
  netsmith prune runs/r18 --latency 0.6 --importance taylor --epochs 5 -o runs/quick
                            until it takes 0.6 of the time on this machine
  netsmith prune runs/r18 --macs 300M --steps 3 --time 30m --no-baseline -o runs/slowly
                            little by little, and no other network is trained
  netsmith prune model --data photos/ --params 0.3 --round-to 16 --epochs 10 -o runs/small
  netsmith prune runs/r18 --unstructured 0.9 --epochs 5 -o runs/sparse
                            single weights, for study: nothing gets faster
"""


def prune(
    source: Path,
    /,
    *,
    data: str = "",
    macs: str | None = None,
    params: str | None = None,
    latency: str | None = None,
    unstructured: float | None = None,
    importance: Kind | None = None,
    per_layer: Annotated[bool, Parameter(show_default=False)] = False,
    round_to: int | None = None,
    min_width: int | None = None,
    steps: int = 1,
    baseline: Annotated[bool | None, Parameter(negative="--no-baseline")] = None,
    max_drop: float | None = None,
    time: str | None = None,
    epochs: float | None = None,
    config: ConfigFile = None,
    out: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    resume: Annotated[bool, Parameter(show_default=False)] = False,
    strict: Annotated[bool, Parameter(show_default=False)] = False,
    flags: RecipeFlags = NONE,
    output: Output = PLAIN,
) -> None:
    """Make a trained network smaller by leaving out what matters least.

    Channels that are tied go together, so what comes out is a network like
    any other: fewer weights, a smaller file, faster everywhere, and prunable
    again. It is trained on where --time or --epochs says so, judged beside
    the one it came from on validation pictures after reload, and refused
    (exit 1) where it loses more than --max-drop. A network made as small
    from the start is trained too, for as long as the pruned one was in all,
    before and after cutting, to say whether pruning was worth it;
    --no-baseline does without.

    Give one target: --macs, --params or --latency, as a share (0.5) or a
    number (300M, 5ms). Or --unstructured, which sets single weights to zero:
    for study, because dense runtimes gain nothing by it.

    Args:
        source: Folder of an artifact with its float weights, or of a run; only read.
        data: Pictures, as netsmith train takes them; those of the run if not given.
        macs: Multiply-accumulates to keep: a share such as 0.5, or a number such as 300M.
        params: Trained numbers to keep, likewise.
        latency: Time of one picture to keep, measured here: a share of its p50, or a limit of p90 such as 5ms.
        unstructured: Share of the single weights to set to zero.
        importance: What says how much a channel matters: norms of its weights (l1, l2, the default), scales of batch
            norm (bn), or the loss of training pictures without it, to first order (taylor) or by its square (hessian).
        per_layer: Take the same share of every layer, in place of what matters least anywhere.
        round_to: Widths are multiples of this, 8 if not given, or stay as they are.
        min_width: Channels that stay in every layer at least.
        steps: Rounds of cutting and training.
        baseline: Also train a network that was scaled down natively to the same cost, with the compute of both
            trainings of the pruned one, now and before. Done wherever the pruned one is trained and kept, unless
            --no-baseline.
        max_drop: Points of validation accuracy that may be lost, 1 if not given, and any number with --unstructured,
            which is for looking. With --resume another number judges what was refused anew, without training.
        time: Time of training after cutting, such as 90s, 10m or 1h30m; the baseline's comes on top.
        epochs: Passes over the training pictures, in place of --time.
        config: Recipe file under the flags.
        out: Folder of the run.
        resume: Go on with the interrupted run in the folder.
        strict: Refuse data of which a picture would be left out.
    """
    if out is None:
        raise InputError("where the run goes is not said; name its folder with -o")
    if steps < 1:
        raise InputError(f"--steps is {steps}; give a number of rounds, at least 1")
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise InputError(f"--max-drop is {max_drop:g}; give points of accuracy, 0 to 100")
    targets = {"macs": macs, "params": params, "latency": latency}
    shape = {"importance": importance, "round_to": round_to, "min_width": min_width}
    wish = _wish(targets, shape, per_layer=per_layer, unstructured=unstructured, baseline=baseline)
    if time is not None and epochs is not None:
        raise InputError("--time and --epochs do not go together; leave one out")

    from netsmith.fit.prune_job import MAX_DROP, PruneJob
    from netsmith.fit.pruning import prune_run

    job = PruneJob(
        source=source,
        wish=wish,
        sparsity=unstructured,
        per_layer=per_layer,
        flags=flags.values(time=time, epochs=epochs),
        config=config,
        steps=steps,
        twin=baseline,
        max_drop=MAX_DROP if max_drop is None and unstructured is None else max_drop,
        resume=resume,
    )
    own = {**targets, "unstructured": unstructured, **shape, "per_layer": per_layer or None, "max_drop": max_drop}
    more = {
        "steps": None if steps == 1 else steps,
        "baseline": baseline,
        "config": config,
        "data": data or None,
    }
    command = ["prune", str(source), "-o", str(out), *flags.typed(**own, **more, time=time, epochs=epochs)]
    with Console(output) as console:
        session = console.session(
            data,
            output=out,
            command=[*command, *(["--resume"] if resume else []), *(["--strict"] if strict else [])],
            strict=strict,
        )
        result = prune_run(job, session)
        if unstructured is not None:
            console.say(
                "zeros are stored and multiplied like any other number: size, memory and time are those of the whole "
                "network"
            )
        console.result(result.model_dump(mode="json"), outcome(result, out))


def _wish(
    targets: dict[str, str | None],
    shape: dict[str, Any],
    *,
    per_layer: bool,
    unstructured: float | None,
    baseline: bool | None,
) -> "Wish | None":
    """What is asked of channels; None where single weights go."""
    given = [f"--{name}" for name, text in targets.items() if text is not None]
    given += ["--unstructured"] if unstructured is not None else []
    if len(given) != 1:
        problem = f"{' and '.join(given)} do not go together" if given else "how small it should get is not said"
        raise InputError(f"{problem}; give one of --macs, --params, --latency and --unstructured")
    chosen = {name: value for name, value in shape.items() if value is not None}
    if unstructured is not None:
        if chosen or baseline:
            flag = f"--{next(iter([*chosen, 'baseline'])).replace('_', '-')}"
            raise InputError(f"{flag} is about whole channels and does not go with --unstructured; leave it out")
        return None

    from netsmith.fit.cutting import Wish

    measure = next(name for name, text in targets.items() if text is not None)
    text = targets[measure] or ""
    target = _latency(text) if measure == "latency" else _cost(text, what=f"--{measure}")
    return Wish(measure=measure, target=target, spread="per-layer" if per_layer else "global", **chosen)  # pyright: ignore


def _share(text: str) -> float | None:
    """A number without a unit, or with an x."""
    try:
        return float(text.strip().removesuffix("x"))
    except ValueError:
        return None


def _cost(text: str, *, what: str) -> "Target":
    from netsmith.arch.scale_to import Times
    from netsmith.run.budget import parse_target

    share = _share(text)
    return (
        Times(_part(share, what)) if share is not None and (share < 1 or "x" in text) else parse_target(text, what=what)
    )


def _latency(text: str) -> "Target | Milliseconds":
    from netsmith.arch.scale_to import Times
    from netsmith.fit.cutting import Milliseconds
    from netsmith.run.budget import Budget

    share = _share(text)
    if share is not None:
        return Times(_part(share, "--latency"))
    limit = Budget.parse(f"latency={text}").latency_ms
    assert limit is not None, "it was given"
    return Milliseconds(limit)


def _part(share: float, what: str) -> float:
    if not 0 < share < 1:
        time = ", or a time such as 5ms" if what == "--latency" else ""
        raise InputError(f"{what} is {share:g} of what it is; give a share above 0 and below 1{time}")
    return share
