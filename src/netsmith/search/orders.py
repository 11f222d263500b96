"""Orders in which a trained model is distilled, pruned and quantized to fit a budget, and how they share time: pure.

An order is a row of verbs. Its last one says in which form the file ships, and what all before it aim at: a network
that will be quantized has to shrink less than one that stays float, so the same verbs make another network in another
form. Forms are int8; weights in float16, which are computed with in float32; weights in bfloat16, which OpenVINO
computes with as they are; and float32. Orders of one form, the most promising first:

    prune               the model's own network made narrower, trained on the labels
    prune, distill      the same, trained by the whole model
    distill             the family's own smaller network, fresh, taught by the model
    distill, prune, distill   one that is still too large, taught, made narrower, taught again

Where the whole model fits as int8 and only its answers are worse, it is trained with the rounding simulated: the order
`quantize`, before all others.

The form in which the model keeps the larger share of its work comes first, because that share is what accuracy lives
on; another one is tried too, unless it keeps far less. Few orders with much time each beat many with little.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Form = Literal["int8", "float16", "bfloat16", "float32"]
Verb = Literal["distill", "prune", "quantize", "halve", "bfloat16"]
LAST: Mapping[Form, tuple[Verb, ...]] = {
    "int8": ("quantize",), "float16": ("halve",), "bfloat16": ("bfloat16",), "float32": (),
}  # fmt: skip
FIRST: tuple[tuple[Verb, ...], ...] = (("prune",), ("prune", "distill"), ("distill",), ("distill", "prune", "distill"))
FAR = 2.0
"""How much less of the work a form may keep than another one and still be tried."""
FROM_SCRATCH, AFTER_A_CUT = 3.0, 2.0
"""Parts of the time: a fresh network has everything to learn."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What of a model fits a budget in one form.

    Attributes:
        kept: MACs or parameters that its pruned network may have; None where no pruning fits.
        share: of the model's own that this is, or that the student has where no pruning fits; 0 where nothing does.
        student: the family's largest network that fits; None where none does.
        larger: its next larger one, to be pruned; None where there is none that is smaller than the model.
        obstacles: why not, by "prune" and "distill".
        whole: whether the whole model fits; then there is nothing to prune or to distill for.
    """

    kept: int | None
    share: float
    student: str | None
    larger: str | None
    obstacles: Mapping[str, str]
    whole: bool = False

    def network(self, steps: Sequence[Verb]) -> int | str | None:
        """What verbs begin with: how far it is pruned, or the name of the student."""
        return self.kept if steps[0] == "prune" else self.student

    def obstacle(self, steps: Sequence[Verb]) -> str | None:
        """Why verbs before the form's own cannot be begun; None where they can."""
        if steps[0] == "prune":
            return self.obstacles.get("prune")
        if "prune" in steps and self.student is not None and self.larger is None:
            return "the family has no network between the one that fits and the model"
        return self.obstacles.get("distill")


@dataclass(frozen=True)
class Order:
    """One row of verbs."""

    steps: tuple[Verb, ...]

    @property
    def name(self) -> str:
        """Such as "prune+quantize"."""
        return "+".join(self.steps)

    @property
    def form(self) -> Form:
        """In which its file ships."""
        return next(form for form, last in LAST.items() if self.steps[len(self.steps) - len(last) :] == last)

    def step(self, at: int) -> str:
        """Name of a step, fit for a folder within that of its order."""
        return f"{self.name}/{at + 1}-{self.steps[at]}"

    def parts(self) -> dict[int, float]:
        """Steps that are trained, by their places, with the parts of time that they weigh; a cut before a distillation
        is trained by that, and rounding where nothing else is."""
        following = (*self.steps[1:], None)
        return {
            at: FROM_SCRATCH if at == 0 and verb == "distill" else AFTER_A_CUT
            for at, (verb, after) in enumerate(zip(self.steps, following, strict=True))
            if verb == "distill" or (verb == "prune" and after != "distill") or self.steps == ("quantize",)
        }


@dataclass(frozen=True)
class Agenda:
    """Orders that are worth trying, the most promising first, and why others are not, by their names."""

    orders: tuple[Order, ...]
    left_out: Mapping[str, str]


def agenda(
    reaches: Mapping[Form, Reach],
    closed: Mapping[Form, str] | None = None,
    *,
    seconds: float,
    before: float | None = None,
) -> Agenda:
    """What to train for.

    Args:
        reaches: by form, for all that are usable here, at least one.
        closed: why others are not.
        seconds: of training, all in all.
        before: seconds that the model was trained, where that is known.
    """
    forms = sorted(reaches, key=lambda form: (-reaches[form].share, list(LAST).index(form)))
    wanted = [Order(LAST["int8"])] if "int8" in reaches and reaches["int8"].whole else []
    left_out = {
        Order((verb, *LAST[form])).name: why for form, why in (closed or {}).items() for verb in ("prune", "distill")
    }
    for first in FIRST:
        for form in forms:
            order, best = Order((*first, *LAST[form])), forms[0]
            if form != best and len(first) > 1:
                continue  # a refinement of what is tried in the better form
            if obstacle := reaches[form].obstacle(first):
                left_out[order.name] = obstacle
            elif form != best and reaches[form].network(first) == reaches[best].network(first):
                left_out[order.name] = f"the same network is made for {Order((*first, *LAST[best])).name}"
            elif form != best and reaches[form].share * FAR < reaches[best].share:
                left_out[order.name] = (
                    f"{form} fits with {reaches[form].share:.0%} of the model where {best} fits with "
                    f"{reaches[best].share:.0%}"
                )
            else:
                wanted.append(order)
    count = most(seconds, before)
    for order in wanted[count:]:
        left_out[order.name] = f"the time is enough for {count} of {len(wanted)} orders; a longer --time tries more"
    return Agenda(tuple(wanted[:count]), left_out)


def most(seconds: float, before: float | None = None) -> int:
    """How many orders share so many seconds: 2 in a minute, 3 in ten, 4 in an hour, 5 in eight; and as many as each
    can have half of what the model was trained, because small things train in seconds."""
    worth = 0 if before is None else math.floor(2 * seconds / before)
    return max(1, worth, round(1.6 + 0.4 * math.log2(seconds / 60)))


def timetable(orders: Sequence[Order], seconds: float) -> dict[str, float]:
    """Seconds of every step that is trained, by its name; together exactly `seconds`.

    Args:
        orders: that are tried.
        seconds: of training, all in all.
    """
    weights = {order.step(at): weight for order in orders for at, weight in order.parts().items()}
    whole = sum(weights.values())
    return {step: seconds * weight / whole for step, weight in weights.items()}
