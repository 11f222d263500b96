"""What training minimises, as a module from a batch to a loss.

An objective holds the network and makes the single forward call that DDP, sharding and compile wrap: calling
anything past such a wrapper silently skips its synchronisation. It takes uint8 pictures, so that normalisation is
part of what is trained and runs on the device.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from netsmith.arch.layout import Layout
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.run.scores import are_tags
from netsmith.train.class_weights import balanced_weights, positive_weights


@dataclass(frozen=True)
class Outcome:
    """Of one forward call.

    Attributes:
        loss: float32 scalar.
        logits: float32 [N,C].
    """

    loss: Tensor
    logits: Tensor


class _Outputs(Protocol):
    def forward_all(self, x: Tensor) -> Mapping[str, Tensor]: ...


class Normalize(nn.Module):
    """(x / 255 - mean) / std for uint8 pictures, in float32.

    The cast to a narrower dtype is left to autocast at the first convolution: 255 * mean is not exact in bfloat16,
    and the shift would differ from the one that evaluation and the exported graph apply.

    Args:
        mean, std: per channel, in units of [0, 1] pixel values.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("scale", 1 / (255 * torch.tensor(std)[:, None, None]), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images.to(torch.float32, copy=True).sub_(self.mean).mul_(self.scale)


def auxiliary_weights(network: nn.Module) -> dict[str, float]:
    """Weights of a network's auxiliary losses by output name, as its layout states them."""
    layout = _layout_of(network)
    return {} if layout is None else {each.name: each.weight for each in layout.auxiliary}


def _layout_of(network: nn.Module) -> Layout | None:
    layout = getattr(network, "layout", None)
    return layout if isinstance(layout, Layout) else None


class Objective(nn.Module, ABC):
    """A network, the normalisation of its input, and the loss of its logits and of auxiliary ones by their weights.

    Args:
        network: `forward(x)` -> logits; with `auxiliary`, `forward_all(x)` -> mapping with "logits" and the
            auxiliary names.
        mean, std: of the network's input, in units of [0, 1] pixel values.
        smoothing: of the targets, a probability; the objective says over what it is spread.
        auxiliary: weight of each auxiliary output's loss by its name, such as {"aux1": 0.3, "aux2": 0.3} (Szegedy et
            al. 2015, section 5) or {"aux": 0.4}.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        smoothing: float = 0.0,
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.normalize = Normalize(mean, std)
        self.smoothing = smoothing
        self.auxiliary = dict(auxiliary or {})

    def forward(self, images: Tensor, targets: Tensor) -> Outcome:
        """The loss of a batch.

        Args:
            images: uint8 or float [N,3,R,R], 0 to 255.
            targets: as `loss_of` takes them.
        """
        outputs = self.answer(images)
        return Outcome(self.loss_from(outputs, targets), outputs["logits"])

    def answer(self, images: Tensor, *, features: bool = False) -> Mapping[str, Tensor]:
        """The network's outputs by name: "logits" in float32, those of auxiliary classifiers where they have a loss,
        and maps after its stages.

        Args:
            images: as of `forward`.
            features: whether the maps are wanted.
        """
        x = self.normalize(images)
        if not (features or self.auxiliary):
            return {"logits": self.network(x).float()}
        outputs = cast(_Outputs, self.network).forward_all(x)
        return {**outputs, "logits": outputs["logits"].float()}

    def loss_from(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        """The loss of the network's outputs, auxiliary ones with their weights."""
        loss = self.loss_of(outputs["logits"], targets)
        for name, weight in self.auxiliary.items():
            loss = loss + weight * self.loss_of(outputs[name].float(), targets)
        return loss

    @property
    def beside(self) -> nn.Module:
        """What is trained with the network and ships nowhere; here nothing."""
        return nn.Module()

    @abstractmethod
    def loss_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss per picture, float32 scalar.

        Args:
            logits: float32 [N,C].
            targets: N rows, of the form that the objective states.
        """


class Classify(Objective):
    """Cross-entropy with label smoothing, and of auxiliary classifiers where the network has them.

    Or binary cross-entropy of every class by itself, the mean over classes, with the same targets: smoothed as softmax
    cross-entropy smooths them, then above or below a threshold where there is one (Wightman et al. 2021, section 3; as
    timm computes it).

    With class weights the loss of a picture, smoothing included, counts as often as its class weighs, and the batch is
    divided by its size: so it is the loss of class-balanced sampling in expectation, and the mean of the losses of
    its parts. torch's own weights act on smoothed labels class by class, which pushes every answer towards the rare
    classes, and divide by the sum over the batch. A mixed picture has the losses of its two labels in their shares.

    Args:
        network, mean, std, auxiliary: as of `Objective`.
        smoothing: probability spread over all classes (Szegedy et al. 2016, section 7).
        class_weights: of each class, or None for all alike.
        binary: binary cross-entropy instead.
        threshold: targets of it above this count as 1, all others as 0; None takes them as they are.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        smoothing: float = 0.0,
        auxiliary: Mapping[str, float] | None = None,
        class_weights: Sequence[float] | None = None,
        binary: bool = False,
        threshold: float | None = None,
    ) -> None:
        super().__init__(network, mean=mean, std=std, smoothing=smoothing, auxiliary=auxiliary)
        self.binary, self.threshold = binary, threshold
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    @classmethod
    def of(
        cls,
        network: nn.Module,
        recipe: Recipe,
        preprocess: Preprocess,
        *,
        labels: NDArray[np.int64],
        auxiliary: Mapping[str, float] | None = None,
    ) -> Self:
        """What `recipe` minimises.

        Args:
            network: as above.
            recipe: its `smoothing`, `class_balance`, `bce_loss` and `bce_target_thresh` are used.
            preprocess: of the network's input.
            labels: int64 [N] of the training pictures.
            auxiliary: weights of auxiliary losses; the layout's when None.

        Raises:
            InputError: classes are to weigh alike, and one has no training picture.
        """
        layout = _layout_of(network)
        classes = None if layout is None else layout.num_classes
        return cls(
            network,
            mean=preprocess.mean,
            std=preprocess.std,
            smoothing=recipe.smoothing,
            auxiliary=auxiliary_weights(network) if auxiliary is None else auxiliary,
            class_weights=balanced_weights(labels, classes=classes) if recipe.class_balance == "loss" else None,
            binary=recipe.bce_loss,
            threshold=recipe.bce_target_thresh,
        )

    def loss_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As of `Objective`.

        Args:
            logits: float32 [N,C].
            targets: int64 [N], or float [N,C], the share of each class.
        """
        if self.binary:
            return self._binary_loss(logits, targets)
        if self.class_weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=self.smoothing)
        shares = targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1])
        weighted = shares * self.class_weights
        spread = weighted.sum(dim=1, keepdim=True) / logits.shape[1]
        return F.cross_entropy(logits, torch.lerp(weighted, spread.expand_as(weighted), self.smoothing))

    def _binary_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        shares = targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1]).float()
        wanted = shares * (1.0 - self.smoothing) + self.smoothing / logits.shape[1]
        if self.threshold is not None:
            wanted = (wanted > self.threshold).float()
        losses = _binary(logits, wanted).mean(dim=1)
        if self.class_weights is not None:
            losses = losses * (shares * self.class_weights).sum(dim=1)
        return losses.mean()


class Tag(Objective):
    """Binary cross-entropy of every tag by itself, summed over the tags of a picture.

    The sum is the negative log-likelihood of all that is known of a picture, as cross-entropy is of its class, so one
    learning rate serves both; a mean over tags would make every update smaller by their number.

    Args:
        network, mean, std, auxiliary: as of `Objective`.
        smoothing: probability spread evenly over the two answers of each tag: targets are smoothing / 2 and
            1 - smoothing / 2.
        weights: of each tag's negatives and positives, two rows of C, see `positive_weights`; None for all alike.
    """

    weights: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        smoothing: float = 0.0,
        auxiliary: Mapping[str, float] | None = None,
        weights: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__(network, mean=mean, std=std, smoothing=smoothing, auxiliary=auxiliary)
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

    def loss_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As of `Objective`.

        Args:
            logits: float32 [N,C].
            targets: float [N,C], 0 to 1: whether a picture has each tag, or its share where pictures are mixed.
        """
        if self.weights is None:
            losses = _binary(logits, targets * (1.0 - self.smoothing) + self.smoothing / 2)
        else:  # a mixed picture has the losses of its two halves in their shares, each with its own weight
            without, having = (
                _binary(logits, torch.full_like(logits, answer), weights)
                for answer, weights in zip((self.smoothing / 2, 1.0 - self.smoothing / 2), self.weights, strict=True)
            )
            losses = torch.lerp(without, having, targets)
        return losses.sum(dim=1).mean()


def _binary(logits: Tensor, wanted: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of every logit [N,C]."""
    return F.binary_cross_entropy_with_logits(logits, wanted, weights, reduction="none")


class MakeObjective(Protocol):
    """Makes what a training minimises."""

    def __call__(
        self,
        network: nn.Module,
        recipe: Recipe,
        preprocess: Preprocess,
        /,
        *,
        labels: NDArray[np.int64] | NDArray[np.bool_],
    ) -> Objective:
        """See `objective_of`."""
        ...


def objective_of(
    network: nn.Module,
    recipe: Recipe,
    preprocess: Preprocess,
    *,
    labels: NDArray[np.int64] | NDArray[np.bool_],
    auxiliary: Mapping[str, float] | None = None,
) -> Objective:
    """What `recipe` minimises on pictures with these labels.

    Args:
        network, preprocess, auxiliary: as of `Classify.of`.
        recipe: its `smoothing`, `class_balance`, `bce_loss` and `bce_target_thresh` are used.
        labels: int64 [N] of the training pictures, or bool [N,C] of their tags.
    """
    if not are_tags(labels):
        classes = cast(NDArray[np.int64], labels)
        return Classify.of(network, recipe, preprocess, labels=classes, auxiliary=auxiliary)
    assert recipe.class_balance != "sampling", "refused where the recipe is made"
    return Tag(
        network,
        mean=preprocess.mean,
        std=preprocess.std,
        smoothing=recipe.smoothing,
        auxiliary=auxiliary_weights(network) if auxiliary is None else auxiliary,
        weights=positive_weights(labels) if recipe.class_balance == "loss" else None,
    )
