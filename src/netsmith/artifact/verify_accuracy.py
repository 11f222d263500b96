"""The accuracy that a run recorded, found again from its predictions, its pictures and its artifact.

It is recomputed from `predictions/`, which must hold exactly the pictures and labels of `data.json`; where the data
source is still there, every picture is read, matched by hash, prepared and classified again, and its logits must agree:
within 1e-3 of the largest for float32, 5e-2 for other precisions. Where it is not there any more, that is said and the
predictions alone are checked.

It is classified in the runtime that `predictions/` names, unless the user asked for another or that one cannot run
here. Two runtimes round an int8 graph in ways of their own: held against another one's answers logits may be 0.2 of the
largest apart, with which nothing can be said of single pictures, so the score itself must be the same within 3 points
and one picture. Where the artifact prefers another runtime by now than the one that answered, both are held to.
"""

import math
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact.bundle import Bundle
from netsmith.artifact.evaluate import Evaluation
from netsmith.artifact.predictions import Predictions
from netsmith.artifact.runtimes import RUNTIMES, Session, open_session, precision_in
from netsmith.artifact.verify import Check, Report
from netsmith.data.items import Entry, Source, content_key, label_text, labels_of
from netsmith.data.prepare import Pixels, prepare
from netsmith.data.record import DataRecord
from netsmith.data.sources import open_source
from netsmith.errors import InputError
from netsmith.run.folder import RunFolder
from netsmith.run.machine import machine
from netsmith.run.metrics import Interval
from netsmith.run.progress import Progress
from netsmith.run.result import Result
from netsmith.run.scores import are_tags

Split = Literal["val", "test"]
_SCORE_TOLERANCE = {"float32": 0.005, "float16": 0.005, "bfloat16": 0.03, "int8": 0.03}
_LOGIT_TOLERANCE = {"float32": 1e-3, "float16": 1e-3, "bfloat16": 5e-2, "int8": 5e-2}
"""The coarser the later."""


@dataclass(frozen=True)
class _Agreement:
    """How far answers may be from those that were recorded.

    Attributes:
        logits: share of the largest.
        score: of mAP, and of any score where two runtimes round in ways of their own.
        apart: whether they do.
    """

    logits: float
    score: float
    apart: bool

    @classmethod
    def of(cls, bundle: Bundle, here: str, recorded: str) -> Self:
        """Between two runtimes of an artifact, which may be the same."""
        coarse = list(_LOGIT_TOLERANCE)
        precision = max((precision_in(bundle, each) for each in (here, recorded)), key=coarse.index)
        apart = precision == "int8" and here != recorded
        return cls(0.2 if apart else _LOGIT_TOLERANCE[precision], _SCORE_TOLERANCE[precision], apart)


def check_accuracy(
    run: RunFolder,
    result: Result,
    record: DataRecord,
    bundle: Bundle | None,
    session: Session | None,
    report: Report,
    progress: Progress,
    *,
    asked: bool = False,
) -> None:
    """Check the recorded accuracy; `session` is in the runtime that was `asked` for, or that runs the artifact here."""
    splits: dict[Split, Predictions] = {}
    metric = result.final.metric
    kinds: tuple[Split, Split] = ("val", "test")
    for split in kinds:
        path = run.predictions(split)
        recorded = result.final.scores(split)
        if not recorded:
            if path.exists():
                report(
                    Check(
                        f"{metric} {split}", None, path.name, False, "there are predictions, but no number is recorded"
                    )
                )
            continue
        try:
            predictions = Predictions.load(path)
        except InputError as error:
            report(Check(f"predictions of {split}", "an answer per picture", "damaged", False, str(error)))
            continue
        if are_tags(predictions.targets) != (metric == "map"):
            report(Check(f"{metric} {split}", metric, path.name, False, "its targets are of another task"))
            continue
        answered = predictions.logits.shape[1]
        shipped = len(bundle.config.thresholds or ()) if bundle is not None and metric == "map" else answered
        if not answered == shipped == len(record.classes):
            wrong = f"{answered} in predictions, {shipped} in the model"
            report(Check(f"classes {split}", len(record.classes), wrong, False, "they are not of one run"))
            continue
        if predictions.runtime not in (None, *RUNTIMES):
            report(Check(f"runtime of {split}", ", ".join(RUNTIMES), predictions.runtime, False, "there is none such"))
            continue
        if metric == "map" and bundle is None:
            continue  # without its thresholds nothing can be said
        thresholds = None if bundle is None else bundle.config.thresholds
        found = Evaluation(predictions.logits, predictions.targets, thresholds).scores
        for name, interval in recorded.items():
            report(Check(f"{name} {split}", _shown(interval), _shown(found[name]), _same(interval, found[name])))
        _check_members(split, predictions, record, report)
        splits[split] = predictions
    if not splits or bundle is None or session is None:
        return
    try:
        source = open_source(record.source)
    except InputError as error:
        note = f"the data is not there any more ({error}); accuracy was checked from predictions/ only"
        report(Check("data", record.source, None, None, note))
        return
    answered_in: dict[Split, str] = {split: each.runtime or result.final.runtime for split, each in splits.items()}
    for opened in [session] if asked else _in_their_own(bundle, session, answered_in, report):
        own = opened is session
        there: dict[Split, Predictions] = {
            split: each for split, each in splits.items() if own or answered_in[split] == opened.runtime
        }
        again = _Again(source, there, bundle, opened)
        again.classify(progress, names={row.name for row in record.items.values() if row.split in there})
        for split, predictions in there.items():
            agreement = _Agreement.of(bundle, opened.runtime, answered_in[split])
            name = split if own else f"{split} in {opened.runtime}"
            _check_again(name, predictions, record, again, agreement, report)


def _in_their_own(
    bundle: Bundle, session: Session, answered_in: Mapping[Split, str], report: Report
) -> Iterator[Session]:
    """The session, and one in each other runtime that answered and can run here."""
    yield session
    for name in sorted({*answered_in.values()} - {session.runtime}):
        obstacle, opened = RUNTIMES[name].obstacle() if name in RUNTIMES else "this netsmith does not know", None
        if not obstacle:
            try:
                opened = open_session(bundle, runtime=name, warn=lambda _: None)  # said with the artifact too
            except InputError as error:
                obstacle = f"does not open it here ({error})"
        if opened is not None:
            yield opened
        elif name != bundle.config.preferred.runtime:  # of which that is said already
            note = f"{name} answered, which {obstacle}; {session.runtime} is held against it"
            report(Check("runtime of the answers", None, None, None, note))


def _check_members(split: Split, predictions: Predictions, record: DataRecord, report: Report) -> None:
    """The predictions are of exactly the pictures of the split, with their labels."""
    expected = {key: row.labels for key, row in record.items.items() if row.split == split}
    given = dict(zip(predictions.keys, labels_of(predictions.targets), strict=True))
    wrong = sum(expected.get(key) != labels for key, labels in given.items()) + len(expected.keys() - given.keys())
    found = f"{wrong} missing, foreign or with another label" if wrong else f"{len(given)} pictures"
    report(Check(f"pictures of {split}", f"{len(expected)} pictures", found, wrong == 0))


class _Again:
    """The pictures of the recorded splits, read from the source and classified again.

    Attributes:
        logits: by key, float32 [C], of what was found.
        classes: by key, the class that the source says.
        copies: by key, how often it was found.
    """

    def __init__(self, source: Source, splits: Mapping[Split, Predictions], bundle: Bundle, session: Session) -> None:
        self.logits: dict[str, NDArray[np.float32]] = {}
        self.classes: dict[str, str] = {}
        self.copies: Counter[str] = Counter()
        self._source, self._session, self._preprocess = source, session, bundle.config.preprocess
        self._wanted = Counter(key for predictions in splits.values() for key in predictions.keys)

    def classify(self, progress: Progress, *, names: Container[str], batch_size: int = 64) -> None:
        """Read entries, those with a recorded name first, until every wanted picture was found as often as wanted."""
        entries = iter(sorted(self._source.entries, key=lambda entry: entry.name not in names))
        with ThreadPoolExecutor(machine().cores_usable) as pool:
            while self.copies != self._wanted and (batch := list(islice(entries, batch_size))):
                fresh: dict[str, Pixels] = {}
                for entry, (key, pixels) in zip(batch, pool.map(self._read, batch), strict=True):
                    if pixels is None or self.copies[key] >= self._wanted[key]:
                        continue
                    self.copies[key] += 1
                    self.classes[key] = label_text(entry.labels, self._source.classes, self._source.task)
                    if key not in self.logits:
                        fresh[key] = pixels
                if fresh:
                    rows = self._session.run(np.stack(list(fresh.values()))).logits
                    self.logits.update(zip(fresh, rows, strict=True))
                progress("classifying the recorded splits again", self.copies.total(), self._wanted.total())

    def _read(self, entry: Entry) -> tuple[str, Pixels | None]:
        """Key and pixels of an entry; no pixels where it is not wanted or cannot be read."""
        try:
            content = self._source.reader.read(entry.name)
            key = content_key(content)
            return key, prepare(content, self._preprocess) if key in self._wanted else None
        except InputError:
            return "", None


def _check_again(
    name: str, predictions: Predictions, record: DataRecord, again: _Again, agreement: _Agreement, report: Report
) -> None:
    index = [i for i, key in enumerate(predictions.keys) if key in again.logits]
    total = len(predictions.keys)
    absent = sum((Counter(predictions.keys) - again.copies).values())
    if not index:
        note = "none of its pictures is in the data any more; accuracy was checked from predictions/ only"
        report(Check(f"logits {name}", f"{total} pictures", 0, None, note))
        return
    fresh = np.stack([again.logits[predictions.keys[i]] for i in index])
    recorded = predictions.logits[index]
    if fresh.shape != recorded.shape:
        report(Check(f"logits {name}", recorded.shape[1], fresh.shape[1], False, "another number of classes"))
        return
    tolerance = agreement.logits * max(1.0, float(np.abs(fresh).max()))
    gap = float(np.abs(fresh - recorded).max())
    report(Check(f"logits {name}", f"within {tolerance:.2g}", f"{gap:.2g}", gap <= tolerance))
    tags = are_tags(predictions.targets)
    named = [record.named(labels) for labels in labels_of(predictions.targets)]
    labels = [named[i] != again.classes[predictions.keys[i]] for i in index]
    report(Check(f"labels {name} in the data", "0 differ", f"{sum(labels)} differ", not any(labels)))
    metric = "map" if tags else "top1"
    if absent:
        note = f"{absent} of {total} pictures are not in the data any more"
        report(Check(f"{metric} {name} from the data", None, None, None, note))
        return
    now, then = (Evaluation(logits, predictions.targets).headline for logits in (fresh, recorded))
    if tags or agreement.apart:
        right = abs(now.value - then.value) <= agreement.score + agreement.apart / total
    else:
        # A picture whose two best logits are closer than the tolerance may go either way.
        best = np.sort(fresh, axis=1)
        close = int(np.count_nonzero(best[:, -1] - best[:, -2] <= 2 * tolerance)) if best.shape[1] > 1 else 0
        right = abs(now.value - then.value) * total <= close + 0.5
    report(Check(f"{metric} {name} from the data", _shown(then), _shown(now), right))


def _same(first: Interval, second: Interval) -> bool:
    numbers = [(first.value, second.value), (first.low, second.low), (first.high, second.high)]
    return first.n == second.n and all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) for a, b in numbers)


def _shown(interval: Interval) -> str:
    return f"{interval.value:.2%} ({interval.low:.2%} to {interval.high:.2%}, n {interval.n})"
