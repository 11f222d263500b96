"""One update against the same update written out, and what it leaves alone."""

import copy
from collections.abc import Callable

import pytest
import torch
from tiny_training import tiny_network, tiny_recipe
from torch import Tensor, nn

from netsmith.train.feed import Batch
from netsmith.train.objectives import Classify, Outcome
from netsmith.train.optimizers import build_optimizer
from netsmith.train.precision import Precision
from netsmith.train.step import NonFiniteLoss, update

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def batch(count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Batch(images.contiguous(memory_format=torch.channels_last), torch.arange(count) % 3)


def objective(network: nn.Module) -> Classify:
    return Classify(network, mean=MEAN, std=STD, smoothing=0.1).train()


def sgd(p: Tensor, g: Tensor, decay: float, memory: dict[str, Tensor], *, rate: float, step: int) -> None:
    g = g + decay * p
    memory["m"] = g if step == 1 else 0.9 * memory["m"] + g
    p -= rate * (g + 0.9 * memory["m"])  # Nesterov


def adamw(p: Tensor, g: Tensor, decay: float, memory: dict[str, Tensor], *, rate: float, step: int) -> None:
    p *= 1 - rate * decay
    memory["m"] = 0.1 * g + 0.9 * memory.get("m", torch.zeros_like(g))
    memory["v"] = 0.001 * g * g + 0.999 * memory.get("v", torch.zeros_like(g))
    p -= rate * (memory["m"] / (1 - 0.9**step)) / ((memory["v"] / (1 - 0.999**step)).sqrt() + 1e-8)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("opt", "rule"), [("sgd", sgd), ("adamw", adamw)])
def test_updates_are_those_of_the_rule(opt: str, rule: Callable[..., None], channels_last: bool) -> None:
    recipe = tiny_recipe(opt=opt, weight_decay=0.05)
    network = tiny_network(dropout=0.0)
    precision = Precision(channels_last=channels_last)
    precision.apply(network)
    plain = copy.deepcopy(network)
    optimizer = build_optimizer(network, recipe)
    memories: dict[str, dict[str, Tensor]] = {name: {} for name, _ in plain.named_parameters()}
    for step, rate in enumerate((0.01, 0.02, 0.005), start=1):
        update(objective(network), optimizer, batch(), rate=rate, precision=precision)
        plain.zero_grad()
        objective(plain)(precision.lay_out(batch().images), batch().targets).loss.backward()
        with torch.no_grad():
            for name, parameter in plain.named_parameters():
                assert parameter.grad is not None
                decay = 0.05 if parameter.ndim > 1 else 0.0
                rule(parameter, parameter.grad.clone(), decay, memories[name], rate=rate, step=step)
    for (name, ours), theirs in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("opt", ["sgd", "adamw", "rmsprop", "muon"])
def test_norms_and_biases_do_not_decay(opt: str) -> None:
    network = tiny_network()
    groups = build_optimizer(network, tiny_recipe(opt=opt, weight_decay=0.1)).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in network.named_parameters():
        assert (id(parameter) in decayed) == (parameter.ndim > 1), name
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_one_optimizer_step_per_update_and_no_gradient_is_left() -> None:
    network = tiny_network()
    optimizer = build_optimizer(network, tiny_recipe(opt="adamw"))
    for _ in range(3):
        update(objective(network), optimizer, batch(), rate=0.01, precision=Precision())
    assert {state["step"].item() for state in optimizer.state.values()} == {3.0}
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_gradient_is_clipped_by_its_norm() -> None:
    network = tiny_network()
    before = copy.deepcopy(network)
    recipe = tiny_recipe(momentum=0.0, weight_decay=0.0)
    optimizer = build_optimizer(network, recipe)
    update(objective(network), optimizer, batch(), rate=1.0, precision=Precision(), grad_clip=1e-3)
    moved = [(a - b).flatten() for a, b in zip(network.parameters(), before.parameters(), strict=True)]
    assert torch.cat(moved).norm().item() == pytest.approx(1e-3, rel=1e-2)


def smooth_network() -> nn.Module:
    """Without batch norm and dropout, where a picture's loss depends on no other and on no chance."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(288, 3)
    )


# The first steps of AdamW and Muon have the same size whatever the gradient's, so they enlarge rounding.
@pytest.mark.parametrize(("opt", "bound"), [("sgd", 1e-6), ("rmsprop", 1e-6), ("adamw", 1e-4), ("muon", 1e-4)])
@pytest.mark.parametrize("grad_clip", [None, 0.05])
def test_parts_of_a_batch_come_to_the_update_of_the_whole(opt: str, bound: float, grad_clip: float | None) -> None:
    def after(parts: int) -> tuple[list[Tensor], list[Outcome]]:
        network = smooth_network()
        optimizer = build_optimizer(network, tiny_recipe(opt=opt))
        task, way = objective(network), Precision()
        done = [
            update(task, optimizer, batch(10), rate=0.01, precision=way, grad_clip=grad_clip, parts=parts)
            for _ in range(4)
        ]
        return [parameter.detach() for parameter in network.parameters()], done

    whole, losses = after(1)
    for parts in (2, 3, 10):
        found, others = after(parts)
        for one, other in zip(found, whole, strict=True):
            assert float((one - other).norm() / other.norm()) < bound
        for one, other in zip(others, losses, strict=True):
            torch.testing.assert_close(one.loss, other.loss, rtol=bound, atol=0)
            assert float((one.logits - other.logits).norm() / other.logits.norm()) < bound


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    network = tiny_network()
    optimizer = build_optimizer(network, tiny_recipe())
    with torch.no_grad():
        network[-1].bias[0] = float("nan")  # pyright: ignore
    before = {name: value.clone() for name, value in network.named_parameters()}
    with pytest.raises(NonFiniteLoss):
        update(objective(network), optimizer, batch(), rate=0.1, precision=Precision())
    for name, value in network.named_parameters():
        torch.testing.assert_close(value.detach(), before[name], rtol=0, atol=0, equal_nan=True)
    assert not optimizer.state


def test_overfits_one_batch() -> None:
    network = tiny_network(width=16, dropout=0.0)
    optimizer = build_optimizer(network, tiny_recipe(weight_decay=0.0))
    task = Classify(network, mean=MEAN, std=STD).train()
    for _ in range(300):
        outcome = update(task, optimizer, batch(12), rate=0.05, precision=Precision())
    assert outcome.loss.item() < 0.05
    assert outcome.logits.argmax(1).tolist() == batch(12).targets.tolist()
