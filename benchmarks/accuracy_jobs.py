"""What `time_to_accuracy.py` asks for: its goals, and runs, each with the name under which its result is kept."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netsmith.arch.layout import Layout
from netsmith.arch.names import find_layout
from netsmith.run.named_recipes import RECIPES
from netsmith.run.recipe import Recipe

CLASSES = 10
CELLS = ("netsmith-fast", "netsmith-plain", "loop-fast", "loop-plain")
JOINED: tuple[Mapping[str, Any], ...] = (
    {"sharded": False},
    {
        "parent": None, "teachers": [], "distill_loss": "kd", "temperature": 4.0, "alpha": 0.9, "beta": 1.0,
        "label_weight": 0.1, "hints": [], "hint_weight": 1.0,
    },
)  # fmt: skip
"""Fields that recipes were given after the first runs were kept, the newest first, each with the value that stands for
what was done before. A field that joins a recipe belongs in a new mapping before these, or no kept run is found."""
WORKERS = 1
"""What `workers` said where it was not given, before it said nothing; of pictures that are kept, as here, the same."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is to be reached.

    Attributes:
        data: name of the set.
        model: network, chosen on validation pictures (benchmarks/LOG.md); side: of its input in pixels.
        top1: accuracy on test pictures.
        seconds: lengths tried, ascending; a single one is part of the goal.
        flip: mirroring keeps the class.
        grows: the network can be trained at smaller sides, as `fast` wants it.
        cells: compared.
    """

    data: str
    model: str
    side: int
    top1: float
    seconds: tuple[float, ...]
    flip: bool
    grows: bool = True
    cells: tuple[str, ...] = CELLS

    @property
    def layout(self) -> Layout:
        return find_layout(self.model, num_classes=CLASSES, img_size=self.side)

    def recipe(self, name: str, seed: int, **length: float) -> Recipe:
        """`fast`, `fast-even` (the same at one side) or `plain`, with `epochs` or `time_s`."""
        common = {
            "model": self.model, "img_size": self.side, "seed": seed, "crop_scale": None, "flip": self.flip,
            "pad": self.side // 8, **length,
        }  # fmt: skip
        if name == "plain":
            fields = PLAIN
        else:
            fields = {key: value for key, value in RECIPES["fast"].fields.items() if key not in ("epochs", "time_s")}
        recipe = Recipe.from_mapping({**fields, **common}, where=f"recipe {name}")
        return recipe if name == "fast" and self.grows else recipe.model_copy(update={"progressive": None})


PLAIN: Mapping[str, Any] = {
    "opt": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4, "weight_decay_on": "all",
    "batch_size": 128, "sched": "step", "step_milestones": (0.5, 0.75), "step_gamma": 0.1, "warmup": 0.0,
    "smoothing": 0.0,
}  # fmt: skip
"""He et al. 2016, section 4.2, at any length."""

GOALS = {
    "digits": Goal(
        data="digits", model="resnet8_cifar", side=16, top1=0.985, seconds=(3.0,), flip=False,
        grows=False, cells=("netsmith-fast", "netsmith-plain"),
    ),
    "fashion-mnist": Goal(
        data="fashion-mnist", model="resnet8_cifar@2", side=28, top1=0.92, flip=True,
        seconds=(15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 130.0, 160.0, 200.0, 260.0, 320.0),
    ),
    "cifar10": Goal(
        data="cifar10", model="resnet8_cifar@2", side=32, top1=0.85, flip=True,
        seconds=(40.0, 50.0, 60.0, 80.0, 100.0, 120.0, 150.0, 180.0, 220.0, 270.0, 330.0, 400.0, 500.0, 600.0),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run.

    Attributes:
        goal: name of it.
        engine: `netsmith` or `loop`.
        recipe: see `Goal.recipe`.
        seed: of the run.
        asked: split that is asked about, "val" or "test".
        seconds: for netsmith; epochs: for the loop.
        workers: of the loop; pictures: that it stops after, to try workers, 0 for all.
    """

    goal: str
    engine: str
    recipe: str
    seed: int
    asked: str
    seconds: float = 0.0
    epochs: float = 0.0
    workers: int = 0
    pictures: int = 0

    def fields(self) -> Recipe:
        length = {"time_s": self.seconds} if self.engine == "netsmith" else {"epochs": self.epochs}
        return GOALS[self.goal].recipe(self.recipe, self.seed, **length)

    @property
    def names(self) -> tuple[str, ...]:
        """Of its file: the one it gets, and those that it has where the run was made before a field of `JOINED` was.

        Equal only for the same run of the same recipe, defaults included.
        """
        recipe = self.fields().model_dump(mode="json")
        recipe["workers"] = WORKERS if recipe["workers"] is None else recipe["workers"]
        found = [self._named(recipe)]
        for joined in JOINED:
            if any(recipe[name] != before for name, before in joined.items()):
                break
            recipe = {name: value for name, value in recipe.items() if name not in joined}
            found.append(self._named(recipe))
        return tuple(found)

    def _named(self, recipe: dict[str, Any]) -> str:
        digest = hashlib.sha256(json.dumps([self.__dict__, recipe], sort_keys=True).encode()).hexdigest()
        return f"{self.engine}-{self.recipe}-{self.asked}-{digest[:12]}"
