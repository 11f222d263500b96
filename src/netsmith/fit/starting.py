"""What a network starts as: fresh weights, published ones, or those of an artifact of ours.

All three give the same: a name and a layout, the recipe's fields that say which it was, preprocessing, and the network
for the classes of the pictures. What was trained before goes on with the preprocessing it knows, keeps its strides at
any side, and keeps what its classifier knows of the classes that have the same name; the others' weights are new.

A run that goes on reads the artifact again, where its command says that it is, and holds it to the recipe's hash.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from netsmith.arch.layout import Layout
from netsmith.arch.names import find_layout, is_layout_file
from netsmith.arch.pretrained import Weights, find_weights, split_tag
from netsmith.artifact.bundle import Bundle
from netsmith.data.audit import Audit
from netsmith.data.items import Dataset, listed
from netsmith.data.pretrained import weights_preprocess
from netsmith.data.splits import split
from netsmith.errors import InputError
from netsmith.fit.parent import Parent, keeping_splits, open_parent
from netsmith.fit.recipes import Look, preprocess_for
from netsmith.fit.session import Session
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.preprocess import Preprocess
from netsmith.run.progress import Progress
from netsmith.run.recipe import Recipe

if TYPE_CHECKING:
    from netsmith.models.build import Network

FROM = "--from"
TASKS = {"classify": "one class per picture", "tag": "any number of labels per picture"}
Layers = Sequence[tuple[str, Mapping[str, Any]]]
"""(origin for messages, fields of a recipe), the strongest last."""


class Start(Protocol):
    """What a network starts as.

    Attributes:
        model: its name, as the recipe has it.
        layout: at its own resolution, with its own classes.
        known: side of the pictures that its weights know, pixels; None where they are fresh.
        fields: of the recipe that say which it is.
        weights, licence: what an artifact says of them in its provenance.
    """

    @property
    def model(self) -> str: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def known(self) -> int | None: ...
    @property
    def fields(self) -> Mapping[str, Any]: ...
    @property
    def weights(self) -> str | None: ...
    @property
    def licence(self) -> str | None: ...

    def pictures(self, audited: Audit, *, seed: int) -> Dataset:
        """The pictures with the splits of a new run."""
        ...

    def ledger(self, run: RunFolder, session: Session) -> Ledger:
        """The ledger that a new run begins with."""
        ...

    def preprocess(self, look: Look, size: int) -> Preprocess:
        """Of evaluation, for pictures that look so and a side in pixels."""
        ...

    def network(self, recipe: Recipe, dataset: Dataset, *, progress: Progress) -> "Network":
        """The network for the classes of the pictures, in training mode, float32, on the CPU."""
        ...


class _New:
    """What begins without a run of ours."""

    def pictures(self, audited: Audit, *, seed: int) -> Dataset:
        """Split by the seed, where no splits were given."""
        return split(audited.dataset, seed=seed)

    def ledger(self, run: RunFolder, session: Session) -> Ledger:
        """Empty."""
        return Ledger(run.ledger, clock=session.clock)


@dataclass(frozen=True)
class Fresh(_New):
    """Weights drawn from the recipe's seed.

    Attributes:
        model: name of a network, or file of a layout.
        file: of the layout to read: of a run that goes on its own copy.
    """

    model: str
    file: str | None = None
    known: None = None
    weights: None = None
    licence: None = None

    @property
    def layout(self) -> Layout:
        """Of the name or the file."""
        return find_layout(self.file or self.model)

    @property
    def fields(self) -> Mapping[str, Any]:
        """No weights."""
        return {"model": self.model, "pretrained": None, "parent": None}

    def preprocess(self, look: Look, size: int) -> Preprocess:
        """As suits the pictures."""
        return preprocess_for(look, size)

    def network(self, recipe: Recipe, dataset: Dataset, *, progress: Progress) -> "Network":
        """With fresh weights; strides suit the side."""
        from netsmith.models.build import build

        layout = find_layout(self.file or self.model, num_classes=len(dataset.classes), img_size=recipe.img_size)
        return build(layout, seed=recipe.seed, dropout=recipe.drop_rate or None, drop_path=recipe.drop_path or None)


@dataclass(frozen=True)
class Published(_New):
    """Published weights.

    Attributes:
        source: which.
        folder: of weights files, looked at before the cache and the net.
    """

    source: Weights
    folder: Path | None = None

    @property
    def model(self) -> str:
        """Without the tag."""
        return self.source.model

    @property
    def layout(self) -> Layout:
        """As published."""
        return find_layout(self.source.model)

    @property
    def known(self) -> int:
        """Theirs."""
        return self.source.size

    @property
    def fields(self) -> Mapping[str, Any]:
        """The tag."""
        return {"model": self.source.model, "pretrained": self.source.tag, "parent": None}

    @property
    def weights(self) -> str:
        """NETWORK.TAG."""
        return self.source.name

    @property
    def licence(self) -> str:
        """As their source says."""
        return self.source.licence

    def preprocess(self, look: Look, size: int) -> Preprocess:
        """As the weights were trained for, except that nothing is cut off small pictures."""
        found = weights_preprocess(self.source, size=size)
        return found.model_copy(update={"crop": 1.0}) if look.small else found

    def network(self, recipe: Recipe, dataset: Dataset, *, progress: Progress) -> "Network":
        """With the weights, downloaded where they are nowhere."""
        from netsmith.models.build import load_pretrained

        return load_pretrained(
            self.source,
            labels=dataset.classes,
            img_size=recipe.img_size,
            folder=self.folder,
            progress=progress,
            seed=recipe.seed,
            dropout=recipe.drop_rate or None,
            drop_path=recipe.drop_path or None,
        )


@dataclass(frozen=True)
class Continued:
    """An artifact of ours: trained, extended, cut down, of any layout.

    Attributes:
        parent: the artifact, and its run where it is of one.
    """

    parent: Parent

    @classmethod
    def of(cls, folder: Path) -> "Continued":
        """The artifact in a model folder or a run folder.

        Raises:
            InputError: there is none, or a file of it is not the one that its config.json describes.
        """
        return cls(open_parent(folder))

    @property
    def bundle(self) -> Bundle:
        """The artifact."""
        return self.parent.bundle

    @property
    def sha256(self) -> str:
        """Of its folder."""
        return self.parent.artifact

    def pictures(self, audited: Audit, *, seed: int) -> Dataset:
        """Split as its run had those that it knew, others by the seed; the same classes in the artifact's order."""
        dataset = keeping_splits(self.parent.numbered(audited.dataset), [self.parent], seed=seed)
        note = self._of_other_classes(dataset.classes)
        return replace(dataset, notes=(*dataset.notes, note)) if note else dataset

    def _of_other_classes(self, classes: Sequence[str]) -> str:
        """What becomes of its classifier, in one sentence; "" where it has the same classes."""
        known = self.bundle.config.labels
        kept, new = [name for name in classes if name in known], [name for name in classes if name not in known]
        gone = [name for name in known if name not in classes]
        if not new and not gone:
            return ""
        parts = [f"keeps what it knows of {listed(kept)}" if kept else "keeps nothing"]
        parts += [f"is new for {listed(new)}"] if new else []
        parts += [f"loses {listed(gone)}"] if gone else []
        return f"{self.parent.path} has other classes: its classifier {', '.join(parts)}"

    def ledger(self, run: RunFolder, session: Session) -> Ledger:
        """It begins with the rows of the artifact's run."""
        return self.parent.continued(run, session)

    @property
    def model(self) -> str:
        """The layout's name, which need not be one that `netsmith models` lists."""
        return self.bundle.layout.name

    @property
    def layout(self) -> Layout:
        """The artifact's."""
        return self.bundle.layout

    @property
    def known(self) -> int:
        """The artifact's."""
        return self.bundle.config.preprocess.size

    @property
    def fields(self) -> Mapping[str, Any]:
        """The artifact's hash."""
        return {"model": self.model, "pretrained": None, "parent": self.sha256}

    @property
    def weights(self) -> str:
        """Name and hash."""
        return f"{self.model} of artifact {self.sha256}"

    @property
    def licence(self) -> str | None:
        """Inherited."""
        return self.bundle.config.provenance.licence

    def preprocess(self, look: Look, size: int) -> Preprocess:
        """The artifact's, whatever the pictures are like, at this side."""
        return self.bundle.config.preprocess.model_copy(update={"size": size})

    def network(self, recipe: Recipe, dataset: Dataset, *, progress: Progress) -> "Network":
        """With the artifact's float weights."""
        from netsmith.models.build import continue_model

        task = self.bundle.config.task
        if task != dataset.task:
            raise InputError(
                f"{self.bundle.folder} was trained for {TASKS[task]}, and {dataset.source} has {TASKS[dataset.task]}; "
                f"start from a model of that kind"
            )
        return continue_model(
            self.bundle.folder,
            labels=dataset.classes,
            img_size=recipe.img_size,
            seed=recipe.seed,
            dropout=recipe.drop_rate or None,
            drop_path=recipe.drop_path or None,
        )


def find_start(
    layers: Layers,
    *,
    parent: Path | None = None,
    parent_as: str = FROM,
    pretrained_dir: Path | None = None,
    begun: RunFolder | None = None,
) -> Start:
    """What the layers of a recipe ask for.

    Args:
        layers: of a run that goes on, its own recipe first.
        parent: the artifact's folder; of a run that goes on its command's where it is not typed anew.
        parent_as: as what that is typed, for messages.
        pretrained_dir: folder of weights files.
        begun: the run that goes on, if one does.

    Raises:
        InputError: nothing is named, too much is, no such network, weights or folder, another artifact than the run
            was begun with.
    """
    (flags_from, flags), wanted = layers[-1], _last(layers, "parent")
    if parent is None and begun is not None and wanted is not None:
        parent = _typed(begun)
    if parent is not None:
        for flag in ("model", "pretrained"):
            if flags.get(flag):
                raise InputError(
                    f"{parent_as} {parent} brings its network and its weights; leave --{flag} of {flags_from} out"
                )
        start = Continued.of(parent)
        if begun is not None and wanted != start.sha256:
            began = f"from artifact {wanted}" if wanted else f"without {parent_as}"
            raise InputError(
                f"{begun.path} was begun {began}, and {parent} is {start.sha256}; go on as it was begun, or name "
                "another folder with -o"
            )
        return start
    if wanted is not None:
        raise InputError(f"the recipe starts from artifact {wanted}; say where it is with {parent_as}")
    name = _last(layers, "model")
    if name is None:
        raise InputError(
            f"which network to train is not said; give --model, `netsmith models` lists them, or a folder with {FROM}"
        )
    if is_layout_file(name):
        if _last(layers, "pretrained"):
            find_weights(name)  # says that there are none
        return Fresh(name, str(begun.layout) if begun is not None and begun.layout.exists() else name)
    model, tag = _weights_named(name, layers)
    return Fresh(model) if tag is None else Published(find_weights(model, tag), pretrained_dir)


def _weights_named(name: str, layers: Layers) -> tuple[str, str | None]:
    """Network and tag of the weights it starts from: by the network's name, else by the strongest layer's word."""
    model, tag = split_tag(name)
    said = ((where, values["pretrained"]) for where, values in reversed(layers) if values.get("pretrained") is not None)
    where, wish = next(said, ("", None))
    if not isinstance(wish, str | bool | None):
        raise InputError(f"{where}: pretrained is {wish!r}; give a tag of weights such as v1, or true")
    if tag is None and isinstance(wish, str):
        tag = wish
    if tag is None and wish is not True:
        find_layout(model)
        return model, None
    return model, find_weights(model, tag).tag


def _typed(run: RunFolder) -> Path | None:
    """The folder that the run's command names after --from."""
    return next((Path(word) for flag, word in pairwise(run.command) if flag == FROM), None)


def _last(layers: Layers, key: str) -> Any:
    return next((values[key] for _, values in reversed(layers) if values.get(key)), None)
