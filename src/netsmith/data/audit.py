"""Every picture read once before anything is trained: what is unusable, doubtful or uneven, and a dataset of what is
left.

What happens to doubtful pictures:
- Unreadable ones are left out.
- Pictures with the same pixels under different labels are all left out: no copy can be trusted.
- Copies on both sides of given splits stay only in test, else only in val: a number measured on training pictures is
  not one.
- Copies inside a split stay: some data sets repeat pictures on purpose.
Each case is named and counted; `strict` refuses instead of leaving out.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from netsmith.data.findings import (
    Finding,
    Seen,
    doubtful_tags,
    unreadable,
    unused,
    without_doubtful,
    wrong_extensions,
)
from netsmith.data.items import Dataset, Entry, Item, Progress, Source, content_key, printable
from netsmith.data.pool import cpu_count, in_order
from netsmith.data.prepare import ImageError, Pixels, as_pixels, examine
from netsmith.data.splits import split
from netsmith.errors import InputError

IMBALANCE = 10.0
"""Largest class over smallest from which the summary speaks of imbalance."""


@dataclass(frozen=True)
class Spread:
    """Smallest, median and largest of a number over all pictures."""

    min: float
    median: float
    max: float


@dataclass(frozen=True)
class Audit:
    """What a source holds.

    Attributes:
        dataset: the usable pictures, with the splits that were given.
        listed: number of pictures the source names.
        counts: class -> usable pictures.
        splits: split -> pictures, as `split` with the audit's seed makes them.
        widths, heights, aspects: of the usable pictures, pixels and longer over shorter side.
        traits: how many pictures are greyscale, CMYK, 16-bit, with transparency, animated, EXIF-rotated; all are
            handled.
        formats: file format ("pixels" for arrays) -> pictures.
        findings: what is wrong, the worst first.
    """

    dataset: Dataset
    listed: int
    counts: dict[str, int]
    splits: dict[str, int]
    widths: Spread
    heights: Spread
    aspects: Spread
    traits: dict[str, int]
    formats: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def untagged(self) -> int:
        """Usable pictures without any tag; 0 where each has its class."""
        return sum(not item.labels for item in self.dataset.items)

    def to_json(self) -> dict[str, Any]:
        """The audit as JSON values, format 1, without the dataset's items."""
        sizes = {"width": self.widths, "height": self.heights, "aspect": self.aspects}
        tagged = {"task": "tag", "untagged": self.untagged} if self.dataset.task == "tag" else {}
        return {
            "format": 1,
            **tagged,
            "source": self.dataset.source,
            "fingerprint": self.dataset.fingerprint,
            "listed": self.listed,
            "usable": len(self.dataset.items),
            "classes": self.counts,
            "splits": self.splits,
            "sizes": {name: {"min": s.min, "median": s.median, "max": s.max} for name, s in sizes.items()},
            "traits": self.traits,
            "formats": self.formats,
            "findings": [
                {
                    "kind": finding.kind,
                    "message": finding.message,
                    "left_out": finding.left_out,
                    "files": [list(names) for names in finding.files],
                    "reasons": list(finding.reasons),
                }
                for finding in self.findings
            ],
            "notes": list(self.dataset.notes),
        }

    def summary(self) -> list[str]:
        """Plain lines that a person can act on."""
        usable = len(self.dataset.items)
        rest = "" if usable == self.listed else f" of {self.listed:,}"
        splits = ", ".join(f"{count:,} {name}" for name, count in self.splits.items())
        tagged = self.dataset.task == "tag"
        kinds = "labels of which a picture has any number" if tagged else "classes"
        lines = [
            f"{printable(self.dataset.source)}: {usable:,}{rest} pictures usable, {len(self.counts)} {kinds} ({splits})"
        ]
        ordered = sorted(self.counts.items(), key=lambda row: (-row[1], row[0]))
        shown = ordered if len(ordered) <= 12 else [*ordered[:6], *ordered[-6:]]
        parts = [f"{printable(name)} {count:,}" for name, count in shown]
        if len(ordered) > 12:
            parts.insert(6, "...")
        lines.append(("labels: " if tagged else "classes: ") + ", ".join(parts))
        if tagged:
            each = sum(self.counts.values()) / usable
            lines.append(
                f"labels per picture: {each:.2f} on average; "
                f"{self.untagged:,} pictures ({self.untagged / usable:.1%}) have none"
            )
        lines.append(
            f"sizes: width {self.widths.min:.0f} to {self.widths.max:.0f} (median {self.widths.median:.0f}), "
            f"height {self.heights.min:.0f} to {self.heights.max:.0f} (median {self.heights.median:.0f}), "
            f"longer over shorter side up to {self.aspects.max:.2f}"
        )
        formats = ", ".join(f"{name} {count:,}" for name, count in self.formats.items())
        traits = ", ".join(f"{name} {count:,}" for name, count in self.traits.items() if count)
        lines.append(f"formats: {formats}" + (f"; {traits} (all handled)" if traits else ""))
        lines += [f"note: {note}" for note in self.dataset.notes]
        lines += [f"{finding.kind}: {finding.message}" for finding in self.findings]
        if not self.findings:
            lines.append("nothing to mend")
        return lines


TRAITS = ("greyscale", "CMYK", "16-bit", "transparent", "animated", "EXIF-rotated")


def audit(source: Source, *, strict: bool = False, seed: int = 0, progress: Progress | None = None) -> Audit:
    """Read, hash and decode every picture of a source once, in threads.

    Args:
        strict: refuse where anything would be left out.
        seed: of the splits whose sizes are reported; the dataset itself keeps only the splits that were given.
        progress: called as progress(done, total).

    Returns: the findings and the dataset of what is usable.
    Raises: InputError when nothing can be trained on what is left: no readable picture, one class, a class with too
        few pictures; with `strict`, when any listed picture is unusable.
    """
    seen: list[Seen] = []
    bad: list[tuple[Entry, ImageError]] = []
    results = in_order(lambda entry: look(source, entry), source.entries, workers=cpu_count())
    for done, result in enumerate(results, start=1):
        if isinstance(result, Seen):
            seen.append(result)
        else:
            bad.append(result)
        if progress is not None:
            progress(done, len(source.entries))
    if not seen:
        first = ", ".join(f"{printable(entry.name)} {error}" for entry, error in bad[:1])
        raise InputError(f"none of the {len(bad):,} pictures in {source.name} can be read; the first: {first}")
    findings = unreadable(bad)
    usable, doubtful = without_doubtful(seen, source)
    findings += doubtful
    if strict and (refused := [finding for finding in findings if finding.left_out]):
        raise InputError(" ".join(f"{finding.kind}: {finding.message}." for finding in refused))
    findings += wrong_extensions(usable)
    findings += unused(source)
    return _result(source, usable, findings, seed)


def look(source: Source, entry: Entry) -> Seen | tuple[Entry, ImageError]:
    """What one picture is, or why it cannot be used."""
    try:
        content = source.reader.read(entry.name)
        if isinstance(content, bytes):
            picture = examine(content)
            pixels, form = picture.pixels, picture.format
            present = {
                "greyscale": picture.mode in ("1", "L", "LA", "La") or picture.mode.startswith("I"),
                "CMYK": picture.mode == "CMYK",
                "16-bit": picture.deep,
                "transparent": picture.alpha,
                "animated": picture.animated,
                "EXIF-rotated": picture.rotated,
            }
        else:
            pixels, form = as_pixels(content), "pixels"
            present = {"greyscale": content.ndim == 2 or content.shape[2] == 1}
    except ImageError as error:
        return entry, error
    height, width, _ = pixels.shape
    return Seen(
        entry,
        content_key(content),
        _pixel_key(pixels),
        form,
        height,
        width,
        tuple(name for name, yes in present.items() if yes),
    )


def _pixel_key(pixels: Pixels) -> str:
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _result(source: Source, usable: Sequence[Seen], findings: list[Finding], seed: int) -> Audit:
    items = tuple(
        Item(one.key, one.entry.labels, one.entry.split, one.entry.name, one.group, one.height, one.width)
        for one in usable
    )
    dataset = Dataset(source.classes, items, source.name, source.reader, source.notes, source.task)
    counts = Counter(label for item in items for label in item.labels)
    per_class = {name: counts[label] for label, name in enumerate(source.classes)}
    if len(per_class) < 2 and source.task == "classify":
        raise InputError(
            f"{source.name} holds one class ('{printable(next(iter(per_class)))}'); a classifier needs at least two: "
            "give the folder that holds the class folders"
        )
    try:
        divided = split(dataset, seed=seed)
    except InputError as error:
        lost = Counter(source.classes[label] for entry in source.entries for label in entry.labels)
        lost.subtract(per_class)
        short = [f"{lost[name]:,} of '{printable(name)}'" for name in +lost if f"'{printable(name)}'" in str(error)]
        kinds = ", ".join(finding.kind for finding in findings if finding.left_out)
        raise InputError(
            f"{printable(source.name)}: {error}" + (f" ({', '.join(short)} left out: {kinds})" if short else "")
        ) from None
    sides = Counter(item.split for item in divided.items)
    if source.task == "tag":
        findings += doubtful_tags(divided)
    smallest, largest = min(per_class, key=per_class.__getitem__), max(per_class, key=per_class.__getitem__)
    if per_class[largest] >= IMBALANCE * per_class[smallest]:
        findings.append(
            Finding(
                "imbalance",
                f"class '{printable(largest)}' has {per_class[largest]:,} pictures, '{printable(smallest)}' only "
                f"{per_class[smallest]:,}: add pictures of the small classes, and read accuracy per class",
            )
        )
    widths, heights = np.array([one.width for one in usable]), np.array([one.height for one in usable])
    traits = Counter(trait for one in usable for trait in one.traits)
    return Audit(
        dataset=dataset,
        listed=len(source.entries),
        counts=per_class,
        splits={name: sides[name] for name in ("train", "val", "test")},
        widths=_spread(widths),
        heights=_spread(heights),
        aspects=_spread(np.maximum(widths, heights) / np.minimum(widths, heights)),
        traits={name: traits[name] for name in TRAITS},
        formats=dict(Counter(one.format for one in usable).most_common()),
        findings=tuple(findings),
    )


def _spread(values: Any) -> Spread:
    return Spread(float(np.min(values)), float(np.median(values)), float(np.max(values)))
