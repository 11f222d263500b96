"""The first stages of a run: what the pictures are and which of them are for what, written down once and obeyed on
resume."""

from collections.abc import Callable
from pathlib import Path

from netsmith.data.audit import Audit
from netsmith.data.items import Dataset
from netsmith.data.masters import Masters, encoding_that_fits, masters
from netsmith.data.record import from_data_json, parse_data_json, to_data_json
from netsmith.data.splits import split
from netsmith.errors import InputError
from netsmith.run.files import write_json
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.plan import Plan

MASTER_MARGIN = 1.15
"""Side of the training masters over the largest resolution, so that random crops have something to choose from."""


def refuse_inside(data: str, output: Path) -> None:
    """Refuse to write a run into the folder of its pictures, where the next run would find it among the classes.

    Raises:
        InputError: `output` is the folder `data`, or lies in it.
    """
    pictures, target = Path(data).resolve(), output.resolve()
    if pictures.is_dir() and target.is_relative_to(pictures):
        raise InputError(
            f"-o {output} lies in the folder of the pictures, {data}, and would be taken for one of its classes; "
            "name a folder outside of it"
        )


def record_split(
    audited: Audit, *, seed: int, run: RunFolder, ledger: Ledger, dataset: Dataset | None = None
) -> Dataset:
    """The audited pictures with their splits: those of the run's `data.json`, or new ones, recorded there and in the
    ledger.

    Args:
        audited: the pictures as they are now.
        seed: of new splits.
        run, ledger: of the run.
        dataset: the pictures with splits that take the place of new ones.

    Raises:
        InputError: pictures that the run knows are gone or have another class, or a class has too few pictures.
    """
    if run.data.exists():
        dataset = from_data_json(parse_data_json(run.data), audited.dataset, where=str(run.data))
    else:
        dataset = dataset or split(audited.dataset, seed=seed)
        write_json(run.data, to_data_json(dataset, seed=seed))
    if ledger.newest("split") is None:
        _record(audited, dataset, ledger)
    return dataset


def _record(audited: Audit, dataset: Dataset, ledger: Ledger) -> None:
    skipped = [
        {"name": names[0], "reason": finding.kind}
        for finding in audited.findings
        if finding.left_out
        for names in finding.files
    ]
    copies = [names for finding in audited.findings if finding.kind == "duplicates" for names in finding.files]
    ledger.add(
        "audit",
        verdict="done",
        reason=audited.summary()[0],
        output=dataset.fingerprint,
        after={
            "pictures": len(dataset.items),
            "classes": audited.counts,
            "skipped": skipped,
            "duplicates": sum(map(len, copies)) - len(copies),
            "shorter_side": {
                name: min(getattr(audited.widths, name), getattr(audited.heights, name))
                for name in ("min", "median", "max")
            },
        },
    )
    sizes = {name: len(dataset.subset(name)) for name in ("train", "val", "test")}
    ledger.add("split", verdict="done", reason="by content hash", after={**sizes, "notes": list(dataset.notes)})


def training_pictures(
    dataset: Dataset, *, largest: int, plan: Plan, warn: Callable[[str], None], folder: Path | None = None
) -> Masters:
    """The training split as masters, large enough for random crops at a resolution of `largest` pixels; nothing is
    decoded yet.

    Args:
        dataset: with its splits.
        largest: pixels.
        plan: whether they are re-encoded for want of room is a row of it.
        warn: told when they cannot be kept as they are.
        folder: of the cache files, by default in the cache root.

    Raises:
        InputError: the cache cannot be written.
    """
    items, side = dataset.subset("train"), round(MASTER_MARGIN * largest)
    encoding = plan.decide(
        "pictures",
        at=0,
        compute=lambda: encoding_that_fits(items, side=side, folder=folder),
        why="what the disk of the cache has room for",
    )
    return masters(dataset, items, side=side, encoding=encoding, folder=folder, warn=warn)
