"""Without the extra `train`, netsmith is enough to use an artifact: these verbs and parts need no torch."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import numpy as np
import pytest
from artifact_models import write_colours
from PIL import Image

from netsmith.cli.main import VERBS

ROOT = Path(__file__).resolve().parent.parent

# Makes what the extra `train` brings absent in a process and in all processes it starts.
BLOCKER = '''
import sys

ABSENT = {"torch", "torchvision", "timm", "sklearn", "scipy", "simplejpeg"}

class Without:
    """A finder of modules that does not know the absent ones."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
'''

# verb -> what to type in a folder that holds photos/, colours.npz, picture.png, weights.pt, artifact/ and begun/, a run
# that was stopped; every one exits with 0.
WITHOUT_TORCH: dict[str, list[str]] = {
    "audit": ["photos"],
    "bench": ["artifact", "--json"],
    "compress": ["--help"],
    "curves": ["begun"],
    "export": ["artifact", "-o", "exported", "--overwrite"],
    "models": [],
    "predict": ["artifact", "picture.png"],
    "profile": ["resnet20_cifar"],
    "quantize": ["--help"],
    "report": ["begun"],
    "scale": ["resnet20_cifar", "--macs", "2x", "-o", "scaled.json", "--overwrite"],
    "val": ["artifact", "--data", "colours.npz"],
    "verify": ["artifact"],
}

# Verbs that train or touch float weights: they say how to get torch, in one sentence.
NEEDS_TORCH: dict[str, list[str]] = {
    "distill": ["resnet20_cifar", "--teacher", "artifact", "--data", "photos", "--epochs", "1", "-o", "out"],
    "export": ["resnet20_cifar", "-o", "out"],
    "extend": ["artifact", "--width", "1.5", "-o", "out"],
    "fit": ["photos", "--time", "10s", "-o", "out"],
    "import-weights": ["weights.pt", "--model", "resnet20_cifar", "-o", "out"],
    "prune": ["artifact", "--macs", "0.5", "--data", "photos", "--epochs", "1", "-o", "out"],
    "train": ["photos", "--model", "resnet20_cifar", "--epochs", "1", "-o", "out"],
}

# What a library user does without torch.
PARTS = {
    "budget": "from netsmith.run.budget import Budget; Budget.parse('latency=5ms,size=4MB')",
    "names": "import netsmith; assert 'resnet18' in netsmith.list_models()",
    "costs": (
        "from netsmith.arch.cost import cost; from netsmith.arch.names import find_layout;"
        "assert cost(find_layout('resnet18')).params == 11_689_512"
    ),
    "compressing": "from netsmith.fit.compressing import compress_run",
    "quantizing": "from netsmith.fit.quantizing import QuantizeJob, quantize_run",
    "predictor": (
        "import netsmith; rows = netsmith.Predictor('artifact').predict('picture.png');"
        "assert rows[0].labels[0] == 'red', rows"
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ with two classes of ten, picture.png (red), artifact/ that tells colours, colours.npz, begun/."""
    folder = tmp_path_factory.mktemp("torch-free")
    rng = np.random.default_rng(0)
    for name in ("bright", "dark"):
        (folder / "photos" / name).mkdir(parents=True)
        for index in range(10):
            pixels = rng.integers(0, 128, (40, 48, 3)) + (128 if name == "bright" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / name / f"{index}.png")
    Image.new("RGB", (48, 40), (200, 40, 60)).save(folder / "picture.png")
    write_colours(folder / "artifact")
    shades = np.array([(200, 40, 60), (50, 190, 30), (20, 60, 210)])[np.arange(12) % 3, None, None]
    pixels = (shades + rng.integers(-20, 21, (12, 40, 48, 3))).astype(np.uint8)
    np.savez(folder / "colours.npz", images=pixels, labels=np.arange(12) % 3)
    (folder / "weights.pt").write_bytes(b"PK")
    (folder / "begun").mkdir()
    (folder / "begun" / "run.json").write_text('{"format": 1, "command": ["fit", "photos"]}')
    rows = [{"step": step, "progress": step / 4, "epoch": step / 2, "loss": 2.0 / step} for step in (1, 2, 3)]
    (folder / "begun" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which torch cannot be imported."""
    home = tmp_path_factory.mktemp("blocker")
    (home / "sitecustomize.py").write_text(textwrap.dedent(BLOCKER))
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(home), *filter(None, [os.environ.get("PYTHONPATH")])])}


def run(
    command: list[str], *, cwd: Path, env: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False)


def test_the_blocker_blocks(folder, blocked):
    for name in ("torch", "torch.nn", "sklearn"):
        done = run([sys.executable, "-c", f"import {name}"], cwd=folder, env=blocked)
        assert "ModuleNotFoundError: No module named" in done.stderr
    code = "import importlib.util, numpy, onnxruntime, PIL; assert importlib.util.find_spec('torch') is None"
    assert run([sys.executable, "-c", code], cwd=folder, env=blocked).returncode == 0


def test_every_verb_is_in_a_table():
    assert set(VERBS) <= set(WITHOUT_TORCH) | set(NEEDS_TORCH), "say whether the new verb needs torch"


@pytest.mark.parametrize("verb", sorted(set(WITHOUT_TORCH) & set(VERBS)))
def test_verb(verb, folder, blocked):
    done = run([sys.executable, "-m", "netsmith", verb, *WITHOUT_TORCH[verb]], cwd=folder, env=blocked)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("verb", sorted(set(NEEDS_TORCH) & set(VERBS)))
def test_a_verb_that_needs_torch_says_how_to_get_it(verb, folder, blocked):
    done = run([sys.executable, "-m", "netsmith", verb, *NEEDS_TORCH[verb]], cwd=folder, env=blocked)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "pip install 'netsmith[train]'" in done.stderr
    assert not (folder / "out").exists()


@pytest.mark.parametrize("part", PARTS)
def test_part(part, folder, blocked):
    done = run([sys.executable, "-c", PARTS[part]], cwd=folder, env=blocked)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_environment_with_the_base_dependencies_only(folder, tmp_path):
    """What `pip install netsmith` gives, for real."""
    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env" / "bin" / "python")
    copy = tmp_path / "copy"  # pip builds inside the folder that it installs
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    install = [python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(copy)]
    installed = run(install, cwd=tmp_path, timeout=1200)
    if "Could not find a version" in installed.stderr:
        pytest.skip("packages cannot be fetched here")
    assert installed.returncode == 0, installed.stderr
    assert run([python, "-c", "import torch"], cwd=folder).returncode == 1
    for part, code in PARTS.items():
        done = run([python, "-c", code], cwd=folder)
        assert done.returncode == 0, (part, done.stderr)
    for verb in sorted(set(WITHOUT_TORCH) & set(VERBS)):
        done = run([python, "-m", "netsmith", verb, *WITHOUT_TORCH[verb]], cwd=folder)
        assert done.returncode == 0, (verb, done.stderr)
    for verb in sorted(set(NEEDS_TORCH) & set(VERBS)):
        done = run([python, "-m", "netsmith", verb, *NEEDS_TORCH[verb]], cwd=folder)
        assert done.returncode == 2, (verb, done.stderr)
        assert "pip install 'netsmith[train]'" in done.stderr
