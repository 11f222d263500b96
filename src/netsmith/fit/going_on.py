"""Training that goes on with a network that was cut, and of the network that it is compared with.

The twin is scaled down by its family's width to what the pruned network costs, at the same resolution, starts from
fresh weights and is trained by the same recipe but for the rate, which is that of training from scratch. It has the
compute of both trainings of the pruned network: seconds where seconds were given, and where epochs were, as many as
take the same MACs, of every round as many as its network had. The parent's is that of its run; what that does not tell
is said.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from netsmith.arch.cost import cost
from netsmith.arch.names import find_layout, find_spec
from netsmith.arch.scale import for_size
from netsmith.arch.scale_to import scale_to
from netsmith.arch.spec import Spec, with_classes
from netsmith.artifact.bundle import CONFIG, Bundle, load_bundle
from netsmith.compress.prune.spending import Measure
from netsmith.data.cache import Prepared, prepared
from netsmith.errors import CheckError, Diverged, InputError
from netsmith.fit.composing import compose_recipe
from netsmith.fit.cutting import Asked
from netsmith.fit.judged import Judged
from netsmith.fit.lengths import enter_time, time_of
from netsmith.fit.opening import training_pictures
from netsmith.fit.stage import Parent, Stage
from netsmith.fit.starting import Fresh
from netsmith.run.budget import format_duration
from netsmith.run.files import make_folder, read_jsonl
from netsmith.run.folder import RunFolder
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.run.scores import METRIC_NAMES

if TYPE_CHECKING:
    from torch import nn

    from netsmith.train.evaluate import Evaluation
    from netsmith.train.feed import TrainingData
    from netsmith.train.loop import Trained

SAMPLE = 1024
"""Training pictures that are asked how much channels matter, and that batch norm's statistics are taken on."""
TWIN = "twin"
"""Name of its folders in the run."""
BASELINE = "baseline"
"""Row of the ledger that it stands in."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """A training of the pruned network.

    Attributes:
        share: of the recipe's length.
        macs: of the network that was trained.
        plan: of the training.
    """

    share: float
    macs: int
    plan: Plan


@dataclass(frozen=True)
class Training:
    """What networks of a stage are trained on, and how.

    Attributes:
        stage: at work.
        recipe: of the training.
        preprocess: of the parent, and so of what is made of it.
        trains: whether what was cut is trained on; else the recipe only says which loss ranks channels.
    """

    stage: Stage
    recipe: Recipe
    preprocess: Preprocess
    trains: bool

    @cached_property
    def data(self) -> "TrainingData":
        """The pictures, as the Trainer takes them."""
        from netsmith.train.feed import TrainingData

        side = max(self.recipe.img_size, self.recipe.train_size or 0)
        masters = training_pictures(
            self.stage.dataset, largest=side, plan=self.stage.finisher.plan, warn=self.stage.session.warn
        )
        return TrainingData.of(masters, self.stage.finisher.prepared("val", self.preprocess), self.preprocess)

    @cached_property
    def sample(self) -> Prepared:
        """Some training pictures, prepared as validation pictures are: those whose hashes come first."""
        dataset = self.stage.dataset
        items = sorted(dataset.subset("train"), key=lambda item: item.key)[:SAMPLE]
        progress = self.stage.session.progress

        def counting(done: int, total: int) -> None:
            progress("preparing training pictures", done, total)

        return prepared(dataset, items, self.preprocess, progress=counting)

    @property
    def asked(self) -> Asked:
        """Pictures by which channels are ranked."""
        dataset = self.stage.dataset
        return Asked(
            pictures=lambda: self.sample,
            labels=dataset.targets(dataset.subset("train")),
            recipe=self.recipe,
            preprocess=self.preprocess,
            progress=self.stage.session.progress,
        )

    def recalibrated(self, network: "nn.Module") -> int:
        """Take batch norm's statistics again; gives the number of norms."""
        from netsmith.train.recalibrate import recalibrate

        mean, std = self.preprocess.mean, self.preprocess.std
        return recalibrate(
            network, self.sample.pixels, mean=mean, std=std, progress=self.stage.session.progress
        )  # fmt: skip

    def answers(self, network: "nn.Module") -> "Evaluation":
        """A network's answers on the validation pictures."""
        from netsmith.train.evaluate import evaluate_network

        val = self.stage.finisher.prepared("val", self.preprocess)
        mean, std = self.preprocess.mean, self.preprocess.std
        return evaluate_network(
            network, val.pixels, val.labels, mean=mean, std=std, progress=self.stage.session.progress
        )  # fmt: skip

    def train(
        self, network: "nn.Module", run: RunFolder, plan: Plan, *, share: float = 1.0, seed: int = 0,
        recipe: Recipe | None = None,
    ) -> "Trained":  # fmt: skip
        """Train a network, or go on where that was interrupted.

        Args:
            network: changed in place.
            run: folder of its checkpoints and metrics.
            plan: of this training.
            share: of the recipe's length.
            seed: added to the recipe's, so that rounds see other batches.
            recipe: in place of the stage's.
        """
        from netsmith.train.loop import train

        recipe = recipe or self.recipe
        length = {
            name: share * value
            for name, value in (("epochs", recipe.epochs), ("time_s", recipe.time_s))
            if value is not None
        }
        if "time_s" in length:
            enter_time(plan, length["time_s"])
        return train(
            network,
            self.data,
            recipe.model_copy(update={**length, "seed": recipe.seed + seed}),
            run=run,
            plan=plan,
            clock=self.stage.session.clock,
            resume=True,
            show=self.stage.session.progress,
            warn=self.stage.session.warn,
        )


def refuse_without_twin(parent: Parent, *, trains: bool) -> None:
    """Raise InputError where a parent has no table to scale down by, or its twin no time to train."""
    try:
        spec_of(parent)
    except InputError as error:
        raise InputError(f"{error}; leave --baseline out") from error
    if not trains and trained_before(parent) is None:
        raise InputError(
            "--baseline trains for as long as the pruned network was trained, which is not known here; give --epochs "
            "or --time, or leave it out"
        )


@contextmanager
def telling_how_to_do_without() -> Generator[None]:
    """What ends a comparison, and would again, says how to go on without it: the verdict is in the plan."""
    try:
        yield
    except CheckError as error:
        raise CheckError(
            f"{error}; the pruned network has its verdict: --resume --no-baseline goes by that, uncompared"
        ) from error


def announcement(parent: Parent, training: Training, *, asked: bool) -> str:
    """That a twin will be trained, for how long, and how to do without.

    Args:
        parent: of the pruned network.
        training: of it.
        asked: whether the twin is trained also where the pruned network is refused.
    """
    before, seconds = trained_before(parent), training.recipe.time_s
    length = "the compute of both trainings of the pruned one"
    if seconds is not None:
        own = format_duration(before[0]) if before is not None else "a time that is not known"
        whole = format_duration(seconds + (before or (0.0, 0.0))[0])
        length = f"{whole}: the {format_duration(seconds)} of the pruned one and what its parent took, {own}"
    who = "a network" if asked else "if the pruned network is kept, a network"
    return f"{who} scaled down natively is trained for comparison, for {length}; --no-baseline leaves it out"


def make_twin(
    stage: Stage, made: Bundle, training: Training, *, rounds: Sequence[Round], measure: Measure
) -> tuple[Bundle | None, str]:
    """The natively scaled-down network of the cost of a pruned one, trained.

    Args:
        stage: at work.
        made: the pruned network.
        training: of it.
        rounds: of that training, none where it was only cut.
        measure: of the cost.

    Returns:
        Its artifact and the length of its training, or None and why there is none: no table gives one so small, or its
        training broke down, which says nothing about the pruned one.
    """
    spent = cost(made.layout)
    wanted = spent.macs if measure == "macs" else spent.params
    try:
        spec = scale_to(spec_of(stage.parent), **{measure: wanted}, rule="width")
    except InputError as error:
        return None, f"left out, because {error}"
    start = Fresh(spec.name)
    recipe = training.recipe
    twin = find_layout(spec.name, num_classes=made.layout.num_classes, img_size=recipe.img_size)
    length, how = _length(stage.parent, training, rounds, macs=cost(twin).macs)
    kept = recipe.model_dump(exclude={"lr", "grad_clip", "model", "pretrained", "parent", "epochs", "time_s"})
    layers = [("the pruned network's recipe", kept), ("its compute", {**length, **start.fields})]
    own = compose_recipe(stage.audited, start, layers=layers)
    folder = stage.candidate(TWIN)
    if (folder / CONFIG).is_file():
        return load_bundle(folder), how
    run = RunFolder(stage.run.path / TWIN)
    make_folder(run.path)
    own.save(run.recipe)
    network = start.network(own, stage.dataset, progress=stage.session.progress)
    stage.session.say(f"{spec.name}, scaled down to as much, is trained for {how}")
    try:
        trained = training.train(network, run, Plan(run.plan), recipe=own)
    except Diverged as error:
        return None, f"left out, because its training broke down: {error.where}"
    assert trained.val is not None, "every run has validation pictures"
    return stage.finisher.export(
        trained.network, folder, preprocess=training.preprocess, recipe=own, thresholds=trained.val.thresholds,
    ), how  # fmt: skip


def enter_twin(stage: Stage, pruned: Mapping[str, Any], twin: Judged | None, how: str) -> None:
    """Enter the twin beside the pruned network in the ledger, and say what came of it.

    Args:
        stage: at work.
        pruned: record of the pruned network, measured beside the twin where there is one.
        twin: judged, or None.
        how: length of its training, or why there is none.
    """
    reason = f"a natively scaled-down network for comparison was {how}"
    if twin is not None:
        name, score = METRIC_NAMES[twin.metric], float(pruned[twin.metric]["value"])
        better = "less" if twin.score.value < score else "no less"
        reason = (
            f"{twin.model}, scaled down natively to {twin.macs:,} MACs and {twin.params:,} params and trained for "
            f"{how}, reaches {name} {twin.score.value:.2%} on validation, {better} than the pruned network's "
            f"{score:.2%} with {pruned['macs']:,} and {pruned['params']:,}"
        )
    stage.ledger.add(
        BASELINE,
        verdict="done",
        reason=reason,
        inputs=[pruned["artifact"]],
        output=None if twin is None else twin.artifact,
        before=pruned,
        after=None if twin is None else twin.record(),
        splits_read=[] if twin is None else ["train", "val"],
    )
    stage.session.say(reason)


def spec_of(parent: Parent) -> Spec:
    """The table that the parent was made by, for its classes and its side; what was pruned or grown has its origin's
    name before a plus.

    Raises:
        InputError: it was made by none.
    """
    layout = parent.bundle.layout
    name = layout.name.partition("+")[0]
    try:
        spec = find_spec(name)
    except InputError as error:
        raise InputError(f"only networks of netsmith models can be scaled down, and {layout.name} is none") from error
    return for_size(with_classes(spec, layout.num_classes), layout.resolution[0])


def trained_before(parent: Parent) -> tuple[float, float] | None:
    """Seconds and epochs of the parent's own training, where its run tells them."""
    if parent.run is None or not parent.run.metrics.exists():
        return None
    rows = ((row.get("seconds"), row.get("epoch")) for row in read_jsonl(parent.run.metrics))
    told = [(float(a), float(b)) for a, b in rows if isinstance(a, int | float) and isinstance(b, int | float)]
    return told[-1] if told else None


def _length(parent: Parent, training: Training, rounds: Sequence[Round], *, macs: int) -> tuple[dict[str, float], str]:
    """How long the twin, of so many MACs, is trained, and that in words."""
    before = trained_before(parent)
    seconds, epochs = before or (0.0, 0.0)
    began = parent.bundle.config.provenance.weights
    recipe = training.recipe
    if before is None:
        uncounted = "; how long its parent was trained is not known and not counted"
    elif began is not None:
        first = began.partition(" of artifact ")[0]
        uncounted = f"; what was trained before its parent's last training, from {first} on, is not counted"
    else:
        uncounted = ""
    if recipe.time_s is None and _was_taught(parent):
        uncounted += "; what its parent's teachers computed is not counted"
    if recipe.time_s is not None:
        length = sum(time_of(each.plan) for each in rounds) + seconds
        return {"time_s": length}, f"{format_duration(length)}, the time of both trainings of the pruned one{uncounted}"
    work = sum(each.share * (recipe.epochs or 0.0) * each.macs for each in rounds)
    length = (work + epochs * cost(parent.bundle.layout).macs) / macs
    return {"epochs": length}, f"{length:.3g} epochs, the MACs of both trainings of the pruned one{uncounted}"


def _was_taught(parent: Parent) -> bool:
    """Whether the parent's run says that it learned from teachers."""
    return parent.run is not None and parent.run.recipe.exists() and bool(Recipe.load(parent.run.recipe).teachers)
