"""What is taken from a network that is pruned, decided and done: channels to a target, or single weights.

A choice depends on rounding and, where a latency is the target, on the machine, so it is a plan row (`pruned`) that a
resumed run obeys. Latencies are those of probe files, which need no training: the smaller networks on the way of the
choice are halved in number until the first that fits is found, each timed in turns with the whole network.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from netsmith.arch.layout import Layout, at_size, layout_graph
from netsmith.arch.scale_to import Target, Times
from netsmith.arch.select import select
from netsmith.arch.ties import ties
from netsmith.artifact.bundle import Bundle
from netsmith.artifact.latency import Measurement
from netsmith.artifact.measure import measure_many
from netsmith.artifact.runtimes import REFERENCE
from netsmith.compress.prune.choice import Losses, Spread, choose, path, refuse_unreachable
from netsmith.compress.prune.importance import Effects, Importance, Weights, layers_that_read, norm_scales, norms
from netsmith.compress.prune.kinds import FROM_PICTURES, Kind
from netsmith.compress.prune.masks import Masks, magnitude_masks, zeros
from netsmith.compress.prune.pools import ROUND_TO, Pools, find_pools
from netsmith.compress.prune.spending import LABELS, Kept, Measure, Spending
from netsmith.data.cache import Prepared
from netsmith.data.items import Targets
from netsmith.errors import CheckError, InputError
from netsmith.fit.field import HEADROOM
from netsmith.run.budget import format_count, format_latency
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.progress import Progress, silent
from netsmith.run.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from netsmith.models.network import Network

TIMED_S = 0.5
"""Seconds of timed calls of each of the two networks of a comparison."""
OPENING_S = 15.0
"""For opening a file on a busy machine."""


@dataclass(frozen=True)
class Milliseconds:
    """A latency: the upper 95 % bound of p90, as budgets have it."""

    limit: float


def in_words(target: Target | Milliseconds) -> str:
    """A target as it can be typed."""
    match target:
        case Milliseconds():
            return format_latency(target.limit)
        case Times():
            return f"{target.factor:g}x"
        case _:
            return format_count(target)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How channels are pruned.

    Attributes:
        measure: what the target counts.
        target: a number, or a multiple of what the network costs now; for latencies milliseconds or a multiple of the
            whole network's p50.
        importance, spread, round_to, min_width: see `netsmith.compress.prune`.
    """

    measure: Measure | Literal["latency"]
    target: Target | Milliseconds
    importance: Kind = "l2"
    spread: Spread = "global"
    round_to: int = ROUND_TO
    min_width: int = 1

    def pools(self, layout: Layout, weights: Weights) -> Pools:
        """What may be pruned of a network: where batch norms rank, only what has one."""
        found = find_pools(layout, round_to=self.round_to, min_width=self.min_width)
        return found.restricted(norm_scales(found, weights).silent(found)) if self.importance == "bn" else found


class Limit(Protocol):
    """What the pruned network must keep."""

    def eased(self, share: float) -> "Limit":
        """The limit after this share of the way to it from the whole network, in equal factors."""
        ...

    def refuse(self, pools: Pools) -> None:
        """Raise InputError where no pruning keeps it, with the least there is, or where nothing needs to go."""
        ...

    def choose(self, losses: Losses, spread: Spread) -> tuple[Kept, str]:
        """How many classes every pool keeps, and what that comes to."""
        ...


@dataclass(frozen=True)
class CostLimit:
    """So many MACs or parameters at most.

    Attributes:
        measure: which of the two.
        whole: what the whole network costs.
        most: the limit.
    """

    measure: Measure
    whole: int
    most: int

    def eased(self, share: float) -> "CostLimit":
        """As of `Limit`."""
        return replace(self, most=round(self.whole * (self.most / self.whole) ** share))

    def refuse(self, pools: Pools) -> None:
        """As of `Limit`."""
        if self.most >= self.whole:
            raise InputError(
                f"{pools.layout.name} has {self.whole:,} {LABELS[self.measure]}, within {self.most:,} already; ask for "
                f"fewer with --{self.measure}"
            )
        refuse_unreachable(pools, Spending.of(pools, self.measure), most=self.most, measure=self.measure)

    def choose(self, losses: Losses, spread: Spread) -> tuple[Kept, str]:
        """As of `Limit`."""
        spending = Spending.of(losses.pools, self.measure)
        kept = choose(losses, spending, most=self.most, measure=self.measure, spread=spread)
        return kept, f"{spending.total(kept):,} of {self.most:,} {LABELS[self.measure]}"


@dataclass(frozen=True)
class LatencyLimit:
    """Milliseconds for the upper bound of p90, or a share of the p50 of the whole network, timed in turns with it.

    Of milliseconds no more than `HEADROOM` is taken: what comes of it is held to them after training, at another hour.

    Attributes:
        whole: the artifact of the whole network; its preprocessing is used.
        limit: of the two.
        runtime, threads: with which both are timed, and what comes of it is judged.
        ease: share of the way to the limit.
        progress: told what is measured.
    """

    whole: Bundle
    limit: Times | Milliseconds
    runtime: str = REFERENCE
    threads: int = 1
    ease: float = 1.0
    progress: Progress = field(default=silent, compare=False)

    def eased(self, share: float) -> "LatencyLimit":
        """As of `Limit`."""
        return replace(self, ease=share)

    def refuse(self, pools: Pools) -> None:
        """As of `Limit`."""
        least = select(pools.layout, pools.ties.keep(all_alike(pools).drop(pools.least))).layout
        whole, found = self.timed(least)
        if self._fits(whole, whole):
            raise InputError(
                f"{pools.layout.name} takes {_shown(whole)} here, which is within --latency already; ask for less"
            )
        if not self._fits(whole, found):
            less = "" if isinstance(self.limit, Times) else f" than {found.high / HEADROOM:.3g}ms"
            raise InputError(
                f"no pruning brings {pools.layout.name} to {self._asked(whole)}; the least, measured here, is "
                f"{_shown(found)}; ask for no less{less}, or give a smaller --round-to or --min-width"
            )

    def choose(self, losses: Losses, spread: Spread) -> tuple[Kept, str]:
        """As of `Limit`."""
        way = list(path(losses, Spending.of(losses.pools, "macs"), spread=spread))
        low, high, shown = 0, len(way) - 1, "the least there is"  # `refuse` has seen that the last fits
        while low < high:
            middle = (low + high) // 2
            layout = select(losses.pools.layout, losses.pools.ties.keep(losses.drop(way[middle]))).layout
            whole, found = self.timed(layout)
            if self._fits(whole, found):
                high, shown = middle, f"{_shown(found)}, for {self._asked(whole)}"
            else:
                low = middle + 1
        return way[high], shown

    def timed(self, layout: Layout) -> tuple[Measurement, Measurement]:
        """The whole network and another, untrained and in turns."""
        # Lazily: onnx takes a while to import.
        from netsmith.export.probe import probe_onnx

        preprocess = self.whole.config.preprocess
        found = measure_many(
            [probe_onnx(at_size(each, preprocess.size), preprocess=preprocess) for each in (self.whole.layout, layout)],
            threads=self.threads,
            runtime=self.runtime,
            seconds_each=TIMED_S,
            deadline_s=2 * (4 * TIMED_S + OPENING_S),
            progress=self.progress,
        )
        match found:
            case [Measurement() as whole, Measurement() as other]:
                return whole, other
            case _:
                raise CheckError("latencies were not measured in time; close other programs and type it again")

    def _fits(self, whole: Measurement, found: Measurement) -> bool:
        if isinstance(self.limit, Times):
            return found.p50_ms <= self.limit.factor**self.ease * whole.p50_ms
        return found.high <= self._most(self.limit, whole)

    def _most(self, limit: Milliseconds, whole: Measurement) -> float:
        return (HEADROOM * limit.limit) ** self.ease * whole.high ** (1 - self.ease)

    def _asked(self, whole: Measurement) -> str:
        if isinstance(self.limit, Times):
            factor = self.limit.factor**self.ease
            return f"p50 {factor * whole.p50_ms:.3g} ms, {factor:.3g} of {whole.p50_ms:.3g} ms"
        return f"p90 at most {self._most(self.limit, whole):.3g} ms, for {in_words(self.limit)} in the end"


def _shown(found: Measurement) -> str:
    return f"p50 {found.p50_ms:.3g} ms, p90 at most {found.high:.3g} ms"


def all_alike(pools: Pools) -> Losses:
    """Of channels that all matter alike."""
    import numpy as np

    return Losses(pools, Importance(np.ones(pools.ties.count), across=False))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Training pictures for what is decided by pictures.

    Attributes:
        pictures: prepared; read when they are first needed.
        labels: of all training pictures.
        recipe: whose loss counts.
        progress: told how far it is.
    """

    pictures: Callable[[], Prepared]
    labels: Targets
    recipe: Recipe
    preprocess: Preprocess
    progress: Progress = silent


class Cut(Protocol):
    """How a network is pruned, over the rounds of its pruning."""

    def refuse(self, network: "Network") -> None:
        """Raise InputError where it cannot be done, before anything is."""
        ...

    def cut(self, network: "Network", share: float, *, plan: Plan, asked: Asked) -> "Network":
        """The network after this share of the way; it is trained on as it is returned."""
        ...

    def check(self, network: "nn.Module") -> None:
        """Raise CheckError where training has undone what was pruned."""
        ...


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Whole channels go: a smaller network.

    Attributes:
        wish: how.
        limit: of the last round.
    """

    wish: Wish
    limit: Limit

    def refuse(self, network: "Network") -> None:
        """As of `Cut`."""
        self.limit.refuse(self.wish.pools(network.layout, arrays_of(network)))

    def cut(self, network: "Network", share: float, *, plan: Plan, asked: Asked) -> "Network":
        """As of `Cut`."""
        # Lazily: torch takes seconds to import.
        from netsmith.models.pruned import prune_network

        def decide() -> dict[str, Any]:
            pools = self.wish.pools(network.layout, arrays_of(network))
            losses = Losses(pools, self._importance(network, pools, asked))
            kept, found = self.limit.eased(share).choose(losses, self.wish.spread)
            return {"found": found, "drop": sorted(losses.drop(kept))}

        how = f"{self.wish.importance}, {self.wish.spread}, multiples of {self.wish.round_to}"
        chosen = plan.decide("pruned", at=0, compute=decide, why=how)
        return prune_network(network, ties(layout_graph(network.layout)).keep(chosen["drop"]))

    def _importance(self, network: "Network", pools: Pools, asked: Asked) -> Importance:
        kind = self.wish.importance
        if kind in FROM_PICTURES:
            from netsmith.train.effects import channel_effects

            effects, pictures = Effects.none(pools), asked.pictures()
            for read in channel_effects(
                network,
                layers_that_read(pools),
                pictures.pixels,
                pictures.labels,
                every=asked.labels,
                preprocess=asked.preprocess,
                recipe=asked.recipe,
                progress=asked.progress,
            ):
                effects = effects.seen(read)
            return effects.importance(kind)
        if kind == "bn":
            return norm_scales(pools, arrays_of(network))
        return norms(pools, arrays_of(network), order=1 if kind == "l1" else 2)

    def check(self, network: "nn.Module") -> None:
        """As of `Cut`: channels that are gone stay gone."""


@dataclass(kw_only=True)
class SingleWeights:
    """Single weights become zero: a study, after which nothing is smaller or faster.

    Attributes:
        sparsity: share of the weights that are zero in the end.
        spread: that share of all together, or of every layer.
    """

    sparsity: float
    spread: Spread
    masks: Masks = field(default_factory=Masks, init=False)

    def refuse(self, network: "Network") -> None:
        """As of `Cut`."""
        magnitude_masks(network.layout, arrays_of(network), sparsity=self.sparsity)

    def cut(self, network: "Network", share: float, *, plan: Plan, asked: Asked) -> "Network":
        """As of `Cut`; sparsity rises fast at first (Zhu and Gupta 2017, arXiv 1710.01878)."""
        from netsmith.train.holding import hold_zeros

        sparsity = self.sparsity * (1 - (1 - share) ** 3)
        self.masks = magnitude_masks(
            network.layout, arrays_of(network), sparsity=sparsity, per_layer=self.spread == "per-layer"
        )
        plan.decide("pruned", at=0, compute=lambda: {"zeros": zeros(self.masks)}, why="smallest weights, set to zero")
        hold_zeros(network, self.masks)
        return network

    def check(self, network: "nn.Module") -> None:
        """As of `Cut`."""
        from netsmith.train.holding import refuse_moved

        refuse_moved(network, self.masks)


def arrays_of(network: "Network") -> Weights:
    """Its `state_dict` as numpy arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
