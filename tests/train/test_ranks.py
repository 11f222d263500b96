"""Two processes over gloo against one: the same batches, the same weights, and one fate."""

from pathlib import Path
from typing import Any

import numpy as np
import paired_training as paired
import pytest
import torch
from processes import of_one_world
from safetensors.torch import load_file
from tiny_training import tiny_data, tiny_network, tiny_recipe
from torch import Tensor

from netsmith.errors import CheckError, InputError
from netsmith.run.files import read_jsonl
from netsmith.run.world import World
from netsmith.train.division import Whole
from netsmith.train.feed import Feed
from netsmith.train.precision import Precision
from netsmith.train.ranks import ALONE, Ranks
from netsmith.train.requirements import refuse_with_sharded, smallest_part
from netsmith.train.shortage import OutOfMemory
from netsmith.train.state import State
from netsmith.train.together import Together

SCRIPT = Path(paired.__file__)
Found = list[dict[str, Any]]
Alone = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def pair(folder: Path) -> Found:
    """What each of two processes found; they run once for all tests."""
    found = of_one_world(SCRIPT, folder)
    assert [code for code, *_ in found] == [0, 0], found
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """What one process comes to."""
    folder = tmp_path_factory.mktemp("alone")
    networks = {"sync": tiny_network(dropout=0.0), "auxiliary": paired.network_with_auxiliary()}
    recipes = {**paired.SHARDED, "sync": {}, "auxiliary": paired.AUXILIARY}
    return {
        name: paired.trained(folder / name, ALONE, networks.get(name), **recipe) | {"folder": folder / name}
        for name, recipe in recipes.items()
    }


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return torch.allclose(one.double(), other.double(), rtol=tolerance, atol=tolerance)


def same_weights(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float) -> None:
    assert ours["weights"].keys() == theirs["weights"].keys()
    for name, tensor in theirs["weights"].items():
        assert close(ours["weights"][name], tensor, tolerance), name


def test_the_same_weights_as_one_process_where_no_statistics_are_shared(pair: Found, alone: Alone) -> None:
    """Mixed pictures, parts, clipping, averaged weights, batches that do not divide."""
    assert pair[0]["mixed"]["steps"] == alone["mixed"]["steps"] == 11
    same_weights(pair[0]["mixed"], alone["mixed"], 1e-5)
    assert pair[0]["mixed"]["hash"] == pair[1]["mixed"]["hash"]


@pytest.mark.parametrize("name", list(paired.UNLIKE))
def test_the_same_weights_with_tags_and_with_classes_of_unequal_size(pair: Found, tmp_path: Path, name: str) -> None:
    alone = paired.trained(tmp_path, ALONE, **paired.UNLIKE[name]())
    same_weights(pair[0][name], alone, 1e-5)
    assert close(pair[1][name]["logits"], alone["logits"], 1e-4)
    assert pair[0][name]["hash"] == pair[1][name]["hash"]


def test_the_same_weights_with_synchronised_batch_norm(pair: Found, folder: Path, alone: Alone) -> None:
    same_weights(pair[0]["sync"], alone["sync"], 1e-4)
    assert pair[0]["sync"]["hash"] == pair[1]["sync"]["hash"]
    ours, theirs = (read_jsonl(path / "metrics.jsonl") for path in (folder / "sync", alone["sync"]["folder"]))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-4)


def test_without_it_all_processes_hold_the_same_bits_too(pair: Found) -> None:
    assert pair[0]["own"]["hash"] == pair[1]["own"]["hash"]


def test_every_validation_picture_is_answered_once_in_order(pair: Found, alone: Alone) -> None:
    for each in (*pair, *(each["sharded"] for each in pair)):
        assert each["sync"]["logits"].shape == alone["sync"]["logits"].shape == (21, 3)
        assert close(each["sync"]["logits"], alone["sync"]["logits"], 1e-3)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("mixed", 1e-5), ("rmsprop", 1e-5), ("lamb", 1e-5), ("bfloat16", 3e-3), ("sync", 1e-4), ("auxiliary", 1e-4)],
)
def test_a_divided_network_comes_to_the_weights_of_one_process(
    pair: Found, folder: Path, alone: Alone, name: str, tolerance: float
) -> None:
    """Mixtures, parts, clipping, averages; whole tensors' norms; frozen layers; two classifiers with rates by depth."""
    ours, theirs = pair[0]["sharded"][name], alone[name]
    same_weights(ours, theirs, tolerance)
    steps = f"checkpoints/step-{ours['steps']:08d}.safetensors"
    kept, expected = (load_file(path / steps) for path in (folder / "sharded" / name, theirs["folder"]))
    assert kept.keys() == expected.keys()  # the optimizer's memory and the averages, whole
    for key, tensor in expected.items():
        # Of the largest: most gradients and their squares are smaller than any tolerance of weights.
        within = 30 * tolerance if key.startswith("optimizer.") else tolerance
        assert (kept[key] - tensor).abs().max() <= within * tensor.abs().max(), key
    rows, others = (read_jsonl(path / "gradients.jsonl") for path in (folder / "sharded" / name, theirs["folder"]))
    for row, other in zip(rows, others, strict=True):
        for layer, its in zip(row["layers"], other["layers"], strict=True):
            assert layer["name"] == its["name"]
            within = 0.1 if name == "bfloat16" else 0.01
            assert layer["gradient"] == pytest.approx(its["gradient"], rel=within, abs=1e-6)


def test_each_process_holds_half_of_weights_averages_and_optimizer(pair: Found, alone: Alone) -> None:
    held = [each["sharded"]["mixed"]["bytes"] for each in pair]
    assert max(held) < 0.52 * alone["mixed"]["bytes"]  # the first has the odd ones out
    assert sum(held) == pytest.approx(alone["mixed"]["bytes"], rel=0.01)  # counts of steps are in both
    assert pair[0]["mixed"]["bytes"] == alone["mixed"]["bytes"]


def test_a_run_goes_on_with_other_processes_divided_or_not(pair: Found, alone: Alone) -> None:
    assert pair[0]["sharded"]["passed on"]["steps"] == 11
    same_weights(pair[0]["sharded"]["passed on"], alone["mixed"], 1e-5)


def test_running_statistics_of_a_divided_network_are_averaged(pair: Found, folder: Path) -> None:
    """Where they are not synchronised the two ways are the same but for rounding."""
    same_weights(pair[0]["sharded"]["own"], pair[0]["own"], 1e-4)


def test_a_divided_network_goes_back_to_its_checkpoint_where_one_loss_is_not_finite(pair: Found) -> None:
    for each in pair:
        assert each["sharded"]["rewound"]["step"] == 11
    (warned,) = pair[0]["sharded"]["rewound"]["warned"]
    assert warned.startswith("the loss is not finite at step 3")
    assert "the gradients of all 3 layers are not finite" in warned or "largest gradient norms" in warned


def test_synchronised_batch_norm_is_batch_norm_of_the_whole_batch(pair: Found) -> None:
    alone = paired.norm_answers(ALONE)
    for each in pair:
        ours = each["norm"]
        assert ours["names"] == alone["names"]
        for key in ("y", "dx", "gradients"):
            # Some gradients are 0 but for rounding, so the largest is the measure.
            assert float((ours[key] - alone[key]).abs().max()) < 2e-5 * float(alone[key].abs().max()), key
        for name, tensor in alone["state"].items():
            assert close(ours["state"][name], tensor, 1e-6), name


def test_the_leading_process_alone_writes(pair: Found, folder: Path) -> None:
    rows = read_jsonl(folder / "mixed/plan.jsonl")
    assert [row["kind"] for row in rows] == ["dtype", "channels_last", "threads", "total_steps"]
    steps = [row["step"] for row in read_jsonl(folder / "mixed/metrics.jsonl")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 11


def test_a_picture_that_one_process_cannot_read_stops_all_after_a_checkpoint(pair: Found, folder: Path) -> None:
    said = {each["gone"] for each in pair}
    assert said == {("InputError: process 1 of 2: a.png is gone", 2)}
    assert (folder / "gone/checkpoints/step-00000002.json").exists()


def test_a_loss_that_is_not_finite_in_one_stops_all_with_its_reason(pair: Found) -> None:
    (said, step), other = pair[0]["nan"], pair[1]["nan"]
    assert (said, step) == other
    assert step == 3
    assert said.startswith("Diverged: the loss is not finite at step 3")


def test_memory_that_is_short_in_one_makes_parts_smaller_in_all(pair: Found) -> None:
    for each in pair:
        assert [(row["at"], row["value"]) for row in each["memory"]] == [(3, 2)]
    assert pair[0]["memory hash"] == pair[1]["memory hash"]


def test_a_signal_to_one_stops_all_and_they_go_on_to_the_same_weights(pair: Found) -> None:
    for each in pair:
        said, step = each["signal"]
        assert said.startswith("Interrupted: the checkpoint of step 4 is in")
        assert step == 4
        assert each["resumed"] == (True, 4)
        assert each["resumed hash"] == each["whole hash"] == pair[0]["whole hash"]


def test_what_one_refuses_all_refuse(pair: Found) -> None:
    for each in pair:
        assert each["each"] == "InputError: process 1 of 2: no"
        assert each["once"] == ("InputError: no", 0)
        assert each["same"] == "InputError: every process needs the same: process 1 has '1', the first '0'"
        assert each["few"].startswith("InputError: a batch of 3 leaves 1 picture for some of the 2 processes")


def test_time_is_that_of_the_leading_process(pair: Found) -> None:
    assert pair[0]["timed"] == pair[1]["timed"]
    assert pair[0]["timed"][0] > 1


# Without a second process


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("mixed", [{}, {"mixup": 0.4}, {"cutmix": 1.0}])
def test_parts_of_batches_are_the_batch(size: int, mixed: dict[str, Any]) -> None:
    data, recipe = tiny_data(train=11), tiny_recipe(**mixed)
    whole = Feed.of(data, recipe, batch_size=7)
    parts = [Feed.of(data, recipe, batch_size=7, part=Ranks(World(rank, size)).slice_of) for rank in range(size)]
    for step in (0, 1, 5):
        batch, found = whole.batch(step), [part.batch(step) for part in parts]
        assert torch.equal(torch.cat([each.images for each in found]), batch.images)
        assert torch.equal(torch.cat([each.targets for each in found]), batch.targets)


@pytest.mark.parametrize(("count", "size"), [(9, 2), (7, 3), (2, 4), (0, 2), (64, 64)])
def test_slices_hold_everything_once(count: int, size: int) -> None:
    slices = [Ranks(World(rank, size)).slice_of(count) for rank in range(size)]
    assert np.concatenate([np.arange(count)[each] for each in slices]).tolist() == list(range(count))
    lengths = [each.stop - each.start for each in slices]
    assert max(lengths) - min(lengths) <= 1


def test_batches_too_small_for_the_processes_are_refused() -> None:
    network = tiny_network()
    assert smallest_part(network, tiny_recipe(), 9, processes=2) == 4
    with pytest.raises(InputError, match="a batch of 1 leaves 0 pictures for some of the 2 processes; give .*2 or"):
        smallest_part(network, tiny_recipe(), 1, processes=2)
    with pytest.raises(InputError, match="each needs 2; give --batch-size 4 or more"):
        smallest_part(network, tiny_recipe(sync_bn=False), 3, processes=2)


def test_devices_are_one_for_each_process() -> None:
    second = _SeveralAlone(World(1, 2, 1, 2))
    assert second.own_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(InputError, match="--device cuda:1 is one device, and each of the 2 processes needs its own"):
        second.own_device(torch.device("cuda:1"))
    with pytest.raises(InputError, match="2 processes were started on a machine where torch sees 0 CUDA devices"):
        second.own_device(torch.device("cuda"))
    with pytest.raises(InputError, match="on CPUs or CUDA devices and not on MPS"):
        second.own_device(torch.device("mps"))


@pytest.mark.parametrize(
    ("asked", "processes", "said"),
    [
        ({}, 1, "--sharded divides a network over several processes, and there is one; start them with torchrun"),
        ({"opt": "muon"}, 2, "--opt muon needs whole matrices.*take --opt adamw, lamb, rmsprop or sgd"),
        ({"epochs": None, "time_s": 60.0}, 2, "--time is planned by updates on a copy.*give --epochs"),
        ({"dtype": "float16"}, 2, "--amp-dtype float16 scales the loss.*take --amp-dtype bfloat16 or --no-amp"),
        ({"compile": True}, 2, "--compile and --sharded do not go together"),
    ],
)
def test_what_cannot_be_had_divided_is_refused(asked: dict[str, Any], processes: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        refuse_with_sharded(tiny_recipe(sharded=True, **asked), processes=processes)
    refuse_with_sharded(tiny_recipe(**asked), processes=processes)


def test_memory_that_runs_out_while_weights_are_exchanged_ends_the_run() -> None:
    divided = Whole()
    divided.joint = True
    state = State(tiny_network(), tiny_recipe(), Precision(), division=divided)
    peers = Together(ALONE, state, batch_size=8, synchronised=False)
    with pytest.raises(CheckError, match="cannot try again in smaller parts; give --grad-accum 2 or more"):
        peers.settle(OutOfMemory("no memory"))


class _SeveralAlone(Ranks):
    @property
    def several(self) -> bool:
        return True
