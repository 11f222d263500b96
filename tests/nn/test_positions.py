"""Gradients of slices and means: autograd's numbers, in the layout of the map."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from netsmith.arch.names import find_layout
from netsmith.models.build import build
from netsmith.nn.positions import every, mean_over_positions

CASES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "every": (lambda x: every(x, 2), lambda x: x[:, :, ::2, ::2]),
    "every third": (lambda x: every(x, 3), lambda x: x[:, :, ::3, ::3]),
    "mean": (mean_over_positions, lambda x: x.mean(dim=(2, 3))),
}


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_autograd_in_the_layout_of_the_map(
    case: str, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    ours, reference = CASES[case]
    torch.manual_seed(0)
    x = torch.randn(3, 5, 7, 8).to(dtype).contiguous(memory_format=layout).requires_grad_()
    found, expected = ours(x), reference(x)
    assert torch.equal(found, expected)
    grad = torch.randn_like(expected)
    (of_ours,), (of_reference,) = (torch.autograd.grad(y, x, grad) for y in (found, expected))
    assert torch.equal(of_ours, of_reference)
    assert of_ours.stride() == x.stride()


class _Layouts(TorchDispatchMode):
    """Operations that gave maps of 4 pictures with the rows of a channel one after another."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, (tuple, list)) else result
        is_map = isinstance(first, Tensor) and first.ndim == 4 and len(first) == 4 and min(first.shape[1:]) > 1
        if is_map and first.is_contiguous() and not first.is_contiguous(memory_format=torch.channels_last):
            self.found.add(str(func))
        return result


@pytest.mark.parametrize("name", ["resnet18", "resnet20_cifar", "mobilenet_v3_small", "efficientnet_b0"])
def test_a_networks_gradients_stay_channels_last(name: str) -> None:
    network = build(find_layout(name, num_classes=3, img_size=32), seed=0).to(memory_format=torch.channels_last)
    images = torch.rand(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = network.train()(images).float().sum()
    with _Layouts() as seen:
        loss.backward()
    assert not seen.found
