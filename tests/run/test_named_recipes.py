"""Recipes by name: each is a part of a recipe, and nothing in it changes."""

import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import yaml

from netsmith.errors import InputError
from netsmith.run.named_recipes import RECIPES, find_recipe, list_in_words
from netsmith.run.recipe import Recipe

PAPERS = [name for name in RECIPES if name.startswith(("paper/", "strikes"))]
OF_THE_RUN = {"model", "pretrained", "img_size", "time_s", "seed", "device", "dtype", "channels_last", "threads"}
OF_THE_RUN |= {"workers", "class_balance", "grad_accum", "on_nan", "compile", "sync_bn", "sharded"}
OF_THE_RUN |= {"parent", "teachers"}
OF_TEACHERS = {"distill_loss", "temperature", "alpha", "beta", "label_weight", "hints", "hint_weight"}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_one(name: str) -> None:
    fields = dict(RECIPES[name].fields)
    recipe = Recipe.from_mapping(
        {"model": "resnet18", "img_size": 224, "epochs": 1.0, **fields, **_tag(fields)}, where=name
    )
    assert {key: getattr(recipe, key) for key in fields} == fields | _tag(fields)


def _tag(fields: dict[str, object]) -> dict[str, object]:
    return {"pretrained": "v1"} if fields.get("pretrained") else {}


@pytest.mark.parametrize("name", PAPERS)
def test_papers_leave_nothing_that_changes_weights_to_defaults(name: str) -> None:
    fields = dict(RECIPES[name].fields)
    used = set(Recipe.model_fields) - OF_THE_RUN - OF_TEACHERS
    if fields["sched"] == "step":
        used -= {"final_lr_ratio", "step_milestones" if fields["step_every"] else "step_every"}
    else:
        used -= {"step_milestones", "step_every", "step_gamma"}
    used -= {"nesterov"} if fields["opt"] != "sgd" else set()
    used -= {"ra_ops", "ra_magnitude", "ra_std", "ra_prob"} if fields["auto_augment"] == "none" else set()
    used -= {"train_size"} if RECIPES[name].train_share else set()
    assert used <= fields.keys()


def test_recipes_do_not_change() -> None:
    recipe = find_recipe("paper/resnet")
    with pytest.raises(FrozenInstanceError):
        recipe.summary = "another"  # pyright: ignore
    with pytest.raises(TypeError):
        recipe.fields["lr"] = 1.0  # pyright: ignore
    with pytest.raises(TypeError):
        RECIPES["paper/resnet"] = recipe  # pyright: ignore


def test_an_unknown_name_gives_near_ones() -> None:
    with pytest.raises(InputError, match="did you mean 'paper/resnet'"):
        find_recipe("papers/resnet")
    assert all(name in list_in_words() for name in RECIPES)


OFF = {"layer_decay": 1.0, "crop_ratio": (3 / 4, 4 / 3), "ra_std": 0.0, "ra_prob": 1.0, "step_every": None}


@pytest.mark.parametrize("name", RECIPES)
def test_the_page_of_recipes_says_what_the_table_says(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    found = re.search(rf"^## {re.escape(name)}\n.*?```yaml\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/recipes.md has no section {name} with its fields"
    shown = {key: tuple(value) if isinstance(value, list) else value for key, value in yaml.safe_load(found[1]).items()}
    fields = RECIPES[name].fields
    assert {key: fields.get(key) for key in shown} == shown
    left_out = {key: value for key, value in fields.items() if key not in shown}
    assert all(
        value in (None, 0.0, False, "none", (0.0,) * 4) or value == OFF.get(key) for key, value in left_out.items()
    )
