"""One picture in, the model's pixels out: the only evaluation path.

Choices made on purpose:
- The resize and crop rules are torchvision's (`Resize(int)` + `CenterCrop` on PIL images), computed by Pillow, to the
  bit.
- Pillow's scaled JPEG decoding (`draft`) is never used here: it changes pixels.
- 16-bit samples keep their high byte, as Pillow does for 16-bit colour, so grey and colour agree and 8-bit pictures
  stored in 16 bits come back exactly.
- Only well-known formats are tried (no EPS, no formats that start programs), and the size in the header decides
  before pixels are decoded.
- Results do not depend on Pillow's process-wide switches; warnings of Pillow stay inside.
"""

import functools
import importlib
import io
import os
import stat
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from netsmith.errors import InputError
from netsmith.run.preprocess import Preprocess

Pixels: TypeAlias = NDArray[np.uint8]
Trouble = Literal["unreadable", "empty", "unknown format", "truncated", "damaged", "too large"]

MAX_PIXELS = 100_000_000
MAX_BYTES = 1 << 30
MAX_ASPECT = 20
"""Pictures longer than this many times their width are cut to it, centred, before they are resized: bounded memory
for 1 x 1,000,000."""

FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".j2c", ".jpc"),
}
"""Pillow format -> file extensions."""

EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)

_PLUGINS = ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Ppm", "Avif", "Jpeg2K")
_ORIENTATION = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class ImageError(InputError):
    """One picture cannot be used. The message does not name it; whoever knows the file puts its name in front.

    Attributes:
        trouble: what is wrong, one of a few words.
    """

    def __init__(self, message: str, trouble: Trouble = "damaged") -> None:
        super().__init__(message)
        self.trouble: Trouble = trouble


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture and what its file said.

    Attributes:
        pixels: uint8 [H,W,3], upright, on white.
        format: Pillow's name of the format, a key of `FORMATS`.
        mode: Pillow's mode of the stored pixels ("RGB", "L", "CMYK", "P", "I;16", ...).
        deep: more than 8 bits per sample.
        alpha: transparency of any kind.
        animated: more than one frame or page.
        rotated: the file asks to be turned or mirrored (EXIF orientation 2 to 8).
    """

    pixels: Pixels
    format: str
    mode: str
    deep: bool
    alpha: bool
    animated: bool
    rotated: bool


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Bytes of a picture file.

    Raises ImageError when there is none, it is not a regular file (a pipe or device may never end), or too large.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a regular file; replace or remove it", "unreadable")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"has {status.st_size:,} bytes, more than the limit of {MAX_BYTES:,}", "too large")
        with open(path, "rb") as handle:
            return handle.read(status.st_size)  # no more than it says: some of /proc say 0 and hardly end
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror}); mend it or remove it", "unreadable") from None


def read_stream(stream: IO[bytes]) -> bytes:
    """Bytes of a picture that comes through a pipe, to its end. Raises ImageError when there are too many."""
    content = bytearray()
    while block := stream.read(1 << 20):
        content += block
        if len(content) > MAX_BYTES:
            raise ImageError(f"has more bytes than the limit of {MAX_BYTES:,}; store it smaller", "too large")
    return bytes(content)


def decode(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Pixels of an encoded picture as a person sees them: uint8 [H,W,3], upright, on white, first frame.

    Raises ImageError (an InputError) for what is no picture, truncated, damaged, or larger than `max_pixels`.
    """
    return examine(encoded, max_pixels=max_pixels).pixels


def examine(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """`decode`, and what the file said about itself."""
    with opened(encoded, max_pixels=max_pixels) as image:
        with _refusing():
            deep = image.mode.startswith("I") or any(";16" in str(tile) for tile in image.tile)
            rotated = orientation(image) != 1  # Pillow turns TIFF files while loading and then forgets the tag
            image.load()
        if image.mode == "F":
            raise ImageError(
                "holds floating-point samples, for which no white is defined; store it with 8 or 16 bits per sample"
            )
        with _refusing():
            upright = turned(_on_white(image), orientation(image))
            pixels = np.array(upright)
        return Picture(
            pixels=pixels,
            format=format_of(image),
            mode=image.mode,
            deep=deep,
            alpha=image.has_transparency_data,
            animated=_is_animated(image),
            rotated=rotated,
        )


def as_pixels(image: bytes | Pixels, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """uint8 [H,W,3] of an encoded picture or of a uint8 array [H,W], [H,W,1] or [H,W,3].

    Raises InputError for other arrays, ImageError for pictures that cannot be decoded.
    """
    if isinstance(image, bytes):
        return decode(image, max_pixels=max_pixels)
    if image.dtype != np.uint8:
        raise InputError(f"pixels must be uint8, not {image.dtype}: scale them to 0..255 and convert")
    grey = image[:, :, None] if image.ndim == 2 else image
    if grey.ndim != 3 or grey.shape[2] not in (1, 3) or grey.size == 0:
        raise InputError(f"pixels must have the shape [H,W], [H,W,1] or [H,W,3], not {list(image.shape)}")
    return np.ascontiguousarray(np.broadcast_to(grey, (*grey.shape[:2], 3)))


def prepare(image: bytes | Pixels, preprocess: Preprocess, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """A picture as the model's input pixels, before mean and std (those are inside the model).

    Args:
        image: an encoded picture, or uint8 [H,W], [H,W,1] or [H,W,3].
        preprocess: the model's rules; R is `preprocess.size`.
        max_pixels: pictures with more pixels are refused before decoding.

    Returns: uint8 [R,R,3].
    Raises: ImageError (an InputError) for a picture that cannot be decoded, InputError for an array of another kind.
    Source: torchvision.transforms.Resize(round(R / crop)) and CenterCrop(R) on PIL images give the same bits,
        except for pictures longer than `MAX_ASPECT` times their width.
    """
    pixels = as_pixels(image, max_pixels=max_pixels)
    size, method = preprocess.size, _FILTERS[preprocess.interpolation]
    if preprocess.resize == "squash":
        return np.array(Image.fromarray(pixels).resize((size, size), method))
    pixels = centre(pixels, MAX_ASPECT * min(pixels.shape[:2]))
    height, width, _ = pixels.shape
    short = round(size / preprocess.crop)
    long = int(short * max(height, width) / min(height, width))
    shape = (short, long) if width <= height else (long, short)
    resized = Image.fromarray(pixels).resize(shape, method)
    left, top = round((shape[0] - size) / 2), round((shape[1] - size) / 2)
    return np.array(resized.crop((left, top, left + size, top + size)))


def centre(pixels: Pixels, limit: int) -> Pixels:
    """View of the centre of `pixels` [H,W,3] with no side longer than `limit`."""
    height, width, _ = pixels.shape
    top, left = max(0, height - limit) // 2, max(0, width - limit) // 2
    return pixels[top : top + limit, left : left + limit]


@contextmanager
def opened(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> Generator[ImageFile.ImageFile]:
    """The picture with its header read and its size checked, no pixel decoded; Pillow's warnings and switches are
    held meanwhile.

    Raises ImageError.
    """
    if not encoded:
        raise ImageError("is empty (0 bytes); replace it with a whole copy or remove it", "empty")
    with _held():
        try:
            image = Image.open(io.BytesIO(encoded), formats=_known_formats())
        except Image.DecompressionBombError:
            raise ImageError(
                f"has more pixels than the limit of {max_pixels:,}; store it smaller", "too large"
            ) from None
        except Exception as error:  # what a hostile header makes a parser raise is not bounded
            if _is_cut_webp(encoded):
                raise _truncated(error) from None
            if any(accept is not None and accept(encoded[:16]) is True for accept in _signatures()):
                raise ImageError("has a damaged header; replace it with a whole copy or remove it") from None
            raise ImageError(
                "is not a picture in a known format (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF, JPEG 2000); "
                "convert or remove it",
                "unknown format",
            ) from None
        with image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"has {width} x {height} pixels, more than the limit of {max_pixels:,}; store it smaller",
                    "too large",
                )
            if width < 1 or height < 1:
                raise ImageError(f"has {width} x {height} pixels; replace or remove it")
            yield image


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where there is none. Damaged metadata never costs the picture."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's EXIF parser raises whatever the damaged bytes lead it to
        return 1
    return value if value in _TRANSPOSITIONS else 1


def turned(image: Image.Image, exif_orientation: int) -> Image.Image:
    """The picture turned upright by its EXIF orientation."""
    method = _TRANSPOSITIONS.get(exif_orientation)
    return image if method is None else image.transpose(method)


def format_of(image: ImageFile.ImageFile) -> str:
    """Format of an opened picture, a key of `FORMATS`; a JPEG with embedded previews (MPO) is a JPEG."""
    return "JPEG" if image.format == "MPO" else str(image.format)


def _on_white(image: Image.Image) -> Image.Image:
    """A loaded picture as RGB: 16-bit scaled, transparency on white, every other mode converted by Pillow."""
    if image.mode.startswith("I"):
        samples = np.asarray(image)
        if samples.min() < 0 or samples.max() > 0xFFFF:
            raise ImageError(
                "holds 32-bit samples, for which no white is defined; store it with 8 or 16 bits per sample"
            )
        grey = (samples >> 8).astype(np.uint8)
        key = image.info.get("transparency")
        if isinstance(key, int):
            grey[samples == key] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(layered, mask=layered)
        return canvas
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_animated(image: ImageFile.ImageFile) -> bool:
    if image.format == "MPO":
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a later frame is damaged: there is one
        return True


@contextmanager
def _refusing() -> Generator[None]:
    """Turn what Pillow raises over a damaged file into an ImageError."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ... over damaged bytes
        if isinstance(error, EOFError) or "truncated" in str(error).lower():
            raise _truncated(error) from None
        raise ImageError(f"is damaged ({error}); replace it with a whole copy or remove it") from None


def _truncated(error: Exception) -> ImageError:
    return ImageError(f"is truncated ({error}); replace it with a whole copy or remove it", "truncated")


def _is_cut_webp(encoded: bytes) -> bool:
    """Whether a RIFF/WebP file is shorter than it says."""
    is_webp = encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP"
    return is_webp and len(encoded) < 8 + int.from_bytes(encoded[4:8], "little")


@functools.cache
def _known_formats() -> tuple[str, ...]:
    """The keys of `FORMATS` that this Pillow has; only their plugins are imported."""
    for plugin in _PLUGINS:
        with suppress(ImportError):  # AVIF came with Pillow 11.3
            importlib.import_module(f"PIL.{plugin}ImagePlugin")
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _signatures() -> Iterator[Callable[[bytes], bool | str] | None]:
    """For each known format, Pillow's test of a file's first 16 bytes."""
    return (Image.OPEN[name][1] for name in _known_formats())


_hold = threading.Lock()
_holders = 0
_restore = ExitStack()


@contextmanager
def _held() -> Generator[None]:
    """Keep Pillow's warnings silent and truncated files an error, whatever the process has set.

    Both are process-wide, so the first thread to enter sets them and the last to leave puts back what was there.
    """
    global _holders
    with _hold:
        if _holders == 0:
            _restore.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _restore.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        _holders += 1
    try:
        yield
    finally:
        with _hold:
            _holders -= 1
            if _holders == 0:
                _restore.close()
