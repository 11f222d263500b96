"""What train's flags for pictures and classes become: fields of the recipe, and words about unequal classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from netsmith.cli.main import run

FLAGS = {
    "--rotate 15": {"rotate": 15.0},
    "--auto-augment randaugment --ra-ops 1 --ra-magnitude 5": {
        "auto_augment": "randaugment",
        "ra_ops": 1,
        "ra_magnitude": 5,
    },
    "--ra-std 1.5 --ra-prob 0.5": {"ra_std": 1.5, "ra_prob": 0.5},
    "--opt lamb --weight-decay-on all --layer-decay 0.7 --head-first 0.5": {
        "opt": "lamb",
        "weight_decay_on": "all",
        "layer_decay": 0.7,
        "head_first": 0.5,
        "grad_clip": 1.0,
    },
    "--sched step --decay-every 0.1": {"sched": "step", "step_every": 0.1},
    "--bce-loss --bce-target-thresh 0.2": {"bce_loss": True, "bce_target_thresh": 0.2},
    "--color-jitter 0.4 0.3 0.2 0.1": {"color_jitter": [0.4, 0.3, 0.2, 0.1]},
    "--random-erase 0.2": {"random_erase": 0.2},
    "--mixup 0.2 --cutmix 1": {"mixup": 0.2, "cutmix": 1.0},
}


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 pictures of one class and 6 of another."""
    path = tmp_path_factory.mktemp("unequal") / "pictures.npz"
    images = np.random.default_rng(0).integers(0, 200, (78, 16, 16, 3), dtype=np.uint8)
    images[72:, :, :, 0] = 255
    np.savez(path, images=images, labels=np.array(["grey"] * 72 + ["red"] * 6))
    return path


def trained(data: Path, folder: Path, flags: str) -> int:
    typed = ["train", str(data), "--model", "resnet20_cifar@0.25", "--epochs", "1", "--threads", "1", "-b", "16"]
    return run([*typed, *flags.split(), "-o", str(folder)])


def test_every_flag_reaches_the_recipe_and_unequal_classes_are_named(
    unequal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained(unequal, tmp_path / "run", " ".join(FLAGS)) == 0
    said = capsys.readouterr()
    assert "--class-balance sampling" in said.out + said.err
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    for expected in FLAGS.values():
        assert {key: recipe[key] for key in expected} == expected
    assert recipe["class_balance"] == "none"
    assert "top1" in json.loads((tmp_path / "run" / "results.json").read_text())["final"]


@pytest.mark.slow
def test_balanced_classes_are_not_spoken_of(unequal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained(unequal, tmp_path / "run", "--class-balance sampling") == 0
    said = capsys.readouterr()
    assert "--class-balance" not in said.out + said.err
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["class_balance"] == "sampling"
