"""`prepare` against independent compositions of Pillow and torchvision, and a zoo of pictures that are hard to read."""

import io
import struct
import sys
import threading
import types
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, noise
from PIL import Image, ImageFile

from netsmith.data.prepare import ImageError, decode, examine, prepare, read_file, read_stream
from netsmith.data.shrink import shrink
from netsmith.errors import InputError
from netsmith.run.preprocess import Preprocess

EXIF_VIEWS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def with_orientation(image: Image.Image, form: str, value: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(image, form, exif=exif, **options)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientations(form: str, value: int) -> None:
    image = Image.fromarray(noise(1))
    options = {"lossless": True} if form == "WEBP" else {}
    content = with_orientation(image, form, value, **options)
    stored = np.asarray(image) if form != "JPEG" else np.asarray(Image.open(io.BytesIO(content)))
    picture = examine(content)
    np.testing.assert_array_equal(picture.pixels, EXIF_VIEWS[value](stored))
    assert picture.rotated == (value != 1)
    assert picture.format == form


def test_damaged_exif_does_not_cost_the_picture() -> None:
    content = encoded(noise(1), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0" * 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(content).shape == (12, 16, 3)


def on_white(rgba: np.ndarray) -> np.ndarray:
    colour, alpha = rgba[..., :3].astype(float), rgba[..., 3:].astype(float) / 255
    return colour * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_alpha_on_white(form: str) -> None:
    rgba = np.dstack([noise(2), noise(3)[..., :1]])
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    picture = examine(encoded(rgba, form, **options))
    assert picture.alpha
    assert np.abs(picture.pixels - on_white(rgba)).max() <= 1


def test_grey_alpha_and_transparent_palettes_on_white() -> None:
    grey = np.dstack([noise(4)[..., 0], noise(5)[..., 0]])
    expected = on_white(np.dstack([grey[..., :1].repeat(3, 2), grey[..., 1:]]))
    assert np.abs(decode(encoded(Image.fromarray(grey))) - expected).max() <= 1

    indices = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = noise(6, 16, 16)[0]
    image = Image.frombytes("P", (4, 3), indices.tobytes())
    image.putpalette(palette.tobytes())
    alphas = bytes(range(0, 240, 20))
    expected = on_white(np.dstack([palette[indices], np.frombuffer(alphas, np.uint8)[indices][..., None]]))
    assert np.abs(decode(encoded(image, "PNG", transparency=alphas)) - expected).max() <= 1
    one = decode(encoded(image, "GIF", transparency=5))
    np.testing.assert_array_equal(one[1, 1], [255, 255, 255])
    np.testing.assert_array_equal(one[0, 0], palette[0])


def test_colour_key_transparency() -> None:
    pixels = noise(7)
    key = tuple(int(v) for v in pixels[2, 3])
    result = decode(encoded(pixels, "PNG", transparency=key))
    same = (pixels == pixels[2, 3]).all(2)
    np.testing.assert_array_equal(result, np.where(same[..., None], 255, pixels))


def png_16bit(samples: np.ndarray, colour: int, key: int | None = None) -> bytes:
    """A PNG of uint16 samples [H,W] (colour 0) or [H,W,3] (colour 2), written without Pillow."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    transparency = b"" if key is None else chunk(b"tRNS", struct.pack(">H", key))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + transparency + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_is_scaled_and_grey_agrees_with_colour() -> None:
    grey = np.linspace(0, 65535, 35).astype(np.uint16).reshape(5, 7)
    picture = examine(png_16bit(grey, 0))
    assert picture.deep
    np.testing.assert_array_equal(picture.pixels, (grey >> 8).astype(np.uint8)[..., None].repeat(3, 2))
    coloured = examine(png_16bit(grey[..., None].repeat(3, 2), 2))
    assert coloured.deep
    np.testing.assert_array_equal(coloured.pixels, picture.pixels)
    keyed = decode(png_16bit(grey, 0, key=int(grey[1, 2])))
    np.testing.assert_array_equal(keyed[1, 2], [255, 255, 255])
    tiff = encoded(Image.fromarray(grey), "TIFF")
    np.testing.assert_array_equal(decode(tiff), picture.pixels)


def test_floating_point_and_32_bit_samples_are_refused_not_clipped() -> None:
    for samples in (np.full((4, 4), 0.5, np.float32), np.full((4, 4), 1 << 20, np.int32)):
        with pytest.raises(ImageError, match="8 or 16 bits per sample"):
            decode(encoded(Image.fromarray(samples), "TIFF"))


def test_cmyk_and_greyscale_jpeg() -> None:
    content = encoded(Image.fromarray(noise(8)).convert("CMYK"), "JPEG", quality=95)
    picture = examine(content)
    assert picture.mode == "CMYK"
    np.testing.assert_array_equal(picture.pixels, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert np.abs(picture.pixels.astype(int) - noise(8)).mean() < 8
    grey = decode(encoded(Image.fromarray(noise(9)).convert("L"), "JPEG"))
    assert grey.shape == (12, 16, 3)
    assert (grey == grey[..., :1]).all()


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_animations(form: str) -> None:
    frames = [Image.fromarray(np.full((8, 9, 3), shade, np.uint8)) for shade in (10, 120, 250)]
    options = {"lossless": True} if form == "WEBP" else {}
    picture = examine(encoded(frames[0], form, save_all=True, append_images=frames[1:], **options))
    assert picture.animated
    assert np.abs(picture.pixels.astype(int) - 10).max() <= 2
    assert not examine(encoded(frames[0], form)).animated


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"])
def test_truncated(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # a switch that others set must not matter
    content = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), form)
    decode(content)
    for keep in (0.95, 0.5, 0.1):
        with pytest.raises(ImageError, match="replace it with|convert or remove it") as caught:
            decode(content[: int(len(content) * keep)])
        if form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM") and keep >= 0.5:
            assert caught.value.trouble == "truncated"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_an_image_error(content: bytes) -> None:
    for start in (
        b"",
        b"\xff\xd8\xff\xe0",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"II*\0",
        b"BM",
        b"P6 ",
        b"\0\0\0\x0cjP  \r\n\x87\n",
    ):
        with suppress(ImageError):
            assert decode(start + content).ndim == 3


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_flipped_bytes_never_raise_anything_else(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF"]))
    content = bytearray(encoded(noise(3), form))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ImageError):
        assert decode(bytes(content)).dtype == np.uint8


def test_not_pictures() -> None:
    with pytest.raises(ImageError, match="empty") as empty:
        decode(b"")
    assert empty.value.trouble == "empty"
    for content in (encoded(noise(1))[:20], b"\xff\xd8\xff\xe0\0"):
        with pytest.raises(ImageError, match="damaged header"):
            decode(content)
    for content in (b"just some text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg xmlns='x'/>"):
        with pytest.raises(ImageError, match="not a picture in a known format") as unknown:
            decode(content)
        assert unknown.value.trouble == "unknown format"


def header_bomb(side: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
        + struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    )  # fmt: skip


def test_too_many_pixels_are_refused_from_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    for switch in (Image.MAX_IMAGE_PIXELS, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", switch)
        for side in (100_000, 10_001):
            with pytest.raises(ImageError, match="pixels") as caught:
                decode(header_bomb(side))
            assert caught.value.trouble == "too large"
    with pytest.raises(ImageError, match="16 x 12 pixels"):
        prepare(encoded(noise(1)), Preprocess(size=8), max_pixels=191)


def test_between_pillows_warning_and_the_limit_nothing_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encoded(noise(1))).shape == (12, 16, 3)


def test_warning_filters_and_switches_are_as_before_also_with_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    before = list(warnings.filters)
    content, barrier = encoded(noise(1), "JPEG"), threading.Barrier(4)

    def work(index: int) -> None:
        barrier.wait()
        for _ in range(50):
            decode(content)
            with pytest.raises(ImageError):
                decode(content[:-40])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert warnings.filters == before
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


RULES = [
    Preprocess(size=10),
    Preprocess(size=10, crop=0.875),
    Preprocess(size=24, crop=0.95, interpolation="bicubic"),
    Preprocess(size=7, crop=0.5, interpolation="lanczos"),
    Preprocess(size=9, interpolation="nearest"),
    Preprocess(size=11, resize="squash", interpolation="bicubic"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.size}-{rule.crop}-{rule.interpolation}-{rule.resize}")
@pytest.mark.parametrize("shape", [(12, 16), (33, 20), (8, 8), (10, 10), (40, 5), (3, 41), (1, 1)])
def test_prepare_equals_a_composition_of_pillow(rule: Preprocess, shape: tuple[int, int]) -> None:
    pixels = noise(11, *shape)
    image, method = Image.fromarray(pixels), Image.Resampling[rule.interpolation.upper()]
    if rule.resize == "squash":
        expected = np.asarray(image.resize((rule.size, rule.size), method))
    else:
        short = round(rule.size / rule.crop)
        ratio = max(shape) / min(shape)
        width, height = (
            (short, int(short * shape[0] / shape[1])) if shape[1] <= shape[0] else (int(short * ratio), short)
        )
        large = np.asarray(image.resize((width, height), method))
        top, left = round((height - rule.size) / 2), round((width - rule.size) / 2)
        expected = large[top : top + rule.size, left : left + rule.size]
    result = prepare(pixels, rule)
    assert result.shape == (rule.size, rule.size, 3)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(prepare(encoded(pixels), rule), expected)


@pytest.mark.reference
@given(height=st.integers(1, 90), width=st.integers(1, 90), rule=st.sampled_from(RULES[:5]))
@settings(max_examples=60, deadline=None)
def test_prepare_equals_torchvision(height: int, width: int, rule: Preprocess) -> None:
    pytest.importorskip("torch")
    if "torchvision" not in sys.modules:
        sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("x"))
    transforms = pytest.importorskip("torchvision.transforms", exc_type=ImportError)
    if max(height, width) > 20 * min(height, width):
        return
    pixels = noise(height * 100 + width, height, width)
    method = transforms.InterpolationMode(rule.interpolation)
    both = transforms.Compose(
        [transforms.Resize(round(rule.size / rule.crop), interpolation=method), transforms.CenterCrop(rule.size)]
    )
    np.testing.assert_array_equal(prepare(pixels, rule), np.asarray(both(Image.fromarray(pixels))))


def test_very_long_pictures_cost_little_and_show_their_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    resize = Image.Image.resize

    def small(self: Image.Image, size: tuple[int, int], method: Image.Resampling) -> Image.Image:
        assert max(size) <= 400
        return resize(self, size, method)

    monkeypatch.setattr(Image.Image, "resize", small)
    strip = np.zeros((2, 1_000_000, 3), np.uint8)
    strip[:, 499_990:500_010] = 200
    assert (prepare(strip, Preprocess(size=16, crop=0.8)) == 200).all()
    assert shrink(strip, side=2).shape == (2, 4, 3)


def test_arrays() -> None:
    grey = noise(12)[..., 0]
    rule = Preprocess(size=8)
    expected = prepare(np.dstack([grey] * 3), rule)
    np.testing.assert_array_equal(prepare(grey, rule), expected)
    np.testing.assert_array_equal(prepare(grey[..., None], rule), expected)
    with pytest.raises(InputError, match="uint8"):
        prepare(grey.astype(np.float32), rule)
    for shape in [(4,), (4, 4, 4), (0, 4, 3), (1, 4, 4, 3)]:
        with pytest.raises(InputError, match="shape"):
            prepare(np.zeros(shape, np.uint8), rule)


@pytest.mark.parametrize("simplejpeg", [True, False])
def test_masters_are_close_to_exact_and_never_enlarged(simplejpeg: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not simplejpeg:
        monkeypatch.setattr("netsmith.data.shrink._simplejpeg", lambda: None)
    pixels = noise(13, 300, 500)
    for value in (1, 6, 7):
        content = with_orientation(Image.fromarray(pixels), "JPEG", value, quality=95)
        upright = EXIF_VIEWS[value](pixels)
        small = shrink(content, side=60)
        height, width = (60, 100) if value == 1 else (100, 60)
        assert small.shape == (height, width, 3)
        exact = Image.fromarray(np.ascontiguousarray(upright)).resize((width, height), Image.Resampling.BICUBIC)
        assert np.abs(small.astype(int) - np.asarray(exact)).mean() < 3
    assert shrink(encoded(pixels, "JPEG"), side=400).shape == (300, 500, 3)
    assert shrink(encoded(noise(1, 30, 300)), side=20).shape == (20, 40, 3)
    with pytest.raises(ImageError, match="truncated"):
        shrink(encoded(pixels, "JPEG")[:-2000], side=60)


def test_files_that_say_less_than_they_hold(tmp_path: Path) -> None:
    """What /proc says of itself is 0 bytes, and one of its files holds hundreds of gigabytes."""
    link = tmp_path / "cat.png"
    link.symlink_to("/proc/self/status")
    if not link.is_file():
        pytest.skip("this system has no /proc")
    assert read_file(link) == b""


def test_a_pipe_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netsmith.data.prepare.MAX_BYTES", 5_000_000)
    assert read_stream(io.BytesIO(bytes(5_000_000))) == bytes(5_000_000)
    with open("/dev/zero", "rb") as zeros, pytest.raises(ImageError, match="more bytes than the limit of 5,000,000"):
        read_stream(zeros)
