"""Classes of very unequal size: what is said of them, and what cannot be done about them."""

from netsmith.data.audit import Audit
from netsmith.errors import InputError
from netsmith.run.recipe import ClassBalance
from netsmith.run.scores import Task

UNEQUAL: dict[Task, str] = {
    "classify": (
        "training sees the classes as unequal as they are, and small ones count little; --class-balance sampling shows "
        "each equally often, --class-balance loss weighs rare pictures up"
    ),
    "tag": (
        "training sees the labels as unequal as they are, and rare ones are given hesitantly; --class-balance loss "
        "lets pictures that have a label count as much as those that have not"
    ),
}
"""What is said where nothing is done about it."""


def advice(audited: Audit, balance: ClassBalance) -> str | None:
    """A sentence about very unequal classes when nothing is done about them; None where there are none."""
    unequal = any(finding.kind == "imbalance" for finding in audited.findings)
    return UNEQUAL[audited.dataset.task] if unequal and balance == "none" else None


def refuse_sampled_tags(task: Task, balance: ClassBalance) -> None:
    """Refuse to show every class equally often where a picture is of several.

    Raises:
        InputError: it was asked for.
    """
    if task == "tag" and balance == "sampling":
        raise InputError(
            "--class-balance sampling shows every class equally often, and pictures with several labels belong to "
            "several classes; use --class-balance loss"
        )
