"""What a recipe needs of the machine and of its network, refused before anything is trained."""

import torch
from torch import nn

from netsmith.errors import InputError
from netsmith.run.recipe import Recipe

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def choose_device(recipe: Recipe) -> torch.device:
    """The device a recipe asks for; raises InputError where it is not there."""
    if recipe.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(recipe.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count() or "no"
        raise InputError(f"--device {device}: this torch sees {found} CUDA device; use --device cpu or auto")
    return device


def refuse_single_picture(network: nn.Module, model: str, batch_size: int) -> None:
    """Raise InputError where batches of one picture meet batch norm."""
    # Statistics over one picture are those of its pixels alone, and of nothing once the map is 1 x 1.
    if batch_size == 1 and any(isinstance(module, _NORMS) for module in network.modules()):
        raise InputError(f"--batch-size 1 cannot train {model}: its batch norm needs 2 pictures or more")
