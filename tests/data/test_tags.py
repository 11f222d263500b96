"""Pictures with several labels: tables, splits, audit and record."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, noise

from netsmith.data.audit import audit
from netsmith.data.folders import FolderReader
from netsmith.data.items import Dataset, Item, Source
from netsmith.data.record import from_data_json, read_data_json, to_data_json
from netsmith.data.sources import open_source
from netsmith.data.splits import split
from netsmith.data.stratify import stratified
from netsmith.errors import InputError


def pictures(root: Path, count: int) -> None:
    for index in range(count):
        (root / f"{index}.png").write_bytes(encoded(noise(index)))


def table(root: Path, text: str) -> Source:
    (root / "table.csv").write_text(text)
    return open_source(root / "table.csv")


def labelled(source: Source) -> dict[str, list[str]]:
    return {entry.name: [source.classes[label] for label in entry.labels] for entry in source.entries}


def test_separated_labels_and_columns_of_flags_say_the_same(tmp_path: Path) -> None:
    pictures(tmp_path, 4)
    text = "image_path,labels\n0.png,dog;cat\n1.png, cat | dog \n2.png,\n3.png,bird;\n"
    flags = "image_path,cat,split,dog,bird\n0.png,1,,1,0\n1.png,1.0,,True,0\n2.png,0,,false,0.0\n3.png,0,,0,1\n"
    separated, columns = table(tmp_path, text), table(tmp_path, flags)
    assert separated.task == "tag"
    assert labelled(separated) == {"0.png": ["cat", "dog"], "1.png": ["cat", "dog"], "2.png": [], "3.png": ["bird"]}
    assert (columns.classes, columns.entries, columns.task) == (separated.classes, separated.entries, "tag")


def test_a_picture_on_several_lines_has_the_labels_of_all_and_that_is_said(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    source = table(tmp_path, "image_path,labels\n0.png,dog\n1.png,cat\n0.png,cat\n0.png,dog\n")
    assert labelled(source) == {"0.png": ["cat", "dog"], "1.png": ["cat"]}
    assert source.notes == ("1 picture stands on several lines and has the labels of all of them: 0.png",)


def test_names_of_columns_are_stripped_and_other_cases_refused(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    rows = "0.png,{}, train\n1.png,{},val\n2.png,{},test\n"
    source = table(tmp_path, "image_path , labels, split\n" + rows.format("dog", "cat", "dog;cat"))
    assert [entry.split for entry in source.entries] == ["train", "val", "test"]
    flags = table(tmp_path, "image_path, dog ,split\n" + rows.format(1, 0, 1))
    assert flags.classes == ("dog",)
    with pytest.raises(InputError, match="the column 'Label'; write it 'label'"):
        table(tmp_path, "image_path,Label\n0.png,1\n1.png,0\n")


def test_wide_tables_are_refused_at_once(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    columns = [f"c{i}" for i in range(100_000)]
    with pytest.raises(InputError, match="100,000 different labels"):
        table(tmp_path, f"image_path,{','.join(columns)}\n0.png{',0' * len(columns)}\n")


def test_texts_for_labels_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    with pytest.raises(InputError, match=r"10,001 different labels.*not texts such as"):
        table(tmp_path, "image_path,labels\n0.png," + ";".join(f"text {i}" for i in range(10_001)) + "\n")


def test_copies_under_different_labels_are_left_out_aloud(tmp_path: Path) -> None:
    pictures(tmp_path, 30)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    rows = "".join(f"{i}.png,{'cat' if i % 2 else 'cat;dog'}\n" for i in range(30))
    found = audit(table(tmp_path, f"image_path,labels\n{rows}copy.png,\n"))
    assert len(found.dataset.items) == 29
    (conflict,) = [finding for finding in found.findings if finding.kind == "conflicting labels"]
    assert "0.png = copy.png (cat, dog and none)" in conflict.message


def test_the_audit_counts_labels_and_names_what_can_hardly_be_learned(tmp_path: Path) -> None:
    pictures(tmp_path, 40)
    rows = "".join(f"{i}.png,{'all;' * (i > 9)}{'rare' if i == 12 else ''}\n" for i in range(40))
    found = audit(table(tmp_path, f"image_path,labels\n{rows}"))
    assert found.counts == {"all": 30, "rare": 1}
    assert found.untagged == 10
    assert "labels per picture: 0.78 on average; 10 pictures (25.0%) have none" in found.summary()
    assert {"rare tags", "not validated", "imbalance"} <= {finding.kind for finding in found.findings}
    assert (found.to_json()["task"], found.to_json()["untagged"]) == ("tag", 10)


def drawn(count: int, *, seed: int = 0) -> Dataset:
    """Pictures with six tags of unequal frequency, some of them in copies."""
    rng = np.random.default_rng(seed)
    flags = rng.random((count, 6)) < [0.02, 0.05, 0.1, 0.2, 0.4, 0.6]
    items = [
        Item(f"{i:064x}", tuple(np.flatnonzero(row).tolist()), None, f"{i}", f"{i - i % 3:064x}", 8, 8)
        for i, row in enumerate(flags[np.arange(count) // 3 * 3])
    ]
    return Dataset(tuple("abcdef"), tuple(items), "drawn", reader=None, task="tag")  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_tag_is_in_every_split_by_its_share_and_copies_stay_together(seed: int) -> None:
    dataset = drawn(3000)
    result = split(dataset, seed=seed)
    assert split(dataset, seed=seed) == result
    assert split(dataset, seed=seed + 1).items != result.items
    sides = {item.group: item.split for item in result.items}
    assert all(sides[item.group] == item.split for item in result.items)
    for label in range(6):
        counts = Counter(item.split for item in result.items if label in item.labels)
        total = sum(counts.values())
        assert abs(counts["val"] - 0.15 * total) <= 6, (label, counts)
        assert abs(counts["test"] - 0.15 * total) <= 6, (label, counts)
    sizes = Counter(item.split for item in result.items)
    assert abs(sizes["val"] - 450) <= 25


def test_a_rare_tag_is_trained_on_and_given_splits_are_kept() -> None:
    dataset = drawn(300)
    first = replace(dataset.items[0], labels=(0, 5), split="test")
    dataset = replace(dataset, items=(first, *dataset.items[3:]))
    result = split(dataset, seed=0)
    assert result.items[0].split == "test"
    assert {label for item in result.subset("train") for label in item.labels} == set(range(6))
    assert sum(item.split == "test" for item in result.items) == 1
    assert result.subset("val")


@pytest.mark.parametrize("sizes", [[1] * 12, [3, 1, 1, 2, 2, 1, 1, 4, 1, 1, 1, 1]])
def test_pictures_of_one_tag_each_leave_each_tag_one_to_train_on(sizes: list[int]) -> None:
    tags = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2), (3,), (), (), (), ()]
    sides = stratified(tags, sizes, [0.7, 0.15, 0.15])
    assert {label for row, side in zip(tags, sides, strict=True) if side == 0 for label in row} == {0, 1, 2, 3}
    assert {0, 1, 2} == set(sides)


def test_too_few_pictures_and_labels_without_any_are_refused() -> None:
    one = Item("0" * 64, (0,), None, "a", "0" * 64, 8, 8)
    dataset = Dataset(("x",), (one,), "set", FolderReader(Path()), task="tag")
    with pytest.raises(InputError, match="1 distinct pictures for train and test and val"):
        split(dataset, seed=0)
    with pytest.raises(InputError, match="no picture to train on with the label .*'y':"):
        split(replace(drawn(30), classes=("x", "b", "c", "d", "e", "f", "y")), seed=0)
    each = tuple(replace(one, key=f"{i:064x}", group=f"{i:064x}", labels=(i,)) for i in range(4))
    with pytest.raises(InputError, match="every label needs one to train on"):
        split(replace(dataset, classes=tuple("abcd"), items=each), seed=0)


def test_the_record_is_format_2_and_gives_the_same_splits_again() -> None:
    dataset = split(drawn(90), seed=0)
    document = json.loads(json.dumps(to_data_json(dataset, seed=0)))
    assert (document["format"], document["task"]) == (2, "tag")
    bare = replace(dataset, items=tuple(replace(item, split=None) for item in dataset.items))
    assert from_data_json(document, bare) == dataset
    assert read_data_json(document).items[dataset.items[5].key].labels == dataset.items[5].labels
    moved = replace(bare, items=(replace(bare.items[0], labels=(0, 1, 2)), *bare.items[1:]))
    with pytest.raises(InputError, match="is now of class 'a;b;c;'"):
        from_data_json(document, moved)
    with pytest.raises(InputError, match="now has one class per picture and had several labels"):
        from_data_json(document, replace(bare, task="classify"))
    document["items"][dataset.items[0].key]["labels"] = [0, 1, 2, 3]
    with pytest.raises(InputError, match="does not match its own fingerprint"):
        read_data_json(document)
