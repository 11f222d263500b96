"""`lineage.json`: what the model of a run, and those that it comes from, knew pictures as that are not in its
`data.json`.

Models go on with models, on other pictures or on some without a label. What any of them was trained on may never
validate a descendant, nor what chose between them test it, even where the runs of those before are long gone. So a run
carries the hashes of such pictures, known as `data.json` knows its groups: by what they show, however encoded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from netsmith.data.items import SPLITS, Split
from netsmith.data.record import Hash
from netsmith.errors import InputError, first_line
from netsmith.run.files import write_json


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1]
    splits: dict[Split, list[Hash]]


def most_used(*records: Mapping[str, Split]) -> dict[str, Split]:
    """Groups of equal pictures, each with what it was used for the most: once trained on, always for training."""
    found: dict[str, Split] = {}
    for record in records:
        for group, side in record.items():
            before = found.get(group, side)
            found[group] = before if SPLITS.index(before) < SPLITS.index(side) else side
    return found


def read_lineage(path: Path) -> dict[str, Split]:
    """The groups of a file, none where there is no file.

    Raises:
        InputError: it cannot be read.
    """
    if not path.exists():
        return {}
    try:
        splits = _Record.model_validate(json.loads(path.read_text(encoding="utf-8"))).splits
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}); restore it or make the run again") from error
    found: dict[str, Split] = {}
    for side in reversed(SPLITS):  # the last word is that of what was used the most
        for group in splits.get(side, ()):
            found[group] = side
    return found


def add_lineage(path: Path, groups: Mapping[str, Split]) -> None:
    """Add to a file, which keeps what it has; there is none where there is nothing to write.

    Args:
        path: the file.
        groups: hashes of what pictures show, as of `Item`, and what they were used for.

    Raises:
        InputError: the file that is there cannot be read.
    """
    before = read_lineage(path)
    whole = most_used(before, groups)
    if whole != before:
        splits = {side: sorted(group for group, used in whole.items() if used == side) for side in SPLITS}
        write_json(path, {"format": 1, "splits": {side: found for side, found in splits.items() if found}})
