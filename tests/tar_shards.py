"""WebDataset's tar shards of small pictures, for tests of data and of what is trained on it."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

Members = Mapping[str, bytes | str]


def write_tar(path: Path, members: Members, *, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def members(files: Mapping[str, bytes], *, label: str = "cls") -> dict[str, bytes | str]:
    """The shard of class folders' pictures, one after the other."""
    out: dict[str, bytes | str] = {}
    for number, (name, content) in enumerate(sorted(files.items())):
        kind = name.split("/")[0]
        out[f"{number:06}.{name.rsplit('.', 1)[1]}"] = content
        out[f"{number:06}.{label}"] = kind if label == "cls" else json.dumps({"label": kind, "at": [1.5]})
    return out


def write_shards(folder: Path, files: Mapping[str, bytes], *, per_shard: int = 7, prefix: str = "part") -> int:
    names = sorted(files)
    starts = range(0, len(names), per_shard)
    for shard, start in enumerate(starts):
        part = {name: files[name] for name in names[start : start + per_shard]}
        write_tar(folder / f"{prefix}-{shard:03}.tar", members(part))
    return len(starts)
