"""What a run starts from: which rows of a classifier stay, what is refused, and what a run that goes on is held to."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from netsmith.arch.names import find_layout
from netsmith.artifact.bundle import artifact_hash, load_bundle
from netsmith.data.items import Split, fingerprint
from netsmith.errors import InputError
from netsmith.export.network import export_network
from netsmith.fit.session import Session
from netsmith.fit.single import Opened, TrainJob, open_job
from netsmith.fit.starting import Continued, find_start
from netsmith.models.build import build, continue_model, load_model
from netsmith.models.extend import Growth, extend
from netsmith.run.files import write_json
from netsmith.run.folder import RunFolder
from netsmith.run.preprocess import Preprocess
from netsmith.run.progress import silent

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


def test_pictures_that_the_artifacts_run_knew_keep_their_splits(pictures: str, tmp_path: Path) -> None:
    """Or what was trained on would be validated on."""
    first = opened(pictures, model=NAME)
    items = first.dataset.items
    turned: dict[str, Split] = {"train": "val", "val": "test", "test": "train"}
    run = tmp_path / "run"
    export(run / "model", seed=1)
    rows = {
        item.key: {"label": item.label, "split": turned[str(item.split)], "group": item.group, "name": item.name}
        for item in items[4:]
    }
    names = first.dataset.classes
    mark = fingerprint((item.key, names[item.label], turned[str(item.split)]) for item in items[4:])
    record = {"format": 1, "source": "s", "fingerprint": mark, "classes": list(names), "seed": 0, "items": rows}
    write_json(run / "data.json", record)
    write_json(run / "run.json", {"format": 1, "command": ["train"]})
    again = opened(pictures, parent=run)
    splits = {item.key: item.split for item in again.dataset.items}
    assert {key: splits[key] for key in rows} == {key: row["split"] for key, row in rows.items()}
    assert len(splits) == len(items), "new pictures are welcome"


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
    with pytest.raises(InputError, match="give its folder with --from"):
        find_start([("the file", {"model": NAME, "parent": "0" * 64}), ("the flags", {})])
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
