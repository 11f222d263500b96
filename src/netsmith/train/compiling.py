"""torch.compile, where it pays.

- Compiling takes a minute or two of a run and is thought to make updates faster by a tenth or more on a GPU, where it
  was not measured. On a CPU it makes them slower: 0.94, 0.71 and 0.65 times as fast for ResNet-20, MobileNetV2 and
  EfficientNet-B0 in bfloat16 on two cores (benchmarks/LOG.md). So "auto" compiles on CUDA alone, in runs that are long
  enough: by their `--time`, or by their arithmetic, because what a run of fixed length computes must not depend on a
  clock.
- What is compiled is the objective's call, in place: normalisation, network and loss, forward and backward. Names of
  weights, copies of the network and its evaluation stay what they are.
- It is tried on the first batch before training begins, so the first update is as fast as the others, and what cannot
  be compiled is trained without, said aloud. Compiled kernels round differently: a plan row says which it was.
"""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout
from netsmith.errors import InputError, first_line
from netsmith.run.progress import Progress, lasting, silent
from netsmith.run.recipe import Recipe
from netsmith.train.batch import Batch
from netsmith.train.devices import synchronize
from netsmith.train.planning import Planner
from netsmith.train.precision import Precision
from netsmith.train.state import State

BREAK_EVEN = 1200.0
"""Seconds of training from which on compiling for two minutes at most pays when updates become a tenth faster."""
TRAININGS = 64
"""Whose updates one process may compile. torch counts them together, as one function that was compiled too often, and
from the ninth on would not compile, without a word."""
ASSUMED_RATE = 2e13
"""Multiply-adds a second of a GPU that trains, from which the length of a run of epochs is estimated."""


def asked(network: nn.Module, recipe: Recipe, device: torch.device, *, seconds: float | None, pictures: int) -> bool:
    """Whether to compile: as the recipe says, or else where one process is thought to gain from it.

    Args:
        network: to be trained; one without a layout is not compiled by itself.
        recipe: its `compile`, `epochs` and sides.
        device: of the training.
        seconds: of a timed run, else None.
        pictures: in the training split.
    """
    if recipe.compile != "auto":
        return recipe.compile
    if device.type != "cuda" or _in_company():
        return False
    if seconds is not None:
        return seconds >= BREAK_EVEN
    layout = getattr(network, "layout", None)
    if not isinstance(layout, Layout) or recipe.epochs is None:
        return False
    share = ((recipe.train_size or recipe.img_size) / recipe.img_size) ** 2
    return 3 * share * cost(layout).macs * pictures * recipe.epochs / ASSUMED_RATE >= BREAK_EVEN


def compile_where_asked(
    objective: nn.Module,
    state: State,
    batch: Callable[[], Batch],
    *,
    wanted: bool,
    parts: int,
    precision: Precision,
    planner: Planner,
    warn: Callable[[str], None],
    show: Progress = silent,
) -> bool:
    """Compile an objective in place, as the plan says or else as is wanted.

    Args:
        objective: `forward(images, targets)` -> Outcome, on its device.
        state: of the training; it comes out as it was.
        batch: gives a batch on the device.
        wanted: whether to compile where the plan does not say.
        parts: that batches are computed in.
        precision: of the activations.
        planner: of the run.
        warn: told when it cannot be compiled.
        show: told that it lasts.

    Returns:
        Whether it is compiled.

    Raises:
        InputError: the plan says so, and it cannot be.
    """
    if _in_company():
        if planner.compiled(False, lambda: False):
            raise InputError(
                f"{planner.plan.path} says that this run is compiled, which several processes are not; go on with one "
                "process, or start it again with --no-compile"
            )
        if wanted:
            warn("several processes that train together are not compiled: training goes on without")
        return False
    tried: list[str | None] = []

    def attempt() -> bool:
        whole = batch()
        some = Batch(whole.images.tensor_split(parts)[0], whole.targets.tensor_split(parts)[0])
        with lasting(show, "compiling"):
            tried.append(_compile(objective, state, some, precision))
        return tried[0] is None

    known = planner.compiled(wanted, attempt)
    if known and not tried and not attempt():
        raise InputError(
            f"{planner.plan.path} says that this run is compiled, and torch.compile does not work here ({tried[0]}); "
            "go on with the run where it does, or start it again with --no-compile"
        )
    if tried and not known:
        warn(f"torch.compile does not work here ({tried[0]}): training goes on without it")
    return known


def _in_company() -> bool:
    """Whether several processes train together; what they do in turn cannot be tried by one of them."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _compile(objective: nn.Module, state: State, batch: Batch, precision: Precision) -> str | None:
    """Compile by a forward and backward call; returns what went wrong."""
    restore = state.statistics()
    limits: Any = importlib.import_module("torch._dynamo.config")
    limits.recompile_limit = max(TRAININGS, limits.recompile_limit)
    objective.train()
    objective.compile()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice for those who write kernels
            with precision.autocast(batch.images.device):
                outcome = objective(precision.lay_out(batch.images), batch.targets)
            outcome.loss.backward()
            synchronize(batch.images.device)
    except Exception as error:  # a compiler may raise anything
        vars(objective)["_compiled_call_impl"] = None
        return first_line(getattr(error, "inner_exception", error))
    finally:
        objective.zero_grad(set_to_none=True)
        restore()
    return None
