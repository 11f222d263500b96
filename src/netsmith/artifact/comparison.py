"""Runtimes beside each other on one artifact: how fast each is here, by threads and size of batch, and whether it gives
the same answers.

Every runtime with every number of threads has a fresh process, so nothing of one is in the memory of another; each
comes several times, in turns and the second time backwards, so that a disturbance or a drift of the machine meets all
alike; its samples are put together. Sizes of batch grow within a process, so the largest memory until then is that of
each. What cannot run, dies or does not end is a row with the reason.

Answers are compared on the golden pictures with those of ONNX Runtime, or where the artifact was judged in the runtime
with what it answered there then. `Comparison.choose` finds the runtime to prefer
for single pictures: of those that agree, the fastest, or what is preferred now where nothing is faster beyond noise.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact import process
from netsmith.artifact.bundle import Bundle, Preferred
from netsmith.artifact.latency import ALIKE, Measurement, alike, measurement_of, refuse_seconds
from netsmith.artifact.measure import call_alone
from netsmith.artifact.runtimes import REFERENCE, RUNTIMES, Outputs, open_session, precision_in, refuse_no_numbers
from netsmith.artifact.timing import answer_one_by_one
from netsmith.artifact.verify import PROBABILITY_TOLERANCE
from netsmith.errors import CheckError, InputError
from netsmith.run.progress import Progress, silent

BATCHES = (1, 8, 32)
VISITS = 3
"""Turns of every runtime, between which its time is divided."""
_OPENING_S = 900.0  # for opening a network, which may mean compiling it for every size of batch, on a busy machine


@dataclass(frozen=True)
class Contender:
    """A runtime that takes part.

    Attributes:
        runtime: its name.
        model: what its worker opens.
        worker: module of its process, see `netsmith.artifact.process.call`.
        obstacle: what keeps it from running here, as the end of a sentence about it; None where nothing does.
    """

    runtime: str
    model: Path
    worker: str = process.WORKER
    obstacle: str | None = None


def own_contenders(bundle: Bundle) -> list[Contender]:
    """The runtimes that an artifact can prefer."""
    return [Contender(name, bundle.model_path, obstacle=each.obstacle()) for name, each in RUNTIMES.items()]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was found of one runtime with one number of threads and size of batch.

    Attributes:
        runtime: its name.
        threads, batch: None in the only row of a runtime that cannot run here.
        measurement: of a call with `batch` pictures; None where there is none, see `reason`.
        images_per_s: by the median.
        probability_difference: largest of any golden picture from those of `against`.
        logit_difference: largest of any golden picture from ONNX Runtime's logits, as a share of the largest of those.
        same_answers: golden pictures with ONNX Runtime's class (of tags: exactly its tags).
        against: whose probabilities they are held against: ONNX Runtime's, or the runtime's own, as golden.npz has
            them, where the artifact was judged in it.
        reason: why there is no measurement, one sentence without its end.
    """

    runtime: str
    threads: int | None = None
    batch: int | None = None
    measurement: Measurement | None = None
    images_per_s: float | None = None
    probability_difference: float | None = None
    logit_difference: float | None = None
    same_answers: int | None = None
    against: str = REFERENCE
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which runtime an artifact should prefer for single pictures.

    Attributes:
        verdict: "kept" for one that is faster than what is preferred now, or takes its place because that cannot run
            here or gives other answers; "unchanged" where nothing is; "refused" where something is and must not be
            taken, or what is preferred gives other answers and nothing measured does better.
        preferred: the outcome: the new preference, or the present one.
        before, after: measurements of the present preference and of what is chosen or refused; None where it could not
            be measured.
        reason: one sentence without its end, with the numbers.
    """

    verdict: Literal["kept", "unchanged", "refused"]
    preferred: Preferred
    before: Measurement | None
    after: Measurement | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All entries, in the order of contenders, threads and batches.

    Attributes:
        entries: one for each.
        pictures: golden ones on which answers were compared.
        tolerances: by runtime, of probabilities.
    """

    entries: tuple[Entry, ...]
    pictures: int
    tolerances: dict[str, float]

    def choose(self, present: Preferred, *, recorded: Preferred | None = None) -> Choice:
        """The runtime to prefer for single pictures.

        Args:
            present: runtime and threads that run the artifact here now.
            recorded: what it prefers, where that is something else, which cannot run here; `present` then takes its
                place also where nothing is faster.
        """
        found = self._fastest(present)
        if recorded in (None, present) or found.verdict == "kept" or found.after is None:
            return found
        reason = f"{recorded} cannot run here, {present} can; {found.reason}"
        return replace(found, verdict="kept", before=None, after=found.before, reason=reason)

    def _fastest(self, present: Preferred) -> Choice:
        """`choose` among what can run here."""
        single = [each for each in self.entries if each.batch == 1 and each.measurement and each.runtime in RUNTIMES]
        agreeing = [each for each in single if self.agrees(each)]
        now = next((each for each in single if _is(each, present)), None)
        if now is None or now.measurement is None:
            reason = f"{present} could not be measured, so nothing can be held against it"
            return Choice(verdict="refused", preferred=present, before=None, after=None, reason=reason)
        if now not in agreeing:
            return self._instead(present, now, agreeing)
        near = _alike(agreeing)
        best = now if now in near else _simplest(near)
        faster = [each for each in single if each not in agreeing and now not in _alike([each, now])]
        before, after = now.measurement, best.measurement
        assert after is not None
        if best is not now:
            refusal = _within_noise(before, after)
            gain = f"{_preference(best)} takes {_times(after)} and {present} {_times(before)}"
            if refusal is not None:
                reason = f"{gain}: {refusal}"
                return Choice(verdict="refused", preferred=present, before=before, after=after, reason=reason)
            reason = f"{gain}: {before.p50_ms / after.p50_ms:.2f} times as fast"
            return Choice(verdict="kept", preferred=_preference(best), before=before, after=after, reason=reason)
        if faster:
            other = min(faster, key=lambda each: each.measurement.p90_ms if each.measurement else 0.0)
            reason = f"{_preference(other)} is faster than {present}, and {self._apart(other)}"
            return Choice(verdict="refused", preferred=present, before=before, after=other.measurement, reason=reason)
        reason = f"nothing is faster than {present} by more than {ALIKE - 1:.0%}"
        return Choice(verdict="unchanged", preferred=present, before=before, after=before, reason=reason)

    def _instead(self, present: Preferred, now: Entry, agreeing: Sequence[Entry]) -> Choice:
        """What takes the place of a present preference whose answers are not the model's: the fastest whose are."""
        failing = f"{present} is preferred, and {self._apart(now)}"
        if not agreeing:
            reason = f"{failing}; nothing else that was measured agrees: measure {REFERENCE} too"
            return Choice(verdict="refused", preferred=present, before=now.measurement, after=None, reason=reason)
        best = _simplest(_alike(agreeing))
        reason = f"{failing}; {_preference(best)} is the fastest that agrees"
        return Choice(
            verdict="kept", preferred=_preference(best), before=now.measurement, after=best.measurement, reason=reason
        )

    def _apart(self, entry: Entry) -> str:
        """How far its answers are from those that they are held against, as the end of a sentence."""
        if entry.probability_difference is None:
            return f"its answers could not be held against {REFERENCE}'s"
        whose = f"{REFERENCE}'s" if entry.against == REFERENCE else "those it was judged by"
        return (
            f"its probabilities are up to {entry.probability_difference:.2g} from {whose}, more than "
            f"{self.tolerances[entry.runtime]:g}"
        )

    def agrees(self, entry: Entry) -> bool:
        """Whether its probabilities are those they are held against within what its arithmetic explains."""
        difference = entry.probability_difference
        return difference is not None and difference <= self.tolerances[entry.runtime]


def compare(
    bundle: Bundle,
    contenders: Sequence[Contender],
    *,
    threads: Sequence[int],
    batches: Sequence[int] = BATCHES,
    seconds: float = 2.0,
    visits: int = VISITS,
    progress: Progress = silent,
) -> Comparison:
    """Measure runtimes on an artifact in turns, each in a fresh process, and compare their answers.

    Args:
        bundle: the artifact.
        contenders: different runtimes.
        threads: numbers of threads, each >= 1.
        batches: numbers of pictures in a call, each >= 1.
        seconds: of timed calls of each runtime, number of threads and size of batch, warm-up excluded.
        visits: turns among which that time is divided, >= 1.
        progress: is told which runtime has its turn.

    Raises:
        InputError: `seconds` out of range; ONNX Runtime refuses the artifact, or gets no numbers from it.
    """
    refuse_seconds(seconds)
    sizes = sorted(set(batches))
    golden = bundle.golden()
    reference = answer_one_by_one(open_session(bundle, runtime=REFERENCE, threads=1), golden.pixels)
    refuse_no_numbers(reference.logits, of=bundle.folder)
    answered = _Answers(reference, golden.others, bundle.config.thresholds)
    turns = [_Turns(each, count) for each in contenders if each.obstacle is None for count in threads]
    with tempfile.TemporaryDirectory(prefix="netsmith-compare-") as scratch:
        for visit in range(visits):
            for place, each in enumerate(turns if visit % 2 == 0 else reversed(turns)):
                if visit and each.reason is not None:
                    continue
                done, total = visit * len(turns) + place, visits * len(turns)

                def told(share: float, name: str = each.name, done: int = done, total: int = total) -> None:
                    progress("comparing runtimes", done + share, total, name)

                told(0.0)
                each.visit(
                    Path(scratch),
                    batches=sizes,
                    seconds=seconds / visits,
                    artifact=None if visit else bundle.folder,
                    told=told,
                )
        progress("comparing runtimes", 1, 1)
    entries: list[Entry] = []
    for contender in contenders:
        if contender.obstacle is not None:
            entries.append(Entry(runtime=contender.runtime, reason=contender.obstacle))
        mine = [each for each in turns if each.contender is contender]
        entries += [each.entry(batch, answered) for each in mine for batch in sizes]
    tolerances = {each.runtime: PROBABILITY_TOLERANCE[precision_in(bundle, each.runtime)] for each in contenders}
    return Comparison(entries=tuple(entries), pictures=len(golden.pixels), tolerances=tolerances)


@dataclass(frozen=True)
class _Answers:
    """What ONNX Runtime says about the golden pictures, and others that the artifact was judged in; and how far
    entries are from it."""

    reference: Outputs
    judged: Mapping[str, NDArray[np.float32]]
    thresholds: tuple[float, ...] | None

    def held_against(self, entry: Entry, found: Outputs) -> Entry:
        """The entry with what it says about answers; as it is where they are no numbers."""
        mine = self.reference
        if not np.isfinite(found.logits).all():
            return entry
        same = np.all(self._answered(found.probabilities) == self._answered(mine.probabilities), axis=1)
        expected = self.judged.get(entry.runtime, mine.probabilities)
        return replace(
            entry,
            probability_difference=float(np.abs(found.probabilities - expected).max()),
            against=entry.runtime if entry.runtime in self.judged else REFERENCE,
            logit_difference=float(np.abs(found.logits - mine.logits).max() / (np.abs(mine.logits).max() or 1.0)),
            same_answers=int(np.count_nonzero(same)),
        )

    def _answered(self, probabilities: NDArray[np.float32]) -> NDArray[Any]:
        if self.thresholds is not None:
            return probabilities >= np.array(self.thresholds)
        return probabilities.argmax(axis=1)[:, None]


@dataclass(eq=False)
class _Turns:
    """A runtime with a number of threads on its way to its entries."""

    contender: Contender
    threads: int
    rows: dict[int, list[process.Row]] = field(default_factory=dict[int, list[process.Row]])
    outputs: Outputs | None = None
    reason: str | None = None

    @property
    def name(self) -> str:
        """For people."""
        return str(Preferred(runtime=self.contender.runtime, threads=self.threads))

    def visit(
        self,
        scratch: Path,
        *,
        batches: list[int],
        seconds: float,
        artifact: Path | None,
        told: Callable[[float], None],
    ) -> None:
        """Have a turn; what goes wrong is the reason why later ones are left out. `told` is told the share done."""

        def take(row: process.Row) -> None:
            if "batch" in row:
                self.rows.setdefault(row["batch"], []).append(row)
                told((batches.index(row["batch"]) + 1) / len(batches))
            else:
                self.threads = row["threads"]
                self.outputs = Outputs(np.array(row["probabilities"], np.float32), np.array(row["logits"], np.float32))

        request: process.Row = {
            "model": str(self.contender.model.resolve()),
            "runtime": self.contender.runtime,
            "threads": self.threads,
            "batches": batches,
            "seconds": seconds,
            "artifact": str(artifact.resolve()) if artifact is not None else None,
            # What is compiled depends on the number of threads, so each has a folder of its own.
            "cache": str(scratch / f"{self.threads}"),
            "scratch": str(scratch),
        }
        try:
            call_alone(
                "compare",
                request,
                what=f"measuring {self.name}",
                deadline_s=_OPENING_S + 20 * seconds * len(batches),
                on_row=take,
                worker=self.contender.worker,
            )
        except (InputError, CheckError) as error:
            self.reason = str(error)
        except RuntimeError as error:  # a library that failed in its own way, such as for want of memory
            self.reason = str(error).strip().splitlines()[-1]

    def entry(self, batch: int, answers: _Answers) -> Entry:
        """All turns together."""
        found = self.rows.get(batch)
        entry = Entry(runtime=self.contender.runtime, threads=self.threads, batch=batch)
        if not found:
            return replace(entry, reason=self.reason or "ended without a word")
        memory = [row["memory"] for row in found if row["memory"] is not None]
        measurement = measurement_of(
            [sample for row in found for sample in row["samples"]],
            [time for row in found for time in row["reference"]],
            runtime=self.contender.runtime,
            threads=self.threads,
            warmup=sum(row["warmup"] for row in found),
            memory=max(memory, default=None),
        )
        speed = 1000 * batch / measurement.p50_ms
        entry = replace(entry, measurement=measurement, images_per_s=speed)
        return answers.held_against(entry, self.outputs) if self.outputs is not None else entry


def _is(entry: Entry, preferred: Preferred) -> bool:
    return (entry.runtime, entry.threads) == (preferred.runtime, preferred.threads)


def _preference(entry: Entry) -> Preferred:
    assert entry.threads is not None
    return Preferred(runtime=entry.runtime, threads=entry.threads)


def _simplest(entries: Sequence[Entry]) -> Entry:
    """The one of the fewest threads, and of those the runtime that is always there."""
    order = list(RUNTIMES)
    return min(entries, key=lambda each: (each.threads, order.index(each.runtime)))


def _alike(entries: Sequence[Entry]) -> list[Entry]:
    """Those that cannot be told from the fastest."""
    near = alike([each.measurement for each in entries if each.measurement is not None])
    return [each for each in entries if each.measurement in near]


def _within_noise(before: Measurement, after: Measurement) -> str | None:
    """Why a gain is none; None where it is one."""
    noise = max(before.noise, after.noise)
    gain = min(before.p50_ms / after.p50_ms, before.p90_ms / after.p90_ms) - 1
    if gain <= noise:
        return (
            f"the smaller gain of the two, {gain:.0%}, is within the noise of the machine, {noise:.0%}; measure when "
            "it is quiet"
        )
    if after.high >= before.low:
        return (
            f"the intervals of p90 meet ({after.low:.3g} to {after.high:.3g} and {before.low:.3g} to "
            f"{before.high:.3g} ms); measure for longer with --seconds"
        )
    return None


def _times(measured: Measurement) -> str:
    return f"p50 {measured.p50_ms:.3g} ms, p90 {measured.p90_ms:.3g} ms"
