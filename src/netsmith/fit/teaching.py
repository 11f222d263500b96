"""Where teachers come from: artifacts of ours, and networks with published weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from netsmith.arch.pretrained import Weights, find_weights, split_tag
from netsmith.data.items import Dataset, listed
from netsmith.data.pretrained import weights_file, weights_preprocess
from netsmith.errors import InputError
from netsmith.fit.session import Session
from netsmith.fit.stage import Parent, open_parent
from netsmith.fit.starting import TASKS
from netsmith.run.files import sha256_file
from netsmith.run.preprocess import Preprocess
from netsmith.run.scores import Task

if TYPE_CHECKING:
    from netsmith.models.network import Network


class Source(Protocol):
    """A teacher whose network is not yet loaded.

    Attributes:
        name: for people.
        sha256: of its artifact or its weights.
        labels: classes in the order of its logits.
        task: that it was trained for.
        preprocess: of its pictures.
        parent: the artifact, where it is one of ours.
    """

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def task(self) -> Task: ...
    @property
    def preprocess(self) -> Preprocess: ...
    @property
    def parent(self) -> Parent | None: ...

    def network(self) -> "Network":
        """Its network, in evaluation mode, on the CPU."""
        ...


@dataclass(frozen=True)
class OurTeacher:
    """An artifact of ours."""

    parent: Parent

    @property
    def name(self) -> str:
        """As it was typed."""
        return str(self.parent.path)

    @property
    def sha256(self) -> str:
        """Of the artifact's folder."""
        return self.parent.artifact

    @property
    def labels(self) -> Sequence[str]:
        """In the order of its logits."""
        return self.parent.bundle.config.labels

    @property
    def task(self) -> Task:
        """What it was trained for."""
        return self.parent.bundle.config.task

    @property
    def preprocess(self) -> Preprocess:
        """Of its pictures."""
        return self.parent.bundle.config.preprocess

    def network(self) -> "Network":
        """With its float weights."""
        return self.parent.network()


@dataclass(frozen=True)
class PublishedTeacher:
    """A network with published weights, their file at hand."""

    weights: Weights
    file: Path
    folder: Path | None
    task: Task = "classify"
    parent: None = None

    @property
    def name(self) -> str:
        """NETWORK.TAG."""
        return self.weights.name

    @property
    def sha256(self) -> str:
        """Of the file."""
        return sha256_file(self.file)

    @property
    def labels(self) -> Sequence[str]:
        """In the order of its logits."""
        return self.weights.classes

    @property
    def preprocess(self) -> Preprocess:
        """As the weights were trained for."""
        return weights_preprocess(self.weights)

    def network(self) -> "Network":
        """As published."""
        from netsmith.models.build import load_pretrained

        return load_pretrained(self.weights, folder=self.folder).eval()


def open_teacher(name: str, *, folder: Path | None, session: Session) -> Source:
    """A teacher by the folder of an artifact or run, or by the name of a network with published weights.

    Args:
        name: as typed.
        folder: of weights files, looked at first.
        session: told how far a download is.

    Raises:
        InputError: neither, or damaged.
    """
    if Path(name).exists():
        return OurTeacher(open_parent(Path(name)))
    try:
        weights = find_weights(*split_tag(name))
    except InputError as error:
        raise InputError(f"--teacher {name} is no folder, and as the name of a network: {error}") from None
    return PublishedTeacher(weights, weights_file(weights, folder=folder, progress=session.progress), folder)


def refuse_other(teacher: Source, dataset: Dataset) -> None:
    """Refuse a teacher that answers something else than the pictures ask.

    Raises:
        InputError: another kind of task, or other classes; their order does not matter.
    """
    if teacher.task != dataset.task:
        raise InputError(
            f"--teacher {teacher.name} was trained for {TASKS[teacher.task]}, and {dataset.source} has "
            f"{TASKS[dataset.task]}; name a teacher of that kind"
        )
    theirs, ours = set(teacher.labels), set(dataset.classes)
    if unknown := sorted(ours - theirs):
        raise InputError(
            f"--teacher {teacher.name} does not know the classes {listed(unknown)} of {dataset.source}; name a teacher "
            "of the same classes"
        )
    if more := sorted(theirs - ours):
        raise InputError(
            f"--teacher {teacher.name} knows classes that {dataset.source} lacks ({listed(more)}); name a teacher of "
            "the same classes"
        )
