"""The model that a stage begins with: its folder opened and checked, its pictures with the splits they had.

Pictures that the model's run knows keep their splits, so nothing that it was trained on ever validates what is made of
it; others are split anew. Where several models are gone on with or learned from, the runs of all of them count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from netsmith.arch.graph import state
from netsmith.arch.layout import layout_graph
from netsmith.artifact.bundle import WEIGHTS, Bundle, artifact_hash, load_bundle
from netsmith.artifact.runtimes import REFERENCE, RUNTIMES, Warn, choose_runtime, open_session
from netsmith.artifact.validate import refuse_other_task, run_of
from netsmith.data.audit import Audit
from netsmith.data.items import Dataset, listed
from netsmith.data.lineage import add_lineage, most_used, read_lineage
from netsmith.data.record import load_data_json
from netsmith.data.sources import refuse_elsewhere
from netsmith.data.splits import split
from netsmith.errors import InputError
from netsmith.fit.session import Session
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger, LedgerRow, Split
from netsmith.run.plan import Plan

if TYPE_CHECKING:
    from netsmith.models.network import Network


@dataclass(frozen=True)
class Parent:
    """The model that a stage begins with; nothing here is ever written to.

    Attributes:
        path: as the user wrote it.
        bundle: its artifact, every file as its `config.json` says.
        run: the run it is of, if of any.
    """

    path: Path
    bundle: Bundle
    run: RunFolder | None

    @cached_property
    def artifact(self) -> str:
        """SHA-256 of the artifact's folder."""
        return artifact_hash(self.bundle.folder)

    @property
    def source(self) -> str:
        """Where the pictures of its run are; "" where it has none.

        Raises:
            InputError: they are not there, seen from here.
        """
        if self.run is None or not self.run.data.exists():
            return ""
        source = load_data_json(self.run.data).source
        refuse_elsewhere(source, of=self.run.path)
        return source

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The split that its run had each group of equal pictures in, or the runs of those that it comes from, pictures
        without a label among them; empty where it has no run."""
        if self.run is None or not self.run.data.exists():
            return {}
        rows = load_data_json(self.run.data).items.values()
        return most_used({row.group: row.split for row in rows}, read_lineage(self.run.lineage))

    def continued(self, run: RunFolder, session: Session) -> Ledger:
        """The ledger of a run that begins with it: its own run's rows first."""
        return Ledger.continued(
            run.ledger,
            self.rows(session),
            clock=session.clock,
            artifact=self.artifact,
            reason=f"begins with {self.path}: {self.bundle.layout.name}, {self.bundle.config.precision}",
        )

    def rows(self, session: Session) -> tuple[LedgerRow, ...]:
        """The ledger of its run."""
        return () if self.run is None else Ledger(self.run.ledger, clock=session.clock).rows

    def network(self) -> "Network":
        """Its float network, in evaluation mode, on the CPU.

        Raises:
            InputError: it was shipped without weights, or they are not of its layout.
        """
        from netsmith.models.build import load_model

        return load_model(self.bundle.folder)

    def refuse_onto(self, output: Path) -> None:
        """Refuse to write into its folder or that of its run.

        Raises:
            InputError: `output` is one of them, or lies in it.
        """
        target = output.resolve()
        for folder in (self.bundle.folder, *([self.run.path] if self.run is not None else [])):
            if target.is_relative_to(folder.resolve()):
                raise InputError(f"-o {output} lies in {folder}, a model that is only read; name another folder")

    def refuse_quantized(self, verb: str) -> None:
        """Refuse a model whose graph holds rounded numbers; what it was made of can still be worked on.

        Raises:
            InputError: its precision is not float32.
        """
        precision = self.bundle.config.precision
        if precision != "float32":
            whole = (self.bundle.folder / WEIGHTS).is_file()
            raise InputError(
                f"{self.path} is {precision} already; {verb} the float32 model that it was made from"
                + (f", or what netsmith export {self.path} --float -o FOLDER makes of its {WEIGHTS}" if whole else "")
            )

    def refuse_not_running(self, warn: Warn) -> None:
        """Refuse a model that cannot run here, before a folder is made: what becomes of it is judged beside it, in the
        runtime that it prefers.

        Args:
            warn: told where another has to stand in, because that one is not here.

        Raises:
            InputError: that one refuses the graph, or cannot be loaded.
        """
        runtime, threads = choose_runtime(self.bundle, warn=warn)
        open_session(self.bundle, runtime=runtime, threads=threads, warn=warn)

    def check_weights(self) -> None:
        """Compare the float weights, where they are shipped, with the layout, by names and shapes; needs no torch.

        Raises:
            InputError: they are of another network.
        """
        path, layout = self.bundle.folder / WEIGHTS, self.bundle.layout
        if not path.is_file():
            return
        expected = {name: shape for name, shape, _ in state(layout_graph(layout))}
        try:
            with safe_open(str(path), framework="numpy") as file:
                names = file.keys()
                found = {name: tuple(file.get_slice(name).get_shape()) for name in names}
        except SafetensorError as error:
            raise InputError(f"{path} is not a safetensors file ({error}); export the model again") from error
        unlike = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if unlike:
            raise InputError(
                f"{path} does not hold the weights of {layout.name}: {listed(unlike)} missing, unknown or of another "
                "shape; export the model again"
            )

    def runtime(self, plan: Plan, *, warn: Callable[[str], None]) -> str:
        """The runtime that what is made of it prefers: its own where that opens it here, by a plan row. Of rounded
        numbers that is not one that rounds: float weights would be rounded again there.

        Args:
            plan: of what is made.
            warn: told where another has to stand in.
        """
        config = self.bundle.config
        if config.preferred.runtime == REFERENCE:
            return REFERENCE  # which is always there
        own = RUNTIMES.get(config.preferred.runtime)
        rounds = config.precision != "float32" and own is not None and own.precision != "float32"
        return plan.decide(
            "artifact.runtime",
            at=0,
            compute=lambda: REFERENCE if rounds else open_session(self.bundle, threads=1, warn=warn).runtime,
            why=f"what it began with is {config.precision} already, and its float weights are gone on with"
            if rounds
            else "that of the model it began with, where it opens that here",
        )

    def pictures(self, audited: Audit, *, seed: int) -> Dataset:
        """The audited pictures with their splits, classes in the model's order.

        Args:
            audited: the pictures.
            seed: of new splits.

        Raises:
            InputError: other classes or another kind of task than the model's; nothing to train or validate on.
        """
        self._refuse_other(audited.dataset)
        return keeping_splits(self.numbered(audited.dataset), [self], seed=seed)

    def doubt(self, dataset: Dataset) -> str | None:
        """What may make validation flatter the model, in one sentence; None where its run or its record rules it out.

        What descends from a doubtful model stays doubtful, whatever pictures it was trained on since.

        Args:
            dataset: from `pictures`.
        """
        origin = self.bundle.config.provenance
        if origin.doubtful:
            return (
                f"{self.path} descends from a model whose training pictures are not known: some that validate now may "
                "be pictures it has seen, which flatters it; begin again from the run of that model, or with the data "
                "and --seed of its training"
            )
        trained = origin.data
        if (self.run is not None and self.run.data.exists()) or trained == dataset.fingerprint:
            return None
        known = "does not say what it was trained on" if trained is None else "was trained on other pictures or splits"
        return (
            f"{self.path} has no run beside it and {known}: some that validate now may be pictures it has seen, which "
            "flatters it; give the folder of its run, or the data and --seed of its training"
        )

    def _refuse_other(self, dataset: Dataset) -> None:
        config = self.bundle.config
        refuse_other_task(dataset, config.task)
        labels, classes = set(config.labels), set(dataset.classes)
        if labels != classes:
            unlike = sorted(classes - labels) or sorted(labels - classes)
            lacks = "has classes that the model does not know" if classes - labels else "lacks classes of the model"
            raise InputError(
                f"{dataset.source} {lacks} ({listed(unlike)}); {self.path} knows {listed(list(config.labels))}: "
                "give data of the same classes"
            )

    def numbered(self, dataset: Dataset) -> Dataset:
        """The same pictures, classes in the order of the model's outputs; as they are where it has other classes."""
        labels = self.bundle.config.labels
        if dataset.classes == labels or set(dataset.classes) != set(labels):
            return dataset
        place = {name: index for index, name in enumerate(labels)}
        items = tuple(
            replace(item, labels=tuple(sorted(place[dataset.classes[label]] for label in item.labels)))
            for item in dataset.items
        )
        return replace(dataset, classes=labels, items=items)


def keeping_splits(dataset: Dataset, parents: Sequence[Parent], *, seed: int) -> Dataset:
    """The pictures with the splits that models' runs had them in; others keep theirs, or are split by the seed.

    A picture that any of them was trained on stays for training, and one that any of them was validated on is no test.

    Args:
        dataset: with or without splits.
        parents: the models, in any order.
        seed: of new splits.

    Raises:
        InputError: nothing is left to train on, of a class or at all, or to validate on.
    """
    known = most_used(*(parent.splits for parent in parents))
    here = [item for item in dataset.items if item.group in known]
    told = sum(item.split != known[item.group] for item in here)
    if len(here) < len(dataset.items):
        dataset = split(dataset, seed=seed)
    if not here:
        return dataset
    items = tuple(replace(item, split=known.get(item.group, item.split)) for item in dataset.items)
    names = " and ".join(str(parent.path) for parent in parents)
    trained = {label for item in items if item.split == "train" for label in item.labels}
    lacking = [f"of {name!r} for 'train'" for label, name in enumerate(dataset.classes) if label not in trained]
    if lacking := [*lacking, *(["for 'val'"] if all(item.split != "val" for item in items) else [])]:
        raise InputError(
            f"{dataset.source} holds no picture that may be used {listed(lacking)}: {names} knew them all in other "
            "splits; give other pictures, or all of those that it was made with"
        )
    notes = [f"{told:,} pictures keep the split that they had in {names}"] if told else []
    return replace(dataset, items=items, notes=(*dataset.notes, *notes))


def record_lineage(run: RunFolder, dataset: Dataset, parents: Sequence[Parent]) -> None:
    """Write down what models knew that is not among a run's own pictures: its model knows it too.

    Args:
        run: that goes on with the models, or learns from them.
        dataset: its pictures, from `keeping_splits`.
        parents: the models.

    Raises:
        InputError: a record cannot be read.
    """
    here = {item.group for item in dataset.items}
    known = most_used(*(parent.splits for parent in parents))
    add_lineage(run.lineage, {group: side for group, side in known.items() if group not in here})


def open_parent(path: Path) -> Parent:
    """Open the model that a stage begins with.

    Args:
        path: folder of an artifact, or of a run that holds one.

    Raises:
        InputError: no artifact, or files that are not those it describes.
    """
    bundle = load_bundle(path, check_hashes=True)
    return Parent(path, bundle, run_of(path))
