"""Imports go downwards only, torch stays where it belongs, one module reads time."""

import ast
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent / "src" / "netsmith"

# Top to bottom; packages on one line never import each other.
LAYERS = (
    ("cli",),
    ("fit",),
    ("search", "compress", "explain", "serve", "report"),
    ("train",),
    ("export",),
    ("models",),
    ("nn",),
    ("artifact",),
    ("data",),
    ("run",),
    ("arch",),
)
LEVEL = {package: level for level, line in enumerate(LAYERS) for package in line}
BUILT_ON_TORCH = {"nn", "models", "train", "explain", "export"}
TYPED_BY_TORCH = {"fit", "search", "compress"}  # they hand networks on, so a type checker sees torch in them
MODULES = sorted(SRC.rglob("*.py"))


@dataclass(frozen=True)
class Import:
    """One imported name: `module` in full, `name` taken from it, whether importing the file or only a type checker
    executes it."""

    module: str
    name: str
    line: int
    at_import: bool
    typing: bool = False

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    @property
    def package(self) -> str:
        """The part of netsmith it belongs to; "" for the root."""
        return [*self.module.split("."), ""][1]


def imports(path: Path) -> list[Import]:
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    found: list[Import] = []

    def visit(node: ast.AST, at_import: bool, typing: bool = False) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, "", node.lineno, at_import, typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parts[: -node.level] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = module == "netsmith" and alias.name in LEVEL  # from netsmith import data
                full = f"netsmith.{alias.name}" if inner else module
                found.append(Import(full, alias.name, node.lineno, at_import, typing))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, False, True)
            for child in node.orelse:
                visit(child, at_import)
            return
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, at_import and not inside, typing)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def owner(path: Path) -> str:
    """The package a file belongs to, or the name of a module at the root."""
    return path.relative_to(SRC).with_suffix("").parts[0]


def named(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


every_module = pytest.mark.parametrize("path", MODULES, ids=named)


def test_every_package_has_its_layer():
    packages = {path.name for path in SRC.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert packages <= set(LEVEL)
    assert {owner(path) for path in MODULES} - packages == {"__init__", "__main__", "errors"}


@every_module
def test_imports_go_downwards(path):
    own = owner(path)
    for item in imports(path):
        if item.top != "netsmith" or own in {"__init__", "__main__"}:
            continue
        where = f"{named(path)}:{item.line} imports {item.module}"
        if item.module == "netsmith":
            assert item.name in {"", "__version__", "errors"}, f"{where}.{item.name}: name the module it lives in"
            continue
        if item.package == "errors" or item.package == own:
            continue
        assert own != "errors", f"{where}: errors is below everything"
        assert LEVEL[item.package] > LEVEL[own], f"{where}: not below {own}"


@every_module
def test_of_the_root_only_the_version_is_used_inside(path):
    """`import netsmith` alone would reach every layer through its lazy names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "netsmith":
            assert node.attr == "__version__", f"{named(path)}:{node.lineno} uses netsmith.{node.attr}"


@every_module
def test_torch_only_where_it_belongs(path):
    own = owner(path)
    if own in BUILT_ON_TORCH:
        return
    for item in imports(path):
        where = f"{named(path)}:{item.line} imports {item.module}"
        if own in TYPED_BY_TORCH and item.typing:
            continue
        assert item.top not in {"torch", "torchvision", "timm"}, f"{where}: go through train, models or export"
        if item.at_import and item.top == "netsmith":
            assert item.package not in BUILT_ON_TORCH, f"{where} when loaded: import it inside the function"
        if item.top in {"onnxruntime", "openvino"}:
            assert own == "artifact", f"{where}: runtimes belong to artifact"
            assert not item.at_import, f"{where} when loaded: import it inside the function"


def declared() -> dict[str, set[str]]:
    """Import names of the declared dependencies: "base", and each extra by its name."""
    spelled = {"pillow": "PIL", "pyyaml": "yaml", "scikit_learn": "sklearn", "protobuf": "google"}
    project = tomllib.loads((SRC.parent.parent / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        plain = [re.split(r"[^A-Za-z0-9_-]", text)[0].replace("-", "_") for text in requirements]
        return {spelled.get(name, name) for name in plain}

    extras = {extra: names(rows) for extra, rows in project["optional-dependencies"].items()}
    return {"base": names(project["dependencies"]), **extras}


@every_module
def test_what_is_imported_is_declared(path):
    """The references (torchvision, timm) are in no extra, so nothing in src can import them."""
    extras = declared()
    base = extras.pop("base")
    optional = set[str]().union(*(names for extra, names in extras.items() if extra not in {"dev", "all"}))
    for item in imports(path):
        if item.top in sys.stdlib_module_names or item.top == "netsmith":
            continue
        where = f"{named(path)}:{item.line} imports {item.module}"
        assert item.top in base | optional, f"{where}, which pyproject.toml does not declare"
        if item.at_import and owner(path) not in BUILT_ON_TORCH:
            assert item.top in base, f"{where} when loaded, which only an extra brings"


@every_module
def test_the_lowest_layers_need_little(path):
    own = owner(path)
    allowed = {"arch": set[str](), "errors": set[str](), "run": {"pydantic", "yaml", "numpy"}}.get(own)
    if allowed is None:
        return
    for item in imports(path):
        known = item.top in sys.stdlib_module_names or item.top == "netsmith" or item.top in allowed
        assert known, f"{named(path)}:{item.line} imports {item.module}"
        assert not (item.top == "numpy" and item.at_import), f"{named(path)}:{item.line}: import numpy in the function"


@every_module
def test_only_the_clock_reads_time(path):
    if named(path) == "run/clock.py":
        return
    for item in imports(path):
        assert item.top not in {"time", "timeit", "datetime"}, f"{named(path)}:{item.line}: take a Clock"


@every_module
def test_no_relative_imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


SAMPLE = """
import torch
from typing import TYPE_CHECKING
from netsmith import data, __version__
from ..run import budget
if TYPE_CHECKING:
    import numpy
def f():
    import time
class C:
    import yaml
"""


def test_the_reader_of_imports_sees_all_of_them(tmp_path, monkeypatch):
    (tmp_path / "netsmith" / "fit").mkdir(parents=True)
    path = tmp_path / "netsmith" / "fit" / "sample.py"
    path.write_text(SAMPLE)
    monkeypatch.setattr(sys.modules[__name__], "SRC", tmp_path / "netsmith")
    assert [(item.module, item.at_import) for item in imports(path)] == [
        ("torch", True),
        ("typing", True),
        ("netsmith.data", True),
        ("netsmith", True),
        ("netsmith.run", True),
        ("numpy", False),
        ("time", False),
        ("yaml", True),
    ]
