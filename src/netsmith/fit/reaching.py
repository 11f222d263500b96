"""How far a model has to shrink to fit a budget, by the form in which it will ship: measured once and written down."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsmith.artifact.bundle import Preferred
from netsmith.artifact.runtimes import REFERENCE, choose_runtime
from netsmith.compress.prune.spending import Measure
from netsmith.errors import InputError
from netsmith.fit.forecast import Forecast, Students, cut_to_fit, students_that_fit
from netsmith.fit.going_on import spec_of
from netsmith.fit.parent import open_parent
from netsmith.fit.stage import Stage
from netsmith.run.budget import Budget, BudgetRow
from netsmith.search.orders import Form, Reach

if TYPE_CHECKING:
    from netsmith.models.network import Network


class Reaching:
    """Pruned and native networks of a stage's parent held against a budget.

    Args:
        stage: at work; what is found are rows of its plan.
        budget: limits.

    Attributes:
        runs_in: runtime and threads by form, where they are not the model's; an int8 file that is not there runs in the
            reference with the model's threads.
        made: the limits that the model itself missed, in forms in which it was made and measured.
        near: by what factor the least networks miss the worst limit, and which they are, of forms in which none fits.
    """

    def __init__(self, stage: Stage, budget: Budget) -> None:
        self._stage, self._budget = stage, budget
        self.runs_in: Mapping[Form, Preferred] = {}
        self.made: Mapping[Form, Sequence[BudgetRow]] = {}
        self.near: list[tuple[float, str]] = []

    def of(self, form: Form) -> Reach:
        """What fits in a form."""
        row = self._stage.finisher.plan.decide(
            f"compress.{form}", at=0, compute=lambda: self._measured(form), why=f"what would fit as {form}, untrained"
        )
        self.near += [(ratio, text) for ratio, text in row["near"]]
        return Reach(**row["reach"])

    def kept_of(self, source: Path, form: Form, name: str) -> int | None:
        """MACs or parameters to prune another network to; None where it need not shrink, or cannot enough.

        Args:
            source: its folder.
            form: in which it will ship.
            name: of the step, for the plan.
        """

        def measured() -> int | None:
            cut = cut_to_fit(open_parent(source).network(), self._fresh, form, measure=self.measure)
            return cut.kept if cut.share < 1 else None

        why = "what fits of the network that was taught"
        return self._stage.finisher.plan.decide(f"{name}.kept", at=0, compute=measured, why=why)

    @property
    def measure(self) -> Measure:
        """Of what pruning frees: work where time or MACs are limited, else numbers."""
        return "params" if self._budget.latency_ms is None and self._budget.macs is None else "macs"

    @cached_property
    def _network(self) -> "Network":
        return self._stage.parent.network()

    @cached_property
    def _forecast(self) -> Forecast:
        session, bundle = self._stage.session, self._stage.parent.bundle
        runtime, threads = choose_runtime(bundle, warn=session.warn)
        plain = Preferred(runtime=runtime, threads=threads)
        int8 = Preferred(runtime=REFERENCE, threads=threads)
        return Forecast(
            model=bundle,
            budget=self._budget,
            runs_in={"float32": plain, "float16": plain, "int8": int8, **self.runs_in},
            made=self.made,
            progress=session.progress,
        )

    @cached_property
    def _fresh(self) -> Forecast:
        """Of networks that begin fresh, which prefer the reference whatever the model does."""
        own = self._forecast.runs_in
        plain = own["float32"].model_copy(update={"runtime": REFERENCE})
        runs_in: Mapping[Form, Preferred] = {**own, "float32": plain, "float16": plain}
        return self._forecast if runs_in == own else replace(self._forecast, runs_in=runs_in, _known={})

    def _measured(self, form: Form) -> dict[str, Any]:
        parent = self._stage.parent
        self._stage.session.say(f"measuring how far {parent.bundle.layout.name} has to shrink to fit as {form}")
        obstacles: dict[str, str] = {}
        nearest: list[tuple[float, str]] = []

        def too_large(verb: str, what: str, missed: Sequence[BudgetRow]) -> None:
            limits = ", ".join(map(str, missed))
            obstacles[verb] = f"{what}, as {form}, has {limits}"
            nearest.append(near(missed, f"{what}, as {form}, with {limits}"))

        cut = cut_to_fit(self._network, self._forecast, form, measure=self.measure)
        if cut.missed:
            too_large("prune", "the least that pruning leaves", cut.missed)
        whole = cut.kept is not None and cut.share >= 1
        try:
            spec = spec_of(parent)
            students = Students() if whole else students_that_fit(spec, self._fresh, form, measure=self.measure)
        except InputError as error:
            students, obstacles["distill"] = Students(), str(error)
        if whole:
            obstacles = dict.fromkeys(("prune", "distill"), f"it fits as {form} without")
        elif students.missed:
            too_large("distill", "the family's narrowest network", students.missed)
        elif students.fits is None:
            obstacles.setdefault("distill", "the family has no narrower network")
        reach = Reach(
            kept=None if "prune" in obstacles else cut.kept,
            share=students.share if cut.kept is None else cut.share,
            student=students.fits,
            larger=students.larger,
            obstacles=obstacles,
            whole=whole,
        )
        return {"reach": asdict(reach), "near": nearest}


def near(missed: Sequence[BudgetRow], text: str) -> tuple[float, str]:
    """By what factor the worst of some limits is missed, and of what."""
    return max(row.measured / row.limit for row in missed), text
