"""The audit of good, bad and doubtful pictures."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import class_files, encoded, noise, write_files
from PIL import Image

from netsmith.data.audit import Audit, audit
from netsmith.data.record import to_data_json
from netsmith.data.sources import open_source
from netsmith.data.splits import split
from netsmith.errors import InputError

GOOD = class_files({"cat": 6, "dog": 5})


def header_bomb(side: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + b"\0\0\0\1IDATx"


BAD = {
    "cat/truncated.jpg": (encoded(noise(50, 90, 90), "JPEG")[:-300], "truncated"),
    "cat/empty.png": (b"", "empty"),
    "dog/text.jpg": (b"this is a text", "unknown format"),
    "dog/bomb.png": (header_bomb(100_000), "too large"),
}


def run(tmp_path: Path, files: dict[str, bytes], **options: object) -> Audit:
    return audit(open_source(write_files(tmp_path / "data", files)), **options)  # type: ignore[arg-type]


def names(result: Audit, kind: str) -> set[tuple[str, ...]]:
    return {group for finding in result.findings if finding.kind == kind for group in finding.files}


def test_a_clean_set(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    result = run(tmp_path, GOOD, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 11) for done in range(1, 12)]
    assert result.findings == ()
    assert result.counts == {"cat": 6, "dog": 5}
    assert result.splits == {"train": 7, "val": 2, "test": 2}
    assert result.summary()[-1] == "nothing to mend"
    assert {item.split for item in result.dataset.items} == {None}
    assert {result.dataset.read(item) for item in result.dataset.items} == set(GOOD.values())


def test_bad_pictures_are_named_skipped_and_counted(tmp_path: Path) -> None:
    result = run(tmp_path, GOOD | {name: content for name, (content, _) in BAD.items()})
    for name, (_, kind) in BAD.items():
        assert names(result, kind) == {(name,)}
    assert (result.listed, len(result.dataset.items)) == (15, 11)
    text = "\n".join(result.summary())
    assert all(name in text for name in BAD)
    assert "11 of 15 pictures usable" in text
    with pytest.raises(InputError, match=r"truncated: .*cat/truncated\.jpg"):
        audit(open_source(tmp_path / "data"), strict=True)


def test_json_is_json_and_agrees(tmp_path: Path) -> None:
    result = run(tmp_path, GOOD | {name: content for name, (content, _) in BAD.items()})
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["usable"] == 11
    assert sum(finding["left_out"] for finding in document["findings"]) == 4
    assert {tuple(f) for finding in document["findings"] for f in finding["files"]} == {(name,) for name in BAD}
    assert document["fingerprint"] == result.dataset.fingerprint


def test_wrong_extension_is_used_and_reported(tmp_path: Path) -> None:
    result = run(tmp_path, GOOD | {"cat/really.jpg": encoded(noise(60)), "dog/ok.jfif": encoded(noise(61), "JPEG")})
    assert names(result, "wrong extension") == {("cat/really.jpg",)}
    assert len(result.dataset.items) == 13


def test_duplicates_by_pixels_inside_a_class(tmp_path: Path) -> None:
    again = encoded(Image.open(io.BytesIO(GOOD["cat/0.png"])), "BMP")
    result = run(tmp_path, GOOD | {"cat/again.bmp": again, "cat/same.png": GOOD["cat/0.png"]})
    assert names(result, "duplicates") == {("cat/0.png", "cat/again.bmp", "cat/same.png")}
    assert len(result.dataset.items) == 13
    (copies,) = names(result, "duplicates")
    for seed in range(10):
        dataset = split(result.dataset, seed=seed)
        assert len({item.split for item in dataset.items if item.name in copies}) == 1
        to_data_json(dataset, seed=seed)


def test_conflicting_labels_are_left_out(tmp_path: Path) -> None:
    result = run(tmp_path, GOOD | {"dog/cat.png": GOOD["cat/0.png"]})
    assert names(result, "conflicting labels") == {("cat/0.png", "dog/cat.png")}
    assert len(result.dataset.items) == 10
    assert "cat and dog" in "\n".join(result.summary())
    with pytest.raises(InputError, match="conflicting labels"):
        audit(open_source(tmp_path / "data"), strict=True)


def test_copies_across_given_splits_stay_in_the_evaluated_one(tmp_path: Path) -> None:
    files = {f"train/{name}": content for name, content in GOOD.items()}
    files |= {f"val/{name}": content for name, content in class_files({"cat": 2, "dog": 2}, seed=100).items()}
    files |= {f"test/{name}": content for name, content in class_files({"cat": 2, "dog": 2}, seed=200).items()}
    files["train/cat/leak.png"] = files["test/cat/0.png"]
    files["val/cat/leak.png"] = files["test/cat/0.png"]
    files["train/dog/leak.png"] = files["val/dog/1.png"]
    result = run(tmp_path, files)
    left = {item.name for item in result.dataset.items}
    assert set(files) - left == {"train/cat/leak.png", "val/cat/leak.png", "train/dog/leak.png"}
    finding = next(finding for finding in result.findings if finding.kind == "across splits")
    assert (len(finding.files), finding.left_out) == (2, 3)
    assert result.splits == {"train": 11, "val": 4, "test": 4}


def test_traits_and_sizes(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.fromarray(noise(seed)) for seed in (70, 71)]
    files = GOOD | {
        "cat/grey.jpg": encoded(Image.fromarray(noise(72)).convert("L"), "JPEG"),
        "cat/cmyk.jpg": encoded(Image.fromarray(noise(73)).convert("CMYK"), "JPEG"),
        "cat/deep.png": encoded(Image.fromarray(np.arange(192, dtype=np.uint16).reshape(12, 16) * 300)),
        "cat/alpha.png": encoded(np.dstack([noise(74), noise(75)[..., :1]])),
        "cat/moving.webp": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "dog/turned.jpg": encoded(Image.fromarray(noise(76, 10, 40)), "JPEG", exif=exif),
    }
    result = run(tmp_path, files)
    assert result.traits == {"greyscale": 2, "CMYK": 1, "16-bit": 1, "transparent": 1, "animated": 1, "EXIF-rotated": 1}
    assert (result.widths.min, result.heights.max, result.aspects.max) == (10, 40, 4)
    assert not result.findings
    assert "all handled" in "\n".join(result.summary())


def test_imbalance_and_unused_files(tmp_path: Path) -> None:
    result = run(tmp_path, class_files({"many": 40, "few": 4}) | {"few/notes.txt": b"x"})
    assert {finding.kind for finding in result.findings} == {"imbalance", "not used"}
    assert names(result, "not used") == {("few/notes.txt",)}


def test_what_cannot_be_trained_on(tmp_path: Path) -> None:
    for number, (files, says) in enumerate(
        [
            (class_files({"cat": 9}), "one class \\('cat'\\).*at least two"),
            (class_files({"cat": 9, "rare": 1}), "class 'rare' has 1 distinct picture .*add pictures"),
            ({"a/1.png": b"", "b/1.png": b"x"}, "none of the 2 pictures .*a/1.png is empty"),
            (
                GOOD | {"bird/1.png": b"x", "bird/2.png": b"x"},
                "class 'bird' has no picture .*2 of 'bird' left out: unknown format",
            ),
        ]
    ):
        with pytest.raises(InputError, match=says):
            audit(open_source(write_files(tmp_path / str(number), files)))


def test_control_characters_in_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    result = run(tmp_path, GOOD | {"cat/\x1b[31mred\n.png": b"x"})
    assert "\x1b" not in "".join(result.summary())
    assert "\n" not in "".join(result.summary())


def test_a_changed_file_is_not_read_as_what_was_audited(tmp_path: Path) -> None:
    dataset = run(tmp_path, GOOD).dataset
    (tmp_path / "data" / "cat" / "0.png").write_bytes(GOOD["cat/1.png"])
    (tmp_path / "data" / "cat" / "1.png").unlink()
    by_name = {item.name: item for item in dataset.items}
    with pytest.raises(InputError, match=r"cat/0\.png changed since it was audited"):
        dataset.read(by_name["cat/0.png"])
    with pytest.raises(InputError, match=r"cat/1\.png cannot be read"):
        dataset.read(by_name["cat/1.png"])
