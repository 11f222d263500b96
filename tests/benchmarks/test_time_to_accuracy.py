"""Time to accuracy: lengths are chosen as said, and both engines train by the same recipe."""

import copy
import math
import subprocess
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import time_to_accuracy as script
import torch
from plain_loop import PlainLoop, sgd
from results import UNKNOWN
from time_to_accuracy import GOALS, SELECTION_SEEDS, Job, best_workers, cell, chosen, gains, row, table

from netsmith.models.build import build
from netsmith.run.preprocess import Preprocess
from netsmith.train.feed import Batch
from netsmith.train.objectives import Classify
from netsmith.train.optimizers import build_optimizer
from netsmith.train.precision import Precision
from netsmith.train.step import update

OPTIONS = Namespace(work=Path("work"), data=Path("data"))
RECIPES = ("fast", "fast-even", "plain")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Runs without training: accuracy rises with the length, the second selection seed is a little worse."""
    jobs: list[Job] = []

    def result(job: Job, options: Namespace) -> dict[str, Any]:
        jobs.append(job)
        epochs = job.epochs or job.seconds / (20 if job.recipe == "plain" else 10)
        top1 = 0.95 - 0.5 * math.exp(-epochs / 5) - (0.01 if job.seed == SELECTION_SEEDS[1] else 0.0)
        seconds = job.seconds or 50 * epochs + (10 if job.workers == 1 else 20)
        n = 1000 if job.goal == "fashion-mnist" else 1_000_000
        made = [{"date": "2026-11-01", "commit": f"seed-{job.seed}"}]
        return {"seconds": seconds, "epochs": epochs, "top1": top1, "n": n, "way": "made up", "made": made}

    monkeypatch.setattr(script, "result", result)
    return jobs


def test_the_shortest_time_with_which_all_selection_seeds_reach_the_goal_is_chosen(made: list[Job]) -> None:
    # 0.94 - 0.5 exp(-e / 5) >= 0.85 from 8.57 epochs on, which are 85.7 s
    assert chosen("cifar10", "fast", OPTIONS) == (100.0, True)
    assert {job.asked for job in made} == {"val"}
    assert {job.seed for job in made} == set(SELECTION_SEEDS)
    assert len({job.seconds for job in made}) <= 4


def test_few_pictures_ask_for_more_than_the_goal(made: list[Job]) -> None:
    # 161 s would reach 92 %, 189 s one standard error above it, 258 s two
    assert chosen("fashion-mnist", "fast", OPTIONS) == (260.0, True)


def test_a_goal_that_names_its_seconds_leaves_nothing_to_choose(made: list[Job]) -> None:
    lines = [cell("digits", which, OPTIONS) for which in GOALS["digits"].cells]
    assert [line["given"] for line in lines] == [3.0, 3.0]
    assert {job.asked for job in made} == {"test"}
    assert gains(lines) == ""


def test_a_goal_beyond_the_grid_gets_the_longest_and_is_said_to_take_at_least_that(
    made: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GOALS, "cifar10", replace(GOALS["cifar10"], top1=0.939))
    assert chosen("cifar10", "plain", OPTIONS) == (600.0, False)
    lines = [cell("cifar10", which, OPTIONS) for which in ("netsmith-fast", "netsmith-plain")]
    assert [line["suffices"] for line in lines] == [True, False]
    assert "at least 1.50 |" in table(lines)
    assert "the recipe, in netsmith: at least 1.50 times" in gains(lines)
    assert row(lines[1])["note"].startswith("no length tried suffices on validation; 600 s given")


def test_the_loop_makes_the_epochs_of_its_recipe_and_other_seeds_are_tested(made: list[Job]) -> None:
    assert best_workers("cifar10", "plain", OPTIONS) == 1
    lines = [cell("cifar10", which, OPTIONS) for which in GOALS["cifar10"].cells]
    tested = [job for job in made if job.asked == "test"]
    assert not {job.seed for job in tested} & set(SELECTION_SEEDS)
    loops = {job.recipe: (job.epochs, job.workers) for job in tested if job.engine == "loop"}
    assert loops == {"fast-even": (10.0, 1), "plain": (9.0, 1)}  # 180 s of 20 s an epoch
    assert [line["reached"] for line in lines] == [3] * 4
    assert "| netsmith-fast | 100.0 (100.0 to 100.0) | 10.0 | 88.23 (88.23) | 3 of 3 | 1.00 |" in table(lines)
    assert "the recipe, in netsmith: 1.80 times" in gains(lines)
    assert row(lines[0])["budget"] == "cifar10 85 %"
    assert row(lines[0])["commit"] == "seed-0 seed-1 seed-2"


def test_a_kept_run_is_reported_with_the_commit_it_was_made_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what was kept before commits were recorded is used, and said to be of an unknown one."""
    ran: list[list[str]] = []

    def process(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0, '{"seconds": 3.0, "epochs": 5.0, "top1": 0.9, "n": 9}\n', "")

    monkeypatch.setattr(subprocess, "run", process)
    job = Job(goal="digits", engine="netsmith", recipe="fast", seed=0, asked="test", seconds=3.0)
    for commit in ("one", "two"):
        monkeypatch.setenv("NETSMITH_COMMIT", commit)
        found = script.result(job, Namespace(work=tmp_path, data=tmp_path))
        assert [each["commit"] for each in found["made"]] == ["one"]
    assert len(ran) == 1
    for kept in list((tmp_path / "digits").iterdir()):
        kept.unlink() if kept.suffix == ".begun" else kept.rename(kept.with_name(f"{job.names[-1]}.json"))
    assert script.result(job, Namespace(work=tmp_path, data=tmp_path))["made"] == [UNKNOWN]
    assert [line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines()] == ["one", "one", "unknown"]


def test_a_kept_run_is_another_runs_where_anything_of_the_recipe_differs() -> None:
    job = Job(goal="cifar10", engine="netsmith", recipe="fast", seed=0, asked="test", seconds=60.0)
    keys = {job.names[0]} | {
        replace(job, **change).names[0]
        for change in ({"seed": 1}, {"recipe": "plain"}, {"asked": "val"}, {"seconds": 61.0}, {"goal": "fashion-mnist"})
    }
    assert len(keys) == 6


def test_kept_runs_are_found_whatever_recipes_were_given_since() -> None:
    """Names of files that were kept on two days. A field that joins a recipe belongs in `JOINED`, or this fails."""
    job = Job(goal="fashion-mnist", engine="netsmith", recipe="fast", seed=0, asked="test", seconds=130.0)
    assert "netsmith-fast-test-c4603c76e515" in job.names
    job = Job(goal="digits", engine="netsmith", recipe="plain", seed=1, asked="test", seconds=3.0)
    assert job.names[-1] == "netsmith-plain-test-c7e797da04c9"


def test_a_changed_default_is_another_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(goal="digits", engine="netsmith", recipe="fast", seed=0, asked="test", seconds=3.0)
    before, recipe = job.names, job.fields()
    for change in ({"final_lr_ratio": 0.1}, {"sharded": True}):
        monkeypatch.setattr(Job, "fields", lambda self, change=change: recipe.model_copy(update=change))
        assert not {*job.names} & {*before}


@pytest.mark.parametrize("name", GOALS)
def test_recipes_can_train_the_network_of_their_set(name: str) -> None:
    from netsmith.train.sides import Sides

    goal = GOALS[name]
    network = build(goal.layout, seed=0)
    for recipe in RECIPES:
        made = goal.recipe(recipe, 3, time_s=5.0)
        assert (made.seed, made.time_s, made.img_size) == (3, 5.0, goal.side)
        sides = Sides.of(made, network)
        assert (sides is not None) == (recipe == "fast" and name != "digits")


@pytest.mark.parametrize("name", ["fast-even", "plain"])
def test_both_engines_make_the_same_update_by_a_recipe(name: str) -> None:
    goal = GOALS["cifar10"]
    recipe = goal.recipe(name, 0, epochs=1.0)
    rules = Preprocess(size=goal.side)
    ours = build(goal.layout, seed=0).train()
    theirs = copy.deepcopy(ours)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(8) % 10
    objective = Classify.of(ours, recipe, rules, labels=targets.numpy())
    optimizer, their_optimizer = build_optimizer(ours, recipe), sgd(theirs, recipe)
    loop = PlainLoop(smoothing=recipe.smoothing)
    mean, std = (torch.tensor(values)[:, None, None] for values in (rules.mean, rules.std))
    for _ in range(2):
        precision = Precision(dtype="float32", channels_last=False)
        update(objective, optimizer, Batch(images, targets), rate=0.05, precision=precision)
        for group in their_optimizer.param_groups:
            group["lr"] = 0.05
        loop.update(theirs, their_optimizer, (images / 255 - mean) / std, targets)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-3, atol=1e-5)
