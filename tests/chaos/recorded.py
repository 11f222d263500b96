"""`netsmith` as typed, with a record of all that it syncs: what a loss of power would leave.

python recorded.py JOURNAL ROOT,ROOT netsmith's arguments...

Only what was synced survives: a file's bytes as they were at its last fsync, a folder's names as they were at its own.
JOURNAL gets `events.jsonl`, one row per fsync with the tree as it stood before, and the bytes of synced files by hash.
"""

import hashlib
import json
import os
import stat
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netsmith.cli.main import main
from netsmith.train.pacing import Pacing

CHECKPOINT_SECONDS = 0.5


class Recorder:
    """Stands in for os.fsync.

    Args:
        journal: a folder.
        roots: what is recorded.
    """

    def __init__(self, journal: Path, roots: Sequence[Path]) -> None:
        journal.mkdir(parents=True, exist_ok=True)
        self._journal, self._roots = journal, [root.resolve() for root in roots]
        self._events = (journal / "events.jsonl").open("w")
        self._sync = os.fsync
        self._held: list[int] = []  # an inode that is held is given to no other file
        self._turn = threading.Lock()

    def fsync(self, handle: int) -> None:
        """Sync, and record what is now on the disk."""
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if not any(path.is_relative_to(root) for root in self._roots):
            self._sync(handle)
            return
        with self._turn:
            before = self._tree()
            self._sync(handle)
            found = os.fstat(handle)
            self._held.append(os.dup(handle))
            event: dict[str, Any] = {
                "inode": found.st_ino,
                "path": str(path),
                "main": threading.current_thread() is threading.main_thread(),
                "before": before,
            }
            if stat.S_ISDIR(found.st_mode):
                event["names"] = {entry.name: entry.inode() for entry in os.scandir(path)}
            else:
                content = Path(f"/proc/self/fd/{handle}").read_bytes()
                event["sha256"] = hashlib.sha256(content).hexdigest()
                (self._journal / event["sha256"]).write_bytes(content)
            self._events.write(json.dumps(event) + "\n")
            self._events.flush()

    def _tree(self) -> dict[str, tuple[int, int]]:
        """Inode and size of every file and folder (-1) below the roots."""
        tree: dict[str, tuple[int, int]] = {}
        for root in self._roots:
            for path in (root, *root.rglob("*")):
                try:
                    found = path.stat()
                except FileNotFoundError:  # another thread renamed it
                    continue
                tree[str(path)] = (found.st_ino, -1 if stat.S_ISDIR(found.st_mode) else found.st_size)
        return tree


if __name__ == "__main__":
    journal, roots = sys.argv.pop(1), sys.argv.pop(1)
    os.fsync = Recorder(Path(journal), [Path(root) for root in roots.split(",")]).fsync
    Pacing._checkpoint_interval = property(lambda self: CHECKPOINT_SECONDS)  # pyright: ignore
    main()
