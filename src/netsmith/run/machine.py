"""The machine a number was measured on: processor, usable cores, memory, instructions that matter, versions.

Cores are those of the affinity mask within the control group's quota, because a container sees all of its host's.
Nothing is imported to learn its version.
"""

import hashlib
import math
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

MOST_THREADS = 1024
"""That a user may ask for; runtimes take whatever number they are given and die of a million."""
_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve"),
)
_PACKAGES = (
    *("netsmith", "numpy", "pillow", "onnx", "onnxruntime", "safetensors", "pydantic"),
    *("torch", "scikit-learn", "simplejpeg", "openvino"),
)


class Machine(BaseModel):
    """What measurements depend on.

    Attributes:
        cpu: model name of the processor, with the numbers of its family and model where the system tells them: virtual
            machines may name all of a maker's alike, and one of them has twice the speed of another.
        arch: instruction set, such as "x86_64".
        cores_physical: physical cores among those this process may run on.
        cores_logical: logical cores this process may run on.
        cores_usable: whole cores the control group's quota leaves of them, >= 1.
        memory_bytes: memory of the machine or the control group's limit.
        os: system and release.
        flags: instruction sets that change the speed of networks, of those the processor has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    cpu: str
    arch: str
    cores_physical: int = Field(ge=1)
    cores_logical: int = Field(ge=1)
    cores_usable: int = Field(ge=1)
    memory_bytes: int = Field(ge=0, lt=2**63)
    os: str
    flags: list[str]

    @classmethod
    def here(cls, *, root: Path = Path("/")) -> Self:
        """Describe the machine this process runs on; `root` is where /proc and /sys are looked for."""
        allowed = _affinity()
        info = _cpuinfo(root / "proc/cpuinfo")
        first = info[0] if info else {}
        flags = set((first.get("flags") or first.get("Features") or "").split())
        return cls(
            cpu=_name(first) or platform.processor() or platform.machine(),
            arch=platform.machine(),
            cores_physical=_physical(info, allowed) or len(allowed),
            cores_logical=len(allowed),
            cores_usable=max(1, math.floor(min(len(allowed), _quota(root / "sys/fs/cgroup")))),
            memory_bytes=_memory(root),
            os=f"{platform.system()} {platform.release()}",
            flags=[flag for flag in _FLAGS if flag in flags],
        )

    @property
    def key(self) -> str:
        """12 hex digits that are equal where timings may be reused: same processor, cores and instructions."""
        parts = (self.cpu, self.arch, self.cores_physical, self.cores_logical, self.cores_usable, *self.flags)
        return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:12]


def machine() -> Machine:
    """The machine this process runs on."""
    return Machine.here()


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results depend on, without importing them."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _cpuinfo(path: Path) -> list[dict[str, str]]:
    """One mapping per logical core; empty where the system has no such file."""
    try:
        blocks = path.read_text(encoding="utf-8", errors="replace").strip().split("\n\n")
    except OSError:
        return []
    pairs = [[line.partition(":") for line in block.splitlines()] for block in blocks]
    cores = [{key.strip(): value.strip() for key, _, value in block} for block in pairs]
    return [core for core in cores if "processor" in core]


def _name(core: dict[str, str]) -> str:
    """Of the processor; "" where the system does not tell."""
    name, family, model = core.get("model name", ""), core.get("cpu family"), core.get("model")
    return f"{name} (family {family}, model {model})" if name and family and model else name


def _physical(info: list[dict[str, str]], allowed: set[int]) -> int:
    cores = [core for core in info if core["processor"].isdigit() and int(core["processor"]) in allowed]
    return len({(core.get("physical id"), core.get("core id", core["processor"])) for core in cores})


def _quota(cgroup: Path) -> float:
    """Cores the control group (version 2, else 1) grants; infinite without a limit."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return math.inf
    return math.inf if limit in {"max", "-1"} else int(limit) / int(period)


def _memory(root: Path) -> int:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        total = 0
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            total = min(total, int((root / "sys/fs/cgroup" / name).read_text()))
        except (OSError, ValueError):
            continue
    return total
