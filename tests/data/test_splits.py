"""Splits: stratified, decided by content, unmoved by order; `data.json` brings them back exactly."""

import hashlib
import json
import random
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsmith.data.items import Dataset, Item
from netsmith.data.record import from_data_json, to_data_json
from netsmith.data.splits import split
from netsmith.errors import InputError


class NoReader:
    def read(self, name: str) -> bytes:
        raise AssertionError("splitting reads no pictures")


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make(classes: dict[str, list[int]], splits: dict[str, str] | None = None) -> Dataset:
    """A dataset with, per class, the sizes of its duplicate groups; `splits` by item name."""
    items: list[Item] = []
    for label, (name, sizes) in enumerate(classes.items()):
        for group, size in enumerate(sizes):
            for copy in range(size):
                full = f"{name}/{group}-{copy}"
                side = (splits or {}).get(full)
                items.append(Item(key(full), (label,), side, full, key(f"{name}/{group}"), 8, 8))  # type: ignore[arg-type]
    return Dataset(tuple(classes), tuple(items), "made", NoReader())


def sides(dataset: Dataset) -> dict[str, str | None]:
    return {item.name: item.split for item in dataset.items}


sizes = st.lists(st.sampled_from([1, 1, 1, 1, 2, 5]), min_size=3, max_size=40)


@given(first=sizes, second=sizes, seed=st.integers(0, 2**40), test=st.sampled_from([0.0, 0.1, 0.3]))
@settings(max_examples=60, deadline=None)
def test_every_class_everywhere_groups_together_order_irrelevant(
    first: list[int], second: list[int], seed: int, test: float
) -> None:
    dataset = make({"a": first, "b": second})
    result = split(dataset, seed=seed, val=0.2, test=test)
    wanted = {"train", "val", "test"} if test else {"train", "val"}
    for label in (0, 1):
        assert {item.split for item in result.items if item.label == label} == wanted
    by_group = defaultdict(set)
    for item in result.items:
        by_group[item.group].add(item.split)
    assert all(len(found) == 1 for found in by_group.values())
    shuffled = list(dataset.items)
    random.Random(seed).shuffle(shuffled)
    again = split(replace(dataset, items=tuple(shuffled)), seed=seed, val=0.2, test=test)
    assert sides(again) == sides(result)
    assert again.fingerprint == result.fingerprint
    document = json.loads(json.dumps(to_data_json(result, seed=seed)))
    restored = from_data_json(document, replace(dataset, items=tuple(shuffled)))
    assert sides(restored) == sides(result)
    assert restored.fingerprint == result.fingerprint


@given(count=st.integers(7, 300), val=st.sampled_from([0.1, 0.15, 0.4]), test=st.sampled_from([0.15, 0.3]))
@settings(max_examples=60, deadline=None)
def test_shares_are_exact_per_class(count: int, val: float, test: float) -> None:
    result = split(make({"a": [1] * count, "b": [1] * 10}), seed=3, val=val, test=test)
    found = Counter(item.split for item in result.items if item.label == 0)
    assert found["val"] == max(1, round(count * val))
    assert found["test"] == max(1, round(count * test))


def test_a_new_picture_moves_at_most_one_other_and_none_of_other_classes() -> None:
    for seed in range(40):
        before = sides(split(make({"a": [1] * 100, "b": [1] * 50}), seed=seed))
        after = sides(split(make({"a": [1] * 101, "b": [1] * 50}), seed=seed))
        moved = [name for name in before if before[name] != after[name]]
        assert len(moved) <= 1
        assert not [name for name in moved if name.startswith("b/")]


def test_seed_matters_and_label_order_does_not() -> None:
    one = make({"a": [1] * 100, "b": [1] * 50})
    assert sides(split(one, seed=1)) != sides(split(one, seed=2))
    assert sides(split(make({"b": [1] * 50, "a": [1] * 100}), seed=1)) == sides(split(one, seed=1))


def test_given_splits_are_kept_and_only_what_is_missing_is_cut_from_train() -> None:
    names = [f"{c}/{i}-0" for c in "ab" for i in range(20)]
    classes = {"a": [1] * 20, "b": [1] * 20}
    with_test = {name: "test" if index % 4 == 0 else "train" for index, name in enumerate(names)}
    result = sides(split(make(classes, with_test), seed=0))
    assert {n for n in names if result[n] == "test"} == {n for n in names if with_test[n] == "test"}
    assert Counter(result.values()) == {"test": 10, "val": 4, "train": 26}
    complete = {name: ("test", "val", "train", "train")[index % 4] for index, name in enumerate(names)}
    assert sides(split(make(classes, complete), seed=0)) == complete
    with_val = {name: "val" if index % 4 == 0 else "train" for index, name in enumerate(names)}
    assert Counter(sides(split(make(classes, with_val), seed=0)).values()) == {"val": 10, "test": 4, "train": 26}


def test_a_class_too_small_for_its_splits_is_named() -> None:
    for groups, words in ([1], "1 distinct picture "), ([4], "1 distinct picture "), ([1, 1], "2 distinct pictures"):
        with pytest.raises(InputError, match=f"class 'rare' has {words}.*at least 3.*add pictures"):
            split(make({"a": [1] * 9, "rare": groups}), seed=0)
    assert sides(split(make({"a": [1] * 9, "rare": [1, 1]}), seed=0, test=0.0))


def document() -> tuple[Dataset, dict[str, object]]:
    dataset = make({"a": [1] * 6, "b": [1, 2, 1, 1]})
    return dataset, to_data_json(split(dataset, seed=5), seed=5)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 2),
        (("seed",), "5"),
        (("extra",), 1),
        (("fingerprint",), "0" * 64),
        (("classes",), ["a"]),
        (("classes",), ["a", "c"]),
        (("items", "ITEM", "label"), 7),
        (("items", "ITEM", "label"), True),
        (("items", "ITEM", "split"), "dev"),
        (("items", "ITEM", "group"), "xyz"),
        (("items", "short"), {"label": 0, "split": "val", "group": "0" * 64, "name": "x"}),
    ],
)
def test_data_json_is_validated(path: tuple[str, ...], value: object) -> None:
    dataset, record = document()
    place = record
    for part in path[:-1]:
        place = place[next(iter(place)) if part == "ITEM" else part]
    place[path[-1]] = value
    with pytest.raises(InputError, match=r"data\.json"):
        from_data_json(record, dataset)


def test_swapping_two_pictures_between_splits_is_seen() -> None:
    dataset, record = document()
    rows = list(record["items"].values())
    one = next(row for row in rows if row["split"] == "train")
    other = next(row for row in rows if row["split"] == "test")
    one["split"], other["split"] = other["split"], one["split"]
    with pytest.raises(InputError, match="fingerprint"):
        from_data_json(record, dataset)


def test_pictures_gone_new_or_relabelled() -> None:
    dataset, record = document()
    fewer = replace(dataset, items=dataset.items[1:])
    with pytest.raises(InputError, match=r"1 of 11 .*\(a/0-0\)"):
        from_data_json(record, fewer)
    part = from_data_json(record, fewer, partial=True)
    assert len(part.items) == 10
    assert "a/0-0" in part.notes[-1]
    extra = Item(key("new"), (0,), None, "a/new", key("new"), 8, 8)
    more = from_data_json(record, replace(dataset, items=(*dataset.items, extra)))
    assert len(more.items) == len(dataset.items)
    assert "a/new" in more.notes[-1]
    relabelled = replace(dataset, items=(replace(dataset.items[0], labels=(1,)), *dataset.items[1:]))
    with pytest.raises(InputError, match="is now of class 'b' but was 'a'"):
        from_data_json(record, relabelled)
    # classes in another order are the same classes
    swapped = replace(
        dataset, classes=("b", "a"), items=tuple(replace(item, labels=(1 - item.label,)) for item in dataset.items)
    )
    assert from_data_json(record, swapped).classes == ("a", "b")
