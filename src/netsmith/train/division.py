"""How a training is divided over its processes: what each holds of a network, and of all that stands by parameter,
which are gradients, the optimizer's memory and averages.

Alone, and in several processes as a rule, that is all of it: `Whole`. Where the recipe says `sharded`, each holds a
part of every parameter (`sharding.Sharded`, which is imported only then). The state of a training, its updates and its
checkpoints speak of parts and wholes through this one object, and for `Whole` the two are the same tensors.
"""

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from netsmith.run.recipe import Recipe
from netsmith.train.objectives import Objective
from netsmith.train.ranks import Ranks
from netsmith.train.requirements import refuse_with_sharded


class Whole:
    """Every process holds all.

    Attributes:
        joint: whether each holds a part only, so that all make every forward call together.
        summed: processes whose gradients a backward call adds up by itself.
        device: where what is held will be, or None where it is there already.
    """

    joint = False
    summed = 1
    device: torch.device | None = None

    def place(self, objective: Objective, device: torch.device) -> None:
        """Bring an objective to its device, as much of it as a device is to hold at once."""
        objective.to(device)

    def divide(self, trained: nn.Module, *others: nn.Module) -> None:
        """Leave of each network's parameters what this process holds, in place; names stay."""

    def held(self, parameter: Parameter) -> Parameter:
        """What the optimizer moves of a parameter, once the network is divided."""
        return parameter

    def local(self, tensor: Tensor) -> Tensor:
        """What is held here of a tensor of a network's state, sharing its memory."""
        return tensor

    def part(self, whole: Tensor, of: Tensor) -> Tensor:
        """What is held here of a tensor that all have; `of` is the network's own, which says how it is divided."""
        return whole

    def whole(self, part: Tensor, of: Tensor) -> Tensor:
        """What `part` is a part of, in all processes; a number that stands by the parameter `of` is no part."""
        return part

    def kept(self, whole: Tensor) -> Tensor:
        """A whole tensor where it is to stay until all are gathered."""
        return whole

    def take_gradients(self) -> None:
        """Give what the optimizer moves the gradients that a backward call left."""

    def over_all(self, norms: Tensor) -> Tensor:
        """Norms of wholes from those of the parts, float32 or float64 [N] or a scalar."""
        return norms

    def plain(self, network: nn.Module) -> nn.Module:
        """The network as a process alone has it, brought to the CPU: training is over. Only the leading process's has
        weights."""
        return network.cpu()


WHOLE = Whole()


def division_of(recipe: Recipe, ranks: Ranks, device: torch.device) -> Whole:
    """What each process holds by a recipe.

    Args:
        recipe: its `sharded` decides.
        ranks: that train together.
        device: of this process.

    Raises:
        InputError: the recipe asks for parts, and for what cannot be had with them.
    """
    if not recipe.sharded:
        return WHOLE
    refuse_with_sharded(recipe, processes=ranks.world.size)
    # Lazily: importing torch's distributed tensors takes half a second, which no other training needs.
    from netsmith.train.sharding import Sharded

    return Sharded(ranks, device)
