"""Teachers' answers on pictures that are always shown alike, computed once and kept on disk.

Without augmentation a picture is the same pixels in every epoch, and a frozen teacher's answer is the same too. So each
picture is shown once before training, in the order of the data and in float32, and its answer is found again by the
hash of its pixels. The file is named by the teacher, its classes and preprocessing, the way pictures are shown, what
they are, and how they were decoded and kept, so it is found again or is another file; it is memory-mapped, and appears
only when it is whole. What it holds depends on no step and no seed, so a run that finds it comes to the same weights as
one that makes it. Where a picture is not in it the teacher is asked, which is said.

Pictures are recognised on the CPU only: where a GPU renders them its answers take less time than looking them up.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netsmith.arch.cost import cost
from netsmith.arch.layout import at_size
from netsmith.data.cache import cache_root
from netsmith.errors import InputError
from netsmith.run.clock import Clock
from netsmith.run.files import replacing
from netsmith.run.preprocess import Preprocess
from netsmith.run.progress import Progress, silent
from netsmith.run.recipe import Recipe
from netsmith.train.augment.pipeline import Augmentation, Images
from netsmith.train.teachers import Teacher, Teachers

FIRST, AT_ONCE = 8, 64
"""Pictures that a teacher answers together: few at first, by which its pace is seen."""
VIEW = 16
"""Bytes of the hash of a picture's pixels."""


def views_are_fixed(recipe: Recipe) -> bool:
    """Whether a recipe shows a picture the same way every time, and unmixed."""
    moved = (recipe.pad, recipe.shift, recipe.rotate, recipe.random_erase, recipe.mixup, recipe.cutmix)
    return (
        recipe.crop_scale is None
        and recipe.progressive is None
        and recipe.auto_augment == "none"
        and not (recipe.flip or any(moved) or any(recipe.color_jitter))
    )


class Remembered:
    """Answers by the pixels that were shown.

    Args:
        teachers: asked about pictures that are not known.
        files: of each teacher, rows of the hash of the pixels and the logits.
        warn: told, once, where a picture is not known.
    """

    def __init__(self, teachers: Teachers, files: Sequence[NDArray[np.void]], *, warn: Callable[[str], None]) -> None:
        self._teachers, self._files, self._warn, self._warned = teachers, files, warn, False
        self._rows = [{view.tobytes(): row for row, view in enumerate(file["view"])} for file in files]

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __call__(self, images: Tensor) -> Tensor:
        """As of `Teachers`: float32 [K,N,C]."""
        views = [view.tobytes() for view in _views(images)]
        answers: list[Tensor] = []
        for file, known in zip(self._files, self._rows, strict=True):
            rows = [known[view] for view in views if view in known]
            if len(rows) < len(views):
                self._say_unknown(len(views) - len(rows))
                return self._teachers(images)
            answers.append(torch.from_numpy(np.ascontiguousarray(file["logits"][rows])))
        return torch.stack(answers).to(images.device)

    def _say_unknown(self, count: int) -> None:
        if not self._warned:
            self._warn(
                f"{count} pictures of a batch look otherwise than when the teacher's answers were computed: it is "
                "asked about such batches, which takes longer and rounds as the student does"
            )
        self._warned = True


def remember(
    teachers: Teachers,
    images: Images,
    keys: Sequence[str],
    recipe: Recipe,
    preprocess: Preprocess,
    *,
    look: str,
    clock: Clock,
    seconds: float | None = None,
    progress: Progress = silent,
    warn: Callable[[str], None],
) -> Remembered | None:
    """Teachers' answers on all pictures: those that are there, or computed now.

    Args:
        teachers: on the CPU.
        images: N pictures.
        keys: their content hashes.
        recipe: shows pictures always alike.
        preprocess: of the student.
        look: what the pictures' pixels depend on beside their contents.
        clock: reads time.
        seconds: that computing them may take; None for as long as it takes.
        progress: told how many pictures are answered.
        warn: see `Remembered`.

    Returns:
        None where it would take more than `seconds`, which is seen early: teachers still to come are taken to be as
        fast for their work as the one that is asked.

    Raises:
        InputError: the folder cannot be written, or a picture cannot be read any more.
    """
    assert views_are_fixed(recipe), "pictures that change have no one answer"
    augmentation = Augmentation.of(recipe, preprocess)
    ends = None if seconds is None else clock.now() + seconds
    paths = [cache_root() / "teachers" / f"{_name(each, augmentation, keys, look=look)}.npy" for each in teachers]
    absent = [_opened(path, each, len(keys)) is None for path, each in zip(paths, teachers, strict=True)]
    work = [_macs(each, augmentation.size) if new else 0 for new, each in zip(absent, teachers, strict=True)]
    files: list[NDArray[np.void]] = []
    for at, (teacher, path) in enumerate(zip(teachers, paths, strict=True)):
        if absent[at]:
            later = len(keys) * sum(work[at + 1 :]) / work[at]
            try:
                _write(path, teacher, images, augmentation, _Deadline(clock, ends, later=later), progress)
            except _TooLate:
                return None
        found = _opened(path, teacher, len(keys))
        assert found is not None, f"{path} does not hold what was just written"
        files.append(found)
    return Remembered(teachers, files, warn=warn)


class _TooLate(Exception):
    """There is no time for all answers."""


class _Deadline:
    """Whether work of many alike parts will be done in time, by the pace of its parts but the first, which prepares
    kernels.

    Args:
        clock: reads time.
        ends: when it must be done; None does not ask.
        later: parts of which is as much work what has to be done after it, by then too.
    """

    def __init__(self, clock: Clock, ends: float | None, *, later: float = 0.0) -> None:
        self._clock, self._ends, self._later = clock, ends, later
        self._first: tuple[int, float] | None = None

    def check(self, done: int, total: int) -> None:
        """After every part: raise _TooLate where what is left will not be done in time."""
        now = self._clock.now()
        if self._ends is None:
            return
        at, began = self._first = self._first or (done, now)
        pace = (now - began) / (done - at) if done > at else 0.0
        if now + (total - done + self._later) * pace > self._ends:
            raise _TooLate


def _macs(teacher: Teacher, side: int) -> int:
    """Of one answer, to a picture of the student's side."""
    return cost(at_size(teacher.network.layout, teacher.side_for(side))).macs


def _name(teacher: Teacher, augmentation: Augmentation, keys: Sequence[str], *, look: str) -> str:
    what = {
        "teacher": teacher.knowledge.sha256,
        "places": list(teacher.knowledge.places),
        "preprocess": teacher.knowledge.preprocess.model_dump(mode="json"),
        "side": teacher.side_for(augmentation.size),
        "shown": [augmentation.size, augmentation.squash, augmentation.centre, augmentation.mode],
        "pictures": look,
        "torch": torch.__version__,
    }
    digest = hashlib.sha256(json.dumps(what).encode())
    for key in keys:
        digest.update(key.encode())
    return digest.hexdigest()


def _rows(teacher: Teacher) -> np.dtype[np.void]:
    return np.dtype([("view", f"V{VIEW}"), ("logits", "<f4", (len(teacher.knowledge.places),))])


def _opened(path: Path, teacher: Teacher, count: int) -> NDArray[np.void] | None:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # absent, cut short, or empty
        return None
    return found if (found.dtype, found.shape) == (_rows(teacher), (count,)) else None


def _write(
    path: Path,
    teacher: Teacher,
    images: Images,
    augmentation: Augmentation,
    deadline: _Deadline,
    progress: Progress,
) -> None:
    count = len(images)
    starts = [0, *range(FIRST, count, AT_ONCE)]
    try:
        with replacing(path) as temporary:
            file = np.lib.format.open_memmap(temporary, mode="w+", dtype=_rows(teacher), shape=(count,))
            for start, end in zip(starts, [*starts[1:], count], strict=True):
                progress("asking the teacher", start, count)
                chosen = np.arange(start, end)
                sources = [images[index] for index in chosen.tolist()]
                shapes = np.array([source.shape[:2] for source in sources], dtype=np.int64)
                shown = augmentation.render(sources, augmentation.draw(shapes, seed=0, epoch=0, positions=chosen))
                file["view"][chosen] = _views(shown)
                file["logits"][chosen] = teacher(shown).numpy()
                deadline.check(end, count)
            file.flush()
            progress("asking the teacher", count, count)
    except OSError as error:
        raise InputError(
            f"the teacher's answers cannot be kept in {path.parent} ({error.strerror}); make room or set NETSMITH_CACHE"
        ) from None


def _views(images: Tensor) -> NDArray[np.void]:
    """Hashes of the pixels of pictures uint8 [N,3,R,R], whatever their layout in memory."""
    pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    hashes = b"".join(hashlib.blake2b(picture, digest_size=VIEW).digest() for picture in pixels)
    return np.frombuffer(hashes, dtype=f"V{VIEW}")
