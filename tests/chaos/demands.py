"""What a pass of the harness must have met before its end may be called good: what never came proves nothing."""

from collections.abc import Callable, Iterator, Sequence

from faults import Blow

PHASES = ("audit", "cache", "training", "checkpoint", "evaluation", "export", "measuring", "answers", "verifying",
          "report")  # fmt: skip
"""That kills must have met."""
MANY = 40
"""Kills of one part from which on every phase must have been met."""

Counts = Callable[[Blow], bool]


def _ended(blow: Blow) -> bool:
    """Whether it was the end of a `train`, which otherwise came to its own."""
    return blow.of_train and blow.code != 0


LEAST: dict[str, tuple[tuple[str, Counts, int], ...]] = {
    "signals": (
        ("SIGTERM that ended train", lambda blow: blow.kind.startswith("SIGTERM") and _ended(blow), 6),
        ("Ctrl-C that ended train", lambda blow: blow.kind.startswith("SIGINT") and _ended(blow), 6),
    ),
    "disk": (
        ("full disks", lambda blow: blow.kind.startswith("full disk"), 5),
        ("full disks that ended a command", lambda blow: blow.kind.startswith("full disk") and blow.code == 2, 1),
    ),
    "vanish": (
        ("vanished pictures", lambda blow: blow.kind.startswith("vanished"), 5),
        ("vanished pictures that ended a command", lambda blow: blow.kind.startswith("vanished") and blow.code == 2, 1),
    ),
    "memory": (("shortages of memory", lambda blow: blow.kind == "out of memory", 2),),
    "power": (("losses of power gone on with", lambda blow: blow.phase == "gone on with", 1),),
    "fit": (("kills of fit", lambda blow: blow.kind == "SIGKILL" and blow.phase.startswith("fit: "), 1),),
    "stages": tuple(
        (f"kills of {verb}", lambda blow, verb=verb: blow.kind == "SIGKILL" and blow.phase.startswith(f"{verb}: "), 1)
        for verb in ("prune", "distill", "quantize", "compress")
    ),
}
"""By part of the harness: what is counted, and how many there must be. A phase may be over before a fault comes, so
of eight signals of a kind, six disks and six robberies not every one must have come."""


def unmet(blows: Sequence[Blow], kills: int) -> list[str]:
    """Phases that one of so many kills should have met and none has."""
    met = {blow.phase for blow in blows if blow.kind == "SIGKILL"}
    return [phase for phase in PHASES if phase not in met] if kills >= MANY else []


def lacking(blows: Sequence[Blow], parts: Sequence[str], *, kills: int, timed: int) -> Iterator[str]:
    """What the faults that came do not show, in words.

    Args:
        blows: all of them.
        parts: of the harness that were run.
        kills: that `train` was to be given; timed: those of them in runs whose length the time decides.
    """
    if "kills" in parts:
        yield from (f"NOT MET by any kill: {phase}" for phase in unmet(blows, kills - timed))
        if (met := sum(blow.kind == "SIGKILL" and blow.of_train for blow in blows)) < kills:
            yield f"TOO FEW: {met} kills of train, {kills} were asked for"
    for part in parts:
        for what, counts, least in LEAST.get(part, ()):
            if (met := sum(map(counts, blows))) < least:
                yield f"TOO FEW: {met} {what}, at least {least} must be"
