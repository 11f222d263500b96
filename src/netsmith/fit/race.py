"""The race: candidates that fit the budget train in turns for a share of the time, and those that are beaten beyond
noise go; so do those whose loss is not finite, and those that memory is too small for.

Seconds become steps before they are trained: the steps of every rung are plan rows. A rung's outcome is a ledger row,
and a resumed run takes decided rungs from there. Training goes on from rung to rung and from the last rung to the end,
so what the winner learned is not lost.
"""

import shutil
from collections.abc import Callable, Sequence
from typing import Any

from netsmith.errors import CheckError, cause
from netsmith.fit.field import Entry
from netsmith.fit.racers import Racer, Track
from netsmith.run.ledger import LedgerRow
from netsmith.run.scores import METRIC_NAMES, METRICS
from netsmith.search.race import Decision, Standing, decide, rung_shares

FIRST_SHARE = 0.15
"""Share of a candidate's time in a rung after which its pace is known well enough to plan the rest."""

NOBODY_LEFT = (
    "every candidate has left the race, and the ledger says why; where a loss was not finite, look at the pictures "
    "with `netsmith audit`, and where memory was too small, give a --budget of fewer params"
)


class Race:
    """Runs rungs until one candidate is left or the race's time is used.

    Args:
        entries: who races, the most promising first.
        track: what they share.
        rungs: how many.
        race_s: seconds of the race.
        train_s: seconds until all training must be over, from now.
        threads: that the artifacts of the race prefer; the winner's are measured at the end.
    """

    def __init__(
        self, entries: Sequence[Entry], track: Track, *, rungs: int, race_s: float, train_s: float, threads: int
    ) -> None:
        self.entries = {entry.candidate.id: entry for entry in entries}
        self.track = track
        self.clock = track.clock
        self.rungs = rungs
        began = self.clock.now()
        self.race_ends, self.training_ends = began + race_s, began + train_s
        self.threads = threads
        self._racers: dict[str, Racer] = {}

    def winner(self) -> Racer:
        """Run the race; the best that did not diverge, as it stands after the last rung, ready to go on."""
        running = list(self.entries)
        shares = rung_shares(self.rungs)
        for rung in range(1, self.rungs + 1):
            if len(running) == 1:
                break
            decided = self._decided(rung)
            if decided is None:
                share = shares[rung - 1] / sum(shares[rung - 1 :])
                decided = self._run(rung, running, share=share)
            running = [row["id"] for row in decided.after["entries"] if row["kept"]]
        rows = [row for row in self.track.finisher.ledger.rows if row.stage == "race"]
        beaten = [entry["id"] for row in reversed(rows) for entry in row.after["entries"] if not entry["kept"]]
        alive = [id_ for id_ in [*running, *beaten] if not self._has_diverged(id_)]
        if not alive:
            raise CheckError(NOBODY_LEFT)
        return self._racer(alive[0])

    def champion(self, *, say: Callable[[str], None]) -> Racer:
        """The winner trained to the end of its plan; the next best in its place where it diverges.

        Args:
            say: told who trains on.

        Raises:
            CheckError: nobody is left.
        """
        while True:
            racer = self.winner()
            metric = METRIC_NAMES[METRICS[self.track.finisher.dataset.task]]
            say(f"{racer.id} trains on: {metric} {100 * racer.headline().value:.1f} % on validation so far")
            try:
                if racer.trainer.step == self.last_step(racer.id):  # one that is further obeys its own plan
                    racer.trainer.plan_time(max(1.0, self.training_ends - self.clock.now()))
                racer.trainer.advance()
                racer.trainer.save()
            except CheckError as error:
                self._diverged(racer.id, error)
                continue
            for id_ in self.entries:
                if id_ != racer.id:
                    self._retire(id_)
            return racer

    def _diverged(self, id_: str, error: CheckError) -> None:
        why = cause(error)  # the mends are flags that a fit does not have
        self.track.warn(f"{id_} leaves the race: {why}")
        self.track.finisher.ledger.add("diverged", verdict="refused", reason=why, after={"id": id_})

    def _has_diverged(self, id_: str) -> bool:
        rows = self.track.finisher.ledger.rows
        return any(row.stage == "diverged" and row.after["id"] == id_ for row in rows)

    def _retire(self, id_: str) -> None:
        """Leave a beaten candidate's artifact in its folder, once, and drop its checkpoints."""
        folder = self.track.finisher.run.candidates / id_
        if not (folder / "model").exists() and not self._has_diverged(id_):
            self._racer(id_).export(folder / "model", threads=self.threads)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        self._racers.pop(id_, None)

    def last_step(self, id_: str) -> int:
        """Updates that a candidate had made when its last rung ended; 0 when it ran none."""
        rows = [row for row in self.track.finisher.ledger.rows if row.stage == "race"]
        return next((e["steps"] for row in reversed(rows) for e in row.after["entries"] if e["id"] == id_), 0)

    def _decided(self, rung: int) -> LedgerRow | None:
        rows = self.track.finisher.ledger.rows
        return next((row for row in rows if row.stage == "race" and row.after["rung"] == rung), None)

    def _racer(self, id_: str) -> Racer:
        if id_ not in self._racers:
            seconds = self.training_ends - self.clock.now()
            self._racers[id_] = Racer(self.entries[id_], self.track, seconds=seconds)
        return self._racers[id_]

    def _run(self, rung: int, running: Sequence[str], *, share: float) -> LedgerRow:
        """Train the running for equal parts of a share of the race's time that is left, compare, record."""
        from netsmith.train.shortage import NoMemory

        ledger = self.track.finisher.ledger
        for id_ in running:  # making one measures how it computes best, which is not to be taken from its training
            if not self._has_diverged(id_):
                try:
                    self._racer(id_)
                except NoMemory as error:
                    self._diverged(id_, error)
        each = share * (self.race_ends - self.clock.now()) / len(running)
        for id_ in running:
            if not self._has_diverged(id_):
                try:
                    self._train(rung, id_, seconds=each)
                except CheckError as error:
                    self._diverged(id_, error)
        places = {id_: place for place, id_ in enumerate(self.entries)}
        standings = [self._racer(id_).standing(place=places[id_]) for id_ in running if not self._has_diverged(id_)]
        if not standings:
            raise CheckError(NOBODY_LEFT)
        decision = decide(standings)
        row = ledger.add(
            "race",
            verdict="done",
            reason=_sentence(decision),
            after={
                "rung": rung,
                "entries": [self._row(standing, decision) for standing in _ordered(standings, decision)],
            },
            splits_read=["train", "val"],
        )
        self._racer(decision.leader).export(self.track.finisher.run.model, threads=self.threads)
        return row

    def _train(self, rung: int, id_: str, *, seconds: float) -> None:
        """Train one candidate for some seconds, which become steps: first a few, then the rest at the pace these had.

        The steps are plan rows, each written before it is obeyed. A resumed candidate that is further than the first
        few has its plan already.
        """
        plan, racer = self.track.finisher.plan, self._racer(id_)
        trainer, began, start = racer.trainer, self.clock.now(), self.last_step(id_)

        def steps(part: float) -> int:
            return racer.steps_for(part, until=self.training_ends - self.clock.now())

        first = int(
            plan.decide(
                f"race.{rung}.{id_}.first",
                at=0,
                compute=lambda: start + steps(FIRST_SHARE * seconds),
                why=f"{FIRST_SHARE * seconds:.1f} s of rung {rung} at the pace planned",
            )
        )
        trainer.advance(until=first)
        if trainer.step == first:
            trainer.plan_time(max(1.0, self.training_ends - self.clock.now()))
        left = max(0.0, seconds - (self.clock.now() - began))
        goal = int(
            plan.decide(
                f"race.{rung}.{id_}",
                at=0,
                compute=lambda: first + (steps(left) if left else 0),
                why=f"{left:.1f} s more at the pace seen",
            )
        )
        trainer.advance(until=goal)
        trainer.save()

    def _score(self, racer: Racer, standing: Standing) -> dict[str, Any]:
        """The share of right answers; of tags mAP with its interval, which does not follow from the number of
        pictures."""
        metric = METRICS[self.track.finisher.dataset.task]
        return {metric: standing.score if metric == "top1" else racer.headline().model_dump()}

    def _row(self, standing: Standing, decision: Decision) -> dict[str, Any]:
        racer = self._racer(standing.id)
        candidate, timing = racer.entry.candidate, racer.entry.timing
        return {
            "id": standing.id,
            "model": candidate.layout.name,
            "side": candidate.layout.input.size[0],
            "params": candidate.cost.params,
            "macs": candidate.cost.macs,
            "size_bytes": timing.size_bytes,
            "latency_ms": timing.high_ms,
            "steps": racer.trainer.step,
            "epochs": racer.trainer.epoch,
            **self._score(racer, standing),
            "loss": standing.loss,
            "p_value": decision.eliminated.get(standing.id),
            "kept": standing.id in decision.kept,
        }


def _ordered(standings: Sequence[Standing], decision: Decision) -> list[Standing]:
    """Those kept first, best first."""
    order = [*decision.kept, *decision.eliminated]
    return sorted(standings, key=lambda standing: order.index(standing.id))


def _sentence(decision: Decision) -> str:
    gone = ", ".join(decision.eliminated)
    return f"{decision.leader} leads; " + (f"beaten beyond noise: {gone}" if gone else "none is beaten beyond noise")
