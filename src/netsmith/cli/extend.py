"""`netsmith extend`: a trained network, larger, that computes what it did; to go on training from."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from netsmith.arch.limits import MAX_WIDTH
from netsmith.cli.console import PLAIN, Console, Output
from netsmith.errors import CheckError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from netsmith.arch.cost import Cost
    from netsmith.arch.layout import Layout

NOISE = 8
"""Pictures of noise beside the golden ones on which the logits are compared."""

EXAMPLES = """\
Examples:

  netsmith extend runs/pets --width 1.25 --depth 1.5 -o larger
                            a quarter more channels, half as many blocks again
  netsmith extend model --depth 3,4,6,3 -o deeper
                            so many blocks in the stages
  netsmith extend model --head wolf,fox -o more
                            two more classes; the others keep their logits
"""


def extend(
    source: Path,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--output", "-o"])],
    width: float | None = None,
    depth: str | None = None,
    head: str | None = None,
    seed: int = 0,
    output: Output = PLAIN,
) -> None:
    """Grow a trained network without changing what it computes.

    New channels copy old ones and share their outgoing weights unevenly, new
    blocks start as the identity, new classes start at the mean of the old
    logits, so none of them is ever the first answer. The logits are compared
    before anything is written: beyond 1e-5 of the largest it is refused.

    Args:
        source: Folder of an artifact with its float weights, or of a run; only read.
        out: Folder to write; never replaced.
        width: Multiplies the channels of all layers, above 1.
        depth: Multiplies the blocks of all stages that can grow, or the blocks of each, as in 3,4,6,3.
        head: Number of classes, or the names of those to add with commas between.
        seed: Which channels are copied and how their weights are shared.
    """
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} already exists; name another with -o")
    if width is None and depth is None and head is None:
        raise InputError("nothing is asked for; give --width, --depth or --head")

    import numpy as np

    from netsmith.arch.cost import cost
    from netsmith.arch.deepen import growth_obstacle
    from netsmith.artifact.bundle import artifact_hash, load_bundle
    from netsmith.artifact.runtimes import open_session
    from netsmith.export.network import export_network, normalised
    from netsmith.models.build import load_model
    from netsmith.models.extend import TOLERANCE, Growth, extend, logit_difference

    with Console(output) as console:
        bundle = load_bundle(source, check_hashes=True)
        config, old = bundle.config, bundle.layout
        labels = _labels(head, config.labels)
        growth = Growth(
            width=width,
            counts=None if depth is None else _counts(depth, old),
            classes=None if head is None else len(labels),
            seed=seed,
        )
        if depth is not None and "," not in depth:
            for i, stage in enumerate(old.stages):
                if reason := growth_obstacle(old, i):
                    console.say(f"{stage.name} keeps its depth: {reason}")
        before = load_model(source)
        after = extend(before, growth)
        golden = bundle.golden()
        pixels = np.concatenate([golden.pixels, _noise(NOISE, golden.pixels.shape[1:])])
        difference = logit_difference(before, after, normalised(pixels, config.preprocess))
        if not difference <= TOLERANCE:
            raise CheckError(
                f"the logits of the grown {old.name} differ by {difference:.3g} of the largest, the limit is "
                f"{TOLERANCE:g}; nothing was written, report this as a defect of netsmith"
            )
        origin = f"{old.name} of artifact {artifact_hash(bundle.folder)}, extended to {after.layout.name}"
        try:
            written = export_network(
                after,
                out,
                labels=labels,
                preprocess=config.preprocess,
                golden=golden.encoded,
                activation=config.activation,
                thresholds=_thresholds(config.thresholds, len(labels)),
                temperature=config.temperature,
                preferred=config.preferred,
                provenance=config.provenance.model_copy(update={"weights": origin}),
            )
        except OSError as error:
            raise InputError(f"{out} cannot be written ({error.strerror or error}); name another with -o") from error
        ran, runs = (open_session(each, warn=console.warn).run(pixels).logits for each in (bundle, written))
        rounding = float(np.abs(runs[:, : ran.shape[1]] - ran).max() / (np.abs(ran).max() or 1.0))
        costs = {"before": cost(old), "after": cost(written.layout)}
        document = {
            "output": str(out),
            "model": written.layout.name,
            "classes": len(labels),
            **{when: asdict(spent) for when, spent in costs.items()},
            "size_bytes": {"before": bundle.size_bytes, "after": written.size_bytes},
            "logit_difference": difference,
            "runtime_difference": rounding,
        }
        sizes = (bundle.size_bytes, written.size_bytes)
        console.result(
            document,
            f"{out}: {written.layout.name}, {len(labels)} classes\n"
            + _comparison(costs["before"], costs["after"], sizes)
            + f"\nlogits on {len(pixels)} pictures differ by {difference:.1e} of the largest (limit {TOLERANCE:.0e}); "
            f"{rounding:.1e} as {config.preferred.runtime} rounds them",
        )


def _noise(count: int, shape: tuple[int, ...]) -> "NDArray[np.uint8]":
    """Pictures uint8 [count,R,R,3] on which no two channels do the same."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def _labels(head: str | None, now: tuple[str, ...]) -> tuple[str, ...]:
    """The labels with those that --head adds, by number or by name."""
    if head is None:
        return now
    if head.strip().lstrip("+-").isdecimal():
        classes = int(head)
        if not len(now) < classes <= MAX_WIDTH:
            raise InputError(
                f"--head {head}: there are {len(now)} classes now; give a number above that, at most {MAX_WIDTH}, "
                "or the names of new ones"
            )
        names = [f"class {index}" for index in range(len(now), classes)]
    else:
        names = [name.strip() for name in head.split(",")]
    if "" in names or len({*now, *names}) != len(now) + len(names):
        twice = next((name for i, name in enumerate(names) if name in now or name in names[:i]), "")
        problem = f"{twice!r} is there twice" if twice else "a name is empty"
        raise InputError(f"--head {head}: {problem}; give different names of new classes with commas between")
    return (*now, *names)


def _thresholds(now: tuple[float, ...] | None, labels: int) -> tuple[float, ...] | None:
    """Those of tags, with 0.5 for labels that --head adds."""
    from netsmith.run.tagging import FALLBACK_THRESHOLD

    return None if now is None else (*now, *(FALLBACK_THRESHOLD for _ in range(labels - len(now))))


def _counts(depth: str, layout: "Layout") -> Sequence[int]:
    from netsmith.arch.deepen import deeper_counts

    try:
        return list(map(int, depth.split(","))) if "," in depth else deeper_counts(layout, float(depth))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"--depth {depth} is neither a number such as 1.5 nor blocks per stage such as 3,4,6,3"
        ) from None


def _comparison(before: "Cost", after: "Cost", size_bytes: tuple[int, int]) -> str:
    from netsmith.cli.tables import short, table

    rows = [
        (name, *old_and_new)
        for name, *old_and_new in (
            ("params", before.params, after.params),
            ("MACs", before.macs, after.macs),
            ("activations", before.activations, after.activations),
            ("peak bytes", before.peak_bytes, after.peak_bytes),
            ("size", *size_bytes),
        )
    ]
    cells = [[str(name), short(old), short(new), f"{new / old:.2f}x"] for name, old, new in rows]
    return table(["", "before", "after", ""], cells)
