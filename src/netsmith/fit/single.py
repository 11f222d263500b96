"""`train`: one network by one recipe, from pictures to a verified run; `fit` without the choice.

Stages: audit, split, training, artifact, measurement, validation and test, verification in a fresh process. The
recipe is, from the bottom up: defaults for what the pictures are like, what published weights change about them, the
named recipe, the recipe file, the flags. Once a run began, its `recipe.yaml` takes the place of all but the flags, and
only what does not change what is computed may be given anew.

A layout's file is a network like a name is; the run keeps its own copy, so that it goes on as it began.

`--time` is the time of training, its evaluations and checkpoints included, and what its first epoch decodes; reading
the pictures before and measuring the artifact after come on top.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netsmith.arch.graph import Norm
from netsmith.arch.layout import Layout, layout_graph, layout_to_json
from netsmith.arch.names import find_layout, is_layout_file, read_layout
from netsmith.arch.pretrained import find_weights, split_tag
from netsmith.data.audit import Audit
from netsmith.data.items import Dataset
from netsmith.data.pretrained import weights_preprocess
from netsmith.errors import InputError
from netsmith.fit.finish import Finisher, reported, what_it_shows
from netsmith.fit.named import as_network_takes, for_task, recipe_layer, refuse_other_name, replaced
from netsmith.fit.opening import record_split, refuse_inside, training_pictures
from netsmith.fit.recipes import Look, look_at, preprocess_for, recipe_for, training_side
from netsmith.fit.session import Session, commands
from netsmith.run.budget import Budget
from netsmith.run.files import write_json
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.named_recipes import find_recipe
from netsmith.run.plan import Plan
from netsmith.run.preprocess import LARGEST_SIZE, Preprocess
from netsmith.run.progress import Progress
from netsmith.run.recipe import Recipe, read_fields
from netsmith.run.result import Result
from netsmith.run.world import World

if TYPE_CHECKING:
    from netsmith.models.build import Network
    from netsmith.train.ranks import Ranks

SMALLEST_SIDE = 16
"""Pixels below which small pictures are enlarged when no --img-size is given."""
OPTIMIZERS: Mapping[Any, Mapping[str, float]] = {
    "adamw": {"lr": 2e-3, "weight_decay": 0.05},
    # EfficientNet's 0.256 for 4096 pictures is 0.004 for 64, in runs of 350 epochs; shorter ones need more.
    "rmsprop": {"lr": 1e-2, "weight_decay": 1e-5},
    # Above AdamW's rate, of which its steps have the size: they do not suffer from single large gradients.
    "muon": {"lr": 1e-2, "weight_decay": 0.05, "momentum": 0.95},
    # Its rate is the share of their length by which weights move; Wightman et al. 2021 have 8e-3 for 2048 pictures.
    "lamb": {"lr": 5e-3, "weight_decay": 0.02, "grad_clip": 1.0},
}
"""What an optimizer has instead of the defaults of SGD."""
FINE_TUNING = {
    opt: {"lr": rate}
    for opt, rate in {"sgd": 0.003, "adamw": 3e-4, "rmsprop": 5e-4, "muon": 3e-4, "lamb": 5e-4}.items()
}
"""What published weights are trained on with: steps small enough to keep what they know (see benchmarks/LOG.md; 0.003
as Kolesnikov et al. 2020, Big Transfer)."""
UNNORMALISED = 0.1, 1.0
"""Share of the rates above, and largest norm of the gradient, for networks without batch norm from scratch: nothing
bounds their activations, and at the full rates their last units are dead after ten updates (benchmarks/LOG.md)."""
UNEQUAL = (
    "training sees the classes as unequal as they are, and small ones count little; --class-balance sampling shows "
    "each equally often, --class-balance loss weighs rare pictures up"
)
"""What is said of classes of very unequal size when nothing is done about it."""
UNEQUAL_TAGS = (
    "training sees the labels as unequal as they are, and rare ones are given hesitantly; --class-balance loss lets "
    "pictures that have a label count as much as those that have not"
)
FREE = frozenset({"time_s", "device", "threads", "workers", "on_nan"})
"""What a resumed run may have anew; what became of the rest is in its plan and its weights."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What was asked for.

    Attributes:
        flags: recipe fields that were given as flags.
        config: a recipe file under the flags.
        recipe: name of a recipe under both.
        resume: go on with an interrupted run.
        pretrained_dir: folder of weights files, looked at before the cache and the net.
        board: write event files for TensorBoard too.
    """

    flags: Mapping[str, Any]
    config: Path | None = None
    recipe: str | None = None
    resume: bool = False
    pretrained_dir: Path | None = None
    board: bool = False


def train_run(job: TrainJob, session: Session) -> Result | None:
    """Do the job in the session's folder, or go on with it where it was interrupted.

    Started by torchrun as several processes, they do it together: the leading one reads, writes, speaks and finishes.

    Args:
        job: what is asked for.
        session: where the pictures are, where the run goes, who is told.

    Returns:
        What came out; None in processes that do not lead.

    Raises:
        InputError: data, recipe or folder cannot be used; before anything was written, where the folder is new.
        CheckError: loss or weights are not finite, another process ended, or the finished run does not keep its word.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the folder can be resumed.
    """
    refuse_inside(session.data, session.output)
    world = World.here()
    if not world.several:
        return _run(job, session, None)
    # Lazily: torch takes seconds to import, which only several processes need before anything else.
    from netsmith.train.ranks import joined

    with joined(world) as ranks:
        ranks.same(shlex.join(session.command), "the same command, with the same --output")
        again = world.restarts > 0  # after a process was lost
        return _run(replace(job, resume=job.resume or again), session.among(world, ranks.once), ranks)


def _run(job: TrainJob, session: Session, ranks: "Ranks | None") -> Result | None:
    begun = session.share(lambda: session.output.is_dir() and any(session.output.iterdir()))
    opened = None if begun else open_job(job, session, None)
    held: list[RunFolder] = []  # by the leading process
    session.share(lambda: held.append(RunFolder.create(session.output, command=session.command, resume=job.resume)))
    with held[0] if held else RunFolder(session.output) as run:
        return _train(job, session, run, opened, ranks)


@dataclass(frozen=True)
class Opened:
    """What a job trains, all of it known to be usable."""

    audited: Audit
    recipe: Recipe
    network: "Network"
    layout_file: str | None


def open_job(job: TrainJob, session: Session, begun: RunFolder | None) -> Opened:
    """Everything that can be refused before anything is written; what costs little first."""
    audited, recipe, layout_file = session.share(lambda: _read(job, session, begun))
    # Lazily: torch takes seconds to import, and mistakes are to be told before.
    from netsmith.train.requirements import choose_device, smallest_part

    choose_device(recipe)
    name, classes = layout_file or recipe.model, len(audited.dataset.classes)
    network = _network(recipe, name, classes, folder=job.pretrained_dir, progress=session.progress)
    smallest_part(network, recipe, recipe.batch_size, processes=World.here().size)
    recipe = as_network_takes(recipe, network, name=job.recipe, given=_given(job))
    return Opened(audited, recipe, network, layout_file)


def _read(job: TrainJob, session: Session, begun: RunFolder | None) -> tuple[Audit, Recipe, str | None]:
    """The pictures, the recipe, and the file of the network's layout where it has one."""
    layers = _layers(job, begun)
    model = next((values["model"] for _, values in reversed(layers) if values.get("model")), None)
    if model is None:
        raise InputError("which network to train is not said; give --model, `netsmith models` lists them")
    layout_file = None
    if is_layout_file(model):
        layout_file = str(begun.layout) if begun is not None and begun.layout.exists() else model
    found, tag = _weights_named(layout_file or model, layers)
    model = model if layout_file else found
    layers[-1] = (layers[-1][0], layers[-1][1] | {"model": model, "pretrained": tag})
    if not any(values.get(key) is not None for _, values in layers for key in ("time_s", "epochs")):
        raise InputError("how long to train is not said; give --time such as 10m, or --epochs")
    seed = next((values["seed"] for _, values in reversed(layers) if values.get("seed") is not None), 0)
    audited = session.read(seed=seed)
    share = find_recipe(job.recipe).train_share if job.recipe else None
    recipe = compose_recipe(audited, model=model, layout=find_layout(found), layers=layers, train_share=share)
    return audited, recipe, layout_file


def _weights_named(name: str, layers: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[str, str | None]:
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


def _network(recipe: Recipe, name: str, classes: int, *, folder: Path | None, progress: Progress) -> "Network":
    from netsmith.models.build import build, load_pretrained

    dropout, drop_path = recipe.drop_rate or None, recipe.drop_path or None
    if recipe.pretrained is None:
        layout = find_layout(name, num_classes=classes, img_size=recipe.img_size)
        return build(layout, seed=recipe.seed, dropout=dropout, drop_path=drop_path)
    return load_pretrained(
        find_weights(recipe.model, recipe.pretrained),
        num_classes=classes,
        img_size=recipe.img_size,
        folder=folder,
        progress=progress,
        seed=recipe.seed,
        dropout=dropout,
        drop_path=drop_path,
    )


def preprocess_of(recipe: Recipe, look: Look) -> Preprocess:
    """As the weights were trained for, except that nothing is cut off small pictures."""
    if recipe.pretrained is None:
        return preprocess_for(look, recipe.img_size)
    preprocess = weights_preprocess(find_weights(recipe.model, recipe.pretrained), size=recipe.img_size)
    return preprocess.model_copy(update={"crop": 1.0}) if look.small else preprocess


def _given(job: TrainJob) -> list[tuple[str, dict[str, Any]]]:
    config: list[tuple[str, dict[str, Any]]] = []
    if job.config is not None:
        where, fields = str(job.config), read_fields(job.config)
        # What weights a network has is asked later, and of true, which names the default.
        Recipe.check_fields({key: value for key, value in fields.items() if key != "pretrained"}, where=where)
        config.append((where, fields))
    given = [*config, ("the flags", dict(job.flags))]
    for where, fields in given:
        if fields.get("epochs") is not None and fields.get("time_s") is not None:
            raise InputError(f"{where}: give --epochs or --time and not both")
    return given


def _layers(job: TrainJob, begun: RunFolder | None) -> list[tuple[str, dict[str, Any]]]:
    given = _given(job)
    if begun is not None:
        refuse_other_name(begun, job.recipe)
        return [(str(begun.recipe), Recipe.load(begun.recipe).model_dump()), *given]
    return [*([recipe_layer(job.recipe, given)] if job.recipe else []), *given]


def compose_recipe(
    audited: Audit,
    *,
    model: str,
    layout: Layout,
    layers: Sequence[tuple[str, Mapping[str, Any]]],
    train_share: float | None = None,
) -> Recipe:
    """The recipe of a run: layers over defaults for what the pictures are like.

    Args:
        audited: the pictures.
        model: the network, already known to exist.
        layout: of the network at its own resolution.
        layers: (origin for messages, fields), the strongest last; the last that gives a length decides it.
        train_share: side of the photos trained on over that of evaluation, where it is not the default.

    Raises:
        InputError: a field that does not exist or a value out of range, with its origin.
    """
    look = look_at(audited)
    given: dict[str, Any] = {}
    task = audited.dataset.task
    for _, values in for_task(layers, task):
        for one, other in (("epochs", "time_s"), ("time_s", "epochs")):
            if values.get(one) is not None:
                given.pop(other, None)
        given |= {key: value for key, value in values.items() if key not in ("epochs", "time_s") or value is not None}
    if tag := given.get("pretrained"):
        size = find_weights(model, tag).size  # also for smaller pictures: it is the size that they know
    else:
        size = max(SMALLEST_SIDE, min(layout.resolution[0], look.side))
    wanted = given.get("img_size", size)
    # What is out of range is refused below, by name.
    if isinstance(wanted, int) and SMALLEST_SIDE <= wanted <= LARGEST_SIZE:
        size = wanted
    defaults = recipe_for(look, model=model, size=size, seconds=1.0, seed=0, task=task)
    fields = defaults.model_dump(exclude={"time_s", "epochs"})
    if train_share is not None:
        fields["train_size"] = training_side(look, size, share=train_share)
    if "crop_scale" in given and given["crop_scale"] is None:
        fields["train_size"] = None  # without crops that enlarge, training sees what evaluation sees
    fields |= OPTIMIZERS.get(given.get("opt"), {})
    if tag:
        fields |= FINE_TUNING.get(given.get("opt", "sgd"), {})  # an unknown one is refused below
    elif not any(isinstance(op, Norm) for op in layout_graph(layout).ops):
        share, largest = UNNORMALISED
        fields |= {"lr": share * fields["lr"], "grad_clip": largest}
    recipe = Recipe.from_mapping(fields | given, where=" over ".join(where for where, _ in reversed(layers)))
    if task == "tag":
        _refuse_for_tags(recipe)
    return recipe


def _refuse_for_tags(recipe: Recipe) -> None:
    if recipe.class_balance == "sampling":
        raise InputError(
            "--class-balance sampling shows every class equally often, and pictures with several labels belong to "
            "several classes; use --class-balance loss"
        )
    if recipe.bce_loss or recipe.bce_target_thresh is not None:
        raise InputError(
            "--bce-loss is for pictures of one class; with several labels each has its binary cross-entropy anyway, "
            "so leave it and --bce-target-thresh out"
        )


def _begin(job: TrainJob, session: Session, run: RunFolder, ledger: Ledger, opened: Opened, *, begun: bool) -> Dataset:
    """Write down what the run trains on what, or hold against what was; gives the pictures with their splits."""
    recipe = opened.recipe
    if begun:
        _refuse_other_recipe(run, Recipe.load(run.recipe), recipe)
    elif opened.layout_file is not None:
        write_json(run.layout, layout_to_json(read_layout(Path(opened.layout_file))))
    recipe.save(run.recipe)
    session.enter(run, ledger)
    for line in opened.audited.summary():
        session.say(line)
    if recipe.class_balance == "none" and any(finding.kind == "imbalance" for finding in opened.audited.findings):
        session.say(UNEQUAL if opened.audited.dataset.task == "classify" else UNEQUAL_TAGS)
    dataset = record_split(opened.audited, seed=recipe.seed, run=run, ledger=ledger)
    if job.recipe and not begun:
        pictures = len(dataset.subset("train"))
        for line in replaced(job.recipe, recipe, given=_given(job), pictures=pictures, task=dataset.task):
            session.say(line)
    return dataset


def _train(
    job: TrainJob, session: Session, run: RunFolder, opened: Opened | None, ranks: "Ranks | None"
) -> Result | None:
    from netsmith.train.feed import TrainingData
    from netsmith.train.loop import train
    from netsmith.train.ranks import ALONE

    ledger = session.share(lambda: Ledger(run.ledger, clock=session.clock))
    if (result := session.share(lambda: reported(run, ledger))) is not None:
        return result if ranks is None or ranks.leads else None
    begun = session.share(run.recipe.exists)
    opened = opened or open_job(job, session, run if begun else None)
    recipe = opened.recipe
    dataset = session.share(lambda: _begin(job, session, run, ledger, opened, begun=begun))
    plan = Plan(run.plan, share=session.share)
    finisher = Finisher(
        run=run,
        dataset=dataset,
        budget=Budget(),
        plan=plan,
        ledger=ledger,
        commands=commands(ledger),
        progress=session.progress,
    )
    preprocess = preprocess_of(recipe, look_at(opened.audited))

    pictures = training_pictures(
        dataset, largest=max(recipe.img_size, recipe.train_size or 0), plan=plan, warn=session.warn
    )
    trained = train(
        opened.network,
        TrainingData.of(pictures, finisher.prepared("val", preprocess), preprocess),
        recipe,
        run=run,
        plan=plan,
        clock=session.clock,
        resume=True,
        board=job.board,
        show=session.progress,
        warn=session.warn,
        ranks=ranks or ALONE,
    )
    if ranks is not None:
        ranks.leave()
        if not ranks.leads:
            return None
    assert trained.val is not None, "every run has validation pictures"
    session.say(
        f"{recipe.model}: {trained.steps:,} step{'' if trained.steps == 1 else 's'}, {trained.epochs:.1f} epochs, "
        f"{trained.val.shown} on validation"
    )
    for text in what_it_shows(run):
        session.say(text)
    return finisher.conclude(
        trained.network,
        name=recipe.model,
        steps=trained.steps,
        epochs=trained.epochs,
        val=trained.val.headline,
        thresholds=trained.val.thresholds,
        preprocess=preprocess,
        recipe=recipe,
    )


def _refuse_other_recipe(run: RunFolder, before: Recipe, now: Recipe) -> None:
    for key in Recipe.model_fields:
        was, given = getattr(before, key), getattr(now, key)
        if was != given and key not in FREE:
            raise InputError(
                f"{run.path} was begun with {key} {was}, not {given}; go on with {was} or name another folder with -o"
            )
