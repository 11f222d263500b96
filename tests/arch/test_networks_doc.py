"""docs/networks.md and docs/contracts.md say what the code does."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout
from netsmith.arch.names import MODELS, find_layout
from netsmith.arch.published import PUBLISHED
from netsmith.arch.scale import RULES
from netsmith.arch.spec import Spec

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_tables_of_networks_are_the_codes():
    text = (DOCS / "networks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| (\d+) \| ([\d,]+) \|(.*)\|$", text, re.MULTILINE)
    assert sorted(row[0] for row in rows) == sorted(MODELS)
    for name, params, side, macs, accuracy in rows:
        found, known = find_layout(name), PUBLISHED.get(name)
        assert (params, macs) == (f"{cost(found).params:,}", f"{cost(found).macs:,}")
        assert int(side) == found.resolution[0]
        shown = f"{known.dataset} {' / '.join(f'{top1:.2f}' for top1 in known.top1)}" if known else ""
        assert accuracy.strip() == shown


def test_the_table_of_rules_is_the_codes():
    text = (DOCS / "networks.md").read_text(encoding="utf-8")
    for name in ("compound", "fast"):
        row = re.search(rf"^\| `{name}` \| s\^([\d.]+) \| s\^([\d.]+) \| s\^([\d.]+) \|", text, re.MULTILINE)
        assert row is not None, name
        found = RULES[name]
        assert [float(each) for each in row.groups()] == [
            round(found.depth, 3), round(found.width, 3), round(found.resolution, 3),
        ]  # fmt: skip


def test_the_examples_run():
    text = (DOCS / "networks.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    for code in examples:
        exec(compile(code, "networks.md", "exec"), {})


def test_the_contract_shows_every_record_with_all_its_fields():
    text = (DOCS / "contracts.md").read_text(encoding="utf-8").split("### Spec and Layout as JSON")[1]
    of_layout, of_spec = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    for root, shown in ((Layout, of_layout), (Spec, of_spec)):
        lines = re.sub(r",\n +", ", ", shown).splitlines()
        for record in _records(root):
            kind = getattr(record, "kind", None) if "kind" not in {field.name for field in fields(record)} else None
            names = [f'"{field.name}"' for field in fields(record)]
            fitting = [line for line in lines if kind is None or f'"{kind}"' in line]
            assert any(all(name in line for name in names) for line in fitting), f"{record.__name__}: {names}"


def _records(root: type) -> list[type]:
    """The records that a record's fields hold, itself among them."""
    found: dict[type, None] = {}
    waiting: list[Any] = [root]
    while waiting:
        hint = waiting.pop()
        waiting += get_args(hint)
        if is_dataclass(hint) and hint not in found:
            found[cast(type, hint)] = None
            waiting += get_type_hints(hint).values()
    return list(found)
