"""How the run went: the race, the training of its winner, what was refused, and the ledger itself."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from netsmith.report.charts import Point, race_chart, swatches
from netsmith.report.curves import charts, curve_of
from netsmith.report.evidence import Drawn, Evidence
from netsmith.report.lessons import lessons
from netsmith.report.markup import Content, Markup, folded, join, name, number, numbers, sentence, table, tag
from netsmith.report.stages import FINALIST
from netsmith.report.wording import bounds, brief, count, figures, milliseconds, moment, p_value, percent, plural, size
from netsmith.run.ledger import LedgerRow, own_rows
from netsmith.run.metrics import Interval, wilson
from netsmith.run.scores import METRIC_NAMES


class Entry(BaseModel):
    """A candidate after one rung, as the ledger has it; what was not recorded is None."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    id: str
    side: int | None = None
    params: int | None = None
    macs: int | None = None
    size_bytes: int | None = None
    latency_ms: Drawn | None = None
    epochs: float | None = None
    top1: float | None = None
    map: Interval | None = None
    p_value: float | None = None
    kept: bool | None = None


class Rung(BaseModel):
    """What the ledger's row of one rung holds."""

    model_config = ConfigDict(frozen=True)

    rung: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Runner:
    """A candidate's number in the table, its last rung, whether it won, and whether anybody did yet."""

    place: int
    rung: int
    entry: Entry
    score: Interval | None
    won: bool
    decided: bool


def race(evidence: Evidence) -> Markup | None:
    """Who raced, on which numbers, and why each was eliminated; None where nothing raced."""
    stages = evidence.rows("race")
    if not stages:
        return sentence("The run came to no race.") if evidence.command[:1] == ["fit"] else None
    try:
        runners = _runners(evidence, stages)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return sentence(f"The ledger's rows of the race cannot be read ({where}: {first['msg']}).")
    metric = METRIC_NAMES[evidence.metric]
    test = "McNemar's exact test" if evidence.metric == "top1" else "mAP on the same resamples"
    columns = (f"val {metric} (95% interval)", "epochs", "latency", "size", "MACs", "params", "side")
    return join(
        [
            _field(evidence),
            sentence(
                "Candidates answer the same validation pictures; one is eliminated only when it is worse than the "
                f"leader beyond chance ({test} on those pictures); the winner trains on."
            ),
            _race_chart(evidence, runners),
            table(
                [numbers(""), "Candidate", "outcome", *map(numbers, columns)], map(_runner_row, runners), class_="race"
            ),
        ]
    )


def _field(evidence: Evidence) -> Markup | None:
    rows = evidence.rows("candidates")
    if not rows:
        return None
    words = {
        "considered": "considered",
        "within_arithmetic": "within the limits by arithmetic",
        "timed": "timed on this machine",
        "feasible": "within the budget as timed",
    }
    after = rows[-1].after
    counts = [f"{after[key]:,} {text}" for key, text in words.items() if isinstance(after.get(key), int)]
    return sentence(f"Candidates: {', '.join(counts)}.") if counts else None


def _runners(evidence: Evidence, stages: list[LedgerRow]) -> list[Runner]:
    n = validation_pictures(evidence)
    last: dict[str, tuple[int, Entry]] = {}
    for row in stages:
        rung = Rung.model_validate(row.after)
        last |= {entry.id: (rung.rung, entry) for entry in rung.entries}
    trained = (row.after.get("id") for row in reversed(evidence.rows("train")))
    winner = next((id_ for id_ in trained if isinstance(id_, str) and id_ in last), None)
    ranked = sorted(last.values(), key=lambda pair: (pair[1].id != winner, -pair[0], -_score_of(pair[1]), pair[1].id))
    return [
        Runner(place, rung, entry, entry.map or _interval(entry.top1, n), entry.id == winner, winner is not None)
        for place, (rung, entry) in enumerate(ranked, start=1)
    ]


def _score_of(entry: Entry) -> float:
    return entry.map.value if entry.map is not None else entry.top1 or 0.0


def validation_pictures(evidence: Evidence) -> int | None:
    """How many pictures a validation accuracy of this run rests on, None where no file says."""
    if evidence.result is not None and (recorded := evidence.result.final.headline.val) is not None:
        return recorded.n
    if "val" in evidence.predictions:
        return len(evidence.predictions["val"].targets)
    recorded = next((row.after.get("val") for row in reversed(evidence.rows("split"))), None)
    return recorded if isinstance(recorded, int) and recorded > 0 else None


def _interval(share: float | None, n: int | None) -> Interval | None:
    if share is None or n is None or not 0 <= share <= 1:
        return None
    return wilson(round(share * n), n)


def _race_chart(evidence: Evidence, runners: list[Runner]) -> Markup | None:
    points = [
        Point(
            label=str(runner.place),
            x=runner.entry.latency_ms,
            y=runner.score.value,
            low=runner.score.low,
            high=runner.score.high,
            chosen=runner.won,
            kept=bool(runner.entry.kept),
        )
        for runner in runners
        if runner.score is not None and runner.entry.latency_ms is not None and runner.entry.latency_ms > 0
    ]
    if not points:
        return None
    rows = evidence.result.budget if evidence.result is not None else []
    limit = next((row.limit for row in rows if row.name == "latency_ms"), None)
    stayed = "in the race to the end" if runners[0].decided else "still in the race"
    marks = [("chosen", "won"), ("kept", stayed), ("out", "eliminated")]
    present = {(point.chosen, point.kept or point.chosen) for point in points}
    kinds = {"chosen": (True, True), "kept": (False, True), "out": (False, False)}
    legend = [(kind, text) for kind, text in marks if kinds[kind] in present]
    legend += [("limit", "latency limit")] if limit is not None else []
    caption = (
        "Numbers as in the table; bars are 95% intervals at the last rung each took part in. Latency is the upper "
        "bound of p90 as timed before training; the finished model is measured again."
    )
    return tag(
        "figure",
        race_chart(points, limit_ms=limit, metric=METRIC_NAMES[evidence.metric]),
        swatches(legend),
        tag("figcaption", caption),
        class_="wide",
    )


def _runner_row(runner: Runner) -> list[Content]:
    entry, score = runner.entry, runner.score
    share = "–" if entry.top1 is None else f"{percent(entry.top1)} (pictures not recorded)"
    if score is not None:
        share = f"{percent(score.value, n=score.n)} ({bounds(score)})"
    return [
        number(str(runner.place)),
        tag("td", tag("strong" if runner.won else "span", name(entry.id)), class_="tight"),
        _fate(runner),
        number(share),
        number("–" if entry.epochs is None else figures(entry.epochs)),
        number("–" if entry.latency_ms is None else milliseconds(entry.latency_ms)),
        number("–" if entry.size_bytes is None else size(entry.size_bytes)),
        number("–" if entry.macs is None else count(entry.macs)),
        number("–" if entry.params is None else count(entry.params)),
        number("–" if entry.side is None else f"{entry.side}"),
    ]


def _fate(runner: Runner) -> Markup:
    entry = runner.entry
    if runner.won:
        text = "won"
    elif entry.kept is False:
        p = f", {p_value(entry.p_value)}" if entry.p_value is not None else ""
        text = f"out after rung {runner.rung}{p}"
    else:
        text = "in the race to the end" if runner.decided else "still in the race"
    return tag("td", tag("strong", text) if runner.won else text, class_="tight")


def learning(evidence: Evidence) -> Markup:
    """The learning curves, and what they say in plain words."""
    marks, pictures = evidence.marks, validation_pictures(evidence)
    curve = curve_of(evidence, pictures=pictures)
    if curve is None:
        if not evidence.rows("train") and any(row.stage == "parent" for row in evidence.ledger):
            return sentence("Nothing was trained here.")
        return sentence(evidence.gaps.get("metrics.jsonl"), "No learning curve is recorded.")
    own = own_rows(evidence.ledger)
    shipped = next(
        (row.after.get("order") for row in reversed(own) if row.stage == FINALIST and row.after.get("won")), None
    )
    trained = [row for row in own if row.stage == "train" and "step" not in row.after]
    return join(
        [
            _training(trained[-1]) if trained else None,
            tag("p", "The last training of the order that is shipped, ", tag("bdi", str(shipped)), ".")
            if shipped
            else None,
            tag("p", tag("bdi", evidence.marks_of), " is in front so far; this is its training.")
            if evidence.marks_of is not None
            else None,
            *(tag("p", _sentence(lesson.text), class_="notice") for lesson in lessons(evidence, pictures=pictures)),
            tag("div", *(tag("figure", chart) for chart in charts([curve])), class_="charts"),
            sentence(
                f"{plural(len(marks), 'moment')} recorded, the last at step {marks[-1].step:,}.",
                _why_losses_differ(evidence),
            ),
        ]
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _why_losses_differ(evidence: Evidence) -> str | None:
    recipe = evidence.recipe
    if recipe is None:
        return None
    ways = [
        ("mixed in pairs", recipe.mixup or recipe.cutmix),
        (f"with labels smoothed by {recipe.smoothing:g}", recipe.smoothing),
        (
            "with all classes counting alike"
            if evidence.metric == "top1"
            else "with pictures that have a label counting as much as those without it",
            recipe.class_balance != "none",
        ),
    ]
    how = ", ".join(words for words, so in ways if so)
    if not how:
        return None
    return f"The training loss is taken on augmented pictures, {how}, so it can lie above the validation loss."


def _training(row: LedgerRow) -> Markup | None:
    words = {
        "steps": "{:,.0f} step{}",
        "epochs": "{:.1f} epoch{}",
        "seconds": "{:,.1f} second{}",
        "images_per_s": "{:,.0f} picture{} a second",
    }
    found = {key: value for key in words if isinstance(value := row.after.get(key), int | float)}
    parts = [words[key].format(value, "" if value == 1 else "s") for key, value in found.items()]
    who = row.after.get("id")
    of = ["Training of ", tag("bdi", who)] if isinstance(who, str) else ["Training"]
    return tag("p", *of, f": {', '.join(parts)}.") if parts else None


def refusals(evidence: Evidence) -> Markup:
    """Stages that did not prove themselves, or failed."""
    if not evidence.ledger:
        return sentence(evidence.gaps.get("ledger.jsonl"), "Which stages were refused is not recorded.")
    rows = [row for row in evidence.ledger if row.verdict in ("refused", "failed")]
    if not rows:
        return sentence("No stage was refused and none failed.")
    head = ["Stage", "verdict", "why", "before", "after"]
    return table(head, ([row.stage, row.verdict, row.reason, brief(row.before), brief(row.after)] for row in rows))


def ledger(evidence: Evidence) -> Markup | None:
    """Every stage in its order, folded away."""
    if not evidence.ledger:
        return None
    rows = (
        [tag("td", moment(row.time), class_="tight"), row.stage, row.verdict, row.reason] for row in evidence.ledger
    )
    title = f"The ledger: {plural(len(evidence.ledger), 'stage')} in order"
    return folded(title, table(["Time", "stage", "verdict", "what happened"], rows))
