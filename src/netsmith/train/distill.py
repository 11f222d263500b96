"""What a student minimises: its labels' loss, its teachers' answers, and their maps where hints are asked for.

    label_weight * (cross-entropy, or whatever the recipe says) + the teachers' term + hint_weight * hints

The teachers belong to the objective, so copies, devices, dtypes, parts of a batch and compiling treat them as they
treat everything else of an update. What is trained for hints alone (`beside`) is in checkpoints and ships nowhere.
Pictures without a label have the teachers' term only; of a mixture with one of them the label says nothing either.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph
from netsmith.data.items import UNLABELLED, Targets
from netsmith.errors import InputError, near
from netsmith.models.network import Network
from netsmith.run.clock import Clock
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.progress import Progress, silent
from netsmith.run.recipe import Recipe
from netsmith.run.scores import are_tags
from netsmith.train.augment.pipeline import Images
from netsmith.train.distill_losses import (
    averaged,
    averaged_tags,
    correlated,
    decoupled,
    hinted,
    soft_tags,
    soft_targets,
)
from netsmith.train.draws import stream_key
from netsmith.train.objectives import Objective, Outcome, Tag, objective_of
from netsmith.train.remembered import Remembered, remember, views_are_fixed
from netsmith.train.requirements import choose_device
from netsmith.train.teachers import Knowledge, Teacher, Teachers

ANSWERS, REMEMBERED, ASKED = "answers", "remembered", "asked"
"""A row of the plan and what it says: remembered answers are float32 whatever the student computes in."""
MOST = 0.5
"""Share of a training's time that computing answers to remember may take: where it takes more, the time is not for so
many passes that asking once is less than asking in each."""
KNOWN = 0.999
"""Share of a mixture that must have labels for them to count; shares are rounded."""


@dataclass(frozen=True, kw_only=True)
class Hint:
    """A map of the student that is to say what a map of the teacher says.

    Attributes:
        student, teacher: names of stages.
        channels: of both, the student's first.
    """

    student: str
    teacher: str
    channels: tuple[int, int]


def find_hints(names: Sequence[str], student: Layout, teacher: Layout) -> list[Hint]:
    """The stages that a recipe's hints mean.

    Args:
        names: "STAGE" of both, or "STUDENT'S:TEACHER'S".
        student: the network that learns.
        teacher: the one whose maps it is shown, the first of several.

    Raises:
        InputError: no such stage.
    """
    found: list[Hint] = []
    for name in names:
        ours, colon, theirs = name.partition(":")
        pair = (ours, theirs if colon else ours)
        widths = [_width(layout, stage, name) for layout, stage in zip((student, teacher), pair, strict=True)]
        found.append(Hint(student=pair[0], teacher=pair[1], channels=(widths[0], widths[1])))
    return found


def _width(layout: Layout, stage: str, name: str) -> int:
    graph = layout_graph(layout)
    if stage not in graph.taps:
        raise InputError(f"--hints {name}: {layout.name} has no stage {stage!r}; {near(stage, list(graph.taps))}")
    return g.shapes(graph)[graph.taps[stage]][0]


class Distill(Objective):
    """A student and its teachers.

    Args:
        labelled: what the labels ask of the student, and the student.
        teachers: on the student's device once this is.
        recipe: its `distill_loss`, `temperature`, `alpha`, `beta`, `label_weight`, `hint_weight` and `seed` are used.
        preprocess: of the student.
        answers: the teachers' answers on pictures, see `Teachers`; they are asked when None.
        hints: maps to compare, with the first teacher's.
        partly: whether some pictures have no label.
    """

    def __init__(
        self,
        labelled: Objective,
        teachers: Teachers,
        recipe: Recipe,
        preprocess: Preprocess,
        *,
        answers: Callable[[Tensor], Tensor] | None = None,
        hints: Sequence[Hint] = (),
        partly: bool = False,
    ) -> None:
        super().__init__(labelled.network, mean=preprocess.mean, std=preprocess.std, auxiliary=labelled.auxiliary)
        self.labelled, self.teachers = labelled, teachers
        self.regressors = _regressors(hints, seed=recipe.seed)
        self._recipe, self._answers, self._hints, self._partly = recipe, answers, tuple(hints), partly

    @property
    def beside(self) -> nn.Module:
        """The layers that bring the student's maps to the teacher's channels."""
        return self.regressors

    def loss_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of the labels."""
        return self.labelled.loss_of(logits, targets)

    def forward(self, images: Tensor, targets: Tensor) -> Outcome:
        """As of `Objective`; targets of pictures without a label are `UNLABELLED`, or shares that sum to less."""
        outputs = self.answer(images, features=bool(self._hints))
        taught, maps = self.taught(images)
        loss = self._of_answers(outputs["logits"], taught, targets)
        if self._recipe.label_weight:
            loss = loss + self._recipe.label_weight * self._of_labels(outputs, targets)
        if self._hints:
            compared = [
                hinted(regressor(outputs[hint.student]), maps[hint.teacher])
                for hint, regressor in zip(self._hints, self.regressors, strict=True)
            ]
            loss = loss + self._recipe.hint_weight * torch.stack(compared).mean()
        return Outcome(loss, outputs["logits"])

    def taught(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """What the teachers say.

        Args:
            images: as of `forward`.

        Returns:
            Logits float32 [N,C] of each of K teachers, stacked; with hints the maps of the first, by name.
        """
        if self._hints:
            first, *others = self.teachers
            logits, maps = first.all_outputs(images)
            return torch.stack([logits, *(other(images) for other in others)]), maps
        return (self.teachers if self._answers is None else self._answers)(images), {}

    def _of_answers(self, logits: Tensor, taught: Tensor, targets: Tensor) -> Tensor:
        recipe, temperature = self._recipe, self._recipe.temperature
        if isinstance(self.labelled, Tag):
            wanted = averaged_tags(taught, temperature)
            return recipe.alpha * soft_tags(logits, wanted, temperature=temperature)
        wanted = averaged(taught, temperature)
        match recipe.distill_loss:
            case "kd":
                return recipe.alpha * soft_targets(logits, wanted, temperature=temperature)
            case "dkd":
                classes = torch.where(targets == UNLABELLED, wanted.argmax(dim=1), targets)
                return decoupled(logits, wanted, classes, temperature=temperature, alpha=recipe.alpha, beta=recipe.beta)
            case "dist":
                return correlated(logits, wanted, temperature=temperature, alpha=recipe.alpha, beta=recipe.beta)

    def _of_labels(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        if not self._partly:
            return self.labelled.loss_from(outputs, targets)
        known = targets.sum(dim=1) > KNOWN if targets.is_floating_point() else targets != UNLABELLED
        if not known.any():
            return outputs["logits"].sum() * 0.0
        some = {name: outputs[name][known] for name in ("logits", *self.auxiliary)}
        return self.labelled.loss_from(some, targets[known]) * known.float().mean()


def _regressors(hints: Sequence[Hint], *, seed: int) -> nn.ModuleList:
    """1x1 convolutions from the student's channels to the teacher's; torch's own random state stays as it is."""
    generator = torch.Generator().manual_seed(stream_key(seed, "hints", 0) >> 1)
    layers = nn.ModuleList()
    for hint in hints:
        before, after = hint.channels
        with torch.device("meta"):
            layer = nn.Conv2d(before, after, 1)
        layer.to_empty(device="cpu")
        assert layer.bias is not None
        nn.init.normal_(layer.weight, std=before**-0.5, generator=generator)
        nn.init.zeros_(layer.bias)
        layers.append(layer)
    return layers


def remembers(recipe: Recipe) -> bool:
    """Whether teachers are asked about every picture once, before training, as far as time allows."""
    often = recipe.epochs is None or recipe.epochs > 1.0
    return often and views_are_fixed(recipe) and not recipe.hints and choose_device(recipe).type == "cpu"


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Makes the objective of a training with teachers, as the trainer asks for it: what it takes counts as training.

    Attributes:
        knowledge: of the teachers, at least one.
        images, keys: the training pictures and their content hashes.
        look: what their pixels depend on beside those, see `Masters`.
        plan: whether answers are remembered is a row of it.
        clock: reads time.
        progress: told how many pictures the teachers have answered before training.
        say: told whether their answers are remembered.
        warn: told where remembered answers do not serve.
    """

    knowledge: Sequence[Knowledge]
    images: Images
    keys: Sequence[str]
    look: str
    plan: Plan
    clock: Clock
    progress: Progress = silent
    say: Callable[[str], None]
    warn: Callable[[str], None]

    def __call__(self, network: nn.Module, recipe: Recipe, preprocess: Preprocess, *, labels: Targets) -> Distill:
        """As `MakeObjective`; labels of pictures without one are `UNLABELLED`.

        Raises:
            InputError: a hint names no stage; answers cannot be kept.
        """
        assert isinstance(network, Network), "students have a layout"
        known = labels if are_tags(labels) else labels[labels != UNLABELLED]
        teachers = Teachers([Teacher(each, side=recipe.img_size) for each in self.knowledge])
        hints = find_hints(recipe.hints, network.layout, self.knowledge[0].network.layout)
        answers = self._remembered(teachers, recipe, preprocess) if remembers(recipe) else None
        return Distill(
            objective_of(network, recipe, preprocess, labels=known),
            teachers,
            recipe,
            preprocess,
            answers=answers,
            hints=hints,
            partly=len(known) < len(labels),
        )

    def _remembered(self, teachers: Teachers, recipe: Recipe, preprocess: Preprocess) -> Remembered | None:
        """Their answers on all pictures; None where computing them would take more than `MOST` of the time."""
        decided = next((row.value for row in self.plan.rows if row.kind == ANSWERS), None)
        answers = None
        if decided != ASKED:
            limited = recipe.time_s is not None and decided is None
            answers = remember(
                teachers,
                self.images,
                self.keys,
                recipe,
                preprocess,
                look=self.look,
                clock=self.clock,
                seconds=MOST * recipe.time_s if limited and recipe.time_s is not None else None,
                progress=self.progress,
                warn=self.warn,
            )
            found = ASKED if answers is None else REMEMBERED
            self.plan.decide(ANSWERS, at=0, compute=lambda: found, why=f"at most {MOST:g} of the time is for them")
        if answers is None:
            self.say(
                f"the teacher's answers on all {len(self.keys):,} pictures would take more than {MOST:g} of the time: "
                "it is asked about every batch instead"
            )
        else:
            self.say("pictures are always shown alike: the teacher's answers are computed once and remembered")
        return answers
