"""ReLU and ReLU6 are torch's to the bit, for every bfloat16 number there is."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsmith.nn import rectifiers
from netsmith.nn.rectifiers import LARGE, ReLU, ReLU6

BOTH: list[tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = [(ReLU, F.relu), (ReLU6, F.relu6)]
by_both = pytest.mark.parametrize(("ours", "torchs"), BOTH)


def every_number(*, nan: bool = True) -> Tensor:
    """Of bfloat16, as often as makes a large map; each pattern of NaN too, if asked for."""
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    every = every if nan else every[~every.isnan()]
    return every.repeat(-(-LARGE // len(every)))


@by_both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_input_is_changed_and_the_gradient_is_torchs(
    ours: Callable[[], nn.Module], torchs: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    x = torch.tensor([-1.0, 0.0, 0.5, 5.5, 6.0, 7.0], dtype=dtype, requires_grad=True)
    grad = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dtype=dtype)
    read = x.clone()
    result = ours()(read)
    assert result.data_ptr() == read.data_ptr()
    expected = torchs(x)
    assert torch.equal(result, expected)
    (found,), (known,) = (torch.autograd.grad(y, x, grad) for y in (result, expected))
    assert torch.equal(found, known)


@by_both
@pytest.mark.parametrize("nan", [False, True])
def test_every_number_becomes_what_torch_makes_of_it(
    ours: Callable[[], nn.Module], torchs: Callable[[Tensor], Tensor], nan: bool
) -> None:
    x = every_number(nan=nan)
    result, expected = ours()(x.clone()), torchs(x)
    assert result.isnan().any() == nan
    assert torch.equal(result.isnan(), expected.isnan())
    numbers = ~expected.isnan()
    assert torch.equal(result[numbers], expected[numbers])


@by_both
def test_the_gradient_of_every_number_is_torchs(
    ours: Callable[[], nn.Module], torchs: Callable[[Tensor], Tensor]
) -> None:
    x = every_number(nan=False).requires_grad_()
    for grad in (torch.randn(len(x)).bfloat16(), torch.tensor(2.0).bfloat16().expand(len(x))):
        (found,), (known,) = (torch.autograd.grad(f(x.clone()), x, grad) for f in (ours(), torchs))
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, known)


@by_both
def test_gradients_of_gradients_are_torchs(ours: Callable[[], nn.Module], torchs: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    x = torch.randn(LARGE).bfloat16().requires_grad_()
    found: list[Tensor] = []
    for f in (ours(), torchs):
        (first,) = torch.autograd.grad(f(x * x).pow(2).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.sum(), x)[0])
    assert torch.equal(*found)


@by_both
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_large_maps_keep_their_layout_and_go_by_their_bits(
    ours: Callable[[], nn.Module],
    torchs: Callable[[Tensor], Tensor],
    layout: torch.memory_format,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    bits = rectifiers._bits
    monkeypatch.setattr(rectifiers, "_bits", lambda x: seen.append(x.numel()) or bits(x))
    torch.manual_seed(0)
    for shape, by_bits in (((4, 64, 32, 32), True), ((4, 64, 16, 16), False)):
        seen.clear()
        x = (4 * torch.randn(shape)).bfloat16().contiguous(memory_format=layout).requires_grad_()
        y = ours()(x.clone())
        expected = torchs(x)
        assert y.is_contiguous(memory_format=layout)
        (found,), (known,) = (torch.autograd.grad(each.sum(), x) for each in (y, expected))
        assert torch.equal(y, expected)
        assert torch.equal(found, known)
        assert found.is_contiguous(memory_format=layout)
        assert bool(seen) == by_bits


def test_nan_reaches_the_loss_of_a_network_in_bfloat16() -> None:
    for activation in (ReLU, ReLU6):
        for value in (float("nan"), -float("nan")):
            network = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), activation(), nn.Flatten(), nn.Linear(32 * 256, 2))
            with torch.no_grad():
                network[0].weight[5] = value  # pyright: ignore
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(network(torch.rand(64, 3, 16, 16)), torch.zeros(64, dtype=torch.int64))
            assert loss.isnan()
