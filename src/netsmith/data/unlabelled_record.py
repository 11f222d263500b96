"""`unlabelled.json`: which pictures without a label the model of a run, or one that it comes from, was trained on.

Beside `data.json` and not in it, because they have no class. Once somebody has labelled them none may validate or test
what was trained on them, so they are known as `data.json` knows its groups: by what they show, however encoded.
"""

import json
from collections.abc import Set
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from netsmith.data.record import Hash
from netsmith.errors import InputError, first_line
from netsmith.run.files import write_json


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1]
    groups: list[Hash]


def read_unlabelled(path: Path) -> frozenset[str]:
    """The groups of a file, none where there is no file.

    Raises:
        InputError: it cannot be read.
    """
    if not path.exists():
        return frozenset()
    try:
        return frozenset(_Record.model_validate(json.loads(path.read_text(encoding="utf-8"))).groups)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}); restore it or make the run again") from error


def add_unlabelled(path: Path, groups: Set[str]) -> None:
    """Add to a file, which keeps what it has; there is none where there is nothing to write.

    Args:
        path: the file.
        groups: hashes of what pictures show, as of `Item`.

    Raises:
        InputError: the file that is there cannot be read.
    """
    before = read_unlabelled(path)
    if not groups <= before:
        write_json(path, {"format": 1, "groups": sorted(before | groups)})
