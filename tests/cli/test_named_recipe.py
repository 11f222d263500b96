"""`--recipe NAME` as it is typed: what becomes of it under a recipe file and flags, and what is said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from netsmith.arch.names import find_layout
from netsmith.cli.main import run
from netsmith.errors import InputError
from netsmith.fit.named import as_network_takes, for_task, recipe_layer, refuse_other_name, replaced
from netsmith.models.build import build
from netsmith.run.folder import RunFolder
from netsmith.run.named_recipes import RECIPES
from netsmith.run.recipe import Recipe

NAME = "paper/resnet-cifar"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "pictures.npz"
    images = np.random.default_rng(0).integers(0, 200, (60, 16, 16, 3), dtype=np.uint8)
    images[30:, :, :, 0] = 255
    np.savez(path, images=images, labels=np.array(["grey"] * 30 + ["red"] * 30))
    return path


def typed(pictures: Path, folder: Path, *more: str) -> int:
    command = ["train", str(pictures), "--model", "resnet20_cifar@0.25", "--threads", "1", "-o", str(folder)]
    return run([*command, *more])


def recipe_of(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "recipe.yaml").read_text())


def test_flags_stand_above_a_file_above_the_recipe_and_it_is_said(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("weight_decay: 0.001\npad: 2\n")
    flags = ["--recipe", NAME, "-c", str(tmp_path / "mine.yaml"), "--pad", "1", "--epochs", "1", "-b", "16"]
    assert typed(pictures, tmp_path / "run", *flags) == 0
    found = recipe_of(tmp_path / "run")
    kept = {key: value for key, value in RECIPES[NAME].fields.items() if key not in {"weight_decay", "pad", "epochs"}}
    kept |= {"step_milestones": [0.5, 0.75], "color_jitter": [0.0] * 4, "crop_ratio": [0.75, 4 / 3], "batch_size": 16}
    assert {key: found[key] for key in kept} == kept
    assert (found["weight_decay"], found["pad"], found["epochs"]) == (0.001, 1, 1.0)
    said = capsys.readouterr().err
    assert "163.84 epochs of paper/resnet-cifar are replaced by 1" in said
    assert "--lr 0.013" in said
    assert "was made for 24 to 64 pixels; these are 16" in said


@pytest.mark.parametrize("taught", ["teachers: [" + "a" * 64 + "]", "hints: [layer2]"])
def test_the_recipe_of_a_distillation_is_not_trained_without_its_teachers(
    taught: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(f"epochs: 1\n{taught}\n")
    for more in ([], ["--find-lr"]):
        assert typed(pictures, tmp_path / "run", "-c", str(tmp_path / "recipe.yaml"), "-b", "16", *more) == 2
        assert "nobody teaches here" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("side", "kept"), [(16, None), (24, (0.5, 0.75))])
def test_fast_lets_pictures_grow_where_the_network_can_be_trained_so(side: int, kept: object) -> None:
    network = build(find_layout("resnet20_cifar@0.25", num_classes=2, img_size=side), seed=0)
    fields: dict[str, Any] = {"model": "resnet20_cifar@0.25", "img_size": side, "epochs": 2.0, **RECIPES["fast"].fields}
    recipe = as_network_takes(Recipe(**fields), network, name="fast", given=[])
    assert recipe.progressive == kept
    told = " ".join(replaced("fast", recipe, given=[], pictures=100, task="classify"))
    assert ("resnet20_cifar@0.25 for 16 pixels takes no smaller ones" in told) == (kept is None)


def test_growing_pictures_that_are_asked_for_and_cannot_be_are_refused_before_anything_is_written(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(pictures, tmp_path / "run", "--recipe", "fast", "--epochs", "2", "--progressive", "0.5", "0.7") == 2
    assert "can be trained at no side from 8 to 15 pixels" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_another_optimizer_keeps_its_own_rates() -> None:
    where, fields = recipe_layer(NAME, [("the flags", {"opt": "adamw"})])
    assert where == f"--recipe {NAME}"
    assert fields.keys() == RECIPES[NAME].fields.keys() - {
        "opt",
        "lr",
        "momentum",
        "nesterov",
        "weight_decay",
        "grad_clip",
    }
    assert recipe_layer(NAME, [("the flags", {"opt": "sgd"})])[1] == RECIPES[NAME].fields
    values = {"model": "resnet20_cifar", "img_size": 32, "epochs": 9.0, "opt": "adamw", "train_size": None}
    said = replaced(NAME, Recipe(**values), given=[("the flags", {"opt": "adamw"})], pictures=50, task="classify")
    assert "recipe for sgd: rates, momentum and weight decay are the defaults of adamw" in said[-1]


@pytest.mark.parametrize("name", ["fast", "strikes-back-a3"])
def test_tags_have_their_own_targets_under_a_recipe_made_for_one_class(name: str) -> None:
    typed = ("the flags", {"smoothing": 0.2})
    [(_, kept), flags] = for_task([recipe_layer(name, []), typed], "tag")
    assert RECIPES[name].fields.items() >= kept.items()
    assert not kept.keys() & {"smoothing", "bce_loss", "bce_target_thresh"}
    assert flags == typed
    assert for_task([recipe_layer(name, [])], "classify") == [recipe_layer(name, [])]
    recipe = Recipe(model="resnet18", img_size=32, epochs=1.0)
    assert "is left out for tags" in " ".join(replaced(name, recipe, given=[], pictures=50, task="tag"))


def test_a_run_goes_on_by_the_name_it_was_begun_with(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", command=["train", "digits", "--recipe", NAME], resume=False) as begun:
        refuse_other_name(begun, NAME)
        refuse_other_name(begun, None)  # recipe.yaml says all of it
        with pytest.raises(InputError, match=f"was begun with --recipe {NAME}, not finetune"):
            refuse_other_name(begun, "finetune")


def test_an_unknown_recipe_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(tmp_path / "nothing.npz", tmp_path / "run", "--recipe", "paper/resnett", "--epochs", "1") == 2
    assert "did you mean 'paper/resnet'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_help_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in RECIPES)
