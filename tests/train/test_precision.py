"""Which way of computing is chosen, and that each computes what it says."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_training import tiny_network, tiny_recipe
from torch import nn

from netsmith.run.clock import FakeClock
from netsmith.run.machine import machine
from netsmith.run.plan import Plan
from netsmith.train.pacing import Pacing
from netsmith.train.planning import Planner
from netsmith.train.precision import MARGIN, Precision, Timing, candidates, fastest, measure, thread_counts

FP32, BF16 = Precision("float32", True), Precision("bfloat16", True)
CPU = torch.device("cpu")


def test_under_bfloat16_all_convolutions_give_bfloat16_and_gradients_are_float32() -> None:
    network = tiny_network()
    BF16.apply(network)
    seen: dict[str, torch.dtype] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out.dtype))
    with BF16.autocast(CPU):
        logits = network(torch.randn(4, 3, 8, 8))
    assert seen == {"0": torch.bfloat16, "3": torch.bfloat16}
    assert logits.dtype == torch.bfloat16
    logits.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())


def test_going_back_to_float32_leaves_no_trace() -> None:
    network = tiny_network(dropout=0.0).eval()
    x = torch.randn(4, 3, 8, 8)
    expected = network(x)
    keys = list(network.state_dict())
    BF16.apply(network)
    assert list(network.state_dict()) == keys
    FP32.apply(network)
    assert "forward" not in vars(network[3])  # pyright: ignore
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("channels_last", [True, False])
def test_layout_of_weights_and_pictures_changes_while_parameters_stay_the_same_objects(channels_last: bool) -> None:
    network = tiny_network()
    before = [id(parameter) for parameter in network.parameters()]
    way = Precision(channels_last=channels_last)
    Precision(channels_last=not channels_last).apply(network)
    way.apply(network)
    assert [id(parameter) for parameter in network.parameters()] == before
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert network[0].weight.is_contiguous(memory_format=layout)  # pyright: ignore
    assert way.lay_out(torch.zeros(2, 3, 4, 4)).is_contiguous(memory_format=layout)


def test_the_recipe_is_obeyed_and_a_run_of_fixed_length_takes_the_default() -> None:
    assert candidates(tiny_recipe(), CPU, measured=False) == [FP32]
    assert candidates(tiny_recipe(dtype="bfloat16"), CPU, measured=False) == [BF16]
    ways = candidates(tiny_recipe(channels_last=False), CPU, measured=True)
    assert ways[0] == Precision("float32", False)
    assert not any(way.channels_last for way in ways)
    ways = candidates(tiny_recipe(), CPU, measured=True)
    assert ways[0] == FP32
    assert len(set(ways)) == len(ways) >= 2


def test_threads_of_the_recipe_are_obeyed_and_else_all_cores_are_the_default() -> None:
    assert thread_counts(tiny_recipe(threads=3), measured=True) == [3]
    cores = machine().cores_usable
    assert thread_counts(tiny_recipe(threads=None), measured=False) == [cores]
    counts = thread_counts(tiny_recipe(threads=None), measured=True)
    assert counts[0] == cores
    assert all(1 <= count <= cores for count in counts)


def test_another_way_must_win_by_more_than_noise() -> None:
    def chosen(seconds: float) -> Precision:
        return fastest([Timing(FP32, 1.0), Timing(BF16, seconds)]).way

    assert chosen(1.01 / MARGIN) == FP32
    assert chosen(0.99 / MARGIN) == BF16
    assert chosen(2.0) == FP32


def test_a_kill_between_the_two_rows_leads_to_no_way_that_nobody_timed(tmp_path: Path) -> None:
    clock = FakeClock()
    plan = Plan(tmp_path / "plan.jsonl")
    plan.record("dtype", "bfloat16", at=0, why="")
    pacing = Pacing(clock, seconds=100.0, checkpoint_seconds=10.0, evaluation_steps=0.0)
    ways = [FP32, BF16, Precision("float32", False)]
    found = Planner(plan, pacing).precision(
        ways, lambda some, _: [Timing(way, 3.0 - at) for at, way in enumerate(some)]
    )
    assert found == BF16


def timed(clock: FakeClock, costs: dict[Precision, list[float]]) -> Callable[[Precision], Callable[[], object]]:
    remaining = {way: list(each) for way, each in costs.items()}

    def ready(way: Precision) -> Callable[[], object]:
        return lambda: clock.tick(remaining[way].pop(0) if len(remaining[way]) > 1 else remaining[way][0])

    return ready


def test_slow_first_updates_do_not_count() -> None:
    clock = FakeClock()
    costs = {FP32: [0.5, 0.2, 0.1], BF16: [0.6, 0.3, 0.04]}
    timings = measure([FP32, BF16], timed(clock, costs), clock=clock, seconds=10.0)
    assert [timing.seconds for timing in timings] == pytest.approx([0.1, 0.04])


def test_measuring_keeps_to_its_time() -> None:
    clock = FakeClock()
    costs = {FP32: [1.0], BF16: [0.5], Precision("float32", False): [1.0]}
    timings = measure(list(costs), timed(clock, costs), clock=clock, seconds=3.0)
    assert [timing.way for timing in timings] == [FP32, BF16]  # a third would not fit
    assert clock.now() <= 6.0  # three updates of each, and a second look


def test_other_work_during_one_update_does_not_decide() -> None:
    clock = FakeClock()
    costs = {FP32: [0.5, 0.2], BF16: [0.3, 0.1, 0.35, 0.1]}  # what is timed first meets other work
    timings = measure([FP32, BF16], timed(clock, costs), clock=clock, seconds=0.5)
    assert fastest(timings).way == BF16


def test_a_slow_start_does_not_cost_the_comparison() -> None:
    """Else a run of hours would be float32 where bfloat16 takes half the time."""
    clock = FakeClock()
    costs = {FP32: [9.0, 1.0], BF16: [0.5], Precision("float32", False): [1.0]}
    timings = measure(list(costs), timed(clock, costs), clock=clock, seconds=9.0)
    assert [timing.way for timing in timings] == [FP32, BF16]


def test_a_hopeless_way_is_given_up_after_its_first_timed_update() -> None:
    clock = FakeClock()
    costs = {FP32: [0.01], BF16: [0.3]}
    timings = measure([FP32, BF16], timed(clock, costs), clock=clock, seconds=10.0)
    assert timings[1].seconds == pytest.approx(0.3)
    assert clock.now() < 8 * 0.01 + 4 * 0.3
