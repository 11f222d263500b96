"""How long a training was allowed to take, for what is compared with it.

A run that goes on may be given another --time, and its training obeys it from its next plan on. What a comparison has
to be given is the time by which the number of steps was planned last, so every time that is given is a row of the plan,
at the first step that it can decide: whatever was typed after the last plan counts for nothing.
"""

from netsmith.run.plan import Plan

TIME, STEPS = "time_s", "total_steps"


def enter_time(plan: Plan, seconds: float) -> None:
    """Enter the time that a training may take, before it begins or goes on.

    Args:
        plan: of the training.
        seconds: as typed now.
    """
    times = [row.value for row in plan.rows if row.kind == TIME]
    if not times or times[-1] != seconds:
        plan.add(TIME, seconds, at=_planned(plan) + 1 if times else 0, why="seconds that training may take, as typed")


def time_of(plan: Plan) -> float:
    """Seconds by which a training planned its number of steps last."""
    return float(plan.value(TIME, _planned(plan)))


def _planned(plan: Plan) -> int:
    """The step of the newest plan of the number of steps."""
    return max((row.at for row in plan.rows if row.kind == STEPS), default=0)
