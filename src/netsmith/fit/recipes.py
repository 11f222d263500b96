"""What a candidate is trained and evaluated with, from what the pictures are like: the recipe and the preprocessing of
`fit`.

Photos get random resized crops and flips and are evaluated on the central 0.95 of the shorter side; small pictures get
pad-crops an eighth wide and are evaluated whole. Grey small pictures are not flipped: they are mostly signs, digits and
clothes' silhouettes, which a mirror can turn into another class.
"""

from dataclasses import dataclass

from netsmith.data.audit import Audit
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import ClassBalance, Recipe
from netsmith.run.scores import Task

SMALL_SIDE = 64
PHOTO_CROP = 0.95
PHOTO_TRAIN_SIDE, STRIDE = 0.84, 32
"""Side of the photos trained on over that of evaluation, rounded to the networks' stride. Random crops enlarge what
they show by as much (Touvron et al. 2019, arXiv 1906.06423), and updates take less time. Between sides whose maps
are odd at different strides accuracy falls by several points, see benchmarks/LOG.md."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the pictures are like.

    Attributes:
        side: median of the shorter side, pixels.
        grey: whether all are greyscale.
    """

    side: int
    grey: bool

    @property
    def small(self) -> bool:
        """Whether they are icons rather than photos."""
        return self.side <= SMALL_SIDE


def look_at(audit: Audit) -> Look:
    """What an audit says the pictures are like."""
    side = round(min(audit.widths.median, audit.heights.median))
    grey = audit.traits.get("greyscale", 0) == len(audit.dataset.items)
    return Look(side=side, grey=grey)


def preprocess_for(look: Look, size: int) -> Preprocess:
    """Evaluation preprocessing at a resolution."""
    return Preprocess(size=size, crop=1.0 if look.small else PHOTO_CROP)


def training_side(look: Look, size: int, *, share: float = PHOTO_TRAIN_SIDE) -> int | None:
    """Side of the pictures trained on for a resolution; None when it is the resolution itself."""
    side = round(share * size / STRIDE) * STRIDE
    return side if not look.small and size % STRIDE == 0 and 0 < side < size else None


def training_share(look: Look) -> float:
    """Pixels of a picture trained on over those of a picture evaluated."""
    return 1.0 if look.small else PHOTO_TRAIN_SIDE**2


def recipe_for(
    look: Look,
    *,
    model: str,
    size: int,
    seconds: float,
    seed: int,
    task: Task = "classify",
    class_balance: ClassBalance = "none",
) -> Recipe:
    """How a candidate is trained.

    Args:
        look: what the pictures are like.
        model: the candidate's name.
        size: its resolution.
        seconds: of the whole run, for the record; the trainer is told what is left of them.
        seed: of initialisation, order and augmentation.
        task: labels of tags are not smoothed: most tags are rare, and a floor under their probabilities would be most
            of them.
        class_balance: what is done about classes of unequal size.
    """
    return Recipe(
        model=model,
        img_size=size,
        train_size=training_side(look, size),
        time_s=seconds,
        batch_size=64,
        lr=0.05,
        weight_decay=5e-4,
        sched="cosine",
        warmup=0.05,
        smoothing=0.1 if task == "classify" else 0.0,
        ema=0.998,
        flip=not (look.small and look.grey),
        pad=max(1, size // 8) if look.small else 0,
        crop_scale=None if look.small else (0.35, 1.0),
        class_balance=class_balance,
        seed=seed,
    )
