"""What `--sharded` is for: a network that fits no process whole."""

from pathlib import Path

import pytest
import starved_ranks
import torch
from processes import of_one_world

SCRIPT = Path(starved_ranks.__file__)
TOO_LITTLE = 700
"""MiB beyond the network itself. Measured: a process that holds all takes 1,030 more (gradients, a copy of them for the
others, AdamW's memory, for a quarter of a gigabyte of weights), one that holds half of all takes 440."""
PLENTY = 8000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's size as Linux gives it")
def test_a_network_too_large_for_one_process_is_trained_in_parts(tmp_path: Path) -> None:
    def weights(way: str, mebibytes: int) -> dict[str, torch.Tensor]:
        folder = tmp_path / f"{way}-{mebibytes}"
        found = of_one_world(SCRIPT, folder, way, mebibytes)
        assert [code for code, *_ in found] == [0, 0], found
        return torch.load(folder / "weights.pt")

    sparing = {"NETSMITH_KEEP_MEMORY": "0"}  # what the allocator would keep ahead does not count against it
    (first, _, said), (second, *_) = of_one_world(SCRIPT, tmp_path / "refused", "whole", TOO_LITTLE, **sparing)
    assert (first, second) == (1, 1)
    assert said.startswith("refused: process 1 of 2 ended: there is no memory for the optimizer's step"), said
    expected, divided = weights("whole", PLENTY), weights("divided", TOO_LITTLE)
    assert divided.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(divided[name], tensor, rtol=1e-4, atol=1e-6), name
