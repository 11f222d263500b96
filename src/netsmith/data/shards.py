"""Shards: plain tar files in which a picture's label lies beside it, as WebDataset writes them.

    000017.jpg  000017.cls      the class as a number, or its name
    000018.png  000018.json     {"label": 3, ...}

Choices made on purpose:

- One pass over the headers notes where every picture lies, and from then on shards are read in place, at random. So
  they are a source like any other: pictures are audited, split by content and drawn in a fresh permutation each epoch,
  and training goes on at any step without reading what came before. A buffer for shuffling what streams by would give
  none of that; what it saves, seeks on a spinning disk, is what shards on a net need. Those are not read: fetch them.
- The key is the name up to the first dot of its last part, as WebDataset has it.
- Shards whose names say train, val or test are given splits; otherwise splits are cut like those of folders.

Source: the WebDataset format, https://github.com/webdataset/webdataset (`base_plus_ext`, brace expansion).
"""

import glob
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from netsmith.data.archives import Limits, TarReader, is_tar, read_tar
from netsmith.data.items import Entry, Source, Split, Stray, encodable, listed, printable
from netsmith.data.layout import SPLIT_NAMES, is_junk, settle_splits
from netsmith.data.prepare import EXTENSIONS, ImageError
from netsmith.errors import InputError

MOST_SHARDS = 100_000
_LABELS = ("cls", "json")
_LABEL_BYTES = 1 << 20
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class ShardReader:
    """Reads pictures of shards by "SHARD/MEMBER". Pickles as paths and places.

    Args:
        shards: shown name -> its reader.
    """

    def __init__(self, shards: dict[str, TarReader]) -> None:
        self.shards = shards

    def read(self, name: str) -> bytes:
        """Bytes of a picture; raises ImageError when its shard is gone or ends before it."""
        for slash in (at for at, letter in enumerate(name) if letter == "/"):
            if (shard := self.shards.get(name[:slash])) is not None:
                return shard.read(name[slash + 1 :])
        raise AssertionError(f"{name} is in no shard")


def is_pattern(given: str) -> bool:
    """Whether this names several files, such as train-{000..127}.tar or *.tar."""
    return any(letter in given for letter in "{*?[")


def shard_paths(pattern: str) -> list[Path]:
    """The files that a pattern with {000..127}, {a,b}, * or ? names, in its order; those of one * by name.

    Raises InputError when there is none, or one is missing.
    """
    paths: dict[str, None] = {}
    for count, text in enumerate(_expanded(pattern), start=1):
        found = sorted(glob.glob(text)) if any(letter in text for letter in "*?[") else [text]
        if not found:
            raise InputError(f"no file matches {printable(text)}; check the path")
        paths |= dict.fromkeys(found)
        if max(count, len(paths)) > MOST_SHARDS:
            raise InputError(f"{printable(pattern)} names more than {MOST_SHARDS:,} files; write fewer, larger shards")
    if missing := [path for path in paths if not os.path.exists(path)]:
        raise InputError(
            f"{len(missing):,} of the {len(paths):,} shards that {printable(pattern)} names are not there "
            f"({listed(missing)}); fetch them or name those that are"
        )
    return [Path(path) for path in paths]


def _expanded(pattern: str) -> Iterator[str]:
    """Every combination of the braces' alternatives, as a shell gives them."""
    pieces = _BRACES.split(pattern)  # text, inside of braces, text, ...
    choices: list[Sequence[str]] = []
    for index, piece in enumerate(pieces):
        span = _RANGE.fullmatch(piece) if index % 2 else None
        if span is not None:
            first, last = int(span[1]), int(span[2])
            if abs(last - first) >= MOST_SHARDS:
                raise InputError(f"{printable(pattern)} names more than {MOST_SHARDS:,} files; check the range")
            width = len(span[1]) if span[1].startswith("0") else 0
            step = 1 if last >= first else -1
            choices.append([f"{number:0{width}}" for number in range(first, last + step, step)])
        elif index % 2 and "," in piece:
            choices.append(piece.split(","))
        else:
            choices.append([f"{{{piece}}}" if index % 2 else piece])
    return ("".join(parts) for parts in itertools.product(*choices))


def holds_labels(names: Sequence[str]) -> bool:
    """Whether the members of one tar file are pictures with labels beside them rather than in class folders."""
    labels = {_key(name)[0] for name in names if _key(name)[1] == "cls"}
    pictures = [name for name in names if _is_picture(name) and not is_junk(name)]
    if not any("/" in name for name in pictures):
        labels |= {_key(name)[0] for name in names if _key(name)[1] == "json"}
    return any(_key(name)[0] in labels for name in pictures)


def open_shards(where: str, paths: Sequence[Path], *, scratch: Path, limits: Limits) -> Source:
    """Pictures and labels of tar shards.

    Args:
        where: what the user gave.
        paths: of the shards, at least one.
        scratch: where compressed ones are decompressed.
        limits: of each archive; that of members holds for all together.

    Raises InputError for what is no shard or has no labels, contradicting ones, or splits named for some only.
    """
    found = _Shards(where, limits)
    parent = os.path.commonpath([path.parent for path in paths])
    splits = _splits([os.path.relpath(path, parent) for path in paths], where)
    for path, split in zip(paths, splits, strict=True):
        found.add(encodable(os.path.relpath(path, parent)), path, split, scratch)
    return found.source()


def _splits(shards: Sequence[str], where: str) -> list[Split | None]:
    splits: list[Split | None] = []
    for shard in shards:
        words = re.split(r"[^a-z]+", shard.removesuffix(".tar").lower())
        named: set[Split] = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
        if len(named) > 1:
            raise InputError(f"the name of {printable(shard)} says {' and '.join(sorted(named))}; rename the shard")
        splits.append(next(iter(named), None))
    if None in splits and len(set(splits)) > 1:
        unnamed = [shard for shard, split in zip(shards, splits, strict=True) if split is None]
        raise InputError(
            f"some shards of {printable(where)} are named train, val or test and others are not "
            f"({listed(unnamed)}); name all or none"
        )
    return splits


def _key(name: str) -> tuple[str, str]:
    """Key and extension, lower case, of a member: apart at the first dot of the last part of its name."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem, extension.lower()


def _is_picture(name: str) -> bool:
    return f".{_key(name)[1]}" in EXTENSIONS


class _Shards:
    """Collects what shards hold."""

    def __init__(self, where: str, limits: Limits) -> None:
        self.where, self.limits = where, limits
        self.readers: dict[str, TarReader] = {}
        self.rows: list[tuple[str, int | str, Split | None]] = []
        self.strays: list[Stray] = []
        self.unpacked = 0
        self.members = 0

    def add(self, shard: str, path: Path, split: Split | None, scratch: Path) -> None:
        """List one shard and read its labels."""
        if not path.is_file() or not is_tar(path):
            raise InputError(f"{path} is not a tar file; a pattern must name tar shards only")
        reader, names = read_tar(path, scratch=scratch, limits=self.limits)
        self.members += len(names)
        if self.members > self.limits.members:
            raise InputError(f"{self.where} holds more than {self.limits.members:,} members; name fewer shards")
        self.unpacked += reader.path != path
        pictures: dict[str, str] = {}
        labels: dict[str, str] = {}
        for name in names:
            key, extension = _key(name)
            if is_junk(name):
                continue
            if _is_picture(name):
                if key in pictures:
                    raise InputError(
                        f"{path} has two pictures of one key ({printable(pictures[key])}, {printable(name)}); keep one"
                    )
                pictures[key] = name
            elif extension in _LABELS and not labels.get(key, "").lower().endswith(".cls"):
                labels[key] = name
            elif extension not in _LABELS:
                self.strays.append(Stray(f"{shard}/{name}", "its extension is not one of a picture"))
        for key, name in pictures.items():
            if key in labels:
                self.rows.append((f"{shard}/{name}", _label(reader, labels[key]), split))
            else:
                self.strays.append(Stray(f"{shard}/{name}", "no label (.cls or .json) lies beside it"))
        used = set(pictures.values())
        self.readers[shard] = TarReader(reader.path, {name: reader.places[name] for name in names if name in used})

    def source(self) -> Source:
        """What all shards hold."""
        if not self.rows:
            raise InputError(
                f"no picture in {self.where} has a label beside it: expected KEY.jpg with KEY.cls, or KEY.json with "
                '{"label": ...}'
            )
        texts = [label for _, label, _ in self.rows if isinstance(label, str)]
        numbers = {label for _, label, _ in self.rows if isinstance(label, int)}
        if texts and numbers:
            raise InputError(
                f"the labels of {self.where} are partly numbers and partly names ({listed(texts)}); use one of the two"
            )
        distinct: list[int | str] = [*sorted(numbers), *sorted(set(texts))]  # of one kind
        position = {label: index for index, label in enumerate(distinct)}
        entries = [Entry(name, (position[label],), split) for name, label, split in self.rows]
        settled, notes = settle_splits(entries, where=self.where)
        if self.unpacked:
            notes = (
                *notes,
                f"{self.unpacked:,} compressed shards were decompressed into the cache to be read in place",
            )
        classes = tuple(map(str, distinct))
        return Source(self.where, classes, settled, ShardReader(self.readers), notes, tuple(self.strays))


def _label(reader: TarReader, name: str) -> int | str:
    """A picture's class by number or name."""
    where = f"{printable(name)} in {reader.path}"
    if reader.places[name][1] > _LABEL_BYTES:
        raise InputError(f"{where} is no label: it has {reader.places[name][1]:,} bytes")
    try:
        text = reader.read(name).decode()
        found = json.loads(text) if name.lower().endswith(".json") else text.strip()
    except ImageError as error:
        raise InputError(f"{where} {error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} cannot be read ({str(error).splitlines()[0]}); write the shard again") from None
    if isinstance(found, dict):
        found = found.get("label")
    elif name.lower().endswith(".json"):
        found = None
    if isinstance(found, str) and re.fullmatch(r"-?[0-9]{1,18}", found):
        return int(found)
    if isinstance(found, str) and found.strip():
        return encodable(found.strip())
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    raise InputError(f'{where} names no class: it must be a number or a name (in JSON as {{"label": ...}})')
