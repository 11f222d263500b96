"""torch.compile: when it is thought to pay, that it changes nothing but speed, and that it may fail."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import tiny_data, tiny_network, tiny_recipe, weights_hash
from torch import nn

from netsmith.arch.names import find_layout
from netsmith.errors import InputError
from netsmith.models.build import build
from netsmith.run.clock import SystemClock
from netsmith.run.plan import Plan
from netsmith.run.progress import silent
from netsmith.train.compiling import BREAK_EVEN, asked
from netsmith.train.diagnosis import first_non_finite_layer
from netsmith.train.trainer import Trainer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
COMPILE = nn.Module.compile


def trainer(plan: Plan, said: list[str] | None = None, width: int = 8, show: Any = silent, **changes: Any) -> Trainer:
    warn = (said if said is not None else []).append
    recipe, clock = tiny_recipe(epochs=1.0, **changes), SystemClock()
    return Trainer(tiny_network(width=width), tiny_data(), recipe, plan=plan, clock=clock, warn=warn, show=show)


def rows(plan: Plan) -> list[Any]:
    return [row.value for row in plan.rows if row.kind == "compile"]


def compile_by(backend: object) -> Callable[[nn.Module], None]:
    return lambda module: COMPILE(module, backend=backend)


def test_it_pays_in_long_runs_on_a_gpu() -> None:
    network, timed = build(find_layout("resnet18", num_classes=10)), tiny_recipe(epochs=None, time_s=9999.0)
    assert asked(network, timed, CUDA, seconds=BREAK_EVEN, pictures=10)
    assert not asked(network, timed, CUDA, seconds=BREAK_EVEN - 1, pictures=10)
    assert not asked(network, timed, CPU, seconds=10 * BREAK_EVEN, pictures=10)
    epochs = tiny_recipe(epochs=90.0, img_size=224)
    assert asked(network, epochs, CUDA, seconds=None, pictures=1_281_167)
    assert not asked(network, epochs, CUDA, seconds=None, pictures=2_000)
    assert not asked(tiny_network(), epochs, CUDA, seconds=None, pictures=1_281_167)


@pytest.mark.parametrize("wish", [True, False])
def test_what_the_recipe_says_stands(wish: bool) -> None:
    recipe = tiny_recipe(epochs=None, time_s=9999.0, compile=wish)
    assert asked(tiny_network(), recipe, CPU, seconds=9999.0, pictures=10) is wish
    assert asked(tiny_network(), recipe, CUDA, seconds=9999.0, pictures=10) is wish


def test_several_processes_do_not_compile_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netsmith.train.compiling._in_company", lambda: True)
    network, timed = build(find_layout("resnet8_cifar", num_classes=10)), tiny_recipe(epochs=None, time_s=9999.0)
    assert not asked(network, timed, CUDA, seconds=9999.0, pictures=10)


def test_a_cpu_does_not_compile_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda module: pytest.fail("compiled"))
    plan = Plan(tmp_path / "plan")
    trainer(plan)
    assert not rows(plan)
    assert trainer(Plan(tmp_path / "off"), compile=False)


def test_a_compiled_run_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a backend that captures the graph and runs it as it is; the plan row makes a second run compile too."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", compile_by(backend))
    plain = trainer(Plan(tmp_path / "plain"))
    plain.advance()
    assert not graphs
    plan = Plan(tmp_path / "plan")
    for wish in ({"compile": True}, {}):
        torch.compiler.reset()
        run = trainer(plan, **wish)
        assert weights_hash(run.state.network) == weights_hash(tiny_network())  # trying it changed nothing
        run.advance()
        assert rows(plan) == [True]
        assert graphs
        graphs.clear()
        assert weights_hash(run.network) == weights_hash(plain.network)


def test_many_trainings_of_one_process_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch counts together what it compiles of all of them; networks that are alike share it."""
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", compile_by(backend))
    torch.compiler.reset()
    with importlib.import_module("torch._dynamo").config.patch(recompile_limit=1):  # torch's own is 8
        for width in (4, 5):
            graphs.clear()
            trainer(Plan(tmp_path / f"{width}"), width=width, compile=True)
            assert graphs, width


def test_what_cannot_be_compiled_is_trained_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: object, inputs: object) -> object:
        raise RuntimeError("no compiler found\nmore")

    plain = trainer(Plan(tmp_path / "plain"))
    plain.advance()
    monkeypatch.setattr(nn.Module, "compile", compile_by(backend))
    torch.compiler.reset()
    plan, said = Plan(tmp_path / "plan"), []
    run = trainer(plan, said, compile=True)
    run.advance()
    assert rows(plan) == [False]
    assert len(said) == 1
    assert said[0].startswith("torch.compile does not work here (")
    assert "no compiler found" in said[0]
    assert weights_hash(run.network) == weights_hash(plain.network)
    assert not trainer(plan, said, compile=True).finished  # obeys the row, tries nothing
    assert len(said) == 1


def test_a_plan_that_says_compiled_is_obeyed_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: nn.Module) -> None:
        COMPILE(module, backend=lambda graph, inputs: 1 / 0)

    monkeypatch.setattr(nn.Module, "compile", broken)
    torch.compiler.reset()
    plan = Plan(tmp_path / "plan")
    plan.record("compile", True, at=0, why="")
    with pytest.raises(InputError, match=r"says that this run is compiled, and torch\.compile does not work here"):
        trainer(plan)


def test_a_compiled_network_tells_where_a_loss_broke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", compile_by(lambda graph, inputs: graph.forward))
    torch.compiler.reset()
    run = trainer(Plan(tmp_path / "plan"), compile=True)
    with torch.no_grad():
        run.state.parameters["3.weight"][0] = float("nan")
    assert first_non_finite_layer(run.objective, run.feed.batch(0), precision=run.precision) == "network.3"


def test_several_processes_are_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Module, "compile", lambda module: pytest.fail("compiled"))
    monkeypatch.setattr("netsmith.train.compiling._in_company", lambda: True)
    plan, said = Plan(tmp_path / "plan"), []
    trainer(plan, said, compile=True)
    assert said == ["several processes that train together are not compiled: training goes on without"]
    assert not rows(plan)


def test_compiling_is_shown_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []

    def show(title: str, *_: object, **__: object) -> None:
        titles.append(title)

    def compile_it(module: nn.Module) -> None:
        assert titles[-1] == "compiling"
        COMPILE(module, backend=lambda graph, inputs: graph.forward)

    monkeypatch.setattr(nn.Module, "compile", compile_it)
    torch.compiler.reset()
    trainer(Plan(tmp_path / "plain"), show=show)
    assert "compiling" not in titles
    trainer(Plan(tmp_path / "plan"), show=show, compile=True)
    assert "compiling" in titles
