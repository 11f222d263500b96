"""The commands of docs/claims.md can be typed: what they name is there, and `-k` leaves a test of every file it is
given."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from netsmith import list_models

ROOT = Path(__file__).resolve().parent.parent
CLAIMS = ROOT / "docs" / "claims.md"
MARKERS = {"slow", "reference", "gpu", "", "slow or not slow"}


def commands() -> Iterator[tuple[int, str]]:
    """Line of the page and command, of all that stand in the second column."""
    for number, line in enumerate(CLAIMS.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("| ") and len(cells := line.split(" | ")) == 4:
            yield from ((number, command) for command in re.findall(r"`([^`]+)`", cells[1]))


def typed(program: str) -> list[tuple[int, str]]:
    found = [(number, command) for number, command in commands() if command.split()[0] == program]
    assert found, f"{CLAIMS} names no {program}"
    return found


@cache
def names(path: Path) -> str:
    """What `-k` looks at in a file or folder of tests, as far as the text says: names of files and tests, what stands
    in quotes at `parametrize`, and networks, by which many are named."""
    found = list_models()
    for file in [path] if path.is_file() else sorted(path.rglob("test_*.py")):
        found.append(file.name)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.append(node.name)
                found += [
                    each.value
                    for decorator in node.decorator_list
                    for each in ast.walk(decorator)
                    if isinstance(each, ast.Constant) and isinstance(each.value, str)
                ]
    return "\n".join(found).lower()


def options(command: str) -> tuple[list[str], dict[str, str]]:
    """Paths and options of a pytest command."""
    words, paths, given = iter(shlex.split(command)[1:]), list[str](), dict[str, str]()
    for word in words:
        if word in ("-k", "-m"):
            given[word] = next(words)
        elif not word.startswith("-"):
            paths.append(word)
    return paths, given


@pytest.mark.parametrize(("line", "command"), typed("pytest"))
def test_tests_that_claims_name_are_there(line: int, command: str) -> None:
    paths, given = options(command)
    assert given.get("-m", "slow") in MARKERS
    for path in paths:
        assert (ROOT / path).exists(), f"line {line}: there is no {path}"
    if "-k" not in given:
        return
    wanted = [word for word in re.findall(r"\w+", given["-k"].lower()) if word not in ("and", "or", "not")]
    there = {path: names(ROOT / path) for path in paths}
    for word in wanted:
        assert any(word in found for found in there.values()), f"line {line}: no test has {word!r} in its name"
    for path, found in there.items():
        assert any(word in found for word in wanted), f"line {line}: -k leaves no test of {path}"


@pytest.mark.parametrize(("line", "command"), typed("python"))
def test_scripts_that_claims_name_are_there(line: int, command: str) -> None:
    assert (ROOT / command.split()[1]).exists(), f"line {line}: {command}"


@pytest.mark.parametrize(("line", "command"), typed("make"))
def test_targets_that_claims_name_are_there(line: int, command: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert command.split()[1] in targets, f"line {line}: {command}"


def test_every_row_names_its_own_command() -> None:
    """What stands above it is another row's as soon as one comes between."""
    assert "| the same |" not in CLAIMS.read_text(encoding="utf-8")
