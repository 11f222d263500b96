"""What a person asks first: did it work, does it fit, and how sure is that."""

import shlex

from pydantic import ValidationError

from netsmith.report.answers import Scores
from netsmith.report.evidence import SPLITS, Evidence
from netsmith.report.markup import Content, Markup, code, join, number, numbers, sentence, table, tag
from netsmith.report.tagging import TagScores
from netsmith.report.wording import (
    SPLIT_NAMES,
    between,
    bounds,
    budget_cells,
    count,
    milliseconds,
    moment,
    percent,
    plural,
    size,
    within,
)
from netsmith.run.ledger import own_rows
from netsmith.run.metrics import Interval
from netsmith.run.result import Result
from netsmith.run.scores import METRIC_NAMES, POINTS, told_apart

NOISY = 0.5  # on a machine more uneven than this a latency holds little


def verdict(evidence: Evidence) -> Markup:
    """The outcome in one sentence, coloured by whether the budget is met."""
    result = evidence.result
    if result is None:
        return _unfinished(evidence)
    met = all(row.met for row in result.budget)
    parts: list[Content] = [tag("strong", tag("bdi", result.final.model)), " ", _accuracy(result)]
    if result.budget:
        cells = (budget_cells(row) for row in result.budget)
        rows = ", ".join(f"{within(title)} {measured} of {limit}" for title, limit, measured in cells)
        parts += [" and ", tag("strong", "meets" if met else "does not meet"), f" the budget ({rows})."]
    else:
        parts.append("; no budget was given.")
    check = evidence.verification
    broken = check is not None and check.verdict == "failed"
    if check is None:
        parts.append(" It was not verified in a fresh process.")
    elif broken:
        parts += [" ", tag("strong", "Its verification failed"), f": {_stop(check.reason)}"]
    kind = "bad" if broken or not met else "good" if result.budget else ""
    return tag("div", tag("p", *parts), _beside_what_it_began_with(evidence), class_=f"verdict {kind}".strip())


def _beside_what_it_began_with(evidence: Evidence) -> Markup | None:
    """Whether training made the model better that it went on with; None where no such model had the same classes."""
    row = next((row for row in reversed(own_rows(evidence.ledger)) if row.stage == "train"), None)
    if row is None or "change" not in row.after:
        return None
    try:
        change = Interval.model_validate(row.after["change"])
    except ValidationError:
        return None
    low, high = (f"{POINTS * bound:+.2f}" for bound in (change.low, change.high))
    return tag(
        "p",
        "Beside the model that it went on with it is ",
        tag("strong", told_apart(change)),
        f": {POINTS * change.value:+.2f} points on {plural(change.n, 'validation picture')}, paired, 95% interval "
        f"{low} to {high}.",
        " Some of these pictures may be ones that it was trained on." if row.after.get("doubtful") is True else None,
    )


def _accuracy(result: Result) -> Markup:
    found = result.final.headline
    for split, interval in (("test", found.test), ("validation", found.val)):
        if interval is not None:
            caveat = "" if split == "test" else "; the test split was not read"
            share = tag("strong", percent(interval.value, n=interval.n))
            pictures = plural(interval.n, f"{split} picture")
            if result.final.metric == "map":
                sure = f" mean average precision on {pictures} (95% interval {bounds(interval)}{caveat})"
                return join(["reaches ", share, sure])
            return join(["gets ", share, f" of {pictures} right (95% interval {bounds(interval)}{caveat})"])
    return join(["is trained, but no accuracy is recorded,"])


def _unfinished(evidence: Evidence) -> Markup:
    if evidence.state == "finished":
        what = tag("strong", "The result of this run cannot be read.")
        return tag("div", tag("p", what, f" {evidence.gaps['results.json']}"), class_="verdict bad")
    last = evidence.ledger[-1] if evidence.ledger else None
    if last is not None and last.verdict == "failed":
        what = tag("strong", "This run ended without a result.")
        return tag("div", tag("p", what, f" Stage “{last.stage}”: {_stop(last.reason)}"), class_="verdict bad")
    parts: list[Content] = [tag("strong", "This run is not finished."), " No stage of it is recorded yet."]
    if last is not None:
        parts[1] = f" Its last recorded stage is “{last.stage}” ({moment(last.time)}): {_stop(last.reason)}"
    if evidence.model is not None:
        parts.append(" The folder model/ holds an artifact already; how good it is has not been established.")
    how = tag("p", "If it is not running any more, go on with ", code(resume_command(evidence)))
    return tag("div", tag("p", *parts), how, class_="verdict")


def _stop(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def resume_command(evidence: Evidence) -> str:
    """What to type to go on with the run."""
    words = ["netsmith", *evidence.command]
    return shlex.join(words if "--resume" in words else [*words, "--resume"])


def tiles(evidence: Evidence) -> Markup | None:
    """The numbers of the result at a glance."""
    if evidence.result is None:
        return None
    final = evidence.result.final
    shown: list[tuple[str, str, str]] = []
    metric, found = METRIC_NAMES[final.metric], final.headline
    for title, interval in ((f"Test {metric}", found.test), (f"Validation {metric}", found.val)):
        if interval is not None:
            shown.append((title, percent(interval.value, n=interval.n), f"{bounds(interval)}, n = {interval.n:,}"))
    latency = final.latency_ms
    memory = [f"{size(final.memory_bytes)} of memory in use"] if final.memory_bytes is not None else []
    shown += [
        ("Latency, p90", milliseconds(latency.p90), between(latency.low, latency.high)),
        ("Size to ship", size(final.size_bytes), ", ".join([final.precision, *memory])),
        ("MACs", count(final.macs), "for one picture"),
        ("Parameters", count(final.params), _input(evidence)),
    ]
    return tag(
        "div",
        *(
            tag("div", tag("span", title), tag("b", value), tag("span", note), class_="tile")
            for title, value, note in shown
        ),
        class_="tiles",
    )


def _input(evidence: Evidence) -> str:
    if evidence.model is None:
        return ""
    side = evidence.model.preprocess.size
    return f"input {side} × {side} pixels"


def budget(evidence: Evidence) -> Markup | None:
    """Each limit, what was measured, and whether it holds; None where there was no budget."""
    if evidence.result is None or not evidence.result.budget:
        return None
    rows: list[list[Content]] = []
    for row in evidence.result.budget:
        title, limit, measured = budget_cells(row)
        title += ", upper bound of p90" if row.name == "latency_ms" else ""
        met = tag("span", "met" if row.met else "not met", class_="yes" if row.met else "no")
        rows.append([title, number(limit), number(measured), met])
    return table(["Budget", numbers("limit"), numbers("measured"), ""], rows)


def certainty(evidence: Evidence, scores: dict[str, Scores | TagScores]) -> Markup:
    """Intervals, what was read when, and how quiet the machine was."""
    return join([_intervals(evidence, scores), _readings(evidence), _latency(evidence), _verification(evidence)])


def recorded_headline(evidence: Evidence, split: str) -> Interval | None:
    """Top-1 or mAP of a split as `results.json` has it."""
    if evidence.result is None:
        return None
    found = evidence.result.final.headline
    return found.test if split == "test" else found.val


def _intervals(evidence: Evidence, scores: dict[str, Scores | TagScores]) -> Markup:
    tags = evidence.metric == "map"
    rows: list[list[Content]] = []
    notices: list[Content] = []
    for split in SPLITS:
        recorded, scored = recorded_headline(evidence, split), scores.get(split)
        found = recorded or (scored.headline if scored else None)
        if found is None:
            continue
        cells = (f"{found.n:,}", percent(found.value, n=found.n), bounds(found), *_more(scored, tags=tags))
        rows.append([SPLIT_NAMES[split].capitalize(), *map(number, cells)])
        if scored is None:
            notices.append(sentence(evidence.gaps[f"predictions/{split}.npz"]))
        elif recorded and (recorded.n, round(recorded.value, 9)) != (
            scored.headline.n,
            round(scored.headline.value, 9),
        ):
            notices.append(_disagreement(evidence, split, recorded, scored.headline))
    if not rows:
        return sentence(
            "No accuracy is recorded.", *(evidence.gaps.get(f"predictions/{split}.npz") for split in SPLITS)
        )
    metric = METRIC_NAMES[evidence.metric]
    others = ("by chance", "F1 macro (95% interval)", "F1 micro (95% interval)") if tags else ("top-5",)
    how = "resampled pictures" if tags else "Wilson"
    return join(
        [
            table(["Split", *map(numbers, ("pictures", metric, "95% interval", *others))], rows),
            sentence(
                "mAP is the mean of the labels' average precisions, which by chance are the shares of pictures that "
                "have each; F1 holds at the artifact's thresholds, which were chosen on validation."
                if tags
                else None,
                f"The interval ({how}, 95%) is where the {'number' if tags else 'share'} on endless pictures of the "
                "same kind plausibly lies; two models whose difference is well inside it are not told apart by these "
                "pictures.",
            ),
            *notices,
        ]
    )


def _more(scored: Scores | TagScores | None, *, tags: bool) -> list[str]:
    """Beside the headline: top-5, or what it is by chance and both F1."""
    if scored is None:
        return ["–", "–", "–"] if tags else ["–"]
    if isinstance(scored, TagScores):
        f1 = [f"{percent(each.value, n=each.n)} ({bounds(each)})" for each in (scored.f1_macro, scored.f1_micro)]
        return [percent(scored.by_chance), *f1]
    return [percent(scored.top5.value, n=scored.top5.n) if len(scored.per_class) > 5 else "–"]


def _disagreement(evidence: Evidence, split: str, recorded: Interval, found: Interval) -> Markup:
    of = "of" if evidence.metric == "top1" else "mAP on"
    return tag(
        "p",
        f"results.json says {percent(recorded.value, n=recorded.n)} {of} {recorded.n:,} for the {SPLIT_NAMES[split]} "
        f"split, but the recorded answers give {percent(found.value, n=found.n)} {of} {found.n:,}: one of the two "
        "files is not what the run wrote. Measure again with ",
        code(shlex.join(["netsmith", "verify", str(evidence.path)])),
        class_="notice bad",
    )


def _readings(evidence: Evidence) -> Markup:
    if not evidence.ledger:
        return sentence(evidence.gaps.get("ledger.jsonl"), "What was read when is not recorded.")
    test = [row for row in evidence.ledger if "test" in row.splits_read]
    stages = list(dict.fromkeys(row.stage for row in evidence.ledger if "val" in row.splits_read))
    chose = (
        f"{_listed(stages)} looked at the validation split to decide, so a number on it flatters." if stages else None
    )
    if not test:
        return sentence("The labels of the test split were not read.", chose)
    if len(test) == 1:
        row = test[0]
        return sentence(f"The test split was read once, by the stage “{row.stage}” ({moment(row.time)}).", chose)
    artifacts = {tuple(row.inputs) for row in test}
    times = ", ".join(f"“{row.stage}” {moment(row.time)}" for row in test[:10])
    same = "with the same inputs each time" if len(artifacts) == 1 else f"with {len(artifacts)} different inputs"
    return join(
        [
            tag("p", f"The test split was read {len(test)} times, {same}: {times}. "
                "A number that was looked at more than once is no longer quite an unseen one.", class_="notice"),
            sentence(chose),
        ]
    )  # fmt: skip


def _listed(stages: list[str]) -> str:
    names = [f"“{stage}”" for stage in stages]
    return f"The stage {names[0]}" if len(names) == 1 else f"The stages {', '.join(names[:-1])} and {names[-1]}"


def _verification(evidence: Evidence) -> Markup | None:
    row = evidence.verification
    if row is None:
        return None
    outcome = "held every number" if row.verdict == "done" else "did not hold"
    return sentence(f"The verification {outcome} ({moment(row.time)}: {row.reason}).")


def _latency(evidence: Evidence) -> Markup | None:
    if evidence.result is None:
        return None
    final, latency = evidence.result.final, evidence.result.final.latency_ms
    doubt = (
        " So uneven a machine says little: measure again on a quiet one with netsmith bench."
        if latency.noise > NOISY
        else ""
    )
    needed = None
    if final.memory_bytes is not None:
        needed = (
            f"The process that measured it, which had this model alone, needed {size(final.memory_bytes)} of memory."
        )
    return sentence(
        f"One prediction takes {milliseconds(latency.p50)} at the median and {milliseconds(latency.p90)} at the 90th "
        f"percentile (95% interval {between(latency.low, latency.high)}) in {final.runtime} "
        f"with {plural(final.threads, 'thread')}, one picture at a time, resizing not included. While this was "
        f"measured the machine was uneven by {percent(latency.noise)}; 5% is quiet.{doubt}",
        needed,
        "A latency limit is held against the upper end of the interval." if evidence.result.budget else None,
    )
