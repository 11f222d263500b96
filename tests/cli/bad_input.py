"""What the tests of bad input share: pictures, broken models and checkpoints, and what a command may leave."""

import gzip
import hashlib
import io
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from artifact_models import SIZE, write_colours
from pictures import class_files, noise, write_files
from safetensors.numpy import save
from typed import Done

from netsmith.arch.names import find_layout
from netsmith.artifact.quantization import Quantization

GOOD = class_files({"cat": 8, "dog": 8})


def contents(folder: Path) -> dict[str, str]:
    """Every path below `folder` with the hash of its bytes; links, pipes and folders count by their names."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file() and not path.is_symlink()
        else ""
        for path in folder.rglob("*")
    }


def check_refused(done: Done, *said: str) -> None:
    """One sentence on the last line, after nothing but remarks, and exit 2."""
    assert "Traceback" not in done.stderr
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.startswith("netsmith: ")] == lines[-1:], "one sentence, the last"
    for piece in said:
        assert piece in lines[-1]


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


class Executes:
    """Pickles as a call that leaves the file `ran`."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def make_folders(root: Path) -> None:
    """Class folders of every bad kind."""
    (root / "empty").mkdir()
    write_files(root / "good", GOOD)
    write_files(root / "one", class_files({"cat": 8}))
    write_files(root / "single", class_files({"cat": 8, "dog": 1}))
    write_files(root / "unreadable", dict.fromkeys(GOOD, b"no picture"))
    write_files(root / "some", GOOD | {"cat/torn.png": GOOD["cat/0.png"][:60], "dog/none.png": b""})
    write_files(root / "huge", GOOD | {"cat/huge.png": huge_png(100_000, 100_000)})
    write_files(root / "copies", {f"{name}/{i}.png": GOOD["cat/0.png"] for name in "ab" for i in range(4)})
    write_files(root / "flat", {f"{i}.png": GOOD["cat/0.png"] for i in range(4)})
    odd = write_files(root / "odd", GOOD)
    write_files(odd, {"cat/" + "d/" * 500 + "deep.png": b"x"})
    os.mkfifo(odd / "cat" / "pipe.png")
    os.symlink(odd / "cat" / "pipe.png", odd / "dog" / "pipe.png")
    os.symlink("/dev/zero", odd / "dog" / "endless.png")
    os.symlink("..", odd / "cat" / "up")
    os.symlink("self.png", odd / "cat" / "self.png")


def make_archives(root: Path) -> None:
    """Archives that are damaged, dangerous or empty."""
    for name in ("zero.zip", "zero.tar.gz", "zero.npz", "zero.csv"):
        (root / name).write_bytes(b"")
    with zipfile.ZipFile(root / "outside.zip", "w") as archive:
        for name, content in (GOOD | {"../../evil.png": b"x"}).items():
            archive.writestr(name, content)
    (root / "cut.zip").write_bytes((root / "outside.zip").read_bytes()[:-40])
    with tarfile.open(root / "outside.tar", "w") as archive:
        for name, content in (GOOD | {"../evil.png": b"x"}).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with zipfile.ZipFile(root / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/b.png", "w") as file:
        for _ in range(100):
            file.write(bytes(1 << 20))
    (root / "bomb.tar.gz").write_bytes(gzip.compress(bytes(80 << 20), compresslevel=1))
    for shard, label in (("shard-000", "1"), ("shard-001", "cat"), ("bare-000", None)):
        with tarfile.open(root / f"{shard}.tar", "w") as archive:
            for name, content in {"0.png": GOOD["cat/0.png"], "0.cls": label}.items():
                data = content.encode() if isinstance(content, str) else content or b""
                member = tarfile.TarInfo(name if content is not None else "0.txt")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def make_arrays(root: Path) -> None:
    """`.npz` files that do not hold what they should."""
    images, labels = np.stack([noise(seed, 8, 8) for seed in range(8)]), np.array(["a", "b"] * 4)
    for name, arrays in {
        "objects": {"images": images, "labels": np.array([Executes()] * 8, dtype=object)},
        "floats": {"images": images / 255, "labels": labels},
        "channels": {"images": images[..., :2], "labels": labels},
        "longer": {"images": images, "labels": np.tile(labels, 2)},
        "nan": {"images": images, "labels": np.array([0, np.nan] * 4)},
        "unnamed": {"images": images, "labels": np.array(["", "b"] * 4)},
    }.items():
        np.savez(root / f"{name}.npz", **arrays)
    for name, header in {
        "lying": "{'descr': '|u1', 'fortran_order': False, 'shape': (10000000, 1000, 1000, 3)}",
        "nested": "{'descr': (((((((",
    }.items():
        text = header.encode().ljust(117) + b"\n"
        with zipfile.ZipFile(root / f"{name}.npz", "w") as archive:
            archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"xxx")
            archive.writestr("labels.npy", b"")


def make_tables(root: Path) -> None:
    """CSV files beside `good`."""
    rows = [f"good/{name},{name.split('/')[0]}" for name in GOOD]
    for name, text in {
        "missing": "image_path,label\n" + "\n".join([*rows, "good/cat/gone.png,cat", "/nowhere/x.png,dog"]),
        "header": "path,class\n" + "\n".join(rows),
        "twice": "image_path,label,label\n" + "\n".join(row + ",x" for row in rows),
        "quote": 'image_path,label\n"good/cat/0.png,cat\n' + "\n".join(rows),
        "short": "image_path,label\ngood/cat/0.png\n" + "\n".join(rows),
        "split": "image_path,label,split\n" + "\n".join(row + ",trian" for row in rows),
        "none": "image_path,label\n",
        "utf16": "image_path,label\n" + "\n".join(rows),
    }.items():
        (root / f"{name}.csv").write_text(text, encoding="utf-16" if name == "utf16" else "utf-8")
    quoted = [f'"{root}/good/../good/{name}","{name[:3]}, ""pet"""' for name in GOOD]
    (root / "fine.csv").write_bytes(("\ufeffimage_path,label\r\n" + "\r\n".join(quoted) + "\r\n").encode())


def make_checkpoints(root: Path) -> None:
    """Checkpoints for `import-weights`."""
    weights = save({"conv1.weight": np.zeros((4, 3, 3, 3), np.float32), "fc.bias": np.zeros(7, np.float32)})
    (root / "other.safetensors").write_bytes(weights)
    (root / "cut.safetensors").write_bytes(weights[: len(weights) // 2])
    (root / "lying.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    (root / "code.pkl").write_bytes(pickle.dumps(Executes()))
    with zipfile.ZipFile(root / "code.pth", "w") as archive:  # as torch.save writes it, with code in place of tensors
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": Executes()}, protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    (root / "cut.pth").write_bytes((root / "code.pth").read_bytes()[:-30])
    os.mkfifo(root / "pipe.pth")


def make_models(root: Path) -> None:
    """A model folder that answers, broken copies of it, and models of cats and dogs that cannot be worked on."""
    whole = write_colours(root / "model").folder
    for name in ("cut", "described", "deep"):
        shutil.copytree(whole, root / f"model-{name}")
    of_pets = {"labels": ("cat", "dog"), "layout": find_layout("resnet20_cifar", num_classes=2, img_size=SIZE)}
    other = save({"conv1.weight": np.zeros((4, 3, 3, 3), np.float32)})
    write_colours(root / "model-unlike", weights=other, **of_pets)
    rounded = Quantization(
        source="0" * 64, rung="made up", per_channel=True, bits=8, calibration="minmax", pictures=1, excluded=(),
        equalized=False,
    )  # fmt: skip
    write_colours(root / "model-int8", precision="int8", quantization=rounded, **of_pets)
    graph = (whole / "model.onnx").read_bytes()
    (root / "model-cut" / "model.onnx").write_bytes(graph[: len(graph) // 2])
    (root / "model-described" / "config.json").write_text('{"format": 1, "evil": 1}')
    (root / "model-deep" / "config.json").write_text("[" * 100_000)


def make_runs(root: Path) -> None:
    """Folders that a run must not take."""
    for name, files in {
        "begun": {"run.json": '{"format": 1, "command": ["train", "other"]}'},
        "done": {"run.json": '{"format": 1, "command": ["train", "other"]}', "results.json": "{}"},
        "torn": {"run.json": '{"format"'},
        "mine": {"thesis.txt": "years of work"},
    }.items():
        write_files(root / name, {file: text.encode() for file, text in files.items()})
    for name in ("begun", "done", "torn"):
        (root / name / ".lock").write_text("1\n")
    (root / "file").write_text("not a folder")
    (root / "config.yaml").write_text("lr: [" * 2000)
    (root / "typed.yaml").write_text("model: 5\nopt: [sgd]\n")
