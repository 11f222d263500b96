"""What a network would measure once it is shipped in a form, before it is trained; and how far one has to shrink to
fit a budget.

A file of random weights is written, brought into the form (int8 by the very rounding of `quantize`, over ranges of
noise) and timed in a fresh process, because how much faster a form is differs from network to network. What counting
rules out is never timed. Latencies keep `HEADROOM` and sizes `ROOM_FOR_CONFIG`, so what fits here still fits when it is
trained and measured at another hour.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout, at_size, layout_to_json
from netsmith.arch.names import find_layout
from netsmith.arch.scale_to import Times, scale_to
from netsmith.arch.select import select
from netsmith.arch.spec import Spec
from netsmith.artifact.bundle import Bundle, Preferred
from netsmith.artifact.measure import measure_many
from netsmith.compress.prune.choice import Losses, path
from netsmith.compress.prune.importance import norms
from netsmith.compress.prune.pools import find_pools
from netsmith.compress.prune.spending import Measure, Spending
from netsmith.compress.quantize.calibrate import observe
from netsmith.compress.quantize.graph import Graph
from netsmith.compress.quantize.half import halve
from netsmith.compress.quantize.qdq import Rounding, quantize
from netsmith.errors import CheckError, InputError
from netsmith.fit.cutting import OPENING_S, TIMED_S, arrays_of
from netsmith.fit.field import HEADROOM
from netsmith.run.budget import Budget, BudgetRow
from netsmith.run.progress import Progress, silent
from netsmith.search.orders import Form

if TYPE_CHECKING:
    from netsmith.models.network import Network

ROOM_FOR_CONFIG = 1.01
"""By how much `config.json` may turn out longer than is foreseen, as a share of the size."""
MORE_CONFIG: Mapping[Form, int] = {"float32": 160, "float16": 160, "bfloat16": 160, "int8": 500}
"""Bytes that `config.json` gains: what the weights were made from, and how the graph was rounded."""
NOISE = 4
"""Pictures of noise that ranges are found on; what they are changes no time."""
TRIES = 2
"""Measurements before a latency counts as missed: other work on the machine only ever slows one."""
STUDENTS = 60
"""Scaled networks to choose among, each with 0.79 of the MACs of the one before: more than any family has."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Holds untrained networks against a budget.

    Attributes:
        model: the whole, trained model, whose classes, preprocessing and labels the others will have.
        budget: limits.
        runs_in: runtime and threads by form; float32's where a form is not there.
        made: the limits that the model itself missed, in forms in which it was made and measured.
        progress: told what is measured.
    """

    model: Bundle
    budget: Budget
    runs_in: Mapping[Form, Preferred]
    made: Mapping[Form, Sequence[BudgetRow]] = field(default_factory=dict[Form, Sequence[BudgetRow]])
    progress: Progress = silent
    _known: dict[tuple[Layout, Form], list[BudgetRow]] = field(
        default_factory=dict[tuple[Layout, Form], list[BudgetRow]], repr=False
    )

    def missed(self, layout: Layout, form: Form) -> list[BudgetRow]:
        """The limits that a network would miss, with what it would measure; a latency is asked for last."""
        layout = at_size(layout, self.model.config.preprocess.size)
        if form in self.made and layout == at_size(self.model.layout, self.model.config.preprocess.size):
            return [*self.made[form]]
        if (layout, form) not in self._known:
            self._known[layout, form] = self._held(layout, form)
        return self._known[layout, form]

    def _held(self, layout: Layout, form: Form) -> list[BudgetRow]:
        counted = cost(layout)
        plain = self.budget.model_copy(update={"latency_ms": None, "size_bytes": None})
        missed = _missed(plain, {"macs": counted.macs, "params": counted.params})
        if missed or (self.budget.size_bytes is None and self.budget.latency_ms is None):
            return missed
        file = self._file(layout, form)
        size = ROOM_FOR_CONFIG * (len(file) + self._config_bytes(layout) + MORE_CONFIG[form])
        missed = _missed(Budget(size_bytes=self.budget.size_bytes), {"size_bytes": round(size)})
        if missed or self.budget.latency_ms is None:
            return missed
        return _missed(Budget(latency_ms=self.budget.latency_ms), {"latency_ms": self._latency(file, form) / HEADROOM})

    def _file(self, layout: Layout, form: Form) -> bytes:
        # Lazily: onnx takes a while to import.
        from netsmith.export.probe import probe_onnx

        preprocess = self.model.config.preprocess
        model = probe_onnx(layout, preprocess=preprocess)
        if form == "float32":
            return model
        graph = Graph(model)
        if form != "int8":
            return halve(graph, form)
        shape = (NOISE, preprocess.size, preprocess.size, 3)
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return quantize(graph, observe(graph, noise, counted=False).ranges("minmax"), Rounding())

    def _config_bytes(self, layout: Layout) -> int:
        """As many as the model's own takes, but for the layout in it."""
        own = self.model.size_bytes - self.model.model_path.stat().st_size
        return own + _written(layout) - _written(self.model.layout)

    def _latency(self, file: bytes, form: Form) -> float:
        runs_in = self.runs_in.get(form, self.runs_in["float32"])
        limit = self.budget.latency_ms
        assert limit is not None, "it is asked for"
        high = float("inf")
        for _ in range(TRIES):
            [found] = measure_many(
                [file],
                threads=runs_in.threads,
                runtime=runs_in.runtime,
                seconds_each=TIMED_S,
                deadline_s=4 * TIMED_S + OPENING_S,
                progress=self.progress,
            )
            if found is None:
                raise CheckError("a latency was not measured in time; close other programs and go on with --resume")
            high = min(high, found.high)
            if high <= HEADROOM * limit:
                break
        return high


@dataclass(frozen=True)
class Cut:
    """The largest network on the way of a pruning that fits.

    Attributes:
        kept: its MACs or parameters; None where even the least misses a limit.
        share: of the whole network's; of the least where none fits.
        missed: by the least; empty where one fits.
    """

    kept: int | None
    share: float
    missed: list[BudgetRow]


def cut_to_fit(network: "Network", forecast: Forecast, form: Form, *, measure: Measure) -> Cut:
    """How far a network has to be pruned to fit in a form.

    Ranked as `prune` ranks by default, so that the same target makes the same network.

    Args:
        network: trained.
        forecast: of the budget.
        form: in which it will ship.
        measure: that frees what is scarce.
    """
    pools = find_pools(network.layout)
    losses = Losses(pools, norms(pools, arrays_of(network), order=2))
    spending = Spending.of(pools, measure)
    way = list(path(losses, spending, spread="global"))

    def missed(at: int) -> list[BudgetRow]:
        return forecast.missed(select(pools.layout, pools.ties.keep(losses.drop(way[at]))).layout, form)

    whole, last = spending.total(way[0]), len(way) - 1
    if least := missed(last):
        return Cut(None, spending.total(way[last]) / whole, least)
    kept = spending.total(way[_first(last, lambda at: not missed(at))])
    return Cut(kept, kept / whole, [])


@dataclass(frozen=True)
class Students:
    """Natively scaled networks.

    Attributes:
        fits: name of the largest that fits; None where none does.
        larger: name of the next larger one; None where there is none that costs less than the model.
        share: of the model's MACs or parameters that the one that fits has.
        missed: by the narrowest; empty where one fits.
    """

    fits: str | None = None
    larger: str | None = None
    share: float = 0.0
    missed: list[BudgetRow] = field(default_factory=list[BudgetRow])


def students_that_fit(spec: Spec, forecast: Forecast, form: Form, *, measure: Measure) -> Students:
    """The largest of a family's narrower networks that fits in a form.

    Args:
        spec: of the family, for the model's classes and side.
        forecast: of the budget.
        form: in which it will ship.
        measure: of its share.
    """
    config = forecast.model.config
    names: dict[int, str | None] = {}

    def name(at: int) -> str | None:
        if at not in names:
            try:
                names[at] = scale_to(spec, macs=Times(2 ** (-at / 3)), rule="width").name
            except InputError:  # narrower than the family gets
                names[at] = None
        return names[at]

    def layout(at: int) -> Layout:
        found = name(at)
        assert found is not None, "there is one"
        return find_layout(found, num_classes=len(config.labels), img_size=config.preprocess.size)

    def missed(at: int) -> list[BudgetRow]:
        return forecast.missed(layout(at), form)

    def spent(network: Layout) -> int:
        return getattr(cost(network), measure)

    last = _first(STUDENTS, lambda at: at == STUDENTS or name(at + 1) is None)
    if not last:
        return Students()
    if least := missed(last):
        return Students(missed=least)
    first = 1 + _first(last - 1, lambda at: not missed(at + 1))
    whole = spent(forecast.model.layout)
    above = next((at for at in range(first - 1, 0, -1) if name(at) != name(first)), None)
    # The table may be of a network that the model was cut down from, and so reach above it.
    larger = name(above) if above is not None and spent(layout(above)) < whole else None
    return Students(name(first), larger, spent(layout(first)) / whole)


def _first(last: int, holds: Callable[[int], bool]) -> int:
    """The first of 0 ... `last` for which something holds that holds from there on; it does for `last`."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _missed(budget: Budget, values: Mapping[str, float]) -> list[BudgetRow]:
    return [row for row in budget.rows(values) if not row.met]


def _written(layout: Layout) -> int:
    return len(json.dumps(layout_to_json(layout), indent=2)) * 5 // 4
