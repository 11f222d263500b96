"""What can be wrong with a data set, found from what reading every picture told."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from netsmith.data.items import Dataset, Entry, Source, listed, printable
from netsmith.data.prepare import FORMATS, ImageError

Kind = Literal[
    "unreadable",
    "empty",
    "unknown format",
    "truncated",
    "damaged",
    "too large",
    "conflicting labels",
    "across splits",
    "duplicates",
    "wrong extension",
    "not used",
    "imbalance",
    "rare tags",
    "not validated",
    "constant tags",
]


@dataclass(frozen=True)
class Finding:
    """One kind of trouble.

    Attributes:
        kind: what it is, in a few fixed words.
        message: one sentence a person can act on.
        files: names of the pictures concerned; copies of one picture stand together.
        reasons: for each of `files`, what was wrong, where that differs from file to file.
        left_out: number of pictures that are not in the dataset because of it.
    """

    kind: Kind
    message: str
    files: tuple[tuple[str, ...], ...] = ()
    reasons: tuple[str, ...] = ()
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What reading one entry told."""

    entry: Entry
    key: str
    group: str
    format: str
    height: int
    width: int
    traits: tuple[str, ...]


def _count(number: int, one: str, many: str) -> str:
    return f"1 {one} is" if number == 1 else f"{number:,} {many} are"


def _reasoned(names: Sequence[str], reasons: Sequence[str], *, first: int = 3) -> str:
    shown = "; ".join(
        f"{printable(name)} ({reason})" for name, reason in zip(names[:first], reasons[:first], strict=True)
    )
    return shown if len(names) <= first else f"{shown} and {len(names) - first:,} more"


def unreadable(bad: Sequence[tuple[Entry, ImageError]]) -> list[Finding]:
    """Pictures that could not be read or decoded, one finding per kind of trouble."""
    by_trouble: dict[Kind, list[tuple[str, str]]] = defaultdict(list)
    for entry, error in bad:
        by_trouble[error.trouble].append((entry.name, str(error)))
    findings: list[Finding] = []
    for trouble, rows in by_trouble.items():
        names = [name for name, _ in rows]
        message = (
            f"{_count(len(rows), 'picture', 'pictures')} left out, replace or remove: {listed(names)} ({rows[0][1]})"
        )
        findings.append(
            Finding(trouble, message, tuple((name,) for name in names), tuple(r for _, r in rows), len(rows))
        )
    return findings


def without_doubtful(seen: Sequence[Seen], source: Source) -> tuple[list[Seen], list[Finding]]:
    """What is left without conflicting labels and without training copies of evaluation pictures; and the findings on
    all copies."""
    groups: dict[str, list[Seen]] = defaultdict(list)
    for one in seen:
        groups[one.group].append(one)
    conflicting: list[list[Seen]] = []
    crossing: list[list[Seen]] = []
    copies: list[list[Seen]] = []
    dropped: set[int] = set()
    leaked = 0
    for members in groups.values():
        if len(members) == 1:
            continue
        if len({one.entry.labels for one in members}) > 1:
            conflicting.append(members)
            dropped.update(id(one) for one in members)
            continue
        sides = {one.entry.split or "train" for one in members}
        keep = "test" if "test" in sides else "val" if "val" in sides else "train"
        outside = [one for one in members if (one.entry.split or "train") != keep]
        if outside:
            crossing.append(members)
            dropped.update(id(one) for one in outside)
            leaked += len(outside)
        if len(members) - len(outside) > 1:
            copies.append([one for one in members if one not in outside])
    findings: list[Finding] = []
    if conflicting:
        number = sum(map(len, conflicting))
        labels = " and ".join(sorted({_labelled(one, source) for one in conflicting[0]}))
        message = (
            f"{number:,} pictures are copies of each other under different labels and left out, decide on one: "
            f"{_equal(conflicting[0])} ({labels}){_more(conflicting)}"
        )
        findings.append(Finding("conflicting labels", message, _names(conflicting), left_out=number))
    if crossing:
        message = (
            f"{len(crossing):,} pictures stand on both sides of the given splits; {leaked:,} copies are left out so "
            f"that test (or val) alone keeps them: {_equal(crossing[0])}{_more(crossing)}"
        )
        findings.append(Finding("across splits", message, _names(crossing), left_out=leaked))
    if copies:
        extra = sum(map(len, copies)) - len(copies)
        message = (
            f"{len(copies):,} pictures occur more than once with one label ({extra:,} extra copies, kept on one side "
            f"of the split): {_equal(copies[0])}{_more(copies)}"
        )
        findings.append(Finding("duplicates", message, _names(copies)))
    return [one for one in seen if id(one) not in dropped], findings


def _labelled(one: Seen, source: Source) -> str:
    return printable(", ".join(source.classes[label] for label in one.entry.labels) or "none")


def _equal(members: Sequence[Seen]) -> str:
    return " = ".join(printable(one.entry.name) for one in members[:4]) + (" = ..." if len(members) > 4 else "")


def _more(groups: Sequence[Sequence[Seen]]) -> str:
    return f" and {len(groups) - 1:,} more" if len(groups) > 1 else ""


def _names(groups: Sequence[Sequence[Seen]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(one.entry.name for one in members) for members in groups)


def wrong_extensions(usable: Sequence[Seen]) -> list[Finding]:
    """Pictures whose name says another format than their content."""
    wrong = [
        one
        for one in usable
        if one.format in FORMATS and PurePosixPath(one.entry.name).suffix.lower() not in FORMATS[one.format]
    ]
    if not wrong:
        return []
    reasons = tuple(f"is {one.format}" for one in wrong)
    names = [one.entry.name for one in wrong]
    message = f"{_count(len(wrong), 'picture', 'pictures')} of another format than the name says, used all the same: "
    return [Finding("wrong extension", message + _reasoned(names, reasons), tuple((name,) for name in names), reasons)]


def unused(source: Source) -> list[Finding]:
    """Files and folders that were found but are not part of the data set."""
    if not source.strays:
        return []
    names, reasons = [stray.name for stray in source.strays], tuple(stray.reason for stray in source.strays)
    counted = _count(len(names), "other file or folder", "other files or folders")
    message = f"{counted} not used: {_reasoned(names, reasons)}"
    return [Finding("not used", message, tuple((name,) for name in names), reasons)]


RARE = 10
"""Training pictures below which a tag is called rare."""


def doubtful_tags(divided: Dataset) -> list[Finding]:
    """Tags that little can be learned or said about, of a data set with its splits."""
    train = Counter(label for item in divided.subset("train") for label in item.labels)
    val = Counter(label for item in divided.subset("val") for label in item.labels)
    pictures = len(divided.subset("train"))
    names = {label: printable(name) for label, name in enumerate(divided.classes)}
    rare = [f"{names[label]} {train[label]}" for label in names if train[label] < RARE]
    absent = [names[label] for label in names if not val[label]]
    constant = [names[label] for label in names if train[label] == pictures]
    findings: list[Finding] = []
    if rare:
        message = f"labels of fewer than {RARE} pictures to train on are hardly learned, add some: {listed(rare)}"
        findings.append(Finding("rare tags", message))
    if absent:
        message = (
            f"{'a label has' if len(absent) == 1 else f'{len(absent):,} labels have'} no validation picture, so "
            f"nothing is known of how well it is found and its threshold stays 0.5: {listed(absent)}"
        )
        findings.append(Finding("not validated", message))
    if constant:
        message = f"every training picture has the label {listed(constant)}, so there is nothing to learn about it"
        findings.append(Finding("constant tags", message))
    return findings
