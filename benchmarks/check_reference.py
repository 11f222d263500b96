"""One line per network with the largest difference to torchvision, timm or a plain version: `make check-reference`.

The same random weights and batch-norm statistics go into both, then random pictures: logits in evaluation, logits
(those of classifiers for training too) and gradients in training, each as a share of the reference's largest number.
Networks that no library has are compared in evaluation with a plain version written from the paper's text. Exit code 1
when a share is above 1e-4, 0 otherwise.

`python benchmarks/check_reference.py [PATTERN] [--write]` compares the networks whose names match; with --write their
rows in docs/networks.md are replaced, the others stay.
"""

import argparse
import fnmatch
import gc
import re
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from reference_models import (
    REFERENCES,
    Difference,
    difference,
    plain_difference,
    timm_model,
    torchvision_model,
)

LIMIT = 1e-4
ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "networks.md"
HEAD = "| network | reference | evaluation | training | gradient |\n|---|---|---:|---:|---:|\n"
ROW = re.compile(r"^\| `(\w+)` \| (torchvision|timm|plain) \|.*\n", re.MULTILINE)


def main() -> int:
    """Compare, print, say whether all are within the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern of network names")
    parser.add_argument("--write", action="store_true", help=f"put the rows into {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    worst = 0.0
    print(f"{'network':<23} {'reference':<12} {'evaluation':>10} {'training':>10} {'gradient':>10}")
    for name, source in REFERENCES:
        if not fnmatch.fnmatchcase(name, arguments.pattern):
            continue
        shares = compared(name, source)
        print(f"{name:<23} {source:<12} {' '.join(f'{shown(share):>10}' for share in shares)}", flush=True)
        if arguments.write:
            write_row(name, source, shares)
        worst = max(worst, *shares)
        gc.collect()  # two large networks with gradients at a time are enough
    print(f"largest {shown(worst)}, limit {LIMIT:.0e}: {'equal' if worst <= LIMIT else 'DIFFERENT'}")
    return int(worst > LIMIT)


def compared(name: str, source: str) -> tuple[float, ...]:
    """Shares in evaluation, in training, of gradients; of a plain version in evaluation only."""
    if source == "plain":
        return (plain_difference(name),)
    torch.manual_seed(0)  # of the reference's own weights
    found: Difference = difference(name, (torchvision_model if source == "torchvision" else timm_model)(name))
    return found.evaluation, found.training, found.gradient


def shown(share: float) -> str:
    """A share with two digits."""
    return f"{share:.1e}" if share else "0"


def write_row(name: str, source: str, shares: tuple[float, ...]) -> None:
    """Put one row into the table of the page, in the order of the networks."""
    text = PAGE.read_text(encoding="utf-8")
    rows = {(match[1], match[2]): match[0] for match in ROW.finditer(text)}
    cells = (*map(shown, shares), *[""] * (3 - len(shares)))
    rows[name, source] = f"| `{name}` | {source} | {' | '.join(cells)} |\n"
    before, _, after = text.partition(HEAD)
    table = "".join(rows[key] for key in REFERENCES if key in rows)
    PAGE.write_text(before + HEAD + table + ROW.sub("", after), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
