import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from netsmith.errors import InputError
from netsmith.run.recipe import Recipe

SMALL = "model: resnet18\nimg_size: 32\nepochs: 3\n"


def load(tmp_path: Path, text: str) -> Recipe:
    (tmp_path / "recipe.yaml").write_text(text)
    return Recipe.load(tmp_path / "recipe.yaml")


@given(
    time_s=st.floats(1e-3, 1e9),
    lr=st.floats(1e-300, 1e300),
    milestones=st.lists(st.floats(0, 1), max_size=4, unique=True),
    crop=st.none() | st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1.0)),
    channels_last=st.sampled_from(["auto", True, False]),
    seed=st.integers(0, 2**63 - 1),
)
def test_yaml_round_trip_is_exact(tmp_path_factory, time_s, lr, milestones, crop, channels_last, seed):
    recipe = Recipe(
        model="resnet18",
        img_size=64,
        time_s=time_s,
        lr=lr,
        step_milestones=tuple(sorted(milestones)),
        crop_scale=crop,
        channels_last=channels_last,
        seed=seed,
    )
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    recipe.save(path)
    assert Recipe.load(path) == recipe
    assert set(yaml.safe_load(path.read_text())) == set(Recipe.model_fields), "every field is stated"


def test_numbers_as_people_write_them(tmp_path):
    recipe = load(tmp_path, SMALL + "weight_decay: 1e-4\nlr: 1\ncrop_scale: [0.5, 1]\n")
    assert (recipe.weight_decay, recipe.lr, recipe.crop_scale) == (1e-4, 1.0, (0.5, 1.0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SMALL + "smooting: 0.1\n", "unknown key 'smooting'; did you mean 'smoothing'?"),
        (SMALL.replace("32", "'32'"), "img_size is '32'"),
        (SMALL + "lr: -1\n", "lr is -1"),
        (SMALL + "lr: .nan\n", "lr is nan"),
        (SMALL + "flip: 1\n", "flip is 1"),
        (SMALL + "opt: adam\n", "opt is 'adam'"),
        (SMALL + "crop_scale: [0.5, 0.2]\n", "crop_scale must be"),
        (SMALL + "step_milestones: [0.7, 0.5]\n", "step_milestones must ascend"),
        (SMALL + "time_s: 60\n", "exactly one of epochs and time_s"),
        (SMALL.replace("epochs: 3\n", ""), "exactly one of epochs and time_s"),
        ("img_size: 32\nepochs: 1\n", "model"),
        (SMALL + "model: vgg11\n", "line 1 is not YAML: the key 'model' is given twice"),
        (SMALL + "lr: [\n", "is not YAML"),
        (SMALL + "lr: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        ("- 1\n", "must hold `key: value` lines"),
        ("", "must hold `key: value` lines"),
        ("1: 2\n", "must hold `key: value` lines"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_the_key(tmp_path, text, said):
    with pytest.raises(InputError) as error:
        load(tmp_path, text)
    assert str(tmp_path / "recipe.yaml") in str(error.value)
    assert said in str(error.value)


def test_fields_of_an_incomplete_recipe_are_checked_each_by_itself():
    Recipe.check_fields({"lr": 0.1, "crop_scale": [0.5, 1], "epochs": None, "train_size": None}, where="here")
    for fields, said in (
        ({"opt": ["sgd"]}, r"here: opt is \['sgd'\]; "),
        ({"model": 5}, "here: model is 5; "),
        ({"lrr": 0.1}, "here has the unknown key 'lrr'"),
    ):
        with pytest.raises(InputError, match=said):
            Recipe.check_fields(fields, where="here")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="there is no recipe"):
        Recipe.load(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        Recipe.load(tmp_path)


def test_frozen():
    recipe = Recipe(model="resnet18", img_size=32, epochs=1)
    with pytest.raises(ValidationError):
        recipe.lr = 1.0
    assert json.loads(recipe.model_dump_json())["crop_scale"] == [0.35, 1.0]


def test_aliases_are_refused(tmp_path):
    """Ten lines of them are a value of a billion parts, which a message about it would write out."""
    levels = "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10))
    with pytest.raises(InputError, match=r"recipe\.yaml, line 2 is not YAML: aliases .* write the value out"):
        load(tmp_path, f"a0: &a0 [x]\n{levels}model: *a9\n")


@pytest.mark.parametrize("value", ["2024-13-01", "!!bool maybe", "!!int many", "!!timestamp soon", "9" * 5000])
def test_values_that_are_not_what_they_say(tmp_path, value):
    with pytest.raises(InputError, match=r"recipe\.yaml holds a value that is not what it says"):
        load(tmp_path, f"model: {value}\n")
