"""What differs between the devices that training runs on, in one place: the CPU, CUDA, Apple's (mps), TPUs (xla).

- CUDA and mps compute while Python goes on; reading a number waits for them. `synchronize` waits for all.
- xla records operations and runs what was recorded when it is told to (`flush`, once per update) or asked for a number.
  Every new shape is compiled, so shapes stay fixed. It comes with the package torch_xla, which is imported only where
  the device is asked for by name; of its interface `device`, `device_count`, `manual_seed` and `sync` are used, as of
  its version 2.9.
- mps has no float64, and shares its memory with the CPU.

What was run on hardware and what was not is said in README.
"""

import importlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from netsmith.errors import InputError


def find_device(name: str) -> torch.device:
    """The device that a recipe names.

    Args:
        name: "auto" (CUDA, else mps, else the CPU; never xla), "cpu", "cuda", "cuda:N", "mps", "xla" or "xla:N".

    Raises:
        InputError: it is not there.
    """
    if name == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    device = torch.device(name)
    if device.type == "xla":
        return _find_xla(device.index)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count() or "no"
        raise InputError(f"--device {device}: this torch sees {found} CUDA device; use --device cpu or auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        why = "finds none on this machine" if torch.backends.mps.is_built() else "is built without"
        raise InputError(f"--device mps is Apple's GPU, and this torch {why}; use --device cpu or auto")
    return device


def _find_xla(index: int | None) -> torch.device:
    try:
        xla = _xla()
        count = xla.device_count()
        if (index or 0) >= count:
            raise InputError(f"--device xla:{index}: torch_xla sees {count} device; use --device xla or cpu")
        return xla.device(index)
    except (ImportError, OSError) as error:
        raise InputError(
            f"--device xla needs the package torch_xla made for torch {torch.__version__}, which cannot be imported "
            f"({str(error).splitlines()[0]}); install it beside that torch, or use --device cpu or auto"
        ) from error
    except RuntimeError as error:
        raise InputError(
            f"--device xla: torch_xla finds no device ({str(error).splitlines()[0]}); use --device cpu or auto"
        ) from error


def _xla() -> Any:
    return importlib.import_module("torch_xla")


def is_lazy(device: torch.device) -> bool:
    """Whether operations are only recorded until `flush`, and every new shape costs a compilation."""
    return device.type == "xla"


def flush(device: torch.device) -> None:
    """Begin what was recorded; nothing on devices that begin at once."""
    if is_lazy(device):
        _xla().sync()


def synchronize(device: torch.device) -> None:
    """Wait until everything that was asked of the device is done."""
    match device.type:
        case "cuda":
            torch.cuda.synchronize(device)
        case "mps":
            torch.mps.synchronize()
        case "xla":
            _xla().sync(wait=True)
        case _:
            pass


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values on a device; CUDA is not waited for."""
    cuda = device.type == "cuda"
    if cuda and values.is_cpu:
        values = values.pin_memory()  # from other memory the copy would be made before Python goes on
    return values.to(device, non_blocking=cuda)


def choose_kernels(device: torch.device) -> None:
    """Let cuDNN try its kernels on every new shape and keep the fastest, unless they are asked to be deterministic.

    It is slow once per shape and layer, and faster from then on. Shapes are few: batches have one size, and so have
    their evaluation's where it fills up the last (`likes_known_shapes`). Other kernels round differently; on a GPU
    bits are the same again only with `torch.backends.cudnn.deterministic`.
    """
    if device.type == "cuda" and not torch.backends.cudnn.deterministic:
        torch.backends.cudnn.benchmark = True


@contextmanager
def whole_float32() -> Generator[None]:
    """Convolutions as exact as on the CPU, also where cuDNN would cut float32 to TF32's ten bits, as torch lets it."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def likes_known_shapes(device: torch.device) -> bool:
    """Whether a new shape costs more than some pictures more: it is compiled for, or cuDNN's kernels are tried."""
    return device.type in {"cuda", "xla"}


def waits_for_numbers(device: torch.device) -> bool:
    """Whether reading a number makes Python wait for the device; on a CPU it is there already."""
    return device.type != "cpu"


def seed(device: torch.device, number: int) -> None:
    """Seed torch's generators, that of the device included."""
    torch.manual_seed(number)
    if device.type == "xla":
        _xla().manual_seed(number)


def release(device: torch.device) -> None:
    """Give back what a failed update left behind, where the allocator keeps it."""
    match device.type:
        case "cuda":
            torch.cuda.empty_cache()
        case "mps":
            torch.mps.empty_cache()
        case _:
            pass


def free_memory(device: torch.device) -> int | None:
    """Bytes that tensors could still take on the device, None where that is not known."""
    match device.type:
        case "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        case "mps":
            return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
        case _:
            return None


def has_float64(device: torch.device) -> bool:
    """Whether float64 exists there."""
    return device.type != "mps"


def computes_bfloat16(device: torch.device) -> bool:
    """Whether an accelerator has bfloat16 in hardware; a CPU's instructions are looked at elsewhere."""
    match device.type:
        case "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        case "mps":
            return torch.backends.mps.is_macos_or_newer(14, 0)
        case "xla":
            return True
        case _:
            return False


def has_fused_optimizers(device: torch.device) -> bool:
    """Whether torch's fused SGD and AdamW run there."""
    return device.type in {"cpu", "cuda", "mps"}
