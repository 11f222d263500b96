"""Teachers: frozen networks that answer the very pictures a student learns from.

Choices made on purpose:

- A teacher gets the student's batch itself: the same crops, the same mixtures, as uint8, with its own normalisation. It
  is in evaluation mode whatever happens to what it is part of, and has no gradients.
- Where student and teacher were made for sides of different length the batch is resized for the teacher in that
  proportion (bilinear, antialiased): so both see things as large as they are used to, also while pictures grow, or are
  trained on smaller than they are judged. A network that cannot take such a side gets the one it was made for.
- It computes as the student does, in the same dtype: autocast is around both.
- Teachers are no part of a copy: one that times updates shares them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsmith.models.network import Network
from netsmith.run.preprocess import Preprocess
from netsmith.train.objectives import Normalize
from netsmith.train.sides import takes


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """A network to learn from.

    Attributes:
        network: trained.
        name: for people.
        sha256: of its artifact, or of its published weights.
        places: for each class of the student, its place among the teacher's logits.
        preprocess: that it was made for.
    """

    network: Network
    name: str
    sha256: str
    places: Sequence[int]
    preprocess: Preprocess


class Teacher(nn.Module):
    """One frozen network.

    Args:
        knowledge: what it is.
        side: of the student's evaluation, pixels; batches of other sides are in the same proportion to the teacher's.
    """

    places: Tensor

    def __init__(self, knowledge: Knowledge, *, side: int) -> None:
        super().__init__()
        self.knowledge = knowledge
        self.network = knowledge.network.eval().requires_grad_(False)
        for parameter in self.network.parameters():
            if parameter.ndim == 4:  # laid out as pictures come
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.normalize = Normalize(knowledge.preprocess.mean, knowledge.preprocess.std)
        self.register_buffer("places", torch.tensor(list(knowledge.places)), persistent=False)
        self._student = side
        self.side_for = lru_cache(self._side_for)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def _side_for(self, side: int) -> int:
        """The side at which it sees pictures that the student sees at this one."""
        own = self.knowledge.preprocess.size
        wanted = round(own * side / self._student)
        return wanted if takes(self.network.layout, wanted) else own

    def prepared(self, images: Tensor) -> Tensor:
        """Its input, from the student's pictures."""
        side = self.side_for(images.shape[-1])
        if side != images.shape[-1]:
            images = F.interpolate(images.float(), size=(side, side), mode="bilinear", antialias=True)
        return self.normalize(images)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Answers to the student's classes, in its order.

        Args:
            images: uint8 or float [N,3,R,R], 0 to 255.

        Returns:
            Logits float32 [N,C].
        """
        return self.network(self.prepared(images)).float()[:, self.places]

    @torch.no_grad()
    def all_outputs(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """As `forward`, and the maps after its stages by name."""
        outputs = self.network.forward_all(self.prepared(images))
        return outputs["logits"].float()[:, self.places], outputs


class Teachers(nn.Module):
    """One or several, asked on every batch.

    Args:
        teachers: at least one.
    """

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        super().__init__()
        self.each = nn.ModuleList(teachers)

    def __iter__(self) -> Iterator[Teacher]:
        return iter(cast(Sequence[Teacher], self.each))

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def forward(self, images: Tensor) -> Tensor:
        """float32 [K,N,C] of K teachers; pictures as of `Teacher`."""
        return torch.stack([teacher(images) for teacher in self])
