"""Training on a CUDA device: `make gpu-check`. Without one every test here is skipped, with that reason."""

import os
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import EVERY_CHANGE, tiny_data, tiny_network, tiny_recipe

from netsmith.arch.names import find_layout
from netsmith.models.build import build
from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train.batch import Delivery
from netsmith.train.evaluate import evaluate_network
from netsmith.train.feed import Feed, TrainingData
from netsmith.train.ranks import ALONE, Ranks
from netsmith.train.rendering import Rendered
from netsmith.train.trainer import Trainer

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")]

EVERYTHING: dict[str, Any] = {**EVERY_CHANGE, "shift": 0.1}


@pytest.fixture(autouse=True)
def cuda() -> Generator[torch.device]:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    switches = {name: getattr(torch.backends.cudnn, name) for name in ("deterministic", "benchmark", "allow_tf32")}
    yield torch.device("cuda")
    for name, value in switches.items():
        setattr(torch.backends.cudnn, name, value)
    torch.cuda.set_sync_debug_mode("default")
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


class ManySizes:
    """Smooth pictures of many sizes."""

    def __init__(self, count: int, low: int, high: int) -> None:
        draw = np.random.default_rng(0)
        self.pictures = []
        for height, width in draw.integers(low, high, (count, 2)).tolist():
            rows, columns = np.mgrid[0:height, 0:width]
            waves = [127 + 100 * np.sin(rows / (4 + c)) * np.cos(columns / (6 + c)) for c in range(3)]
            noise = draw.normal(0, 6, (height, width, 3))
            self.pictures.append(np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8))

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return self.pictures[index]


def data(images: Any, *, side: int, classes: int = 5) -> TrainingData:
    val = np.random.default_rng(1).integers(0, 256, (16, side, side, 3), dtype=np.uint8)
    labels = np.arange(len(images)) % classes
    return TrainingData(images, labels, val, np.arange(16) % classes, Preprocess(size=side), "gpu")


def trainer(folder: Path, *, network: torch.nn.Module | None = None, ranks: Ranks = ALONE, **changes: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    recipe = tiny_recipe(**({"device": "cuda", "dtype": "float32"} | changes))
    return Trainer(
        network if network is not None else tiny_network(),
        tiny_data(),
        recipe,
        plan=Plan(folder / "plan.jsonl"),
        clock=SystemClock(),
        checkpoints=folder / "checkpoints",
        metrics=folder / "metrics.jsonl",
        warn=lambda text: None,
        ranks=ranks,
    )


def weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in network.state_dict().items()}


def apart(one: torch.Tensor, other: torch.Tensor) -> tuple[int, float]:
    difference = (one.int() - other.int()).abs()
    return int(difference.max()), float((difference > 0).double().mean())


# Pictures


@pytest.mark.parametrize("changes", [{"crop_scale": None, "pad": 4}, {"crop_scale": (0.3, 1.0)}])
def test_framing_on_the_device_is_the_cpus(changes: dict[str, Any], cuda: torch.device) -> None:
    exact = changes["crop_scale"] is None
    images = ManySizes(64, 32, 33) if exact else ManySizes(64, 40, 120)
    recipe, found = tiny_recipe(img_size=32, **changes), data(images, side=32)
    host = Feed.of(found, recipe, batch_size=32)
    there = Feed.of(found, recipe, batch_size=32, rendered=Rendered(images, cuda, keep=True), delivery=Delivery(cuda))
    for step in range(4):
        most, share = apart(there.delivered(step).images.cpu(), host.batch(step).images)
        assert most <= (0 if exact else 1)
        assert share < 0.02


def test_everything_on_the_device_is_nearly_the_cpus_and_repeats(cuda: torch.device) -> None:
    """Resampling after resizing may carry a level on; most pixels are the same, and the same again in a second feed."""
    images = ManySizes(64, 40, 120)
    recipe, found = tiny_recipe(img_size=32, **EVERYTHING), data(images, side=32)
    host = Feed.of(found, recipe, batch_size=32)
    feeds = [
        Feed.of(found, recipe, batch_size=32, rendered=Rendered(images, cuda, keep=keep), delivery=Delivery(cuda))
        for keep in (True, False)
    ]
    for step in range(4):
        kept, sent = (feed.delivered(step) for feed in feeds)
        assert torch.equal(kept.images, sent.images)
        torch.testing.assert_close(kept.targets.cpu(), host.batch(step).targets)
        difference = (kept.images.cpu().int() - host.batch(step).images.int()).abs()
        assert float((difference > 2).double().mean()) < 0.01


def test_threads_and_streams_change_no_batch(cuda: torch.device) -> None:
    images = ManySizes(64, 40, 120)
    recipe, found = tiny_recipe(img_size=32, **EVERYTHING), data(images, side=32)
    made = [
        Feed.of(found, recipe, batch_size=16, rendered=Rendered(images, cuda, keep=True), delivery=Delivery(cuda))
        for _ in range(2)
    ]
    with closing(made[0].batches(0, workers=3)) as ahead:
        for step, batch in zip(range(40), ahead, strict=False):
            noise = torch.randn(512, 512, device=cuda)
            for _ in range(20):  # keeps the device busy, so that a batch that is used too early would be another
                noise = noise @ noise
            assert torch.equal(batch.images, made[1].delivered(step).images)


# Training


def test_pictures_are_resident_and_the_plan_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.advance()
    assert [row.value for row in run._planner.plan.rows if row.kind == "rendering"] == ["resident"]
    assert run.feed.rendered is not None
    assert run.feed.rendered.resident
    assert all(tensor.is_cuda for tensor in run.network.state_dict().values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("opt", ["sgd", "adamw", "rmsprop", "muon"])
def test_it_learns_in_every_dtype_by_every_optimizer(opt: str, dtype: str, tmp_path: Path) -> None:
    rates = {"sgd": 0.1, "adamw": 0.01, "rmsprop": 0.01, "muon": 0.02}
    run = trainer(tmp_path, opt=opt, lr=rates[opt], dtype=dtype, epochs=30.0, network=tiny_network(dropout=0.0))
    run.advance()
    evaluation = run.evaluate()
    assert evaluation is not None
    assert evaluation.top1.value > 0.9


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_stopped_run_ends_in_the_same_bits(dtype: str, tmp_path: Path) -> None:
    """On one card, with cuDNN's deterministic kernels."""
    torch.backends.cudnn.deterministic = True
    whole = trainer(tmp_path / "whole", dtype=dtype, epochs=4.0, opt="adamw", lr=0.01)
    whole.advance()
    first = trainer(tmp_path / "parts", dtype=dtype, epochs=4.0, opt="adamw", lr=0.01)
    first.advance(until=11)
    first.save()
    second = trainer(tmp_path / "parts", dtype=dtype, epochs=4.0, opt="adamw", lr=0.01)
    assert second.resume()
    second.advance()
    expected, found = weights(whole.network), weights(second.network)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_memory_that_runs_out_divides_the_batch(tmp_path: Path, cuda: torch.device) -> None:
    """A limit on this process's memory, below what a whole batch takes."""
    images = ManySizes(512, 64, 65)
    recipe = Recipe(
        model="resnet18", img_size=64, epochs=1.0, batch_size=256, device="cuda", dtype="float32", crop_scale=None
    )
    network = build(find_layout("resnet18", num_classes=5, img_size=64))
    free, total = torch.cuda.mem_get_info(cuda)
    wanted = 1.2e9  # a batch of 256 at 64 pixels takes several
    if free < 2 * wanted:
        pytest.skip(f"only {free / 1e9:.1f} GB of the GPU's memory are free")
    torch.cuda.set_per_process_memory_fraction(wanted / total)
    said: list[str] = []
    run = Trainer(
        network, data(images, side=64), recipe, plan=Plan(tmp_path / "p"), clock=SystemClock(), warn=said.append
    )
    run.advance()
    parts = [row.value for row in run._planner.plan.rows if row.kind == "grad_accum"]
    assert parts
    assert parts == [2 ** (n + 1) for n in range(len(parts))]
    assert any("memory ran out" in text for text in said)
    assert run.finished


def test_no_update_between_looks_waits_for_the_device(tmp_path: Path) -> None:
    """torch raises where an operation of the loop would make Python wait."""
    run = trainer(tmp_path, epochs=9.0, ema=0.99, grad_clip=1.0, workers=0)
    run.advance(until=1)
    batches = run.feed.batches(1, workers=0)
    ready = [next(batches) for _ in range(4)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    for batch in ready:
        run._metrics.add(run._updates.make(batch), batch)
    torch.cuda.set_sync_debug_mode("default")
    assert run.step == 5


def test_rendering_does_not_wait_for_the_device(cuda: torch.device) -> None:
    images = ManySizes(64, 40, 120)
    recipe, found = tiny_recipe(img_size=32, **EVERYTHING), data(images, side=32)
    feed = Feed.of(found, recipe, batch_size=32, rendered=Rendered(images, cuda, keep=True), delivery=Delivery(cuda))
    feed.delivered(0)  # sends the pictures and the border colour
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    for step in range(1, 5):
        feed.delivered(step)


@pytest.mark.filterwarnings("ignore")  # advice of compilers
def test_a_compiled_run_trains_alike(tmp_path: Path) -> None:
    losses = {}
    for compiled in (False, True):
        torch.compiler.reset()
        run = trainer(tmp_path / str(compiled), compile=compiled, epochs=5.0, network=tiny_network(dropout=0.0))
        run.advance()
        evaluation = run.evaluate()
        assert evaluation is not None
        losses[compiled] = evaluation.loss
        assert [row.value for row in run._planner.plan.rows if row.kind == "compile"] == [True] * compiled
    assert losses[True] == pytest.approx(losses[False], abs=0.05)


# Answers


@pytest.mark.parametrize("name", ["resnet20_cifar", "efficientnet_b0@0.5"])
def test_evaluation_is_the_cpus(name: str, cuda: torch.device) -> None:
    torch.backends.cudnn.allow_tf32 = False
    network = build(find_layout(name, num_classes=10, img_size=32)).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(40) % 10
    preprocess = Preprocess(size=32)
    values: dict[str, Any] = {"mean": preprocess.mean, "std": preprocess.std}
    expected = evaluate_network(network, pixels, labels, **values)
    found = evaluate_network(network.to(cuda), pixels, labels, **values)
    scale = float(np.abs(expected.logits).max())
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-3 * scale)


@pytest.mark.filterwarnings("ignore")  # of torch, which takes its way through several kinds of groups
@pytest.mark.parametrize("changes", [{"sync_bn": False}, {"sync_bn": True}, {"sync_bn": False, "sharded": True}])
def test_a_run_over_nccl_is_that_of_one_process(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group of one, in which everything is exchanged: the driver, the library and torch agree with each other."""
    import torch.distributed as dist

    if not dist.is_nccl_available():
        pytest.skip("this torch has no NCCL")
    torch.backends.cudnn.deterministic = True
    few: dict[str, Any] = {"epochs": 0.5, "lr": 0.01, "grad_clip": 1.0}
    alone = trainer(tmp_path / "alone", **few)
    alone.advance()
    monkeypatch.setattr(Ranks, "several", property(lambda self: True))
    monkeypatch.setattr("netsmith.train.division.refuse_with_sharded", lambda recipe, processes: None)
    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        words = dist.new_group(backend="gloo")
        run = trainer(tmp_path / "group", ranks=Ranks(words=words, steps=words), **few, **changes)
        run.advance()
        assert run.evaluate() is not None
        run.save()
        found = weights(run.state.plain())
    finally:
        dist.destroy_process_group()
    for name, tensor in weights(alone.network).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_the_command_trains_on_the_device(tmp_path: Path) -> None:
    import subprocess
    import sys

    for package in ("cyclopts", "matplotlib", "onnx", "onnxruntime", "sklearn"):
        pytest.importorskip(package)
    run = tmp_path / "run"
    command = ["train", "digits", "--model", "resnet20_cifar@0.5", "--epochs", "2", "--device", "cuda", "-o", str(run)]
    done = subprocess.run(
        [sys.executable, "-m", "netsmith", *command], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {row.kind: row.value for row in Plan(run / "plan.jsonl").rows}
    assert rows["rendering"] == "resident"
