"""Where the model is right and wrong: by class, by pair of classes, and picture by picture."""

from collections import Counter

from netsmith.artifact.predictions import Predictions
from netsmith.report.answers import Scores
from netsmith.report.evidence import Evidence
from netsmith.report.markup import Content, Markup, folded, join, name, number, numbers, raw, sentence, table, tag
from netsmith.report.tagging import TagScores, by_label
from netsmith.report.wording import SPLIT_NAMES, bounds, percent, plural
from netsmith.run.metrics import Interval

SHOWN_CLASSES = 30
WORST_CLASSES = 15
MATRIX_CLASSES = 20
SHOWN_PAIRS = 15


def accuracy(evidence: Evidence, scores: dict[str, Scores | TagScores]) -> Markup:
    """Accuracy per class or label and the surest mistakes, on the test split if there are answers for it."""
    split = next(iter(scores), None)
    if split is None:
        return sentence(*(evidence.gaps.get(f"predictions/{split}.npz") for split in ("test", "val")))
    found = scores[split]
    if isinstance(found, TagScores):
        return by_label(evidence, found, split)
    right = sum(interval is not None for interval in found.per_class)
    return join(
        [
            sentence(
                f"On the {plural(len(found.targets), 'picture')} of the {SPLIT_NAMES[split]} split,",
                f"{plural(right, 'class', 'classes')}.",
                None if split == "test" else "This split also chose the model, so the numbers flatter.",
            ),
            _per_class(evidence, found, split),
            _confusions(evidence, found),
            _mistakes(evidence, found, evidence.predictions[split]),
        ]
    )


def _per_class(evidence: Evidence, scores: Scores, split: str) -> Markup:
    trained: Counter[int] = Counter()
    if evidence.data is not None:
        trained.update(item.label for item in evidence.data.items.values() if item.split == "train")
    order = sorted(range(len(scores.per_class)), key=lambda label: _worst_first(scores.per_class[label], label))

    def rows(labels: list[int]) -> list[list[Content]]:
        return [_class_row(evidence, scores, label, trained[label] if trained else None) for label in labels]

    head = [
        "Class",
        numbers("to train on"),
        numbers(SPLIT_NAMES[split]),
        numbers("right"),
        numbers("share"),
        "95% interval",
        "most often taken for",
    ]
    if len(order) <= SHOWN_CLASSES:
        return join([tag("h3", "By class, the weakest first"), table(head, rows(order))])
    return join(
        [
            tag("h3", f"The {WORST_CLASSES} weakest classes"),
            table(head, rows(order[:WORST_CLASSES])),
            folded(f"All {len(order):,} classes, the weakest first", table(head, rows(order))),
        ]
    )


def _worst_first(interval: Interval | None, label: int) -> tuple[float, float, int]:
    return (interval.value, interval.low, label) if interval is not None else (2.0, 0.0, label)


def _class_row(evidence: Evidence, scores: Scores, label: int, trained: int | None) -> list[Content]:
    interval, other = scores.per_class[label], scores.taken_for[label]
    cells: list[Content] = [name(evidence.class_name(label)), number("–" if trained is None else f"{trained:,}")]
    if interval is None:
        return [*cells, number("0"), number("–"), number("–"), tag("td", "no pictures", class_="muted"), None]
    return [
        *cells,
        number(f"{interval.n:,}"),
        number(f"{round(interval.value * interval.n):,}"),
        number(percent(interval.value)),
        tag("td", _bar(interval), " ", tag("span", bounds(interval), class_="muted"), class_="tight"),
        name(evidence.class_name(other)) if other is not None else None,
    ]


def _bar(interval: Interval) -> Markup:
    low, high, value = (round(100 * share, 1) for share in (interval.low, interval.high, interval.value))
    return raw(
        f'<span class="span" aria-hidden="true"><i style="left:{low}%;right:{round(100 - high, 1)}%"></i>'
        f'<b style="left:{value}%"></b></span>'
    )


def _confusions(evidence: Evidence, scores: Scores) -> Markup:
    if not scores.confusions:
        return sentence("No picture was taken for another class.")
    shown = scores.confusions[:SHOWN_PAIRS]
    rows = (
        [
            name(evidence.class_name(pair.target)),
            name(evidence.class_name(pair.answer)),
            number(f"{pair.count:,} of {pair.total:,}"),
            number(percent(pair.count / pair.total)),
        ]
        for pair in shown
    )
    more = len(scores.confusions) - len(shown)
    return join(
        [
            tag("h3", "Most frequent confusions"),
            table(["Pictures of", "taken for", numbers("pictures"), numbers("share of the class")], rows),
            sentence(
                f"{plural(more, 'other pair')} of classes {'is' if more == 1 else 'are'} confused at most as often."
            )
            if more
            else None,
            _matrix(evidence, scores),
        ]
    )


def _matrix(evidence: Evidence, scores: Scores) -> Markup | None:
    classes = len(scores.per_class)
    if classes > MATRIX_CLASSES:
        return None
    counts = scores.matrix()
    rows: list[list[Content]] = []
    for label in range(classes):
        total = int(counts[label].sum())
        row: list[Content] = [tag("th", f"{label + 1} ", name(evidence.class_name(label)), scope="row")]
        for answer in range(classes):
            hits = int(counts[label, answer])
            title = f"{evidence.class_name(label)} taken for {evidence.class_name(answer)}"[:500]
            share = f"--share:{round(hits / total, 3) if total else 0}"
            cell = f"{hits:,}" if hits else "·" if label != answer else "0"
            row.append(tag("td", cell, style=share, title=title, class_="right" if label == answer else None))
        rows.append(row)
    head = ["Class \\ answer", *(str(label + 1) for label in range(classes))]
    return join([tag("h3", "Confusion matrix"), table(head, rows, class_="matrix")])


def _mistakes(evidence: Evidence, scores: Scores, predictions: Predictions) -> Markup | None:
    if not scores.mistakes:
        return None
    items = evidence.data.items if evidence.data is not None else {}
    rows: list[list[Content]] = []
    for mistake in scores.mistakes:
        hash_ = predictions.keys[mistake.index]
        picture = name(items[hash_].name) if hash_ in items else tag("code", f"sha256 {hash_[:16]}…")
        names = (name(evidence.class_name(label)) for label in (mistake.target, mistake.answer))
        rows.append([picture, *names, number(percent(mistake.confidence))])
    return join(
        [
            tag("h3", "The mistakes it was surest of"),
            sentence("Look at these first: a sure mistake is often a wrong label or a picture of two things."),
            table(["Picture", "labelled", "taken for", numbers("with")], rows),
        ]
    )
