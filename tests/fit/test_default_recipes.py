"""What `train` does unasked: rates that suit the network, whether it starts from published weights or from nothing."""

from typing import Any

import pytest
from pictures import class_files, write_files

from netsmith.data.audit import Audit, audit
from netsmith.data.sources import open_source
from netsmith.fit.composing import compose_recipe
from netsmith.fit.starting import find_start
from netsmith.run.recipe import Recipe


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    folder = write_files(tmp_path_factory.mktemp("pictures"), class_files({"cat": 4, "dog": 4}))
    return audit(open_source(folder))


def recipe_of(pictures: Audit, model: str, **flags: Any) -> Recipe:
    layers = [("recipe.yaml", {"epochs": 1.0}), ("the flags", flags)]
    return compose_recipe(pictures, find_start([("the flags", flags | {"model": model})]), layers=layers)


@pytest.mark.parametrize(
    ("model", "flags", "rate", "largest"),
    [
        ("resnet18", {}, 0.05, None),
        ("resnet18", {"opt": "adamw"}, 2e-3, None),
        ("squeezenet1_1", {}, 0.005, 1.0),
        ("alexnet_2012", {}, 0.005, 1.0),  # its local norms are none
        ("vgg11", {"opt": "adamw"}, 2e-4, 1.0),
        ("vgg11_bn", {}, 0.05, None),
        ("vgg11", {"lr": 0.02, "grad_clip": None}, 0.02, None),
        ("squeezenet1_1", {"pretrained": "v1"}, 0.003, None),
        ("squeezenet1_1", {"pretrained": "v1", "opt": "adamw"}, 3e-4, None),
        ("resnet18", {"pretrained": "v1"}, 0.003, None),
        ("resnet18", {"pretrained": "v1", "lr": 0.1}, 0.1, None),
    ],
)
def test_rates(pictures: Audit, model: str, flags: dict[str, Any], rate: float, largest: float | None) -> None:
    recipe = recipe_of(pictures, model, **flags)
    assert (recipe.lr, recipe.grad_clip) == (pytest.approx(rate), largest)
    assert recipe.img_size == (224 if flags.get("pretrained") else 16)
