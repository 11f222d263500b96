"""The numbers of `results.json`, each found again from the artifact, the predictions, the data and this machine.

- Latency is measured again up to three times, six on a busy or slowed machine, and the fastest counts, because other
  work only ever slows a measurement. Recorded p50 and p90 are false where the model is slower now and nothing that is
  seen now explains it: where the measured ones are more than 25 % above them, more only by the noise of this
  measurement (at most 50 %) and by how much longer a fixed workload beside it takes than it did beside the recorded
  one (at most 1.3 times: shared machines drift by 15 to 30 % between two instants, evenly, which is in no noise). The
  noise that was recorded excuses nothing: it can only have made the recorded times too long. The workload's recorded
  time is a claim like any other, which nothing that is left of that instant can confirm; so all that it may explain is
  1.3, with the 25 % a claim of 0.62 of the truth on a quiet machine, and what holds by it alone says so. Recorded
  times may be longer than measured ones, up to twice 125 % plus all noise: a busy machine records too much, and that
  promises nothing false. The budget is held against what is measured now. On a machine with another processor or
  another number of cores, or without the runtime they were recorded with, latencies are shown and not judged.
- Accuracy is recomputed from `predictions/`, which must hold exactly the pictures and labels of `data.json`; where
  the data source is still there, every picture is read, matched by hash, prepared and classified again, and its
  logits must agree (1e-3 of the largest for float32, 5e-2 for other precisions). Where it is not there any more, that
  is said and the predictions alone are checked.
- A budget that is not met is a failure, whatever is recorded.
"""

import json
import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from netsmith.arch.cost import cost
from netsmith.artifact.bundle import Bundle, artifact_hash
from netsmith.artifact.evaluate import Evaluation
from netsmith.artifact.latency import Measurement
from netsmith.artifact.measure import measure
from netsmith.artifact.predictions import Predictions
from netsmith.artifact.runtimes import Session, choose_runtime, precision_in
from netsmith.artifact.verify import Check, Report
from netsmith.data.items import Entry, Source, content_key, label_text, labels_of
from netsmith.data.prepare import Pixels, prepare
from netsmith.data.record import DataRecord, read_data_json
from netsmith.data.sources import open_source
from netsmith.errors import CheckError, InputError
from netsmith.run.budget import Budget
from netsmith.run.folder import RunFolder
from netsmith.run.machine import machine
from netsmith.run.metrics import Interval
from netsmith.run.progress import Progress
from netsmith.run.result import Latency, Result
from netsmith.run.scores import are_tags

Split = Literal["val", "test"]
_ATTEMPTS, _BUSY_ATTEMPTS = 3, 6
_SLACK, _MOST_NOISE, _MOST_PACE = 0.25, 0.5, 1.3
_MAP_TOLERANCE = {"float32": 0.005, "float16": 0.005, "bfloat16": 0.03, "int8": 0.03}
_LOGIT_TOLERANCE = {"float32": 1e-3, "float16": 1e-3, "bfloat16": 5e-2, "int8": 5e-2}


def check_run(
    run: RunFolder,
    bundle: Bundle | None,
    session: Session | None,
    report: Report,
    *,
    seconds: float,
    progress: Progress,
) -> None:
    """Check `results.json`, `data.json` and `predictions/` of a finished run against its opened artifact."""
    try:
        result = Result.load(run.results)
    except InputError as error:
        report(Check("results.json", "a result", "damaged", False, str(error)))
        return
    found = artifact_hash(run.model) if run.model.is_dir() else ""
    report(Check("hash of the artifact", result.artifact[:12], found[:12], result.artifact == found))
    if bundle is not None:
        _check_static(result, bundle, report)
    _check_budget(run, result, report)
    record = _read_record(run, bundle, report)
    if record is not None:
        _check_accuracy(run, result, record, bundle, session, report, progress)
    if bundle is not None and session is not None:
        _check_latency(result, bundle, report, seconds=seconds, progress=progress)


def _check_static(result: Result, bundle: Bundle, report: Report) -> None:
    final, config = result.final, bundle.config
    pairs: list[tuple[str, str | int, str | int]] = [
        ("precision", final.precision, config.precision),
        ("runtime", final.runtime, config.preferred.runtime),
        ("threads", final.threads, config.preferred.threads),
        ("size_bytes", final.size_bytes, bundle.size_bytes),
    ]
    try:
        layout = bundle.layout
    except InputError:
        pass  # reported with the artifact
    else:
        counted = cost(layout)
        pairs += [
            ("model", final.model, layout.name),
            ("params", final.params, counted.params),
            ("macs", final.macs, counted.macs),
        ]
    for name, expected, found in pairs:
        report(Check(name, expected, found, expected == found))


def _check_budget(run: RunFolder, result: Result, report: Report) -> None:
    """Limits as they were typed, measured values as in `final`, verdicts that follow from both."""
    final = result.final
    measured = {
        "latency_ms": final.latency_ms.high,
        "size_bytes": final.size_bytes,
        "macs": final.macs,
        "params": final.params,
    }
    for row in result.budget:
        value = measured.get(row.name)
        right = value is not None and row.measured == value and row.met == (value <= row.limit)
        note = "" if right else "the row does not follow from final"
        report(Check(f"budget {row.name}", f"at most {row.limit:g}", value, right and row.met, note))
    try:
        typed = _typed_budget(run.command)
    except InputError as error:
        report(Check("budget as typed", None, None, False, str(error)))
        return
    if typed is not None:
        recorded = {row.name: row.limit for row in result.budget}
        shown = ", ".join(f"{name} {limit:g}" for name, limit in recorded.items())
        report(Check("budget as typed", str(typed), shown, recorded == typed.limits()))


def _typed_budget(command: Sequence[str]) -> Budget | None:
    """The budget of a run's command, `--budget X` or `--budget=X`; None without one."""
    found = None
    for part, after in zip(command, [*command[1:], ""], strict=True):
        if part == "--budget":
            found = after
        elif part.startswith("--budget="):
            found = part.removeprefix("--budget=")
    return Budget.parse(found) if found is not None else None


def _read_record(run: RunFolder, bundle: Bundle | None, report: Report) -> DataRecord | None:
    try:
        record = read_data_json(json.loads(run.data.read_text(encoding="utf-8")), where=str(run.data))
    except (InputError, OSError, ValueError) as error:
        report(Check("data.json", "the splits", "damaged", False, str(error)))
        return None
    if bundle is not None:
        same = list(bundle.config.labels) == record.classes and bundle.config.task == record.task
        report(Check("labels", "those of data.json", "the same" if same else "others", same))
        expected, found = bundle.config.provenance.data, record.fingerprint
        if expected is not None:
            report(Check("fingerprint of the data", expected[:12], found[:12], expected == found))
    return record


def _check_accuracy(
    run: RunFolder,
    result: Result,
    record: DataRecord,
    bundle: Bundle | None,
    session: Session | None,
    report: Report,
    progress: Progress,
) -> None:
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
    again = _Again(source, splits, bundle, session)
    again.classify(progress, names={row.name for row in record.items.values() if row.split in splits})
    for split, predictions in splits.items():
        _check_again(split, predictions, record, again, precision_in(bundle, session.runtime), report)


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
    split: Split, predictions: Predictions, record: DataRecord, again: _Again, precision: str, report: Report
) -> None:
    index = [i for i, key in enumerate(predictions.keys) if key in again.logits]
    total = len(predictions.keys)
    absent = sum((Counter(predictions.keys) - again.copies).values())
    if not index:
        note = "none of its pictures is in the data any more; accuracy was checked from predictions/ only"
        report(Check(f"logits {split}", f"{total} pictures", 0, None, note))
        return
    fresh = np.stack([again.logits[predictions.keys[i]] for i in index])
    recorded = predictions.logits[index]
    if fresh.shape != recorded.shape:
        report(Check(f"logits {split}", recorded.shape[1], fresh.shape[1], False, "another number of classes"))
        return
    tolerance = _LOGIT_TOLERANCE[precision] * max(1.0, float(np.abs(fresh).max()))
    gap = float(np.abs(fresh - recorded).max())
    report(Check(f"logits {split}", f"within {tolerance:.2g}", f"{gap:.2g}", gap <= tolerance))
    tags = are_tags(predictions.targets)
    named = [record.named(labels) for labels in labels_of(predictions.targets)]
    labels = [named[i] != again.classes[predictions.keys[i]] for i in index]
    report(Check(f"labels {split} in the data", "0 differ", f"{sum(labels)} differ", not any(labels)))
    metric = "map" if tags else "top1"
    if absent:
        note = f"{absent} of {total} pictures are not in the data any more"
        report(Check(f"{metric} {split} from the data", None, None, None, note))
        return
    now, then = (Evaluation(logits, predictions.targets).headline for logits in (fresh, recorded))
    if tags:
        right = abs(now.value - then.value) <= _MAP_TOLERANCE[precision]
    else:
        # A picture whose two best logits are closer than the tolerance may go either way.
        best = np.sort(fresh, axis=1)
        close = int(np.count_nonzero(best[:, -1] - best[:, -2] <= 2 * tolerance)) if best.shape[1] > 1 else 0
        right = abs(now.value - then.value) * total <= close + 0.5
    report(Check(f"{metric} {split} from the data", _shown(then), _shown(now), right))


def _same(first: Interval, second: Interval) -> bool:
    numbers = [(first.value, second.value), (first.low, second.low), (first.high, second.high)]
    return first.n == second.n and all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) for a, b in numbers)


def _shown(interval: Interval) -> str:
    return f"{interval.value:.2%} ({interval.low:.2%} to {interval.high:.2%}, n {interval.n})"


def _check_latency(result: Result, bundle: Bundle, report: Report, *, seconds: float, progress: Progress) -> None:
    recorded = result.final.latency_ms
    ordered = recorded.low <= recorded.p90 <= recorded.high and recorded.p50 <= recorded.p90
    if not ordered:
        report(Check("latency interval", "p50 <= p90, low <= p90 <= high", "another order", False))
    here = machine()
    runtime, _ = choose_runtime(bundle, warn=lambda message: None)
    comparable = here.key == result.machine.key and runtime == result.final.runtime
    limit = next((row.limit for row in result.budget if row.name == "latency_ms"), None)
    best: Measurement | None = None
    for attempt in range(1, _BUSY_ATTEMPTS + 1):
        try:
            found = measure(bundle.folder, seconds=seconds, warn=lambda message: None, progress=progress)
        except (InputError, CheckError) as error:
            report(Check("latency", recorded.p90, None, False, str(error)))
            return
        best = found if best is None or found.p90_ms < best.p90_ms else best
        agrees = all(latency_holds(recorded, best)) and (limit is None or best.high <= limit)
        slowed = best.noise > _MOST_NOISE or _pace(recorded, best) > _MOST_PACE
        if agrees or not comparable or (attempt >= _ATTEMPTS and not slowed):
            break
    assert best is not None
    where = f"{result.machine.cpu} in {result.final.runtime}, this is {here.cpu} in {runtime}"
    note = "" if comparable else f"recorded on {where}: shown, not judged"
    if comparable and best.noise > _MOST_NOISE:
        note = f"the machine was busy (noise {best.noise:.1f}); where this fails, verify again when it is quiet"
    elif comparable:
        note = _excuse(recorded, best)
    for name, expected, value, holds in zip(
        ("latency p50 ms", "latency p90 ms"),
        (recorded.p50, recorded.p90),
        (best.p50_ms, best.p90_ms),
        latency_holds(recorded, best),
        strict=True,
    ):
        report(Check(name, round(expected, 4), round(value, 4), holds if comparable else None, note))
    if limit is not None:
        met = best.high <= limit if comparable else None
        report(Check("latency budget, measured again", f"at most {limit:g}", round(best.high, 4), met, note))


def latency_holds(recorded: Latency, found: Measurement) -> tuple[bool, bool]:
    """Whether recorded p50 and p90 agree with measured ones; see the module for the tolerance."""
    return _hold(recorded, found, pace=min(max(_pace(recorded, found), 1.0), _MOST_PACE))


def _hold(recorded: Latency, found: Measurement, *, pace: float) -> tuple[bool, bool]:
    """Where the machine takes `pace` times as long now."""
    below = pace * (1 + _SLACK + min(found.noise, _MOST_NOISE))
    above = 2 * (1 + _SLACK + recorded.noise + found.noise)

    def holds(claim: float, measured: float) -> bool:
        return measured / below <= claim <= above * measured

    return holds(recorded.p50, found.p50_ms), holds(recorded.p90, found.p90_ms)


def _excuse(recorded: Latency, found: Measurement) -> str:
    """What the fixed workload says where it matters: latencies hold by it alone, or not even by it."""
    if all(_hold(recorded, found, pace=1.0)) or (pace := _pace(recorded, found)) <= 1.0:
        return ""
    slower = f"the machine takes {pace:.2f} times as long for a fixed workload as when this was recorded"
    if all(latency_holds(recorded, found)):
        return f"holds only because {slower}"
    return f"{slower}, of which {_MOST_PACE:g} is believed; verify again when it is faster"


def _pace(recorded: Latency, found: Measurement) -> float:
    """How many times as long the machine takes for the same work now; 1 where it was not recorded."""
    if recorded.reference_us is None or found.reference_us is None:
        return 1.0
    return found.reference_us / recorded.reference_us
