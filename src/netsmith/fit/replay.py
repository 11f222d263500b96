"""A fit repeated from its record: the plan rows of a finished run are obeyed, all else is computed again and must
agree.

The rows say what time and machine decided: timings of candidates, who raced, steps of every rung and of the winner,
threads and precision of every training. With the same pictures, seed and versions on the same kind of processor the
weights come out equal to the bit, and `compare` demands it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from netsmith.artifact.bundle import WEIGHTS, Bundle, load_bundle
from netsmith.data.items import Dataset
from netsmith.data.record import load_data_json
from netsmith.errors import CheckError, InputError
from netsmith.run.budget import Budget, format_duration
from netsmith.run.files import write_bytes
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.machine import machine, versions
from netsmith.run.plan import Plan
from netsmith.run.recipe import ClassBalance
from netsmith.run.result import Result

JOB = "job"
"""Kind of the plan row that says what was asked for; every run has its own."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A finished fit whose plan another one obeys.

    Attributes:
        run: the finished one; it is only read.
        budget, time_s, seed, class_balance: what was asked for.
    """

    run: RunFolder
    budget: Budget
    time_s: float
    seed: int
    class_balance: ClassBalance = "none"

    @classmethod
    def of(cls, path: Path) -> Self:
        """The record in a run folder.

        Raises:
            InputError: no run, one of another verb, or one that did not finish.
        """
        run = RunFolder(path)
        if run.command[:1] != ["fit"]:
            raise InputError(f"--replay {path} holds a run of `netsmith {run.command[0]}`; name the folder of a fit")
        rows = Plan(run.plan).rows
        asked = next((row.value for row in rows if row.kind == JOB), None)
        if not run.finished or asked is None:
            raise InputError(f"--replay {path} holds a fit that did not finish; go on with it first")
        budget = Budget.parse(asked["budget"]) if asked["budget"] else Budget()
        return cls(
            run=run,
            budget=budget,
            time_s=float(asked["time_s"]),
            seed=int(asked["seed"]),
            class_balance=asked.get("class_balance") or "none",
        )

    def refuse_other(
        self,
        *,
        budget: Budget | None,
        time_s: float | None,
        seed: int | None,
        class_balance: ClassBalance | None,
    ) -> None:
        """Refuse what was typed beside `--replay` and is not what the run was made with; None was not typed.

        Raises:
            InputError: names the first flag that differs.
        """
        for flag, typed, recorded in (
            ("--budget", budget, self.budget),
            ("--time", time_s, self.time_s),
            ("--seed", seed, self.seed),
            ("--class-balance", class_balance, self.class_balance),
        ):
            if typed is not None and typed != recorded:
                raise InputError(
                    f"{flag} is not that of --replay {self.run.path}, which was made with "
                    f"{self._asked()}; leave {flag} out"
                )

    def _asked(self) -> str:
        budget = f"--budget {self.budget}" if self.budget.limits() else "no --budget"
        balance = "" if self.class_balance == "none" else f", --class-balance {self.class_balance}"
        return f"{budget}, --time {format_duration(self.time_s)}{balance} and --seed {self.seed}"

    def refuse_other_data(self, dataset: Dataset) -> None:
        """Refuse pictures, labels or splits that are not those of the run.

        Raises:
            InputError: they differ, or the run's record of them is damaged.
        """
        recorded = load_data_json(self.run.data)
        if dataset.fingerprint != recorded.fingerprint:
            raise InputError(
                f"{dataset.source} does not hold the pictures, labels and splits of --replay {self.run.path} "
                f"({recorded.source}); replay it on the data it was made from"
            )

    def lay_down(self, run: RunFolder, plan: Plan) -> None:
        """Copy the rows into a run that begins; what is there already stays."""
        for path in sorted(self.run.candidates.glob("*/plan.jsonl")):
            target = run.path / path.relative_to(self.run.path)
            if not target.exists():
                write_bytes(target, path.read_bytes())
        for row in Plan(self.run.plan).rows:
            if row.kind != JOB:
                plan.decide(row.kind, at=row.at, compute=lambda value=row.value: value, why=row.why)

    def compare(self, bundle: Bundle, ledger: Ledger) -> None:
        """Enter in the ledger whether the finished weights are those of the run, once."""
        if ledger.newest("replay") is not None:
            return
        found, expected = bundle.config.files.get(WEIGHTS), load_bundle(self.run.model).config.files.get(WEIGHTS)
        same = found == expected
        reason = f"the weights are those of {self.run.path}" if same else self._difference()
        ledger.add(
            "replay",
            verdict="done" if same else "failed",
            reason=reason,
            before={"weights": expected},
            after={"weights": found},
        )

    def _difference(self) -> str:
        recorded, here = Result.load(self.run.results), versions()
        others = [f"{name} {was}" for name, was in recorded.versions.items() if here.get(name) != was]
        others += [f"on {recorded.machine.cpu}"] if recorded.machine.key != machine().key else []
        made = f"; that was made with {', '.join(others)}" if others else ""
        return f"the same plan came to other weights than those of {self.run.path}{made}"

    def demand(self, ledger: Ledger) -> None:
        """Raise CheckError where `compare` found other weights."""
        row = ledger.newest("replay")
        assert row is not None, "the weights were compared"
        if row.verdict == "failed":
            raise CheckError(f"{row.reason}; the run itself is whole and verified")
