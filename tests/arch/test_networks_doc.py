"""docs/networks.md and docs/contracts.md say what the code does."""

import re
from dataclasses import fields
from pathlib import Path

from netsmith.arch import blocks, layout, spec
from netsmith.arch.cost import cost
from netsmith.arch.names import MODELS, find_layout
from netsmith.arch.published import PUBLISHED

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_table_of_networks_is_the_codes():
    text = (DOCS / "networks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| (\d+) \| ([\d,]+) \|(.*)\|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == list(MODELS)
    for name, params, side, macs, accuracy in rows:
        found, known = find_layout(name), PUBLISHED.get(name)
        assert (params, macs) == (f"{cost(found).params:,}", f"{cost(found).macs:,}")
        assert int(side) == found.resolution[0]
        shown = f"{known.dataset} {' / '.join(f'{top1:.2f}' for top1 in known.top1)}" if known else ""
        assert accuracy.strip() == shown


def test_the_examples_run():
    text = (DOCS / "networks.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    for code in examples:
        exec(compile(code, "networks.md", "exec"), {})


def test_the_contract_shows_every_record_with_all_its_fields():
    text = (DOCS / "contracts.md").read_text(encoding="utf-8").split("### Spec and Layout as JSON")[1]
    of_layout, of_spec = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    for module, shown in ((layout, of_layout), (blocks, of_layout), (spec, of_spec)):
        records = {name: record for name, record in vars(module).items() if hasattr(record, "__dataclass_fields__")}
        for record in (record for record in records.values() if record.__module__ == module.__name__):
            kind = getattr(record, "kind", None)
            names = [f'"{field.name}"' for field in fields(record)]
            lines = [line for line in re.sub(r",\n +", ", ", shown).splitlines() if kind is None or f'"{kind}"' in line]
            assert any(all(name in line for name in names) for line in lines), f"{record.__name__}: {names}"
