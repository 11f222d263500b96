"""How well an artifact does on labelled pictures: those of its run, or any others with the same classes.

Nothing is written. The test split of an unfinished run stays sealed: reading it belongs to finishing the run, which
enters it in the ledger.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from netsmith.artifact.bundle import Bundle, load_bundle
from netsmith.artifact.evaluate import Evaluation, evaluate
from netsmith.artifact.runtimes import Warn, open_session, refuse_no_numbers
from netsmith.data.audit import audit
from netsmith.data.cache import prepared
from netsmith.data.items import Dataset, Item, Targets, listed, targets_of
from netsmith.data.items import Progress as Counting
from netsmith.data.record import from_data_json, parse_data_json, read_data_json
from netsmith.data.sources import open_source, refuse_elsewhere
from netsmith.errors import InputError
from netsmith.run.folder import RunFolder
from netsmith.run.progress import Progress, silent
from netsmith.run.scores import Task

Which = Literal["train", "val", "test", "all"]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """An artifact's answers on a set of pictures.

    Attributes:
        bundle: the artifact.
        source: where the pictures came from.
        split: which of them.
        targets: int64 [N] or bool [N,C], classes as the artifact numbers them.
        found: the answers and their scores.
        notes: what was decided on the user's behalf, one sentence each.
    """

    bundle: Bundle
    source: str
    split: Which
    targets: Targets
    found: Evaluation
    notes: tuple[str, ...]


def validate(
    path: Path,
    *,
    data: str | None = None,
    split: Which | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    warn: Warn | None = None,
    progress: Progress = silent,
) -> Validation:
    """Answer the pictures of a split through the artifact and score the answers.

    Args:
        path: a run folder, or a model folder; one that lies in a run is of that run.
        data: where the pictures are; by default where the run found them.
        split: which of them: for a run's pictures by default "val", for others all.
        runtime, threads, warn: see `open_session`.
        progress: told how far it is.

    Raises:
        InputError: no artifact, one that cannot be opened or does not answer with numbers, no data, no pictures in the
            split, or classes that the artifact does not know.
    """
    bundle = load_bundle(path)
    session = open_session(bundle, runtime=runtime, threads=threads, warn=warn)
    run = run_of(path)
    if run is None and data is None:
        raise InputError(f"{path} is a model without its run; say with --data on which pictures")
    record = parse_data_json(run.data) if run is not None and run.data.exists() else None
    source = data if data is not None else read_data_json(record, where=str(run.data)).source if run else ""
    if run is not None and data is None:
        refuse_elsewhere(source, of=run.path)
    audited = audit(open_source(source), progress=_counted(progress, "reading"))
    dataset = audited.dataset
    ours = run is not None and record is not None and _same_pictures(record, dataset)
    if ours:
        assert run is not None
        dataset = from_data_json(record, dataset, where=str(run.data), partial=True)
    chosen = split or ("val" if ours else "all")
    if ours and chosen in ("test", "all") and run is not None and not run.finished:
        raise InputError(f"{run.path} is not finished, and its test split stays sealed until then; use --split val")
    items = [item for item in dataset.items if chosen == "all" or item.split == chosen]
    if not items:
        given = sorted({item.split for item in dataset.items if item.split is not None})
        splits = f"it has {', '.join(given)}" if given else "it has no splits, use --split all"
        raise InputError(f"{source} has no pictures of the split {chosen}; {splits}")
    targets = _targets(bundle, dataset, items)
    pictures = prepared(dataset, items, bundle.config.preprocess, progress=_counted(progress, "preparing pictures"))
    found = evaluate(session, pictures.pixels, targets, thresholds=bundle.config.thresholds, progress=progress)
    refuse_no_numbers(found.logits, of=bundle.folder)
    notes = list(dataset.notes)
    if left_out := audited.listed - len(audited.dataset.items):
        notes.append(f"{left_out:,} of {audited.listed:,} pictures are left out; `netsmith audit {source}` says which")
    return Validation(bundle=bundle, split=chosen, source=source, targets=targets, found=found, notes=tuple(notes))


def run_of(path: Path) -> RunFolder | None:
    """The run that `path` is or lies in, also as one of its candidates; links are followed."""
    for start in (path.absolute(), path.resolve()):
        for folder in (start, *start.parents):
            if (run := RunFolder(folder)).marker.is_file():
                return run
    return None


def _same_pictures(record: object, dataset: Dataset) -> bool:
    known = read_data_json(record).items
    return any(item.key in known for item in dataset.items)


def refuse_other_task(dataset: Dataset, task: Task) -> None:
    """Raise InputError for pictures that are not labelled as a model of this task answers."""
    if dataset.task != task:
        kinds = {"classify": "one class per picture", "tag": "any number of labels per picture"}
        raise InputError(
            f"{dataset.source} has {kinds[dataset.task]} and the model answers {kinds[task]}; give data of the model's "
            "kind"
        )


def _targets(bundle: Bundle, dataset: Dataset, items: list[Item]) -> Targets:
    """Classes as the artifact numbers them: by name; where the data has numbers for names, by number."""
    refuse_other_task(dataset, bundle.config.task)
    labels = bundle.config.labels
    numbers = [str(index) for index in range(len(labels))]
    known = {name: index for index, name in enumerate(labels)}
    if not set(dataset.classes) <= known.keys() and set(dataset.classes) <= set(numbers):
        known = {name: index for index, name in enumerate(numbers)}
    unknown = [name for name in dataset.classes if name not in known]
    if unknown:
        raise InputError(
            f"{dataset.source} has classes that the model does not know ({listed(unknown)}); "
            f"it knows {listed(list(labels))}"
        )
    labels = [sorted(known[dataset.classes[label]] for label in item.labels) for item in items]
    return targets_of(labels, classes=len(bundle.config.labels), task=bundle.config.task)


def _counted(progress: Progress, title: str) -> Counting:
    return lambda done, total: progress(title, done, total)
