"""Rows of layers side by side, concatenated, with an optional residual join (Szegedy et al. 2015, 2016, 2017)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from netsmith.nn.layers import DropPath
from netsmith.nn.tree import place

Row = tuple[str, ...]
Path = tuple[str | tuple[Row, ...], ...]
"""Names of layers in the order of running; a tuple among them is rows side by side, concatenated."""


@dataclass(frozen=True)
class Join:
    """Name of the 1x1 convolution behind the branches, what its output is multiplied by, and the activation."""

    conv: str
    scale: float
    activation: nn.Module


class Branches(nn.Module):
    """Branches from one map.

    Args:
        layers: name -> layer, placed below this module.
        paths: of each branch.
        join: adds the branches to the input; None leaves them as they are.
        drop_path: rate of dropping the branches in training where they are added.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], paths: tuple[Path, ...], *, join: Join | None, drop_path: float
    ) -> None:
        super().__init__()
        self.paths = paths
        for name, layer in layers.items():
            place(self, name, layer)
        self.join = None if join is None else (join.conv, join.scale)
        self.join_activation = None if join is None else join.activation
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,out,H',W']."""
        y = _side_by_side(self._branch(path, x) for path in self.paths)
        if self.join is None or self.join_activation is None:
            return y
        conv, scale = self.join
        return self.join_activation(x + self.drop_path(self.get_submodule(conv)(y) * scale))

    def _branch(self, path: Path, x: Tensor) -> Tensor:
        for step in path:
            if isinstance(step, str):
                x = self.get_submodule(step)(x)
            else:
                x = _side_by_side([self._branch(row, x) for row in step])
        return x

    def zero_init(self) -> None:
        """Start the residual branch at zero; without a join do nothing."""
        if self.join is not None:
            for parameter in self.get_submodule(self.join[0]).parameters():
                nn.init.zeros_(parameter)


def _side_by_side(maps: Iterable[Tensor]) -> Tensor:
    parts = list(maps)
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)
