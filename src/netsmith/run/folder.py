"""A run folder: the names of its files, its lock, and the rule that nothing is overwritten without being asked.

A folder belongs to a run from the moment `run.json` stands in it; the run is finished when `results.json` does. The
lock is the kernel's (flock), so it ends with the process that holds it, however that process dies.
"""

import fcntl
import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from netsmith.errors import InputError
from netsmith.run.files import make_folder, write_json

State = Literal["new", "interrupted", "finished"]
_TEMPORARY = re.compile(r"^\..+\.[0-9a-f]{8}\.tmp$")  # what `files.replacing` leaves when killed
_OWN_BEFORE_RUN_JSON = re.compile(r"^(\.lock|\.run\.json\.[0-9a-f]{8}\.tmp)$")


def make_output(path: Path) -> None:
    """Make the folder that `-o` names, unless it is there.

    Raises:
        InputError: it is a file, or cannot be made.
    """
    try:
        make_folder(path)
    except FileExistsError as error:
        raise InputError(f"{path} is a file; name a folder with -o") from error
    except OSError as error:
        raise InputError(f"the folder {path} cannot be made ({error.strerror}); name another one with -o") from error


def _refuse_unwritable_words(command: Sequence[str]) -> None:
    """Refuse what no JSON file can hold, before a folder is made: names that are not UTF-8."""
    for word in command:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = word.encode(errors="backslashreplace").decode()
            raise InputError(f"{shown} is no UTF-8, so a run cannot record it; rename it") from None


class RunFolder:
    """Names of everything in `runs/NAME`. Reading needs no lock; `create` gives a locked one to write in.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @classmethod
    def create(cls, path: Path, *, command: Sequence[str], resume: bool = False) -> Self:
        """Take a folder for a run and lock it until `close` or the end of the process.

        Args:
            path: a folder that is absent or empty, or with `resume` one that holds a run of the same verb.
            command: the verb and its arguments, such as ["fit", "digits", "--time", "1m"].
            resume: go on with the run in the folder; an absent or empty folder starts anew.

        Returns:
            The locked folder; `state` tells what it held. Use it in a `with` statement.

        Raises:
            InputError: the folder holds another run or other files, is in use, or cannot be written; the command has
                words that cannot be recorded.
        """
        folder = cls(path)
        _refuse_unwritable_words(command)
        make_output(path)
        folder._refuse_foreign()
        folder._acquire()
        try:
            folder._claim(list(command), resume=resume)
        except BaseException:
            folder.close()
            raise
        folder._sign()
        return folder

    def _refuse_foreign(self) -> None:
        if self.marker.exists():
            return
        foreign = sorted(entry.name for entry in self.path.iterdir() if not _OWN_BEFORE_RUN_JSON.match(entry.name))
        if foreign:
            raise InputError(
                f"{self.path} is not a run of netsmith but holds {foreign[0]!r}"
                f"{f' and {len(foreign) - 1} more' if foreign[1:] else ''}; name an empty folder with -o"
            )

    def _acquire(self) -> None:
        try:
            # A link in a folder from elsewhere would have its target overwritten, opening a pipe would wait for ever.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            handle = os.open(self.path / ".lock", flags, 0o644)
        except OSError as error:
            raise InputError(
                f"the folder {self.path} cannot be written ({error.strerror}); name another one with -o"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 32).decode(errors="replace").strip()
            os.close(handle)
            raise InputError(
                f"{self.path} is in use by process {holder or 'unknown'}; wait for it or name another folder with -o"
            ) from error
        self._lock = handle

    def _sign(self) -> None:
        """Write into the lock who holds it; only now, since a folder that is refused stays as it was."""
        assert self._lock is not None
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{os.getpid()}\n".encode())

    def _claim(self, command: list[str], *, resume: bool) -> None:
        if not self.marker.exists():
            self._clean()  # of one that was killed before it had its marker
            write_json(self.marker, {"format": 1, "command": command})
            return
        if self.command[:1] != command[:1]:
            raise InputError(
                f"{self.path} holds a run of `netsmith {shlex.join(self.command)}`; name another folder with -o"
            )
        if not resume:
            state, mend = ("a finished", "") if self.finished else ("an interrupted", "go on with --resume or ")
            raise InputError(
                f"{self.path} holds {state} run of `netsmith {shlex.join(self.command)}`; "
                f"{mend}name another folder with -o"
            )
        self._clean()

    def _clean(self) -> None:
        """Remove what a kill left half written; nobody else writes here."""
        for leftover in self.path.rglob(".*.tmp"):
            if _TEMPORARY.match(leftover.name) and leftover.is_file():
                leftover.unlink()

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back; a stop by the user that does not say how to go on comes to say it."""
        self.close()
        if isinstance(error, KeyboardInterrupt) and not str(error):
            raise KeyboardInterrupt(
                f"{self.path} keeps what was done; type the same command with --resume to go on"
            ) from error

    @property
    def command(self) -> list[str]:
        """The verb and arguments that made this run.

        Raises:
            InputError: the folder holds no run.
        """
        try:
            command = json.loads(self.marker.read_text(encoding="utf-8"))["command"]
            if not isinstance(command, list):
                raise TypeError("the command is no list")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"{self.path} is not a run folder: it has no {self.marker.name}") from error
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{self.marker} is damaged; start the run again in another folder") from error
        return [str(part) for part in command]

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.results.exists()

    @property
    def state(self) -> State:
        """Whether the run was only claimed ("new"), has written something, or holds `results.json` ("finished")."""
        if self.finished:
            return "finished"
        own = {self.marker.name, ".lock"}
        return "interrupted" if any(entry.name not in own for entry in self.path.iterdir()) else "new"

    @property
    def marker(self) -> Path:
        """`run.json`: the command that made the run."""
        return self.path / "run.json"

    @property
    def model(self) -> Path:
        """The artifact, a folder to ship."""
        return self.path / "model"

    @property
    def candidates(self) -> Path:
        """Every trained candidate's artifact, by its ID."""
        return self.path / "candidates"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        """`report.html`."""
        return self.path / "report.html"

    @property
    def results(self) -> Path:
        """`results.json`, a `Result`; written last."""
        return self.path / "results.json"

    @property
    def ledger(self) -> Path:
        """`ledger.jsonl`, a `Ledger`."""
        return self.path / "ledger.jsonl"

    @property
    def plan(self) -> Path:
        """`plan.jsonl`, a `Plan`."""
        return self.path / "plan.jsonl"

    @property
    def recipe(self) -> Path:
        """`recipe.yaml`, a `Recipe`."""
        return self.path / "recipe.yaml"

    @property
    def layout(self) -> Path:
        """The network as it was when the run began, where `--model` named the file of a layout."""
        return self.path / "layout.json"

    @property
    def metrics(self) -> Path:
        """`metrics.jsonl`: what training came to, at marks of its progress."""
        return self.path / "metrics.jsonl"

    @property
    def gradients(self) -> Path:
        """`gradients.jsonl`: norms of the gradients by layer, at a few moments of training."""
        return self.path / "gradients.jsonl"

    @property
    def curves(self) -> Path:
        """`curves.svg`: the learning curves."""
        return self.path / "curves.svg"

    @property
    def boards(self) -> Path:
        """Folder of TensorBoard's event files, where they were asked for."""
        return self.path / "tensorboard"

    @property
    def data(self) -> Path:
        """`data.json`: classes and the split of every item by hash."""
        return self.path / "data.json"

    @property
    def lineage(self) -> Path:
        """`lineage.json`: hashes of pictures outside of `data.json` that the model or its ancestors knew, if any."""
        return self.path / "lineage.json"

    def predictions(self, split: Literal["val", "test"]) -> Path:
        """`predictions/SPLIT.npz`: hash, target and logits per item."""
        return self.path / "predictions" / f"{split}.npz"
