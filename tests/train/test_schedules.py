"""Schedules against torch's own, and what holds for all of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import tiny_recipe

from netsmith.train.schedules import learning_rate, rate_factor

STEPS = 200


def rates_of_torch(make: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = make(optimizer)  # pyright: ignore
    rates: list[float] = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_equals_cosine_annealing() -> None:
    expected = rates_of_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.04))
    recipe = tiny_recipe(sched="cosine", lr=0.4, warmup=0.0, final_lr_ratio=0.1)
    assert [learning_rate(recipe, step / STEPS) for step in range(STEPS)] == pytest.approx(expected, rel=1e-9)


def test_onecycle_equals_one_cycle_lr() -> None:
    def make(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.4, total_steps=STEPS + 1, pct_start=0.3, final_div_factor=1 / 0.025, cycle_momentum=False
        )

    expected = rates_of_torch(make)  # its peak lies at step 0.3 * (STEPS + 1) - 1
    recipe = tiny_recipe(sched="onecycle", lr=0.4, warmup=(0.3 * (STEPS + 1) - 1) / STEPS, final_lr_ratio=0.001)
    assert [learning_rate(recipe, step / STEPS) for step in range(STEPS)] == pytest.approx(expected, rel=1e-6)


def test_step_equals_multi_step_lr() -> None:
    expected = rates_of_torch(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [100, 150], gamma=0.1))
    recipe = tiny_recipe(sched="step", lr=0.4, warmup=0.0)
    assert [learning_rate(recipe, step / STEPS) for step in range(STEPS)] == pytest.approx(expected)


def test_even_steps_equal_step_lr() -> None:
    expected = rates_of_torch(lambda o: torch.optim.lr_scheduler.StepLR(o, 16, gamma=0.97))
    recipe = tiny_recipe(sched="step", lr=0.4, warmup=0.0, step_every=16 / STEPS, step_gamma=0.97)
    assert [learning_rate(recipe, (step + 0.5) / STEPS) for step in range(STEPS)] == pytest.approx(expected)


@given(
    st.sampled_from(["constant", "step", "cosine", "onecycle"]),
    st.floats(0.01, 0.9),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
)
def test_rates_lie_between_zero_and_the_peak_and_warm_up_rises(sched: str, warmup: float, a: float, b: float) -> None:
    recipe = tiny_recipe(sched=sched, warmup=warmup)
    low, high = sorted((a, b))
    assert 0.0 <= rate_factor(recipe, low) <= 1.0
    if high < warmup:
        assert rate_factor(recipe, low) <= rate_factor(recipe, high)
    elif low >= warmup:
        assert rate_factor(recipe, low) >= rate_factor(recipe, high)
    if sched in ("cosine", "onecycle", "constant"):
        assert rate_factor(recipe, warmup) == pytest.approx(1.0)
    if sched in ("cosine", "onecycle"):
        assert rate_factor(recipe, 1.0) == pytest.approx(0.0, abs=1e-12)
