"""Where a model that tags is right and wrong: label by label, and the answers it was surest of."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact.evaluate import given_tags
from netsmith.report.evidence import Evidence
from netsmith.report.markup import Content, Markup, folded, join, name, number, numbers, sentence, table, tag
from netsmith.report.wording import SPLIT_NAMES, figures, percent, plural
from netsmith.run.metrics import Interval
from netsmith.run.scores import headline
from netsmith.run.tagging import (
    FALLBACK_THRESHOLD,
    average_precision,
    bootstrap_interval,
    f1_replicates,
    probabilities_of,
)

SHOWN_LABELS, WORST_LABELS = 40, 20
SHOWN_MISTAKES = 10


@dataclass(frozen=True, kw_only=True)
class TagScores:
    """Answers on N pictures of C labels.

    Attributes:
        headline: mAP.
        f1_macro, f1_micro: at the thresholds.
        precisions: average precision of each label, NaN for one that no picture has, [C].
        thresholds: [C].
        targets, given: bool [N,C], what the pictures have and what was answered.
        probabilities: float64 [N,C].
    """

    headline: Interval
    f1_macro: Interval
    f1_micro: Interval
    precisions: NDArray[np.float64]
    thresholds: tuple[float, ...]
    targets: NDArray[np.bool_]
    given: NDArray[np.bool_]
    probabilities: NDArray[np.float64]

    @property
    def by_chance(self) -> float:
        """About the mAP of answers that know nothing: the mean share of pictures of the labels that one has."""
        shares = self.targets.mean(axis=0)
        return float(shares[shares > 0].mean()) if shares.any() else 0.0


def score_tags(
    logits: NDArray[np.float32], targets: NDArray[np.bool_], *, thresholds: tuple[float, ...] | None
) -> TagScores:
    """Score recorded answers.

    Args:
        logits: float32 [N,C], N >= 1, finite.
        targets: bool [N,C].
        thresholds: of the artifact; None where it cannot be read. Those of another number of labels are not used.
    """
    n, classes = targets.shape
    known = thresholds if thresholds is not None and len(thresholds) == classes else (FALLBACK_THRESHOLD,) * classes
    given = given_tags(logits, known)
    macro, micro = f1_replicates(given, targets)
    return TagScores(
        headline=headline(logits, targets),
        f1_macro=bootstrap_interval(macro, n=n),
        f1_micro=bootstrap_interval(micro, n=n),
        precisions=average_precision(logits, targets),
        thresholds=known,
        targets=targets,
        given=given,
        probabilities=probabilities_of(logits),
    )


def by_label(evidence: Evidence, scores: TagScores, split: str) -> Markup:
    """Precision, recall and average precision of every label, the weakest first, and the surest mistakes."""
    n = len(scores.targets)
    empty = int((~scores.targets.any(axis=1)).sum())
    exact = int((scores.given == scores.targets).all(axis=1).sum())
    return join(
        [
            sentence(
                f"Of the {plural(n, 'picture')} of the {SPLIT_NAMES[split]} split, {empty:,} of them without any "
                f"label, {exact:,} ({percent(exact / n)}) are given exactly the labels that they have.",
                None if split == "test" else "This split also chose the model and its thresholds: the numbers flatter.",
            ),
            _table(evidence, scores, split),
            _mistakes(evidence, scores, split),
        ]
    )


def _table(evidence: Evidence, scores: TagScores, split: str) -> Markup:
    trained: Counter[int] = Counter()
    if evidence.data is not None:
        rows = evidence.data.items.values()
        trained.update(label for item in rows if item.split == "train" for label in item.labels)
    precisions = np.nan_to_num(scores.precisions, nan=2.0)
    order = np.lexsort((np.arange(len(precisions)), precisions)).tolist()

    def row(label: int) -> list[Content]:
        has, said = scores.targets[:, label], scores.given[:, label]
        hits, there, given = int((has & said).sum()), int(has.sum()), int(said.sum())
        shown = [
            f"{trained[label]:,}" if trained else "–",
            f"{there:,}",
            percent(float(scores.precisions[label])) if there else "–",
            percent(there / len(has)),
            percent(hits / given) if given else "–",
            percent(hits / there) if there else "–",
            percent(2 * hits / (given + there)) if there else "–",
            figures(scores.thresholds[label], digits=2),
        ]
        return [name(evidence.class_name(label)), *map(number, shown)]

    columns = ("to train on", SPLIT_NAMES[split], "average precision", "by chance", "precision", "recall", "F1")
    head = ["Label", *map(numbers, (*columns, "threshold"))]
    note = sentence(
        "Average precision does not depend on the threshold; by chance it is the share of pictures that have the "
        "label. Precision is how many of those given the label have it, recall how many that have it were given it, at "
        "the threshold that the artifact uses."
    )
    if len(order) <= SHOWN_LABELS:
        return join([tag("h3", "By label, the weakest first"), table(head, map(row, order)), note])
    return join(
        [
            tag("h3", f"The {WORST_LABELS} weakest labels"),
            table(head, map(row, order[:WORST_LABELS])),
            note,
            folded(f"All {len(order):,} labels, the weakest first", table(head, map(row, order))),
        ]
    )


def _mistakes(evidence: Evidence, scores: TagScores, split: str) -> Markup | None:
    """The labels given or left out with most certainty that are wrong; not those at a threshold's edge."""
    items = evidence.data.items if evidence.data is not None else {}
    keys = evidence.predictions[split].keys
    parts: list[Markup] = []
    for wrong, doubt, title, column in (
        (scores.given & ~scores.targets, scores.probabilities, "Given, but not in the data", "given"),
        (~scores.given & scores.targets, 1 - scores.probabilities, "In the data, but not given", "left out"),
    ):
        places = np.argwhere(wrong)
        if not len(places):
            continue
        order = np.argsort(-doubt[wrong], kind="stable")[:SHOWN_MISTAKES]
        rows: list[list[Content]] = []
        for index, label in places[order].tolist():
            key = keys[index]
            picture = name(items[key].name) if key in items else tag("code", f"sha256 {key[:16]}…")
            shown = number(percent(float(scores.probabilities[index, label])))
            rows.append([picture, name(evidence.class_name(label)), shown])
        parts += [tag("h3", title), table(["Picture", column, numbers("probability")], rows)]
    if not parts:
        return sentence("Every label of every picture is right.")
    return join([*parts, sentence("Look at these first: a sure mistake is often a label that is missing or wrong.")])
