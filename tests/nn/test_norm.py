"""Batch norm of folded maps: torch's numbers, wherever it is used."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from netsmith.nn import norm
from netsmith.nn.layers import conv_norm_act
from netsmith.nn.norm import BatchNorm2d, fold

SHAPES = [(4, 24, 6, 6), (2, 8, 4, 4), (3, 1, 8, 8), (4, 40, 2, 2), (16, 3, 3, 5)]
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 6e-3}


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small maps are folded too."""
    monkeypatch.setattr(norm, "LARGE", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _apart(found: Tensor, expected: Tensor) -> float:
    return ((found.float() - expected).norm() / expected.norm()).item()


def _map(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A map whose channels have means and deviations of their own."""
    channels = torch.arange(float(shape[1]))[:, None, None]
    return (torch.randn(shape) * (1 + channels) + 3 * channels).to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("shape", SHAPES)
def test_results_gradients_and_statistics_are_torchs(
    shape: tuple[int, ...], dtype: torch.dtype, momentum: float | None
) -> None:
    torch.manual_seed(0)
    ours = BatchNorm2d(shape[1], momentum=momentum)
    nn.init.uniform_(ours.weight, 0.5, 1.5)
    nn.init.uniform_(ours.bias)
    torchs = nn.BatchNorm2d(shape[1], momentum=momentum)
    torchs.load_state_dict(ours.state_dict())
    for _ in range(2):
        x, grad = _map(shape, dtype), torch.randn(shape).to(dtype)  # the gradient is not channels_last
        assert fold(x) > 1
        sides: list[list[Tensor]] = []
        for module, read, given in ((ours, x, grad), (torchs, x.float(), grad.float())):
            read = read.clone(memory_format=torch.preserve_format).requires_grad_()
            result = module(read)
            sides.append([result, *torch.autograd.grad(result, [read, module.weight, module.bias], given)])
        assert [tensor.dtype for tensor in sides[0]] == [dtype, dtype, torch.float32, torch.float32]
        for found, expected in zip(*sides, strict=True):
            assert _apart(found, expected) < ROUNDING[dtype]
        assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in sides[0][:2])
    assert ours.num_batches_tracked == torchs.num_batches_tracked == 2
    for found, expected in ((ours.running_mean, torchs.running_mean), (ours.running_var, torchs.running_var)):
        assert found is not None
        assert expected is not None
        assert _apart(found, expected) < 1e-5


@pytest.mark.usefixtures("two_threads")
def test_evaluation_is_torchs_to_the_bit() -> None:
    ours, torchs = BatchNorm2d(24), nn.BatchNorm2d(24)
    ours(_map((4, 24, 6, 6), torch.float32))
    torchs.load_state_dict(ours.state_dict())
    x = _map((4, 24, 6, 6), torch.float32)
    assert torch.equal(ours.eval()(x), torchs.eval()(x))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((4, 24, 6, 6), 4),  # 96 numbers: six lines
        ((4, 40, 6, 6), 2),
        ((4, 16, 6, 6), 1),  # a line as it is
        ((4, 48, 6, 6), 1),
        ((1, 24, 3, 3), 1),  # nine positions are no fours
    ],
)
def test_rows_fill_lines(shape: tuple[int, ...], groups: int) -> None:
    assert fold(_map(shape, torch.bfloat16)) == groups


def test_small_maps_one_thread_and_other_layouts_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    large = torch.zeros(64, 24, 16, 16)
    last = large.contiguous(memory_format=torch.channels_last)
    assert fold(last) == 4
    assert fold(large) == 1
    assert fold(last[:8].contiguous(memory_format=torch.channels_last)) == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert fold(last) == 1


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("training", [True, False])
def test_a_compiler_sees_one_graph(*, training: bool) -> None:
    network = conv_norm_act(3, 24, 3, norm=BatchNorm2d, activation="relu6").train(training)
    network.to(memory_format=torch.channels_last)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    x = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(not training):
        assert torch.allclose(compiled(x), network(x), atol=1e-5)
