"""Networks on a CUDA device compute what they compute on the CPU."""

import pytest
import torch

from netsmith.arch.names import find_layout
from netsmith.models.build import build


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["resnet20_cifar", "resnet50@0.25", "mobilenet_v2@0.5", "efficientnet_b0@0.5"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_logits_and_gradients_are_the_cpus(
    name: str, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    layout = find_layout(name, num_classes=10, img_size=32)
    there = build(layout, dropout=0.0, drop_path=0.0).to("cuda", memory_format=memory_format)
    here = build(layout, dropout=0.0, drop_path=0.0)
    images = torch.randn(8, 3, 32, 32)
    logits, expected = there(images.cuda()), here(images)
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-3, atol=1e-4 * float(expected.detach().abs().max()))
    logits.square().sum().backward()
    expected.square().sum().backward()
    for key, parameter in here.named_parameters():
        gradient = there.get_parameter(key).grad
        assert parameter.grad is not None
        assert gradient is not None
        assert float((gradient.cpu() - parameter.grad).norm()) <= 2e-2 * float(parameter.grad.norm()) + 1e-6, key
