"""Where pictures come from: a folder, a zip or tar file, tar shards, a CSV, an `.npz`, or the name `digits`.

Opening lists and never decodes; what the list says is checked here, what the files hold is the audit's business.
"""

import difflib
import os
import re
from pathlib import Path

from netsmith.data.archives import LIMITS, Limits, is_tar, is_zip, read_tar, read_zip
from netsmith.data.cache import cache_root
from netsmith.data.csv_table import open_csv
from netsmith.data.folders import open_folder
from netsmith.data.items import Source, printable
from netsmith.data.layout import arrange
from netsmith.data.shards import holds_labels, is_pattern, open_shards, shard_paths
from netsmith.data.tables import open_digits, open_npz
from netsmith.errors import InputError

_REMOTE = re.compile(r"(https?|s3|gs|hdfs)://|pipe:")


def open_source(path: str | Path, *, scratch: Path | None = None) -> Source:
    """Pictures and labels from wherever the user points.

    Args:
        path: a folder `CLASS/picture` or `{train,val,test}/CLASS/picture`; a zip or tar file of either, also with one
            folder around; tar shards with labels beside the pictures, such as train-{000..127}.tar or *.tar (see
            `shards`); a CSV file, see `csv_table`; an `.npz` file; or the word `digits` (a folder of that
            name goes first).
        scratch: where a compressed tar is decompressed, by default `archives` in the cache.

    Returns: the listed source; nothing is decoded yet. When train and val are given but no test, val becomes test and
        a note says so.
    Raises: InputError for anything that cannot be used, in one sentence with the mend.
    """
    given = Path(path)
    cache = scratch if scratch is not None else cache_root() / "archives"
    if _REMOTE.match(str(path)):
        raise InputError(f"{printable(str(path))} is not on this machine; fetch it and give the path of the file")
    if is_pattern(str(path)) and not os.path.exists(given):
        try:
            return open_shards(str(path), shard_paths(str(path)), scratch=cache, limits=LIMITS)
        except PermissionError as error:
            raise InputError(f"{error.filename} cannot be read ({error.strerror}); change its permissions") from None
    if str(path) == "digits" and not os.path.exists(given):
        return open_digits()
    if not os.path.exists(given):  # unlike Path.exists, also for names that no file can have
        raise InputError(f"no such file or folder: {printable(str(path))}{_near(given)}; check the path")
    if given.is_dir():
        return open_folder(given, limits=LIMITS)
    if not given.is_file():
        raise InputError(f"{path} is neither a file nor a folder; give a folder, zip, tar, CSV or .npz")
    try:
        return _open_file(given, cache, LIMITS)
    except PermissionError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); change its permissions") from None


def refuse_elsewhere(source: str, *, of: Path) -> None:
    """Refuse the pictures of a run where the path that was typed for them leads nowhere from here.

    Args:
        source: as the run's `data.json` has it.
        of: the run.

    Raises:
        InputError: there is no such file or folder. Whoever opens a pattern of shards says what it lacks.
    """
    if source != "digits" and not is_pattern(source) and not os.path.exists(source):
        raise InputError(
            f"{of} was made from {printable(source)}, and there is no such file or folder here; give its pictures with "
            "--data, or type the command in the folder where that path was typed"
        )


def _open_file(path: Path, scratch: Path, limits: Limits) -> Source:
    if path.suffix.lower() == ".npz":
        return open_npz(path, limits=limits)
    if path.suffix.lower() == ".csv":
        return open_csv(path)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); fetch it again")
    if is_zip(path):
        reader, names = read_zip(path, limits=limits)
    elif is_tar(path) or ".tar" in path.suffixes:
        reader, names = read_tar(path, scratch=scratch, limits=limits)
        if holds_labels(names):
            return open_shards(str(path), [path], scratch=scratch, limits=limits)
    else:
        mend = "fetch it again" if path.suffix.lower() == ".zip" else "give a folder, zip, tar, CSV or .npz"
        raise InputError(f"{path} is not a data set netsmith can read; {mend}")
    found = arrange(names, where=str(path), unwrap=True)
    return Source(str(path), found.classes, found.entries, reader, found.notes, found.strays)


def _near(path: Path) -> str:
    """Names in the same folder that look like the one given, for the end of a message."""
    try:
        siblings = sorted(os.listdir(path.parent))
    except OSError:
        return f" (the folder {printable(str(path.parent))} is not there either)"
    near = difflib.get_close_matches(path.name, siblings, n=3) + (["digits"] if path.name.startswith("digit") else [])
    return f" (did you mean {' or '.join(map(printable, near))}?)" if near else ""
