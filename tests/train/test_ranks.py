"""Two processes over gloo against one: the same batches, the same weights, and one fate."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paired_training as paired
import pytest
import torch
from tiny_training import tiny_data, tiny_network, tiny_recipe
from torch import Tensor

from netsmith.errors import InputError
from netsmith.run.files import read_jsonl
from netsmith.run.world import World
from netsmith.train.feed import Feed
from netsmith.train.ranks import ALONE, Ranks
from netsmith.train.requirements import smallest_part

SCRIPT = Path(paired.__file__)
Found = list[dict[str, Any]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def pair(folder: Path) -> Found:
    """What each of two processes found; they run once for all tests."""
    shared = os.environ | {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return torch.allclose(one.double(), other.double(), rtol=tolerance, atol=tolerance)


def test_the_same_weights_as_one_process_where_no_statistics_are_shared(pair: Found, tmp_path: Path) -> None:
    """Mixed pictures, parts, clipping, averaged weights, batches that do not divide."""
    alone = paired.trained(tmp_path, ALONE, **paired.MIXED)
    assert pair[0]["mixed"]["steps"] == alone["steps"] == 11
    for name, tensor in alone["weights"].items():
        assert close(pair[0]["mixed"]["weights"][name], tensor, 1e-5), name
    assert pair[0]["mixed"]["hash"] == pair[1]["mixed"]["hash"]


@pytest.mark.parametrize("name", list(paired.UNLIKE))
def test_the_same_weights_with_tags_and_with_classes_of_unequal_size(pair: Found, tmp_path: Path, name: str) -> None:
    alone = paired.trained(tmp_path, ALONE, **paired.UNLIKE[name]())
    for key, tensor in alone["weights"].items():
        assert close(pair[0][name]["weights"][key], tensor, 1e-5), key
    assert close(pair[1][name]["logits"], alone["logits"], 1e-4)
    assert pair[0][name]["hash"] == pair[1][name]["hash"]


def test_the_same_weights_with_synchronised_batch_norm(pair: Found, folder: Path, tmp_path: Path) -> None:
    alone = paired.trained(tmp_path, ALONE, tiny_network(dropout=0.0))
    for name, tensor in alone["weights"].items():
        assert close(pair[0]["sync"]["weights"][name], tensor, 1e-4), name
    assert pair[0]["sync"]["hash"] == pair[1]["sync"]["hash"]
    ours, theirs = (read_jsonl(path / "metrics.jsonl") for path in (folder / "sync", tmp_path))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-4)


def test_without_it_all_processes_hold_the_same_bits_too(pair: Found) -> None:
    assert pair[0]["own"]["hash"] == pair[1]["own"]["hash"]


def test_every_validation_picture_is_answered_once_in_order(pair: Found, tmp_path: Path) -> None:
    alone = paired.trained(tmp_path, ALONE, tiny_network(dropout=0.0))
    for each in pair:
        assert each["sync"]["logits"].shape == alone["logits"].shape == (21, 3)
        assert close(each["sync"]["logits"], alone["logits"], 1e-3)


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


class _SeveralAlone(Ranks):
    @property
    def several(self) -> bool:
        return True
