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
- Accuracy is recomputed from `predictions/` and, where the data is still there, from the pictures
  (`netsmith.artifact.verify_accuracy`).
- Memory is that of the process that measured: a recorded one is false where the process needs more than 25 % more now,
  or less than half. Most of it is libraries, so with other versions, or where latencies are not judged, it is shown.
- A budget that is not met is a failure, whatever is recorded.
"""

from collections.abc import Sequence

from netsmith.arch.cost import cost
from netsmith.artifact.bundle import Bundle, artifact_hash
from netsmith.artifact.latency import Measurement
from netsmith.artifact.measure import measure
from netsmith.artifact.runtimes import Session, open_session
from netsmith.artifact.verify import Check, Report
from netsmith.artifact.verify_accuracy import check_accuracy
from netsmith.data.record import DataRecord, load_data_json
from netsmith.errors import CheckError, InputError
from netsmith.run.budget import Budget
from netsmith.run.folder import RunFolder
from netsmith.run.machine import machine, versions
from netsmith.run.progress import Progress
from netsmith.run.result import Latency, Result

_ATTEMPTS, _BUSY_ATTEMPTS = 3, 6
_SLACK, _MOST_NOISE, _MOST_PACE = 0.25, 0.5, 1.3


def check_run(
    run: RunFolder,
    bundle: Bundle | None,
    session: Session | None,
    report: Report,
    *,
    asked: bool,
    seconds: float,
    progress: Progress,
) -> None:
    """Check `results.json`, `data.json` and `predictions/` of a finished run against its opened artifact, whose runtime
    was `asked` for or is its own."""
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
        check_accuracy(run, result, record, bundle, session, report, progress, asked=asked)
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
        record = load_data_json(run.data)
    except InputError as error:
        report(Check("data.json", "the splits", "damaged", False, str(error)))
        return None
    if bundle is not None:
        same = list(bundle.config.labels) == record.classes and bundle.config.task == record.task
        report(Check("labels", "those of data.json", "the same" if same else "others", same))
        expected, found = bundle.config.provenance.data, record.fingerprint
        if expected is not None:
            report(Check("fingerprint of the data", expected[:12], found[:12], expected == found))
    return record


def _check_latency(result: Result, bundle: Bundle, report: Report, *, seconds: float, progress: Progress) -> None:
    recorded = result.final.latency_ms
    ordered = recorded.low <= recorded.p90 <= recorded.high and recorded.p50 <= recorded.p90
    if not ordered:
        report(Check("latency interval", "p50 <= p90, low <= p90 <= high", "another order", False))
    here = machine()
    runtime = open_session(bundle, warn=lambda message: None).runtime  # what stands in where its own does not open it
    comparable = here.key == result.machine.key and runtime == result.final.runtime
    limit = next((row.limit for row in result.budget if row.name == "latency_ms"), None)
    best: Measurement | None = None
    for attempt in range(1, _BUSY_ATTEMPTS + 1):
        try:
            found = measure(
                bundle.folder, runtime=runtime, seconds=seconds, warn=lambda message: None, progress=progress
            )
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
    _check_memory(result, best, report, comparable=comparable and result.versions == versions())


def _check_memory(result: Result, found: Measurement, report: Report, *, comparable: bool) -> None:
    recorded, now = result.final.memory_bytes, found.peak_memory_bytes
    if recorded is None or now is None:
        return
    holds = now / (1 + _SLACK) <= recorded <= 2 * now
    note = "" if comparable else "recorded elsewhere or with other versions: shown, not judged"
    report(Check("memory_bytes", recorded, now, holds if comparable else None, note))


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
