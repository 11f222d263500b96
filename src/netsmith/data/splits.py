"""Train, val and test: stratified, seeded, and decided by each picture's own hash.

Within a class, pictures are ordered by hash(seed, pixels); test is cut from the low end and val from the high end.
The order of files, their names and the other classes do not matter, and a picture added later moves only pictures at
the cut. Duplicates share the hash, so they stay together. Splits that were given are kept; only what is missing is
cut, from train. Tagged pictures belong to several classes at once and are dealt out by `stratify`, in the order of the
same hashes.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from netsmith.data.items import Dataset, Item, Split, listed, printable
from netsmith.data.stratify import stratified
from netsmith.errors import InputError


def split(dataset: Dataset, *, seed: int, val: float = 0.15, test: float = 0.15) -> Dataset:
    """The dataset with every item in train, val or test.

    Args:
        seed: another seed is another split.
        val, test: share of the pictures of each class to cut for splits that were not given; at least one picture each
            (none where `test` is 0).

    Raises InputError naming the class that has too few distinct pictures, and the mend.
    """
    assert 0 < val < 1, val
    assert 0 <= test < 1 - val, test
    given = {item.split for item in dataset.items}
    shares: dict[Split, float] = {}
    if "test" not in given and test > 0:
        shares["test"] = test
    if "val" not in given:
        shares["val"] = val
    sides = _by_tags(dataset, shares, seed=seed) if dataset.task == "tag" else _by_class(dataset, shares, seed=seed)
    items = tuple(
        item if item.split in ("val", "test") else replace(item, split=sides.get(item.group, "train"))
        for item in dataset.items
    )
    return replace(dataset, items=items)


def _by_class(dataset: Dataset, shares: dict[Split, float], *, seed: int) -> dict[str, Split]:
    """The new side of each duplicate group that leaves train."""
    groups = _groups(dataset.items)
    sides: dict[str, Split] = {}
    for label, name in enumerate(dataset.classes):
        members = groups.get(label, {})
        _refuse_few(len(members), name, needed=1 + len(shares), missing=list(shares))
        total = sum(members.values())
        order = sorted(members, key=lambda group: hashlib.sha256(f"split {seed} {group}".encode()).digest())
        for reserved, (side, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
            # train and every side still to come need one group each
            free = [group for group in (order if side == "test" else order[::-1]) if group not in sides]
            for group in _cut(free, members, round(total * share), most=len(free) - reserved):
                sides[group] = side
    return sides


def _by_tags(dataset: Dataset, shares: dict[Split, float], *, seed: int) -> dict[str, Split]:
    """The new side of each duplicate group that leaves train, by iterative stratification."""
    pool = [item for item in dataset.items if item.split in (None, "train")]
    sizes = Counter(item.group for item in pool)
    if len(sizes) <= len(shares):
        raise InputError(
            f"there are {len(sizes)} distinct pictures for {' and '.join(['train', *shares])}; add pictures"
        )
    tags = {item.group: item.labels for item in pool}
    seen = {label for labels in tags.values() for label in labels}
    if lacking := [name for label, name in enumerate(dataset.classes) if label not in seen]:
        names = listed([f"'{name}'" for name in lacking])
        raise InputError(
            f"there is no picture to train on with the label {names}: add some, or take the label out of the table"
        )
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"split {seed} {group}".encode()).digest())
    wanted: dict[Split, float] = {"train": 1.0 - sum(shares.values()), **shares}
    found = stratified([tags[group] for group in order], [sizes[group] for group in order], list(wanted.values()))
    names = list(wanted)
    if empty := [side for at, side in enumerate(names) if at not in found]:
        raise InputError(
            f"there are too few pictures: every label needs one to train on, which leaves none "
            f"for {' and '.join(empty)}; add pictures"
        )
    return {group: names[side] for group, side in zip(order, found, strict=True)}


def _groups(items: Sequence[Item]) -> dict[int, dict[str, int]]:
    """Label -> duplicate group -> number of pictures, of the items that may be cut."""
    groups: dict[int, dict[str, int]] = defaultdict(Counter)
    for item in items:
        if item.split in (None, "train"):
            groups[item.label][item.group] += 1
    return groups


def _cut(order: Sequence[str], sizes: dict[str, int], wanted: int, *, most: int) -> list[str]:
    """Groups from the front of `order` that come closest to `wanted` pictures: at least one group, at most `most`."""
    chosen: list[str] = []
    count = 0
    for group in order:
        if len(chosen) == most or count >= wanted:
            break
        if abs(count + sizes[group] - wanted) <= abs(count - wanted):
            chosen.append(group)
            count += sizes[group]
    return chosen or [min(order, key=lambda group: sizes[group])]


def _refuse_few(distinct: int, name: str, *, needed: int, missing: Sequence[Split]) -> None:
    if distinct >= needed:
        return
    found = {0: "no picture", 1: "1 distinct picture"}.get(distinct, f"{distinct} distinct pictures")
    purpose = " and ".join(["train", *missing])
    raise InputError(
        f"class '{printable(name)}' has {found} to train on but {purpose} need at least {needed}: "
        "add pictures, remove the class, or give the splits as folders"
    )
