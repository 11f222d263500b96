"""How fast training pictures are decoded, what it does to their pixels, and what that does to accuracy:
`python benchmarks/decode.py --data DIR [--train -o RUNS]`.

Speed and pixels: masters (see `netsmith.data.shrink`) of photos, one thread, four ways: `exact` (Pillow decodes all,
Pillow resizes: what evaluation does), `pillow` (its scaled decoding, `draft`), `simplejpeg full` and `simplejpeg`
(scaled by a power of two: what training does where it is installed). Milliseconds a picture are the least of several
passes of processor time, so another process costs little; PSNR is against `exact`. `camera` are the flowers enlarged
five times, for the size of photos as cameras make them.

Accuracy: trainings that differ in nothing but whether masters are decoded exactly or fast, several seeds each, on
imagenette224 at 96 pixels, where every photo is decoded at half its size. Runs alternate and are not repeated when they
are there already; one by another command (other `--epochs` or `--threads`) is refused. Nothing else may run on the
machine if the times are to mean something (accuracy does not depend on it: the number of epochs is fixed).
"""

import argparse
import io
import os
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from results import RESULTS, append, made, of_run, origin, right, run

from netsmith.data import masters, shrink
from netsmith.data.prepare import as_pixels
from netsmith.run.metrics import mcnemar
from netsmith.run.waiting import waiting

Shrink = Callable[..., NDArray[np.uint8]]
WAYS: dict[str, tuple[bool, Callable[[], AbstractContextManager[object]]]] = {
    "exact": (True, nullcontext),
    "pillow": (False, lambda: mock.patch.object(shrink, "_simplejpeg", return_value=None)),
    "simplejpeg full": (False, lambda: mock.patch.object(shrink, "_power", return_value=1)),
    "simplejpeg": (False, nullcontext),
}
SETS = (("imagenette224", 258), ("imagenette224", 110), ("flowers", 258), ("flowers", 110), ("camera", 258))
MODEL, SIDE = "resnet18@0.35", 96


def exactly(image: bytes, *, side: int) -> NDArray[np.uint8]:
    """A master from the exact decoding."""
    return shrink.shrink(as_pixels(image), side=side)


def photos(data: Path, name: str, count: int) -> list[bytes]:
    """Encoded photos, evenly out of the archive."""
    archive = zipfile.ZipFile(data / {"imagenette224": "imagenette224/imagenette224.zip"}.get(
        name, "flowers-sample/flowers-sample.zip"))  # fmt: skip
    names = [member for member in archive.namelist() if member.lower().endswith((".jpg", ".jpeg"))]
    count = min(count // 10 if name == "camera" else count, len(names))
    found = [archive.read(names[index * len(names) // count]) for index in range(count)]
    return [enlarged(content) for content in found] if name == "camera" else found


def enlarged(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        size = (5 * image.width, 5 * image.height)
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def milliseconds(work: Shrink, pictures: Sequence[bytes], side: int, *, passes: int) -> float:
    spent: list[float] = []
    for _ in range(passes):
        began = time.process_time()
        for content in pictures:
            work(content, side=side)
        spent.append((time.process_time() - began) / len(pictures))
    return 1000 * min(spent)


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return 10 * np.log10(255**2 / error) if error else np.inf


def speed_and_pixels(data: Path, *, count: int, passes: int) -> None:
    print(f"{'photos':16}{'side':>6}{'way':>18}{'ms':>9}{'times exact':>13}{'PSNR dB':>18}{'halved or more':>16}")
    for name, side in SETS:
        pictures = photos(data, name, count)
        expected = [exactly(content, side=side) for content in pictures]
        base = None
        for way, (exact, patch) in WAYS.items():
            with patch():
                work = exactly if exact else shrink.shrink
                spent = milliseconds(work, pictures, side, passes=passes)
                ratios = [psnr(work(content, side=side), one) for content, one in zip(pictures, expected, strict=True)]
                reduced = np.mean([shrink._power(min(size(content)), side) > 1 for content in pictures])
            base = base or spent
            finite = [ratio for ratio in ratios if np.isfinite(ratio)]
            shown = f"{np.mean(finite):.1f}, least {min(finite):.1f}" if finite else "the same"
            share = f"{reduced:.0%}" if not exact else ""
            print(f"{name:16}{side:6}{way:>18}{spent:9.2f}{base / spent:13.2f}{shown:>18}{share:>16}", flush=True)


def size(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as image:
        return image.size


def train(data: Path, output: Path, *, epochs: int, seeds: int, threads: int | None, results: Path) -> None:
    common = origin(f"decode imagenette224 {epochs} epochs")
    source = str(data / "imagenette224" / "imagenette224.zip")
    rows, folders = [], {}
    for seed in range(seeds):
        for way in ("exact", "fast"):
            folder = folders[way, seed] = output / f"{way}-{seed}"
            command = ["train", source, "--model", MODEL, "--img-size", str(SIDE), "--train-size", str(SIDE),
                       "--epochs", str(epochs), "--seed", str(seed),
                       *(["--threads", str(threads)] if threads else [])]  # fmt: skip
            environment = {
                "NETSMITH_CACHE": str(output / f"cache-{way}"),  # a cache does not say how it was decoded
                **waiting(os.environ),  # as the command line sets it
            }
            found = of_run(run(command, folder, program=(__file__, "--child", way), **environment))
            rows.append(common | made(folder) | found | {
                "subject": way, "model": f"{MODEL} r{SIDE}", "note": f"seed {seed}",
                "command": " ".join(["netsmith", *command]).replace(source, "imagenette224.zip"),
            })  # fmt: skip
    append(results, rows)
    for split in ("val", "test"):
        right_ones = {key: right(folder, split) for key, folder in folders.items()}
        means = {way: [right_ones[way, seed].mean() for seed in range(seeds)] for way in ("exact", "fast")}
        difference = np.subtract(means["fast"], means["exact"])
        error = difference.std(ddof=1) / np.sqrt(seeds) if seeds > 1 else np.nan
        print(f"{split}: " + ", ".join(f"{way} {np.mean(values):.2%}" for way, values in means.items()), end="; ")
        ps = (mcnemar(right_ones["fast", seed], right_ones["exact", seed]) for seed in range(seeds))
        print(f"fast minus exact {difference.mean():+.2%} (standard error {error:.2%}, {seeds} seeds)", end=", ")
        print("McNemar p", ", ".join(f"{p:.2g}" for p in ps))


def child(way: str, command: Sequence[str]) -> int:
    """One `netsmith train` whose masters are decoded this way."""
    from netsmith.cli.main import run

    if way == "exact":
        masters.shrink = exactly
    return run(command)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        sys.exit(child(sys.argv[2], sys.argv[3:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of imagenette224 and flowers-sample")
    parser.add_argument("--count", type=int, default=100, help="photos per set")
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--train", action="store_true", help="compare trainings, not speed and pixels")
    parser.add_argument("-o", "--output", type=Path, help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of the trainings; 1 where other work has the other cores")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.train:
        speed_and_pixels(options.data, count=options.count, passes=options.passes)
    elif options.output is None:
        parser.error("--train needs -o")
    else:
        train(
            options.data, options.output, epochs=options.epochs, seeds=options.seeds, threads=options.threads,
            results=options.results,
        )  # fmt: skip


if __name__ == "__main__":
    main()
