"""Modules placed by their dotted names."""

from torch import nn

from netsmith.errors import InputError


def place(root: nn.Module, name: str, piece: nn.Module) -> None:
    """Put a module where its name says: "features.3" stands in `features`, a sequence made when it is not there.

    Raises:
        InputError: the place is taken.
    """
    *path, leaf = name.split(".")
    where = root
    for part in path:
        if part not in dict(where.named_children()):
            _add(where, part, nn.Sequential(), name)
        where = where.get_submodule(part)
    _add(where, leaf, piece, name)


def _add(where: nn.Module, key: str, piece: nn.Module, name: str) -> None:
    if hasattr(where, key):
        raise InputError(f"a piece cannot be called {name!r}, that place is taken; rename it")
    where.add_module(key, piece)
