"""What `prune` is asked for, held against the network that is pruned, and how that cuts it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout
from netsmith.arch.scale_to import Times, resolve
from netsmith.artifact.runtimes import choose_runtime
from netsmith.errors import InputError
from netsmith.fit.composing import FLAGS, given_layers, last_given
from netsmith.fit.cutting import Channels, CostLimit, Cut, LatencyLimit, Milliseconds, SingleWeights, Wish, in_words
from netsmith.fit.parent import Parent
from netsmith.fit.session import Session
from netsmith.run.budget import Budget

KEPT = {"img_size": "--img-size", "drop_rate": "--drop", "drop_path": "--drop-path"}
"""Fields of a recipe that a pruned network has from the whole one, and their flags."""
MAX_DROP = 1.0
"""Points of the headline that pruning may cost on validation."""


@dataclass(frozen=True, kw_only=True)
class PruneJob:
    """What was asked for.

    Attributes:
        source: folder of the artifact, or of the run that holds it.
        wish: channels that go; None where single weights do.
        sparsity: share of the single weights that go; None where channels do.
        per_layer: of single weights, that share of every layer.
        flags: recipe fields that were given as flags.
        config: a recipe file under the flags.
        steps: rounds of cutting and training.
        twin: whether a natively scaled-down network is trained beside it; None for where it is trained itself, and its
            family has such a network.
        max_drop: points of the headline that it may lose on validation; None does not ask.
        resume: go on with an interrupted run.
    """

    source: Path
    wish: Wish | None
    sparsity: float | None = None
    per_layer: bool = False
    flags: Mapping[str, Any] = field(default_factory=dict[str, Any])
    config: Path | None = None
    steps: int = 1
    twin: bool | None = None
    max_drop: float | None = MAX_DROP
    resume: bool = False

    @cached_property
    def layers(self) -> list[tuple[str, dict[str, Any]]]:
        """What was said of the recipe, the strongest last."""
        return given_layers(self.config, self.flags)

    def wishes(self) -> dict[str, Any]:
        """What decides which network comes out, beside the recipe, by flag."""
        wish = self.wish
        if wish is None:
            return {"--unstructured": self.sparsity, "--per-layer": self.per_layer, "--steps": self.steps}
        return {
            f"--{wish.measure}": in_words(wish.target), "--importance": wish.importance,
            "--per-layer": wish.spread == "per-layer", "--round-to": wish.round_to, "--min-width": wish.min_width,
            "--steps": self.steps,
        }  # fmt: skip

    @property
    def trains(self) -> bool:
        """Whether a length was given for training."""
        return any(last_given(self.layers, key) is not None for key in ("time_s", "epochs"))


def refuse_other_network(job: PruneJob, layout: Layout, *, side: int) -> None:
    """Refuse a recipe for another network than the one that is pruned, which keeps its own side and rates."""
    own = {"img_size": side, "drop_rate": layout.head.dropout, "drop_path": layout.drop_path}
    for where, values in job.layers:
        for key, flag in KEPT.items():
            if values.get(key, own[key]) not in (own[key], 0):  # 0 is the network's own
                what = flag if where == FLAGS else f"{where}: {key}"
                raise InputError(f"{what} cannot change here: the network keeps its own, {own[key]:g}; leave it out")


def cut_of(job: PruneJob, parent: Parent, session: Session) -> tuple[Cut, Budget]:
    """How it is cut, and what the result is held to."""
    if job.wish is None:
        assert job.sparsity is not None, "one of the two"
        return SingleWeights(sparsity=job.sparsity, spread="per-layer" if job.per_layer else "global"), Budget()
    wish, now = job.wish, cost(parent.bundle.layout)
    match wish.measure, wish.target:
        case "latency", Times() | Milliseconds() as limit:
            runtime, threads = choose_runtime(parent.bundle, warn=session.warn)
            timed = LatencyLimit(parent.bundle, limit, runtime=runtime, threads=threads, progress=session.progress)
            budget = Budget(latency_ms=limit.limit if isinstance(limit, Milliseconds) else None)
            return Channels(wish=wish, limit=timed), budget
        case "macs" | "params" as measure, int() | Times() as target:
            whole = now.macs if measure == "macs" else now.params
            most = resolve(target, now, measure)
            return Channels(wish=wish, limit=CostLimit(measure, whole, most)), Budget(**{f"{measure}": most})
        case measure, target:
            raise AssertionError(f"{measure} cannot be {target}")
