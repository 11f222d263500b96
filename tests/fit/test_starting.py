"""What a run starts from: which rows of a classifier stay, what is refused, and what a run that goes on is held to."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from netsmith.arch.names import find_layout
from netsmith.artifact.bundle import Preferred, artifact_hash, load_bundle, write_preferred
from netsmith.artifact.runtimes import REFERENCE, RUNTIMES
from netsmith.data.items import Dataset, Split, fingerprint
from netsmith.errors import InputError
from netsmith.export.network import export_network
from netsmith.fit import distilling
from netsmith.fit.distilling import AS_STUDENT, DistillJob, distill_run
from netsmith.fit.job import Opened, TrainJob, open_job
from netsmith.fit.parent import keeping_splits, open_parent
from netsmith.fit.session import Session
from netsmith.fit.starting import Continued, find_start
from netsmith.models.build import build, continue_model, load_model
from netsmith.models.extend import Growth, extend
from netsmith.run.files import write_json
from netsmith.run.folder import RunFolder
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.progress import silent
from netsmith.run.result import Result

NAME = "resnet20_cifar@width=0.25,depth=0.5"
KNOWN = ("ant", "bee", "cow")
OWN = Preprocess(size=16, crop=0.9, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def export(folder: Path, *, seed: int) -> Path:
    network = build(find_layout(NAME, num_classes=3, img_size=16), seed=seed)
    export_network(network.eval(), folder, labels=KNOWN, preprocess=OWN)
    return folder


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of three classes with preprocessing of its own."""
    return export(tmp_path_factory.mktemp("parent") / "model", seed=7)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of one class that the artifact knows and three that it does not."""
    path = tmp_path_factory.mktemp("pictures") / "more.npz"
    images = np.random.default_rng(1).integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.array(["bee", "cat", "dog", "elk"] * 12))
    return str(path)


def opened(data: str, begun: RunFolder | None = None, *, parent: Path | None = None, **flags: Any) -> Opened:
    job = TrainJob(flags={"epochs": 1.0} | flags, recipe="finetune" if parent and not begun else None, parent=parent)
    return open_job(job, Session(data=data, output=Path("unused"), command=["train"]), begun)


def test_classes_of_the_same_name_keep_their_rows(parent: Path) -> None:
    before = load_model(parent)
    after = continue_model(parent, labels=("cow", "dog", "ant"), seed=3)
    old, new = before.get_parameter("fc.weight"), after.get_parameter("fc.weight")
    assert torch.equal(new[0], old[2])
    assert torch.equal(new[2], old[0])
    assert not any(torch.equal(new[1], row) for row in old)
    assert torch.equal(after.get_parameter("fc.bias")[2], before.get_parameter("fc.bias")[0])
    same = continue_model(parent, labels=KNOWN)
    assert same.training
    for name, tensor in before.state_dict().items():
        assert torch.equal(same.state_dict()[name], tensor), name


def test_a_start_from_an_artifact_brings_network_preprocessing_and_gentler_steps(parent: Path, pictures: str) -> None:
    found = opened(pictures, parent=parent)
    assert found.preprocess == OWN
    assert (found.recipe.parent, found.recipe.pretrained) == (artifact_hash(parent), None)
    assert (found.recipe.img_size, found.recipe.head_first > 0, found.recipe.from_scratch) == (16, True, False)
    old, new = load_model(parent).state_dict(), found.network.state_dict()
    assert torch.equal(new["layer1.0.conv1.weight"], old["layer1.0.conv1.weight"])
    assert (new["fc.weight"].shape[0], torch.equal(new["fc.weight"][0], old["fc.weight"][1])) == (4, True)
    assert found.start.weights == f"{load_bundle(parent).layout.name} of artifact {artifact_hash(parent)}"
    assert opened(pictures, parent=parent, img_size=32).preprocess == OWN.model_copy(update={"size": 32})


def test_an_extended_network_which_no_name_means_is_gone_on_with(parent: Path, pictures: str, tmp_path: Path) -> None:
    larger = extend(load_model(parent), Growth(width=1.5))
    export_network(larger, tmp_path / "larger", labels=KNOWN, preprocess=OWN)
    found = opened(pictures, parent=tmp_path / "larger")
    assert found.recipe.model.endswith("+width=1.5")
    assert torch.equal(found.network.state_dict()["conv1.weight"], larger.state_dict()["conv1.weight"])


def test_the_same_classes_are_numbered_as_the_artifact_has_them_and_of_others_it_is_told(
    parent: Path, pictures: str, tmp_path: Path
) -> None:
    """So that old and new model answer alike, and whoever swaps them finds the outputs where they were."""
    network = build(find_layout(NAME, num_classes=4, img_size=16), seed=1)
    export_network(network.eval(), tmp_path / "turned", labels=("elk", "bee", "dog", "cat"), preprocess=OWN)
    turned, plain = opened(pictures, parent=tmp_path / "turned").dataset, opened(pictures, model=NAME).dataset
    assert (turned.classes, plain.classes) == (("elk", "bee", "dog", "cat"), ("bee", "cat", "dog", "elk"))
    assert [turned.classes[item.label] for item in turned.items] == [plain.classes[item.label] for item in plain.items]
    assert turned.notes == plain.notes
    told = opened(pictures, parent=parent).dataset.notes[-1]
    assert told == (
        f"{parent} has other classes: its classifier keeps what it knows of bee, is new for cat, dog, elk, "
        "loses ant, cow"
    )


def run_that_knew(run: Path, dataset: Dataset, sides: Mapping[str, Split], *, labels: Sequence[str] = KNOWN) -> Path:
    """A run with an artifact and, by key, the pictures that it knew."""
    network = build(find_layout(NAME, num_classes=len(labels), img_size=16), seed=len(run.name))
    export_network(network.eval(), run / "model", labels=labels, preprocess=OWN)
    items, names = [item for item in dataset.items if item.key in sides], dataset.classes
    rows = {
        item.key: {"label": item.label, "split": sides[item.key], "group": item.group, "name": item.name}
        for item in items
    }
    mark = fingerprint((item.key, names[item.label], sides[item.key]) for item in items)
    record = {"format": 1, "source": "s", "fingerprint": mark, "classes": list(names), "seed": 0, "items": rows}
    write_json(run / "data.json", record)
    write_json(run / "run.json", {"format": 1, "command": ["train"]})
    return run


def test_pictures_that_the_artifacts_run_knew_keep_their_splits(pictures: str, tmp_path: Path) -> None:
    """Or what was trained on would be validated on."""
    first = opened(pictures, model=NAME).dataset
    turned: dict[str, Split] = {"train": "val", "val": "test", "test": "train"}
    sides: dict[str, Split] = {item.key: turned[str(item.split)] for item in first.items[4:]}
    again = opened(pictures, parent=run_that_knew(tmp_path / "run", first, sides)).dataset
    splits = {item.key: item.split for item in again.items}
    assert {key: splits[key] for key in sides} == sides
    assert len(splits) == len(first.items), "new pictures are welcome"


def test_what_any_of_several_runs_used_a_picture_for_counts(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student that goes on and its teachers, each of which knew the pictures in other splits."""
    first = opened(pictures, model=NAME).dataset
    used: tuple[Split, ...] = ("train", "val", "test")
    keys = [item.key for item in first.items]
    student = run_that_knew(tmp_path / "student", first, {key: used[at % 3] for at, key in enumerate(keys[:36])})
    teachers = [
        run_that_knew(tmp_path / name, first, {key: used[at // step % 3] for at, key in enumerate(keys)},
                      labels=first.classes)
        for name, step in (("one", 3), ("the_other", 9))
    ]  # fmt: skip
    found: list[Dataset] = []

    def only_open(job: TrainJob, session: Session, work: Any, *, check: Callable[[Opened], Opened]) -> Result:
        found.append(check(open_job(job, session, None)).dataset)
        raise KeyboardInterrupt

    def split_for(*named: Path) -> list[str | None]:
        train = TrainJob(flags={"epochs": 1.0})
        job = DistillJob(student=str(student), teachers=[str(each) for each in named], train=train)
        with pytest.raises(KeyboardInterrupt):
            distill_run(job, Session(data=pictures, output=tmp_path / "out", command=["distill"]))
        return [item.split for item in found.pop().items]

    monkeypatch.setattr(distilling, "run_job", only_open)
    expected = [used[min(at % 3 if at < 36 else 2, at // 3 % 3, at // 9 % 3)] for at in range(len(keys))]
    assert split_for(*teachers) == split_for(*reversed(teachers)) == expected
    part: dict[str, Split] = dict.fromkeys(keys[::2], "train")
    stage = open_parent(run_that_knew(tmp_path / "part", first, part, labels=first.classes))
    of_a_stage = stage.pictures(opened(pictures, model=NAME).audited, seed=0)
    assert {item.key: item.split for item in of_a_stage.items if item.key in part} == part
    assert {item.split for item in of_a_stage.items if item.key not in part} == set(used), "the same rule"
    greedy = run_that_knew(tmp_path / "greedy", first, dict.fromkeys(keys, "train"), labels=first.classes)
    with pytest.raises(InputError, match="no picture that may be used for 'val'"):
        split_for(greedy)
    parents = [open_parent(run_that_knew(tmp_path / "none", first, dict.fromkeys(keys[1::4], "val")))]
    with pytest.raises(InputError, match="no picture that may be used of 'cat' for 'train'"):
        keeping_splits(first, parents, seed=0)


def test_a_run_that_goes_on_is_held_to_the_artifact_it_began_with(parent: Path, pictures: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    write_json(run.marker, {"format": 1, "command": ["train", pictures, "--from", str(parent), "-o", str(run.path)]})
    opened(pictures, parent=parent).recipe.save(run.recipe)
    assert opened(pictures, run).recipe.parent == artifact_hash(parent), "the command knows the folder"
    with pytest.raises(InputError, match=f"was begun from artifact {artifact_hash(parent)}, and"):
        opened(pictures, run, parent=export(tmp_path / "other", seed=8))
    opened(pictures, model=NAME).recipe.save(run.recipe)
    with pytest.raises(InputError, match="was begun without --from"):
        opened(pictures, run, parent=parent)


def test_a_runtime_that_does_not_open_what_is_gone_on_with_stands_aside(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before hours of training, whose model would prefer it."""

    def refuses(model: Path | bytes, threads: int) -> Any:
        raise InputError("it is refused by another")

    said: list[str] = []
    shutil.copytree(parent, tmp_path / "model")
    write_preferred(load_bundle(tmp_path / "model"), Preferred(runtime="another", threads=1))
    monkeypatch.setitem(RUNTIMES, "another", replace(RUNTIMES[REFERENCE], open=refuses))
    assert open_parent(tmp_path / "model").runtime(Plan(tmp_path / "plan.jsonl"), warn=said.append) == REFERENCE
    assert said == [
        f"{tmp_path / 'model'} prefers the runtime 'another', and it is refused by another; {REFERENCE} runs it"
    ]


def test_what_cannot_be_gone_on_with_is_told(parent: Path, pictures: str, tmp_path: Path) -> None:
    def refused(folder: Path, **flags: Any) -> str:
        with pytest.raises(InputError) as error:
            opened(pictures, parent=folder, **flags)
        return str(error.value)

    assert "brings its network" in refused(parent, model="resnet18")
    assert "there is no" in refused(tmp_path / "absent")
    with pytest.raises(InputError, match="any number of labels per picture"):
        tags = replace(opened(pictures, model=NAME).dataset, task="tag")
        Continued.of(parent).network(opened(pictures, parent=parent).recipe, tags, progress=silent)
    unnamed = [("the file", {"model": NAME, "parent": "0" * 64}), ("the flags", {})]
    with pytest.raises(InputError, match="say where it is with --from"):
        find_start(unnamed)
    with pytest.raises(InputError, match="say where it is with a folder as STUDENT"):
        find_start(unnamed, parent_as=AS_STUDENT)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in parent.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "model.safetensors").unlink()
    assert "shipped without model.safetensors" in refused(copy)
    config = json.loads((copy / "config.json").read_text())
    other = export(tmp_path / "wider", seed=1)
    (copy / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    assert "is not the file that config.json describes" in refused(copy)
    layout = config["layout"]
    layout["head"]["linear"] = "classifier"
    config["files"]["model.safetensors"] = json.loads((other / "config.json").read_text())["files"]["model.safetensors"]
    write_json(copy / "config.json", config)
    assert "does not hold the weights of" in refused(copy)
