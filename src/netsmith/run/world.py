"""Which process this is, where a run has several: as torchrun says in the environment, or one alone.

Nothing here talks to the others; `train/ranks.py` does. A process that was not started by torchrun, or as the only one,
is a world of one, which costs nothing.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from netsmith.errors import InputError

T = TypeVar("T")

_NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class Share(Protocol):
    """Does something in the leading process and gives its result to all, which call it at the same place."""

    def __call__(self, compute: Callable[[], T], /) -> T: ...


def alone(compute: Callable[[], T], /) -> T:
    """What `Share` is for a process alone: the call itself."""
    return compute()


@dataclass(frozen=True)
class World:
    """The place of this process among those of its run.

    Attributes:
        rank: its number, from 0; number 0 leads: it decides, writes and speaks.
        size: processes in all.
        local: its number on its machine.
        local_size: processes on its machine.
        restarts: how often torchrun started all of them again.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    local_size: int = 1
    restarts: int = 0

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """What torchrun says; one alone where any of its variables is missing.

        Raises:
            InputError: the variables are no numbers, or do not agree.
        """
        if any(name not in environment for name in _NEEDED):
            return cls()
        try:
            world = cls(
                rank=int(environment["RANK"]),
                size=int(environment["WORLD_SIZE"]),
                local=int(environment["LOCAL_RANK"]),
                local_size=int(environment.get("LOCAL_WORLD_SIZE", "1")),
                restarts=int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
            )
        except ValueError as error:
            raise InputError(
                f"the environment says that this is one of several processes, but not which ({error}); start them "
                "with torchrun, or unset RANK and WORLD_SIZE"
            ) from error
        if not 0 <= world.rank < world.size or not 0 <= world.local < world.local_size:
            raise InputError(
                f"the environment says RANK={world.rank} of WORLD_SIZE={world.size}, LOCAL_RANK={world.local} of "
                f"LOCAL_WORLD_SIZE={world.local_size}; start the processes with torchrun, or unset RANK and WORLD_SIZE"
            )
        return world

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    @property
    def leads(self) -> bool:
        """Whether this process decides, writes and speaks."""
        return self.rank == 0


def refuse_several(what: str, instead: str) -> None:
    """Raise InputError where torchrun started several processes of something that is for one.

    Args:
        what: is for one process, such as "fit".
        instead: what to type.
    """
    if World.here().several:
        raise InputError(f"{what} is for one process, and torchrun started {World.here().size}; {instead}")
