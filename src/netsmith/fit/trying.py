"""What `compress` tries: first what needs no training, then the orders that are worth their time. How an order is done
is `netsmith.fit.doing`.

Every choice is a plan row, because it follows from measurements: which of the untrained results are enough, how far the
network has to shrink in each form, how the time is shared. So a run that goes on tries what it began to try.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from netsmith.artifact.bundle import CONFIG, Preferred, artifact_hash, load_bundle, write_preferred
from netsmith.artifact.runtimes import RUNTIMES, choose_runtime
from netsmith.fit.doing import ROUNDING, CompressJob, Doing, Finalist
from netsmith.fit.going_on import trained_before
from netsmith.fit.judged import Judged, as_good
from netsmith.fit.quantizing import BFLOAT16_IN
from netsmith.fit.reaching import Reaching
from netsmith.fit.stage import Parent, Stage
from netsmith.fit.steps import Steps
from netsmith.report.stages import ORDER
from netsmith.run.budget import BudgetRow, format_duration
from netsmith.run.ledger import Verdict
from netsmith.run.scores import POINTS, change
from netsmith.search.orders import Agenda, Form, Order, Reach, agenda, timetable

AS_IT_IS, TRAINING = "as-it-is", "all that trains"
UNTRAINED: Mapping[Form, str] = {
    "float32": AS_IT_IS, "int8": "quantize", "float16": "halve", "bfloat16": "bfloat16",
}  # fmt: skip
"""What the whole model is called in a form."""
TIMED: tuple[Form, ...] = ("int8", "bfloat16")
"""Forms with a runtime of their own."""


class Trying:
    """The orders of one run.

    Args:
        job: what is asked for.
        stage: the run, at work.
        seconds: of training.
        untrained: why there is none, where there is none.
    """

    def __init__(self, job: CompressJob, stage: Stage, *, seconds: float, untrained: str) -> None:
        self.job, self.stage, self.seconds, self.untrained = job, stage, seconds, untrained
        self._steps = Steps(stage)
        self._reaching = Reaching(stage, job.budget)
        self._doing = Doing(job, stage, steps=self._steps, reaching=self._reaching)

    def finalists(self) -> list[Finalist]:
        """All that came to an end, in the order in which it was tried."""
        found = [self._as_it_is(), *self._doing.do(Order(("quantize",)))]
        found += self._doing.do(Order(("halve",))) if self._size_binds else []
        found += self._in_bfloat16() if self.job.budget.latency_ms is not None else []
        facts = self.stage.finisher.plan.decide(
            "compress.untrained", at=0, compute=lambda: self._facts(found), why="what fits without training"
        )
        found = [each for each in found if each.name in facts["made"]]
        self._tell(facts)
        if facts["enough"] or not self.seconds:
            return found
        known = facts["runs_in"] if "runs_in" in facts else self._ran_in()  # an older plan does not have it
        self._reaching.runs_in = {form: Preferred(**known[form]) for form in TIMED if form in known}
        self._reaching.made = {form: rows for form, name in UNTRAINED.items() if (rows := _over(facts, name))}
        closed = self._closed(facts)
        also: dict[Form, bool] = {"float16": self._size_binds, "bfloat16": bool(facts.get("quick"))}
        usable: list[Form] = ["float32", "int8", *(form for form, there in also.items() if there)]
        reaches: dict[Form, Reach] = {form: self._reaching.of(form) for form in usable if form not in closed}
        before = trained_before(self._parent)
        chosen = agenda(reaches, closed, seconds=self.seconds, before=None if before is None else before[0])
        self._doing.times = self.stage.finisher.plan.decide(
            "compress.seconds",
            at=0,
            compute=lambda: timetable(chosen.orders, self.seconds),
            why=f"{self.seconds:g} s of training, shared by the orders that are tried",
        )
        self._record(chosen)
        return found + [made for order in chosen.orders for made in self._doing.do(order)]

    @property
    def near(self) -> list[tuple[float, str]]:
        """What came near without being made."""
        return self._reaching.near

    def judged(self, found: Sequence[Finalist]) -> tuple[Judged, list[Judged]]:
        """The model and what was made of it, beside each other; the model as it is is judged as the model.

        Args:
            found: the first of them the model as it is.
        """
        before, *others = self.stage.judge(self._parent.bundle, *(each.bundle for each in found[1:]))
        same = found[0].bundle  # but for what its provenance says
        return before, [replace(before, artifact=artifact_hash(same.folder), size_bytes=same.size_bytes), *others]

    def refusal(self, before: Judged, after: Judged) -> str | None:
        """Why something is no result: the limits it misses, or what it loses."""
        if missed := self.missed(after):
            return f"it misses {', '.join(map(str, missed))}"
        lost = -POINTS * change(before.answers, after.answers).value
        if self.job.max_drop is not None and lost > self.job.max_drop + 1e-9:
            return f"it loses {lost:.2f} points, more than the {self.job.max_drop:g} allowed"
        return None

    def missed(self, judged: Judged) -> list[BudgetRow]:
        """The limits that an artifact misses."""
        return judged.missed(self.job.budget)

    @property
    def _parent(self) -> Parent:
        return self.stage.parent

    @property
    def _size_binds(self) -> bool:
        limit = self.job.budget.size_bytes
        return limit is not None and self._parent.bundle.size_bytes > limit

    def _in_bfloat16(self) -> list[Finalist]:
        """The model in bfloat16, where something here computes with it."""
        order, obstacle = Order(("bfloat16",)), RUNTIMES[BFLOAT16_IN[-1]].obstacle()
        if obstacle and not self._steps.finished(order.step(0)):
            self._leave_out({order.name: f"{BFLOAT16_IN[-1]} {obstacle}"})
            return []
        return self._doing.do(order)

    def _ran_in(self) -> dict[str, dict[str, Any]]:
        """Runtime and threads that were best for the whole model, kept or refused, in the forms in which it was
        made."""
        rows = [row for row in self.stage.ledger.own if row.stage == "quantize" and "runtime" in row.after]
        newest = {str(row.after.get("step")).partition("/")[0]: row.after for row in rows}
        made = {form: newest[UNTRAINED[form]] for form in TIMED if UNTRAINED[form] in newest}
        return {form: {"runtime": after["runtime"], "threads": after["threads"]} for form, after in made.items()}

    def _as_it_is(self) -> Finalist:
        """The model itself, as an artifact of this run."""
        # Lazily: onnx takes a while to import.
        from netsmith.export.repack import repack

        folder, bundle = self.stage.candidate(AS_IT_IS), self._parent.bundle
        provenance = self.stage.finisher.inherited(bundle.config.provenance)
        made = load_bundle(folder) if (folder / CONFIG).is_file() else repack(bundle, folder, provenance=provenance)
        runtime, threads = choose_runtime(bundle, warn=self.stage.session.warn)
        if runtime != made.config.preferred.runtime:  # it is judged, and would be shipped, in what stands in
            made = write_preferred(made, Preferred(runtime=runtime, threads=threads))
        return Finalist(AS_IT_IS, made)

    def _facts(self, found: list[Finalist]) -> dict[str, Any]:
        """What fits without training, and which of that is as good as the model."""
        before, judged = self.judged(found)
        both = [(each.name, one) for each, one in zip(found, judged, strict=True)]
        fitting = {name: one for name, one in both if self.refusal(before, one) is None}
        lossy = self._steps.refused(ROUNDING) and not self._int8_is_slow
        good = [name for name, one in fitting.items() if as_good(before, one)]
        return {
            "made": [name for name, _ in both],
            "over": {name: [row.model_dump() for row in self.missed(one)] for name, one in both},
            "fits": list(fitting),
            "enough": [name for name in good if not (lossy and name == UNTRAINED["int8"])],
            "slow": self._int8_is_slow,
            "lossy": lossy,
            "quick": any(_is_quick(each) for each in found),
            "worse": [name for name, one in both if not as_good(before, one)],
            "absent": [name for name in UNTRAINED.values() if all(each.name != name for each in found)],
            "runs_in": self._ran_in(),
        }

    def _tell(self, facts: Mapping[str, Any]) -> None:
        say, path = self.stage.session.say, self._parent.path
        if AS_IT_IS in facts["fits"]:
            why = f"{path} fits the budget as it is"
        else:
            say(f"{path} misses {', '.join(map(str, _over(facts, AS_IT_IS)))}")
            why = f"{facts['enough'][0]} fits and is as good within chance" if facts["enough"] else self.untrained
        if facts["enough"] or not self.seconds:
            self._leave_out({TRAINING: why})
        if facts["enough"] and self.job.unlabelled is not None:
            say(f"nothing is trained: {self.job.unlabelled} is not used")

    def _leave_out(self, orders: Mapping[str, str]) -> None:
        for name, why in orders.items():
            self._enter("refused", f"not tried, {why}", order=name)

    def _record(self, chosen: Agenda) -> None:
        """What is tried and what is not."""
        self._leave_out(chosen.left_out)
        if self.job.unlabelled is not None and not any("distill" in order.steps for order in chosen.orders):
            self.stage.session.say(f"no order that is tried learns from a teacher: {self.job.unlabelled} is not used")
        for order in chosen.orders:
            seconds = sum(self._doing.times[order.step(at)] for at in order.parts())
            self._enter(
                "done", f"tried, with {format_duration(seconds)} of training", order=order.name, seconds=seconds
            )

    def _enter(self, verdict: Verdict, what: str, *, order: str, **more: Any) -> None:
        """Say and enter what becomes of an order, once."""
        ledger, reason = self.stage.ledger, f"{order}: {what}"
        if not any(row.stage == ORDER and row.after["order"] == order for row in ledger.own):
            ledger.add(ORDER, verdict=verdict, reason=reason, after={"order": order, **more})
            self.stage.session.say(reason)

    def _closed(self, facts: Mapping[str, Any]) -> dict[Form, str]:
        """Forms that nothing is trained for, and why."""
        closed: dict[Form, str] = {}
        if "quantize" in facts["fits"] and not facts["lossy"]:
            closed["int8"] = "int8 fits without training"
        elif facts["slow"]:
            closed["int8"] = "int8 is slower here, whatever is left in float"
        if "halve" in facts["fits"]:
            closed["float16"] = "float16 fits without training"
        elif self._size_binds and "int8" not in closed:
            closed["float16"] = "int8 is smaller still"
        elif self._size_binds and UNTRAINED["float16"] in facts.get("absent", ()):
            closed["float16"] = "the whole model was refused in it"
        if "bfloat16" in facts["fits"]:
            closed["bfloat16"] = "bfloat16 fits without training"
        elif facts.get("quick") and UNTRAINED["bfloat16"] not in facts.get("worse", ()):
            closed["float32"] = "the same network is faster in bfloat16"
        return closed

    @property
    def _int8_is_slow(self) -> bool:
        """Whether every rung of the model's own ladder was slower than float."""
        rungs = [row for row in self.stage.ledger.own if row.stage == "rung" and row.after.get("step") == ROUNDING]
        return bool(rungs) and all(row.after["slow"] for row in rungs)


def _is_quick(found: Finalist) -> bool:
    """Whether it is the model in bfloat16, and faster by computing so."""
    return found.name == UNTRAINED["bfloat16"] and found.bundle.config.preferred.runtime == BFLOAT16_IN[-1]


def _over(facts: Mapping[str, Any], name: str) -> list[BudgetRow]:
    """The limits that something untrained misses, by the facts; none where it was not made."""
    return [BudgetRow(**row) for row in facts["over"].get(name, [])]
