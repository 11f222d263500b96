"""`Predictor`: encoded pictures in, named probabilities out, without torch.

Pictures are prepared in threads (Pillow releases the interpreter while it decodes) one batch ahead of the model.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from netsmith.artifact.bundle import load_bundle
from netsmith.artifact.runtimes import Warn, open_session, refuse_no_numbers
from netsmith.data.prepare import prepare, read_file
from netsmith.errors import InputError
from netsmith.run.machine import machine

TOP_K = 5
"""Classes to name where nothing is said."""
Picture = str | Path | bytes | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture, most probable first.

    Attributes:
        name: its path, or "image I" for what has none.
        labels: class names.
        probabilities: of those classes, 0 to 1.
        tags: of a model that tags, the labels whose probability reaches their threshold, most probable first, possibly
            none; None of a model that names one class.
    """

    name: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Unreadable:
    """A picture that cannot be predicted, and the sentence that says why."""

    name: str
    reason: str


class Predictor:
    """An artifact, opened to predict.

    Args:
        folder: the artifact, or a run that holds one.
        threads, runtime: None takes those that the artifact prefers.
        warn: is given a sentence where the machine cannot follow that preference; None uses `warnings.warn`.

    Raises:
        InputError: no artifact, a damaged one, or a runtime that is not there.
    """

    def __init__(
        self, folder: str | Path, *, threads: int | None = None, runtime: str | None = None, warn: Warn | None = None
    ) -> None:
        self.bundle = load_bundle(Path(folder))
        self.session = open_session(self.bundle, runtime=runtime, threads=threads, warn=warn)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.bundle.config.labels

    def predict(
        self, images: Picture | Sequence[Picture], *, top_k: int | None = None, batch_size: int = 32
    ) -> list[Prediction]:
        """Name the most probable classes, and the tags where the model gives tags.

        Args:
            images: one picture or several: paths, encoded bytes, Pillow images, arrays uint8 [H,W,3], [H,W] or
                [N,H,W,3].
            top_k: classes per picture, at most all; None is 5, or all of a model that tags. It does not limit tags.
            batch_size: pictures per call of the model.

        Raises:
            InputError: a picture cannot be read, which it names; the model does not answer with numbers.
        """
        answers: list[Prediction] = []
        for answer in self.stream(_pictures(images), top_k=top_k, batch_size=batch_size):
            if isinstance(answer, Unreadable):
                raise InputError(answer.reason)
            answers.append(answer)
        return answers

    def predict_proba(self, images: Picture | Sequence[Picture], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Probabilities float32 [N,C] in the order of `labels`; arguments and errors as `predict`."""
        rows: list[NDArray[np.float32]] = []
        for _, row in self._rows(_pictures(images), batch_size):
            if isinstance(row, InputError):
                raise row
            rows.append(row)
        return np.stack(rows) if rows else np.empty((0, len(self.labels)), np.float32)

    def stream(
        self, images: Iterable[tuple[str, Picture]], *, top_k: int | None = None, batch_size: int = 32
    ) -> Iterator[Prediction | Unreadable]:
        """Predict any number of named pictures, in order, holding two batches of them at a time; unreadable ones are
        told, not raised."""
        thresholds = self.bundle.config.thresholds
        if top_k is None:
            top_k = TOP_K if thresholds is None else len(self.labels)
        if top_k < 1 or batch_size < 1:
            raise InputError(f"top_k is {top_k} and batch_size {batch_size}; give at least 1 for each")
        for name, row in self._rows(images, batch_size):
            if isinstance(row, InputError):
                yield Unreadable(name, str(row))
            else:
                order = np.argsort(-row, kind="stable").tolist()
                tags = None
                if thresholds is not None:
                    tags = tuple(self.labels[i] for i in order if row[i] >= thresholds[i])
                best = order[:top_k]
                labels, probabilities = (tuple(self.labels[i] for i in best), tuple(float(row[i]) for i in best))
                yield Prediction(name, labels, probabilities, tags)

    def _rows(
        self, images: Iterable[tuple[str, Picture]], batch_size: int
    ) -> Iterator[tuple[str, NDArray[np.float32] | InputError]]:
        waiting = iter(images)
        with ThreadPoolExecutor(machine().cores_usable) as pool:

            def next_batch() -> list[tuple[str, Future[NDArray[np.uint8] | InputError]]]:
                return [(name, pool.submit(self._pixels, name, image)) for name, image in islice(waiting, batch_size)]

            ahead = next_batch()
            while ahead:
                batch, ahead = ahead, next_batch()
                prepared = [(name, future.result()) for name, future in batch]
                readable = [pixels for _, pixels in prepared if not isinstance(pixels, InputError)]
                rows = iter(self._probabilities(np.stack(readable)) if readable else ())
                for name, pixels in prepared:
                    yield name, pixels if isinstance(pixels, InputError) else next(rows)

    def _probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = self.session.run(images).probabilities
        refuse_no_numbers(found, of=self.bundle.folder)
        return found

    def _pixels(self, name: str, image: Picture) -> NDArray[np.uint8] | InputError:
        try:
            return prepare(_content(image), self.bundle.config.preprocess)
        except InputError as error:
            return InputError(f"{name} {error}")


def _pictures(images: Picture | Sequence[Picture]) -> Iterator[tuple[str, Picture]]:
    """Name the pictures of one picture, a sequence of them, or an array [N,H,W,3]."""
    if isinstance(images, str | Path | bytes | Image.Image) or (isinstance(images, np.ndarray) and images.ndim < 4):
        images = [images]
    for index, image in enumerate(images):
        yield str(image) if isinstance(image, str | Path) else f"image {index}", image


def _content(image: Picture) -> bytes | NDArray[np.uint8]:
    """What `prepare` takes: encoded bytes, or an array as it is. A Pillow image is encoded without loss, its EXIF
    rotation kept."""
    match image:
        case str() | Path():
            return read_file(image)
        case Image.Image():
            content = io.BytesIO()
            kind = "PNG" if image.mode in {"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"} else "TIFF"
            image.save(content, kind, exif=image.getexif())
            return content.getvalue()
        case _:
            return image
