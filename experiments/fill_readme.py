"""Copy the tables of `results` into README.md, so that it shows what was measured and nothing else.

    python experiments/fill_readme.py

A table stands between `<!-- results/NAME-small/table.md -->` and `<!-- end -->`. Where there is no such file the block
says "not run yet".
"""

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
BLOCK = re.compile(r"(<!-- (results/\S+\.md) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, folder: Path) -> str:
    """The text with every block holding its table in `folder`."""

    def block(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        path = folder / name
        return begin + (f"\n{path.read_text()}\n" if path.exists() else "\nnot run yet\n\n") + end

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    readme = HERE / "README.md"
    readme.write_text(filled(readme.read_text(), HERE))
