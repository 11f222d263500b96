"""One line per network with the largest difference to torchvision, timm or a plain ResNet: `make
check-reference`.

The same random weights and batch-norm statistics go into both, then random pictures: logits in evaluation, logits and
gradients in training, each as a share of the reference's largest number. Exit code 1 when one is above 1e-4, 0
otherwise. `python benchmarks/check_reference.py [PATTERN] [--size 64]` compares the networks whose names match.
"""

import argparse
import gc
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from reference_models import (
    PLAIN,
    SIDES,
    TIMM,
    TORCHVISION,
    Difference,
    difference,
    plain_difference,
    timm_model,
    torchvision_model,
)

from netsmith.arch.names import list_models

LIMIT = 1e-4


def main() -> int:
    """Compare, print, say whether all are within the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern of network names")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures, pixels")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    worst = 0.0
    print(f"{'network':<19} {'reference':<12} {'evaluation':>10} {'training':>10} {'gradient':>10}")
    for name in list_models(arguments.pattern):
        if name in PLAIN:
            share = plain_difference(name, size=32 if name.endswith("_cifar") else arguments.size)
            print(f"{name:<19} {'plain':<12} {share:>10.1e} {'':>10} {'':>10}")
            worst = max(worst, share)
            continue
        for source, names, make in (("torchvision", TORCHVISION, torchvision_model), ("timm", TIMM, timm_model)):
            if name not in names:
                continue
            found: Difference = difference(name, make(name), size=max(arguments.size, SIDES.get(name, 0)))
            print(f"{name:<19} {source:<12} {found.evaluation:>10.1e} {found.training:>10.1e} {found.gradient:>10.1e}")
            worst = max(worst, found.evaluation, found.training, found.gradient)
            gc.collect()  # two large networks with gradients at a time are enough
    print(f"largest {worst:.1e}, limit {LIMIT:.0e}: {'equal' if worst <= LIMIT else 'DIFFERENT'}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
