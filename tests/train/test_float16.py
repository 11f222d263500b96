"""float16 activations and the scale of their loss, on a CPU, which computes them slowly and is refused otherwise."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import tiny_data, tiny_network, tiny_recipe, weights_hash
from torch import nn

from netsmith.errors import CheckError, InputError
from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.train.feed import Batch
from netsmith.train.objectives import Classify
from netsmith.train.optimizers import build_optimizer
from netsmith.train.precision import Precision
from netsmith.train.step import update
from netsmith.train.trainer import Trainer

HALF = Precision("float16")


def batch() -> Batch:
    images = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.arange(8) % 3)


def objective(network: nn.Module) -> Classify:
    return Classify(network, mean=(0.5,) * 3, std=(0.25,) * 3).train()


def memory_of(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What an optimizer keeps of the gradients, by its name for it, all parameters one after another."""
    kept: dict[str, list[torch.Tensor]] = {}
    for memory in optimizer.state.values():
        for name, value in memory.items():
            kept.setdefault(name, []).append(torch.as_tensor(value).flatten().double())
    return {name: torch.cat(values) for name, values in kept.items()}


@pytest.mark.parametrize("opt", ["sgd", "adamw", "rmsprop", "muon"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("grad_clip", [None, 0.1])
def test_the_scale_of_the_loss_is_not_in_the_update(opt: str, parts: int, grad_clip: float | None) -> None:
    """By what the optimizer remembers, since the first steps of AdamW, RMSProp and Muon are as long at any scale."""

    def remembered(scale: float | None) -> dict[str, torch.Tensor]:
        network = tiny_network(dropout=0.0)
        optimizer = build_optimizer(network, tiny_recipe(opt=opt), fused=False)
        update(
            objective(network), optimizer, batch(), rate=0.01, grad_clip=grad_clip, parts=parts,
            precision=Precision() if scale is None else HALF,
            scaler=None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale),
        )  # fmt: skip
        return memory_of(optimizer)

    expected = remembered(None)
    for scale in (2.0**6, 2.0**10):
        found = remembered(scale)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert (found[name] - values).norm() < 0.1 * values.norm(), (scale, name)


@pytest.mark.parametrize("opt", ["sgd", "adamw", "rmsprop", "muon"])
def test_a_step_whose_gradient_overflows_is_left_out_and_the_scale_falls(opt: str) -> None:
    network = tiny_network()
    before = copy.deepcopy(network)
    optimizer = build_optimizer(network, tiny_recipe(opt=opt), fused=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    outcome = update(objective(network), optimizer, batch(), rate=0.01, precision=HALF, scaler=scaler)
    assert torch.isfinite(outcome.loss)
    assert scaler.get_scale() == 2.0**99
    assert not optimizer.state
    for one, other in zip(network.parameters(), before.parameters(), strict=True):
        assert torch.equal(one, other)


def make(folder: Path, monkeypatch: pytest.MonkeyPatch, *, seed: int = 0, **changes: Any) -> Trainer:
    monkeypatch.setattr("netsmith.train.trainer.choose_device", lambda recipe: torch.device("cpu"))
    folder.mkdir(exist_ok=True)
    return Trainer(
        tiny_network(seed=seed),
        tiny_data(),
        tiny_recipe(dtype="float16", lr=0.02, **changes),
        plan=Plan(folder / "plan.jsonl"),
        clock=SystemClock(),
        checkpoints=folder / "checkpoints",
    )


@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_a_resumed_run_has_the_scale_that_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opt: str) -> None:
    def begun(name: str) -> Trainer:
        trainer = make(tmp_path / name, monkeypatch, opt=opt)
        assert trainer.state.scaler is not None
        trainer.state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, growth_interval=3)
        return trainer

    whole, first = begun("whole"), begun("stopped")
    whole.advance()
    first.advance(7)
    first.save()
    second = make(tmp_path / "stopped", monkeypatch, opt=opt, seed=9)
    assert second.resume()
    assert second.state.scaler is not None
    assert first.state.scaler is not None
    found, expected = second.state.scaler.state_dict(), first.state.scaler.state_dict()
    assert found["scale"] == expected["scale"] < 2.0**30
    assert found["_growth_tracker"] == expected["_growth_tracker"]
    second.state.scaler.set_growth_interval(3)
    second.advance()
    assert weights_hash(second.network) == weights_hash(whole.network)


def test_gradients_that_overflow_whatever_the_scale_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, monkeypatch, epochs=30.0)
    trainer.state.network[9].weight.register_hook(lambda gradient: gradient * float("inf"))  # pyright: ignore
    with pytest.raises(
        CheckError, match=r"the gradients overflow float16 at step .*: whatever the scale of the loss is"
    ):
        trainer.advance()


def test_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--amp-dtype float16 needs a CUDA device and this run is on the CPU"):
        Trainer(
            tiny_network(),
            tiny_data(),
            tiny_recipe(dtype="float16", device="cpu"),
            plan=Plan(tmp_path / "plan.jsonl"),
            clock=SystemClock(),
        )
