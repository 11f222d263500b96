"""The rules of the house that a machine can check: sizes, names, the public surface, what costs nothing to import."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import netsmith

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "netsmith"
MODULES = sorted(SRC.rglob("*.py"))
HEAVY = ("torch", "onnxruntime", "onnx", "numpy", "matplotlib", "PIL", "pydantic", "sklearn")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SRC).as_posix())
def test_a_module_is_short_and_says_what_it_is(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 450, "split it"
    assert text.startswith('"""'), "begin with what the module is"
    if path.name == "__init__.py" and path.parent != SRC:
        assert text.rstrip().count('"""') == 2, "packages hold nothing but a docstring"
        assert text.rstrip().endswith('"""')


def test_a_thing_lives_where_its_noun_lives():
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [path for path in [*SRC.rglob("*"), *(ROOT / "tests").rglob("*")] if path.stem in vague]


def test_test_files_have_unique_names():
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert len(set(names)) == len(names)


def test_public_names():
    assert netsmith.__all__ == ["Predictor", "create_model", "list_models", "load_model"]
    assert set(netsmith.__all__) <= set(dir(netsmith))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = netsmith.nothing


@pytest.mark.parametrize("name", netsmith.__all__)
def test_every_public_name_is_documented_and_its_own(name):
    value = getattr(netsmith, name)
    assert value.__name__ == name
    assert value.__doc__


def loaded_by(code: str) -> list[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = run("-c", script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_netsmith_imports_nothing_heavy():
    assert loaded_by("import netsmith; dir(netsmith)") == []


@pytest.mark.parametrize("arguments", [["--help"], [], ["--version"]], ids=["help", "nothing", "version"])
def test_help_imports_nothing_heavy(arguments):
    assert loaded_by(f"from netsmith.cli.main import run; assert run({arguments!r}) == 0") == []


def test_help_of_a_verb_imports_neither_torch_nor_a_runtime():
    from netsmith.cli.main import VERBS

    for verb in VERBS:
        loaded = loaded_by(f"from netsmith.cli.main import run; assert run([{verb!r}, '--help']) == 0")
        assert not {"torch", "onnxruntime", "onnx", "numpy", "matplotlib", "sklearn"} & set(loaded), verb


def test_help_is_quick():
    """Processor time, because other tests may be running beside this one; the best of five."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    costs: list[float] = []
    for _ in range(5):
        before = spent()
        assert run("-m", "netsmith", "--help").returncode == 0
        costs.append(spent() - before)
    assert min(costs) < 0.3


def test_every_pin_is_exact():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert name, line
            assert version, line
            assert "+" not in version, f"{line}: builds differ between machines"


def test_ci_runs_the_test_command_of_the_readme():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()
