"""Every command that the guides and the help show in a block can be typed: its verb, its flags and their values are
understood. What they do is for other tests to say."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from cyclopts import App

from netsmith.cli.main import EXAMPLES, VERBS, build

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "claims.md"),
]  # fmt: skip
TYPED = re.compile(r"(?:^|\| |-m )netsmith (.+)")
REMARK = re.compile(r"\s{2,}|\s#")
"""What parts a command from what is said about it on the same line."""


def commands(text: str) -> Iterator[list[str]]:
    """Verb and arguments of every command in some lines, without those that leave something out (...)."""
    for line in text.replace("\\\n", " ").splitlines():
        whole = re.sub(r"(?<=\S) {2,}(?=-)", " ", line.strip().removeprefix("$ "))  # a line that goes on begins so
        found = TYPED.search(REMARK.split(whole)[0])
        if found is not None and "..." not in found[1]:
            yield shlex.split(found[1])


def in_blocks(page: Path) -> list[list[str]]:
    """The commands of a page's blocks."""
    blocks = re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [command for block in blocks for command in commands(block)]


@cache
def application(verb: str) -> App:
    return build(verb)


def understood(command: list[str]) -> None:
    """Fail where a command would be refused for how it is typed."""
    assert command[0] in VERBS, command
    application(command[0]).parse_args(command, print_error=False, exit_on_error=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page(page: Path) -> None:
    for command in in_blocks(page):
        understood(command)


def test_the_pages_have_commands() -> None:
    assert sum(len(in_blocks(page)) for page in PAGES) > 80
    assert {command[0] for page in PAGES for command in in_blocks(page)} >= VERBS.keys() - {"report", "scale"}


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_the_examples_of_the_help(verb: str) -> None:
    examples = import_module(VERBS[verb].function.partition(":")[0]).EXAMPLES if verb else EXAMPLES
    found = list(commands(examples))
    assert found, verb
    for command in found:
        understood(command)
