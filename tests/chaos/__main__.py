"""The fault harness: `make chaos`, or `python tests/chaos --kills 50 --seed 0`.

A real `netsmith train` on real photos (and a `fit`, and the verbs that begin with a trained model) is killed at random
instants and in every phase, stopped by signals, robbed of pictures, disk and memory, and its disk is taken back to what
a loss of power could leave. After each fault the run is gone on with. It must end in what the undisturbed run of the
same plan ended in: the same weights, graph and answers to the byte, the same rows of metrics; and at every moment
whatever has its name must be whole.

Prints one line per fault and a table of faults by phase; exits 1 when anything differs, a phase was met by no kill, or
faults of a kind were left out or came too seldom.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

import demands
import faults
import ground
import power
import stages
import wholeness
from faults import Blow
from ground import Attempt
from tables import table, word
from watched import HERE, ORDER

CHAIN = 7
"""Kills that one run has to outlive."""
FIT_SECONDS = 60
"""`--time` of a fit: on a machine with other work, enough to be let begin at all."""
PARTS = ("kills", "timed", "signals", "disk", "vanish", "memory", "power", "fit", "stages")


class Harness:
    """Runs the parts and gathers what came of them.

    Args:
        work: an empty folder for all runs.
        data: folder of the real data sets.
        seed: of instants and choices.
    """

    def __init__(self, work: Path, data: Path, seed: int) -> None:
        self.work, self.draw = work, random.Random(seed)
        self.pictures = ground.unpack(data / "flowers-sample" / "flowers-sample.zip", work / "pictures")
        self.blows: list[Blow] = []
        self.left_out: list[str] = []
        self.began = time.monotonic()
        self._count = 0
        self._whole: Attempt | None = None
        self.seconds = 0.0

    def attempt(self, flags: Iterable[str] = ground.FIXED, **options: object) -> Attempt:
        """A new one."""
        self._count += 1
        pictures = options.pop("pictures", self.pictures)
        place = options.pop("place", self.work / f"{self._count:03d}")
        return Attempt(place, pictures, list(flags), **options)  # pyright: ignore

    @property
    def whole(self) -> Attempt:
        """The undisturbed run of fixed length."""
        if self._whole is None:
            self._whole = self.undisturbed(self.attempt(), "undisturbed")
        return self._whole

    def undisturbed(self, attempt: Attempt, what: str) -> Attempt:
        """Run it to its end."""
        began = time.monotonic()
        if troubles := attempt.finish():
            sys.exit(f"even {what} the run fails: {troubles}")
        self.seconds = max(self.seconds, time.monotonic() - began)
        name = wholeness.digest(wholeness.outcome(attempt.run))
        self.say(f"{what}: {time.monotonic() - began:.1f} s, outcome {name}")
        return attempt

    def say(self, text: str) -> None:
        """A line with the time."""
        print(f"{time.monotonic() - self.began:6.0f} s  {text}", flush=True)

    def struck(self, blow: Blow) -> None:
        """Enter a fault."""
        self.blows.append(blow)
        writing = " while a file was written" if blow.writing else ""
        self.say(f"{blow.kind} in {blow.phase}{writing}: {word(blow.wrong)}")

    def missed(self, fault: str, phase: str, attempt: Attempt) -> None:
        """A fault for which the run was too quick, which then has come to its end."""
        self.say(f"the run was over before {fault} could come in {phase}")
        if wrong := attempt.came_to_its_end():
            self.struck(Blow("no fault", phase, wrong))

    def end(
        self,
        attempt: Attempt,
        blows: list[Blow],
        expected: Attempt,
        *,
        same_evaluations: bool = True,
        same: bool = True,
    ) -> None:
        """Go on to the end; what is wrong then is the last fault's. Where not all is planned, the end is enough."""
        wrong = attempt.finish() if not attempt.reported else attempt.troubles_at_the_end()
        if not wrong and same:
            wrong = wholeness.differences(attempt.run, expected.run, same_evaluations=same_evaluations)
        good = "the same outcome" if same else "a whole one"
        self.say(f"  gone on with to the end after {len(blows)}: {word(wrong, good=good)}")
        if blows:
            blows[-1].wrong += wrong
        if not wrong and attempt is not expected:
            attempt.clear()

    def part(self, name: str, run: Callable[[], None]) -> None:
        """Run a part; one that cannot go on is a fault of its own, and the others are run all the same."""
        try:
            run()
        except (Exception, SystemExit) as error:  # whatever it is, the table at the end must not be lost
            self.struck(Blow("harness", name, [f"{name} did not come to its end: {type(error).__name__}: {error}"]))

    # Parts

    def kills(self, count: int) -> None:
        """SIGKILL, in chains on one run each."""
        whole = self.whole
        queue, killed, tries = self._phases(count), 0, 5
        while queue:
            attempt, chain = self.attempt(), [queue.pop() for _ in range(min(CHAIN, len(queue)))]
            blows, missed = self._chain(attempt, chain)
            self.end(attempt, blows, whole)
            killed += len(blows)
            queue += missed
            if not queue and tries:
                tries -= 1
                queue += self._phases(max(0, count - killed)) + demands.unmet(self.blows, count)

    def timed(self, count: int) -> None:
        """The same to runs whose length the time decides, against an undisturbed replay of the plan that was made."""
        killed, tries = 0, 2 + count
        while killed < count and tries:
            tries -= 1
            attempt = self.attempt(ground.TIMED)
            aims = self._phases(min(CHAIN, count - killed), among=("training", "checkpoint", "evaluation", "preparing"))
            blows, _ = self._chain(attempt, aims)
            killed += len(blows)
            if not blows:
                continue
            if not attempt.reported and (wrong := attempt.finish()):
                self.say(f"  {word(wrong)}")
                blows[-1].wrong += wrong
                continue
            replay = self.undisturbed(self.attempt(ground.TIMED, plan=attempt.run), "its plan, replayed undisturbed")
            self.end(attempt, blows, replay, same_evaluations=False)
            replay.clear()

    def _phases(self, count: int, among: tuple[str, ...] = demands.PHASES) -> list[str | None]:
        """What so many kills aim at: every phase in turn, and one in five at any moment."""
        queue: list[str | None] = [among[n % len(among)] for n in range(count - count // 5)] + [None] * (count // 5)
        self.draw.shuffle(queue)
        return queue

    def _chain(self, attempt: Attempt, aims: list[str | None]) -> tuple[list[Blow], list[str | None]]:
        """Kill one run where the aims say, in the order in which it comes there; the faults, and the aims missed."""
        blows: list[Blow] = []
        missed: list[str | None] = []
        for aim in sorted(aims, key=lambda aim: -1 if aim is None else ORDER.index(aim)):
            if attempt.reported:
                missed.append(aim)
                continue
            blow = faults.kill(attempt, aim, self.draw, seconds=self.seconds)
            if blow is None:
                missed.append(aim)
            else:
                self.struck(blow)
                blows.append(blow)
        return blows, missed if blows else []

    def signals(self) -> None:
        """Ctrl-C and SIGTERM, once and twice in a row."""
        phases = ("starting", "audit", "training", "evaluation", "export", "measuring", "verifying")
        jobs = [(phase, number, 1) for number in (SIGTERM, SIGINT) for phase in phases]
        jobs += [("training", SIGTERM, 2), ("training", SIGINT, 2)]
        self.draw.shuffle(jobs)
        for part in (jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]):
            attempt = self.attempt()
            blows: list[Blow] = []
            for phase, number, times in sorted(part, key=lambda job: ORDER.index(job[0])):
                if attempt.reported:
                    self.end(attempt, blows, self.whole)
                    attempt, blows = self.attempt(), []
                blow = faults.stop(attempt, number, phase, self.draw, times=times)
                if blow is None:
                    self.missed(number.name, phase, attempt)
                    continue
                self.struck(blow)
                blows.append(blow)
            self.end(attempt, blows, self.whole)

    def disk(self) -> None:
        """A small file system that fills up, under the run and its cache."""
        for phase, seconds in (("cache", None), ("training", None), ("training", 1.0), ("export", None),
                               ("measuring", None), ("verifying", None)):  # fmt: skip
            disk = self.work / "disk"
            if not ground.mounted(disk, "768m"):
                self.left_out.append("the full disk: this user may mount no file system, root may")
                return
            try:
                logs = self.work / f"disk-{phase}-{seconds}"
                logs.mkdir()
                attempt = self.attempt(place=disk / "attempt", logs=logs)
                blow = faults.full_disk(attempt, disk, phase, seconds=seconds)
                if blow is None:
                    self.missed("a full disk", phase, attempt)
                    continue
                self.struck(blow)
                self.end(attempt, [blow], self.whole)
            finally:
                ground.unmount(disk)

    def vanish(self) -> None:
        """One picture, and all of them, go away and come back."""
        for phase, share in (("audit", 0.01), ("cache", 0.01), ("cache", 1.0), ("training", 1.0), ("export", 1.0),
                             ("measuring", 1.0)):  # fmt: skip
            whole = self.whole
            pictures = self.work / "robbed"
            shutil.rmtree(pictures, ignore_errors=True)
            shutil.copytree(self.pictures, pictures)
            attempt = self.attempt(pictures=pictures)
            blow = faults.vanished(attempt, phase, self.draw, share=share)
            if blow is None:
                self.missed("vanished pictures", phase, attempt)
                continue
            self.struck(blow)
            if attempt.pictures_known() in (None, whole.pictures_known()):
                self.end(attempt, [blow], whole)
            else:
                blow.wrong += attempt.finish() if not attempt.reported else attempt.troubles_at_the_end()
                self.say(f"  a run on the pictures that were there: {word(blow.wrong)}")

    def memory(self) -> None:
        """Too little memory for the batch, against an undisturbed replay of the plan that came of it."""
        for mebibytes in (400, 300):
            attempt = self.attempt(ground.HUNGRY)
            blow = faults.starved(attempt, mebibytes)
            self.struck(blow)
            if not blow.wrong:
                replay = self.undisturbed(self.attempt(ground.HUNGRY, plan=attempt.run), "its plan, with enough memory")
                self.end(attempt, [blow], replay)
                replay.clear()

    def power(self, resumed: int) -> None:
        """Every state that a loss of power could leave, a few of them gone on with to the end."""
        attempt = self.attempt()
        journal = self.work / "journal"
        process = attempt.start([str(HERE / "recorded.py"), str(journal), str(attempt.place)])
        if code := process.end():
            sys.exit(f"even undisturbed the recorded run fails with {code}: {process.said()}")
        found: Counter[str] = Counter()
        moments: list[tuple[int, bool]] = []
        disk = self.work / "lost" / "run"
        for state in power.states(journal):
            if str(attempt.run) not in state.tree:
                continue
            for what in power.not_yet_there(state, attempt.run, journal):
                found[f"{what} was not on the disk when something else was written"] += 1
            for names_outrun in (False, True):
                power.left_behind(state, attempt.run, disk, journal, names_outrun=names_outrun)
                for trouble in wholeness.damages(disk):
                    found[trouble] += 1
                moments.append((state.number, names_outrun))
        blow = Blow("loss of power", "everywhere", [f"{what} ({count} states)" for what, count in found.items()])
        self.struck(blow)
        self.say(f"  {len(moments)} states of the disk")
        for number, names_outrun in self.draw.sample(moments, resumed):
            after = self.attempt()
            state = next(state for state in power.states(journal) if state.number == number)
            power.left_behind(state, attempt.run, after.run, journal, names_outrun=names_outrun)
            power.left_behind(state, attempt.cache, after.cache, journal, names_outrun=names_outrun)
            blow = Blow("loss of power", "gone on with", [])
            self.struck(blow)
            self.end(after, [blow], self.whole)

    def fit(self, count: int) -> None:
        """Kills in a fit's race and finish, against an undisturbed replay of the plan that came of it."""
        aims = [None, "measuring", "cache", "training", "checkpoint", "export", "training", "evaluation", "answers",
                "verifying", "report"]  # fmt: skip
        command = ["--time", f"{FIT_SECONDS}s", "--budget", "size=1MB"]
        while count > 0:
            attempt = self.attempt(command, verb="fit", pictures=Path("digits"))
            chosen = sorted(self.draw.sample(aims, min(CHAIN, count)), key=aims.index)
            blows: list[Blow] = []
            for aim in chosen:
                if not attempt.reported:
                    blow = faults.kill(attempt, aim, self.draw, seconds=FIT_SECONDS)
                    if blow is not None:
                        blow.phase = f"fit: {blow.phase}"
                        self.struck(blow)
                        blows.append(blow)
            count -= max(1, len(blows))
            if not blows:
                self.say("the fit was over before it could be killed")
                continue
            if not attempt.reported and (wrong := attempt.finish()):
                self.say(f"  {word(wrong)}")
                blows[-1].wrong += wrong
                continue
            replay = self.attempt(["--replay", str(attempt.run)], verb="fit", pictures=Path("digits"))
            self.undisturbed(replay, "fit --replay")
            self.end(attempt, blows, replay, same_evaluations=False)
            replay.clear()

    def begun_with_a_model(self, count: int) -> None:
        """Kills and Ctrl-C at any moment of what begins with a trained model, against undisturbed runs."""
        whole = self.undisturbed(
            self.attempt(stages.WHOLE, pictures=Path("digits")), "the model that stages begin with"
        )
        before = stages.content(whole.run)
        for job in stages.jobs(whole.run):
            expected = self.stage(job)
            began = time.monotonic()
            self.undisturbed(expected, job.verb)
            seconds = time.monotonic() - began
            left = [SIGKILL] * count + [SIGINT] * max(1, count // 2)
            self.draw.shuffle(left)
            while left:
                attempt, blows = self.stage(job), list[Blow]()
                while left and len(blows) < CHAIN and not attempt.reported:
                    if left[-1] == SIGKILL:
                        blow = faults.kill(attempt, None, self.draw, seconds=seconds)
                    else:
                        blow = faults.stop(attempt, SIGINT, None, self.draw, seconds=seconds)
                    if blow is None:  # what was left of the run was shorter than the instant that was drawn
                        break
                    left.pop()
                    blow.phase = f"{job.verb}: {blow.phase}"
                    self.struck(blow)
                    blows.append(blow)
                if blows:
                    self.end(attempt, blows, expected, same=job.same)
                    if stages.content(whole.run) != before:
                        blows[-1].wrong.append(f"{job.verb} changed the model that it began with")
            expected.clear()

    def stage(self, job: stages.Job) -> Attempt:
        """A new one of a stage."""
        return self.attempt(job.flags, verb=job.verb, pictures=job.first, untimed=True)


def main() -> int:
    """Parse, run, sum up."""
    parser = argparse.ArgumentParser(prog="python tests/chaos", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument(
        "--kills", type=int, default=50, help="SIGKILLs of train; fit has a fifth more, a stage a twelfth"
    )
    parser.add_argument("--seed", type=int, default=0, help="of instants and choices")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NETSMITH_TEST_DATA", "../shared/data")))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--work", type=Path, help="folder for all runs, kept; by default a temporary one")
    asked = parser.parse_args()
    work = asked.work or Path(tempfile.mkdtemp(prefix="chaos-"))
    work.mkdir(parents=True, exist_ok=True)
    harness = Harness(work.resolve(), asked.data.resolve(), asked.seed)
    timed = asked.kills // 5 if "timed" in asked.only else 0
    parts: dict[str, Callable[[], None]] = {
        "kills": lambda: harness.kills(asked.kills - timed),
        "timed": lambda: harness.timed(timed),
        "signals": harness.signals,
        "disk": harness.disk,
        "vanish": harness.vanish,
        "memory": harness.memory,
        "power": lambda: harness.power(max(1, asked.kills // 12)),
        "fit": lambda: harness.fit(max(1, asked.kills // 5)),
        "stages": lambda: harness.begun_with_a_model(max(1, asked.kills // 12)),
    }
    for name in PARTS:
        if name in asked.only:
            harness.part(name, parts[name])
    kills = [blow for blow in harness.blows if blow.kind == "SIGKILL"]
    print(f"\n{table(harness.blows)}\n")
    print(f"{len(kills)} kills, {sum(blow.writing for blow in kills)} of them while a file was written")
    wrong = [blow for blow in harness.blows if blow.wrong]
    for blow in wrong:
        print(f"WRONG after {blow.kind} in {blow.phase}: {word(blow.wrong)}")
    lacking = [f"LEFT OUT: {what}; --only names the other parts" for what in harness.left_out]
    lacking += demands.lacking(harness.blows, asked.only, kills=asked.kills, timed=timed)
    for line in lacking:
        print(line)
    if not asked.work and not wrong:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if wrong or lacking else 0


if __name__ == "__main__":
    sys.exit(main())
