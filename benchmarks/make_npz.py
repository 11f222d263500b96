"""Turn the packed CIFAR-10 and Fashion-MNIST of the test data into `.npz` files that netsmith reads.

    python benchmarks/make_npz.py -o DIR [--data ../shared/data] [cifar10] [fashion-mnist]

writes `DIR/cifar10.npz` (images uint8 [60000,32,32,3]) and `DIR/fashion-mnist.npz` (images uint8 [70000,28,28]), each
with `labels` int64, `classes` and `split` ("train" or "test", as published), pictures in the published order. Every
input file is compared with its SHA-256 sum in the data's README first, and the CIFAR-10 batches' pixels with theirs.
"""

import argparse
import csv
import gzip
import hashlib
import io
import lzma
import re
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from netsmith.errors import InputError
from netsmith.run.files import replacing

ROOT = Path(__file__).resolve().parent.parent
CIFAR_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


class Sums:
    """Reads files of the data folder and compares them with the sums in its README."""

    def __init__(self, data: Path) -> None:
        self.data = data
        try:
            self.readme = (data / "README.md").read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{data}/README.md cannot be read ({error.strerror}); name the data folder with --data"
            ) from None
        self.files = dict(re.findall(r"^\| `([^`]+)` \| \d+ \| `([0-9a-f]{64})` \|$", self.readme, re.MULTILINE))

    def read(self, name: str) -> bytes:
        """Content of a file. Raises InputError when it is not the file that the README describes."""
        try:
            content = (self.data / name).read_bytes()
        except OSError as error:
            raise InputError(f"{self.data / name} cannot be read ({error.strerror}); fetch it again") from None
        if hashlib.sha256(content).hexdigest() != self.files.get(name):
            raise InputError(f"{self.data / name} does not have the SHA-256 sum of the README; fetch it again")
        return content

    def check_pixels(self, batch: str, images: NDArray[np.uint8]) -> None:
        """Compare a CIFAR-10 batch [N,H,W,C] with the sum of its pixels in N,C,H,W order."""
        digest = hashlib.sha256(images.transpose(0, 3, 1, 2).tobytes()).hexdigest()
        if not re.search(rf"\b{batch.removeprefix('data_batch_').removesuffix('_batch')} `{digest}`", self.readme):
            raise InputError(
                f"the pixels of {batch} do not have the SHA-256 sum of the README; update Pillow or libwebp"
            )


def cifar10(sums: Sums) -> dict[str, NDArray[np.generic]]:
    """Arrays of CIFAR-10: five training batches, then the test batch."""
    table = gzip.decompress(sums.read("cifar10/labels.csv.gz")).decode()
    labels: dict[str, list[int]] = {batch: [] for batch in CIFAR_BATCHES}
    for number, row in enumerate(csv.DictReader(io.StringIO(table))):
        assert int(row["index"]) == number % 10_000, f"labels.csv.gz is not in order at row {number}"
        labels[row["batch"]].append(int(row["label"]))
    images: list[NDArray[np.uint8]] = []
    for batch in CIFAR_BATCHES:
        with Image.open(io.BytesIO(sums.read(f"cifar10/{batch}.webp"))) as sheet:
            grid = np.asarray(sheet.convert("RGB"))
        images.append(grid.reshape(100, 32, 100, 32, 3).swapaxes(1, 2).reshape(10_000, 32, 32, 3))
        sums.check_pixels(batch, images[-1])
    return {
        "images": np.concatenate(images),
        "labels": np.array([label for batch in CIFAR_BATCHES for label in labels[batch]], np.int64),
        "split": np.array(["train"] * 50_000 + ["test"] * 10_000),
        "classes": np.array(sums.read("cifar10/classes.txt").decode().split()),
    }


def fashion_mnist(sums: Sums) -> dict[str, NDArray[np.generic]]:
    """Arrays of Fashion-MNIST: train, then test."""
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.uint8]] = []
    for part in ("train", "t10k"):
        packed = lzma.decompress(sums.read(f"fashion-mnist/{part}-images-idx3-ubyte.xz"))
        images.append(np.frombuffer(packed, np.uint8, offset=16).reshape(-1, 28, 28))
        packed = gzip.decompress(sums.read(f"fashion-mnist/{part}-labels-idx1-ubyte.gz"))
        labels.append(np.frombuffer(packed, np.uint8, offset=8))
    return {
        "images": np.concatenate(images),
        "labels": np.concatenate(labels).astype(np.int64),
        "split": np.array(["train"] * len(labels[0]) + ["test"] * len(labels[1])),
        "classes": np.array(FASHION_CLASSES),
    }


SETS = {"cifar10": cifar10, "fashion-mnist": fashion_mnist}


def main() -> int:
    """Write the sets that were asked for; 2 when an input is not what it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"any of {', '.join(SETS)}; default all")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the .npz files")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the data folder")
    arguments = parser.parse_args()
    if unknown := set(arguments.sets) - set(SETS):
        parser.error(f"no such set: {', '.join(sorted(unknown))} (there are {', '.join(SETS)})")
    try:
        sums = Sums(arguments.data)
        for name in arguments.sets or SETS:
            arrays = SETS[name](sums)
            path = arguments.output / f"{name}.npz"
            with replacing(path) as temporary, open(temporary, "wb") as handle:
                np.savez(handle, allow_pickle=False, **arrays)
            print(f"{path}: images {list(arrays['images'].shape)}, {len(arrays['classes'])} classes")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
