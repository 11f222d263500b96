"""The device layer, devices that are not here played by fakes: what is asked of them, and what a person is told."""

import sys
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from tiny_training import tiny_data, tiny_network, tiny_recipe
from torch import nn

from netsmith.errors import InputError
from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.train import devices, step, trainer, updates
from netsmith.train.evaluate import evaluate_network
from netsmith.train.optimizers import build_optimizer
from netsmith.train.pacing import Pacing
from netsmith.train.precision import Precision, candidates
from netsmith.train.shortage import says_out_of_memory
from netsmith.train.state import State
from netsmith.train.trainer import Trainer

MPS, XLA, CUDA, CPU = (torch.device(kind) for kind in ("mps", "xla", "cuda", "cpu"))


class FakeXla:
    """Notes what torch_xla is asked to do; its device is the CPU's."""

    def __init__(self, count: int = 1) -> None:
        self.count, self.calls = count, []

    def device_count(self) -> int:
        return self.count

    def device(self, index: int | None) -> torch.device:
        return torch.device("xla", index) if index is not None else XLA

    def sync(self, wait: bool = False) -> None:
        self.calls.append("wait" if wait else "sync")

    def manual_seed(self, number: int) -> None:
        self.calls.append(f"seed {number}")


@pytest.fixture
def xla(monkeypatch: pytest.MonkeyPatch) -> FakeXla:
    fake = FakeXla()
    monkeypatch.setitem(sys.modules, "torch_xla", cast(Any, fake))
    return fake


def there(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_auto_takes_cuda_then_mps_then_the_cpu(monkeypatch: pytest.MonkeyPatch, xla: FakeXla) -> None:
    for cuda, mps, expected in ((2, True, CUDA), (0, True, MPS), (0, False, CPU)):
        there(monkeypatch, cuda=cuda, mps=mps)
        assert devices.find_device("auto") == expected
    assert not xla.calls


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch, xla: FakeXla) -> None:
    there(monkeypatch, cuda=2, mps=True)
    for name in ("cpu", "cuda", "cuda:1", "mps", "xla", "xla:0"):
        assert devices.find_device(name) == torch.device(name)
    with pytest.raises(InputError, match=r"--device cuda:2: this torch sees 2 CUDA device; use --device cpu"):
        devices.find_device("cuda:2")
    with pytest.raises(InputError, match=r"--device xla:3: torch_xla sees 1 device"):
        devices.find_device("xla:3")
    there(monkeypatch)
    with pytest.raises(InputError, match=r"--device mps is Apple's GPU, and this torch .*; use --device cpu or auto"):
        devices.find_device("mps")


def test_a_missing_torch_xla_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_xla", None)
    with pytest.raises(InputError, match=r"--device xla needs the package torch_xla made for torch .*install it"):
        devices.find_device("xla")


def test_a_machine_without_a_tpu_is_one_sentence(monkeypatch: pytest.MonkeyPatch, xla: FakeXla) -> None:
    def nothing(index: int | None) -> torch.device:
        raise RuntimeError("Failed to get global TPU topology.\nmore")

    monkeypatch.setattr(xla, "device", nothing)
    with pytest.raises(InputError, match=r"torch_xla finds no device \(Failed to get global TPU topology\.\); use"):
        devices.find_device("xla")


def test_nothing_but_its_name_imports_torch_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_xla", None)  # importing it would raise
    there(monkeypatch)
    device = devices.find_device("auto")
    devices.flush(device)
    devices.synchronize(device)
    devices.release(device)
    devices.seed(device, 3)
    assert devices.free_memory(device) is None


def test_seeds_reach_the_device(xla: FakeXla) -> None:
    devices.seed(XLA, 7)
    drawn = torch.rand(3)
    devices.seed(CPU, 7)
    assert torch.equal(torch.rand(3), drawn)
    assert xla.calls == ["seed 7"]


def test_memory_and_waiting_ask_the_right_module(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(f"synchronize {device}"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty cuda"))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: calls.append("synchronize mps"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: calls.append("empty mps"))
    for device in (CUDA, MPS, CPU):
        devices.synchronize(device)
        devices.release(device)
    assert calls == ["synchronize cuda", "empty cuda", "synchronize mps", "empty mps"]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 70)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 30)
    assert [devices.free_memory(device) for device in (CUDA, MPS, CPU)] == [130, 40, None]


def test_a_failed_allocation_tells_what_cudnn_means(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("FIND was unable to find an engine to execute this computation after trying 3 plans.")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for failed in (0, 2):
        monkeypatch.setattr(torch.cuda, "memory_stats", lambda device, failed=failed: {"num_ooms": failed})
        assert says_out_of_memory(error) == (failed > 0)


@pytest.mark.parametrize(
    ("device", "deterministic", "tried"), [(CUDA, False, True), (CUDA, True, False), (CPU, False, False)]
)
def test_kernels_are_tried_on_cuda_unless_they_must_be_deterministic(
    device: torch.device, deterministic: bool, tried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", deterministic)
    devices.choose_kernels(device)
    assert torch.backends.cudnn.benchmark == tried


def test_precision_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *version: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    recipe = tiny_recipe()

    def ways(device: torch.device, *, measured: bool, **changes: Any) -> list[tuple[str, bool]]:
        found = candidates(recipe.model_copy(update=changes), device, measured=measured)
        return [(way.dtype, way.channels_last) for way in found]

    assert ways(MPS, measured=False) == [("float32", False)]
    assert ways(MPS, measured=True) == [("float32", False), ("bfloat16", False), ("float32", True)]
    assert ways(XLA, measured=True) == [("bfloat16", False)]
    assert ways(XLA, measured=False, dtype="float32", channels_last=True) == [("float32", False)]
    assert ways(CUDA, measured=False) == [("float32", True)]
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *version: False)
    assert ways(MPS, measured=True) == [("float32", False), ("float32", True)]


def test_optimizers_are_fused_where_torch_can(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny_network()
    assert build_optimizer(network, tiny_recipe()).param_groups[0]["fused"]
    assert all(devices.has_fused_optimizers(device) for device in (CPU, CUDA, MPS))
    assert not devices.has_fused_optimizers(XLA)


def test_counts_of_an_optimizer_that_is_not_fused_stay_on_the_cpu() -> None:
    """Those of one that is fused go where their parameter is; either way a resumed state is what a fresh one is."""
    recipe = tiny_recipe(opt="adamw")
    state = State(tiny_network(), recipe, Precision())
    step.update(
        Loss(state.network), state.optimizer, batch(), rate=0.1, precision=Precision()
    )  # memory of the optimizer
    for fused in (True, False):
        resumed = State(tiny_network(seed=1), recipe, Precision())
        resumed.optimizer.param_groups[0]["fused"] = resumed.optimizer.param_groups[1]["fused"] = fused
        moved: list[torch.device] = []
        counts = {
            name: Spied(value, moved) if name.endswith(".step") else value for name, value in state.tensors().items()
        }
        resumed.load(counts, state.numbers(), step=1)
        assert bool(moved) == fused


class Spied(torch.Tensor):
    """A tensor that notes where it is moved to."""

    moved: list[torch.device]

    @staticmethod
    def __new__(cls, value: torch.Tensor, moved: list[torch.device]) -> "Spied":
        made = value.detach().clone().as_subclass(cls)
        made.moved = moved
        return made

    def to(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.moved.append(args[0])
        return self.as_subclass(torch.Tensor)


class Loss(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> Any:
        logits = self.network(images)
        return SimpleNamespace(loss=nn.functional.cross_entropy(logits, targets), logits=logits)


def batch() -> Any:
    return SimpleNamespace(images=torch.rand(4, 3, 8, 8), targets=torch.arange(4) % 3)


def test_shortages_of_all_devices_are_known() -> None:
    for words in (
        "MPS backend out of memory (MPS allocated: 1 GB)",
        "RESOURCE_EXHAUSTED: Ran out of memory in HBM",
        "could not create a primitive",
    ):
        assert says_out_of_memory(RuntimeError(words))
    assert not says_out_of_memory(RuntimeError("shapes do not fit"))
    assert not says_out_of_memory(RuntimeError("could not create a primitive descriptor for a convolution"))


def test_every_update_is_flushed_and_waited_for_only_at_looks(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, xla: FakeXla
) -> None:
    """A CPU that is told it were lazy: one flush per update, seeds that reach it, no look at the loss in between."""
    monkeypatch.setattr(devices, "is_lazy", lambda device: True)
    monkeypatch.setattr(step, "flush", lambda device: xla.sync())
    monkeypatch.setattr(updates, "waits_for_numbers", lambda device: True)
    looks: list[bool] = []
    real = updates.update

    def spy(*args: Any, check: bool, **more: Any) -> Any:
        looks.append(check)
        return real(*args, check=check, **more)

    monkeypatch.setattr(updates, "update", spy)
    run = Trainer(
        tiny_network(), tiny_data(train=200), tiny_recipe(epochs=1.2), plan=Plan(tmp_path / "p"), clock=SystemClock()
    )
    run.advance()
    assert run.step == 30
    assert xla.calls == ["sync"] * 30
    assert [number for number, looked in enumerate(looks) if looked] == [0, 20, 29]


def test_pace_counts_what_the_device_still_had_to_do() -> None:
    class Clock:
        time = 0.0

        def now(self) -> float:
            return self.time

        def wall(self) -> str:
            return ""

    clock = Clock()

    def wait() -> None:
        clock.time += 9.0

    pacing = Pacing(clock, seconds=100.0, checkpoint_seconds=1.0, evaluation_steps=1.0, wait=wait)
    pacing.stepped(1.0, progress=0.0)
    pacing.settle()
    assert pacing.per_step == 10.0


def test_evaluation_of_a_lazy_device_has_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_data(val=13)
    network = tiny_network()
    seen: list[int] = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    values: Any = {"mean": data.preprocess.mean, "std": data.preprocess.std, "batch_size": 8}
    expected = evaluate_network(network, data.val_pixels, data.val_labels, **values)
    assert seen == [8, 5]
    monkeypatch.setattr("netsmith.train.evaluate.likes_known_shapes", lambda device: True)
    found = evaluate_network(network, data.val_pixels, data.val_labels, **values)
    assert seen[2:] == [8, 8]
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-6)
    few = evaluate_network(network, data.val_pixels[:3], data.val_labels[:3], **values)
    assert seen[4:] == [3]
    assert len(few.logits) == 3


def test_trainer_reads_the_device_before_anything_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    def refuse(recipe: Any) -> torch.device:
        raise InputError("no device")

    monkeypatch.setattr(trainer, "choose_device", refuse)
    with pytest.raises(InputError, match="no device"):
        Trainer(tiny_network(), tiny_data(), tiny_recipe(), plan=Plan(tmp_path / "p"), clock=SystemClock())
    assert not (tmp_path / "p").exists()
