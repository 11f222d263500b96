"""What a recipe needs of the machine and of its network, refused before anything is trained."""

import torch
from torch import nn

from netsmith.errors import InputError
from netsmith.run.recipe import Recipe
from netsmith.train.devices import find_device

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def choose_device(recipe: Recipe) -> torch.device:
    """The device a recipe asks for; raises InputError where it is not there, or cannot compute as the recipe says."""
    device = find_device(recipe.device)
    if recipe.dtype == "float16" and device.type != "cuda":
        raise InputError(
            f"--amp-dtype float16 needs a CUDA device and this run is on the {device.type.upper()}; "
            "take --amp-dtype bfloat16 or --no-amp"
        )
    return device


def refuse_with_sharded(recipe: Recipe, *, processes: int) -> None:
    """Raise InputError where a recipe asks for a divided network, and for what cannot be had with one."""
    if not recipe.sharded:
        return
    if processes == 1:
        raise InputError(
            "--sharded divides a network over several processes, and there is one; start them with torchrun "
            "(docs/many-devices.md), or give --no-sharded"
        )
    refused = {
        "--opt muon needs whole matrices, and --sharded leaves each process a part; take --opt adamw, lamb, rmsprop or "
        "sgd": recipe.opt == "muon",
        "--time is planned by updates on a copy of the whole network, which with --sharded no device holds; give "
        "--epochs": recipe.time_s is not None,
        "--amp-dtype float16 scales the loss by what all gradients are, and with --sharded each process has a part of "
        "them; take --amp-dtype bfloat16 or --no-amp": recipe.dtype == "float16",
        "--compile and --sharded do not go together, as weights come and go between blocks; leave --compile out":
        recipe.compile is True,
        "--sharded divides the network that is trained and not its teachers, which every device would hold; learn "
        "without --sharded": bool(recipe.teachers),
    }  # fmt: skip
    for sentence, asked in refused.items():
        if asked:
            raise InputError(sentence)


def fewest_pictures(network: nn.Module) -> int:
    """The fewest pictures that a network can be trained on at once."""
    # Statistics over one picture are those of its pixels alone, and of nothing once the map is 1 x 1.
    return 2 if any(isinstance(module, NORMS) for module in network.modules()) else 1


def smallest_part(network: nn.Module, recipe: Recipe, batch_size: int, *, processes: int) -> int:
    """Pictures of a batch that each of the processes has at least.

    Raises:
        InputError: they are too few to train the network on.
    """
    if processes == 1:
        refuse_single_picture(network, recipe.model, batch_size, parts=recipe.grad_accum)
        return batch_size
    # Statistics of all processes' pictures are no matter of how many each has.
    needed = recipe.grad_accum * (fewest_pictures(network) if recipe.sync_bn is False else 1)
    part = batch_size // processes
    if part < needed:
        why = f", and each needs {needed}" if needed > 1 else ""
        raise InputError(
            f"a batch of {batch_size} leaves {part} picture{'' if part == 1 else 's'} for some of the {processes} "
            f"processes{why}; give --batch-size {needed * processes} or more, or start fewer processes"
        )
    return part


def refuse_single_picture(network: nn.Module, model: str, batch_size: int, *, parts: int = 1) -> None:
    """Raise InputError where batches, or the parts they are computed in, hold fewer pictures than batch norm needs."""
    fewest = fewest_pictures(network)
    if batch_size < fewest:
        raise InputError(f"--batch-size {batch_size} cannot train {model}: its batch norm needs 2 pictures or more")
    if parts > batch_size // fewest:
        why = f", and {model}'s batch norm needs 2 in each" if fewest > 1 else ""
        raise InputError(
            f"--grad-accum {parts} is too many parts for a batch of {batch_size} pictures{why}; "
            f"give at most {batch_size // fewest}, or a larger --batch-size"
        )
