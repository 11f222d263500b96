"""Shared layers against short plain versions."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from netsmith.nn.init import init_convs_and_norms
from netsmith.nn.layers import (
    ACTIVATIONS,
    DropPath,
    SqueezeExcitation,
    ZeroPadShortcut,
    conv,
    conv_norm_act,
)


def test_squeeze_excitation_is_a_gate_from_the_mean() -> None:
    layer = SqueezeExcitation(6, 2, activation="silu")
    x = torch.randn(3, 6, 5, 4)
    w1, b1, w2, b2 = (parameter.detach().numpy().squeeze() for parameter in layer.parameters())
    hidden = x.numpy().mean(axis=(2, 3)) @ w1.T + b1
    hidden = hidden / (1 + np.exp(-hidden))
    gate = 1 / (1 + np.exp(-(hidden @ w2.T + b2)))
    np.testing.assert_allclose(layer(x).detach().numpy(), x.numpy() * gate[:, :, None, None], rtol=1e-5, atol=1e-6)


def test_squeeze_excitation_s_gradients_are_those_of_finite_differences_twice_over() -> None:
    torch.manual_seed(0)
    layer = SqueezeExcitation(3, 2, activation="silu").double()
    x = torch.randn(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))


@pytest.mark.parametrize(("side", "stride"), [(8, 2), (7, 2), (5, 1), (7, 3)])
def test_zero_pad_shortcut(side: int, stride: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, side, side)).astype(np.float32)
    out = ZeroPadShortcut(stride=stride, front=2, back=4)(torch.from_numpy(x)).numpy()
    expected = np.zeros((2, 9, -(-side // stride), -(-side // stride)), np.float32)
    expected[:, 2:5] = x[:, :, ::stride, ::stride]
    np.testing.assert_array_equal(out, expected)


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = DropPath(0.25)
    out = layer(torch.ones(4000, 2, 3, 3))
    per_sample = out.flatten(1)
    assert torch.equal(per_sample.amin(1), per_sample.amax(1)), "a sample is dropped whole or not at all"
    assert sorted(set(per_sample[:, 0].tolist())) == pytest.approx([0.0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1.0, abs=0.05)


def test_drop_path_is_the_input_in_evaluation_and_at_rate_0() -> None:
    x = torch.randn(4, 2)
    assert DropPath(0.5).eval()(x) is x
    assert DropPath(0.0)(x) is x


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    x = np.linspace(-8, 8, 101, dtype=np.float32)
    plain = {
        "relu": np.maximum(x, 0),
        "relu6": np.clip(x, 0, 6),
        "silu": x / (1 + np.exp(-x)),
        "hard_swish": x * np.clip(x + 3, 0, 6) / 6,
        "sigmoid": 1 / (1 + np.exp(-x)),
        "hard_sigmoid": np.clip(x / 6 + 0.5, 0, 1),
    }
    layer = ACTIVATIONS[name]()  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(layer(torch.from_numpy(x.copy())).numpy(), plain[name], atol=1e-6)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_odd_kernels_keep_the_size(kernel: int) -> None:
    layers = conv_norm_act(4, 8, kernel, groups=2, norm=nn.BatchNorm2d, activation="relu")
    assert layers(torch.randn(2, 4, 9, 9)).shape == (2, 8, 9, 9)
    assert {name for name, _ in layers.named_parameters()} == {"0.weight", "1.weight", "1.bias"}


def test_init_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    init_convs_and_norms(nn.Conv2d(4, 4, 3), torch.Generator().manual_seed(1))
    # Constructing the layer above draws; initialising must not draw any more.
    after_construction = torch.get_rng_state()
    torch.set_rng_state(before)
    layer = nn.Conv2d(4, 4, 3)
    assert torch.equal(torch.get_rng_state(), after_construction)
    init_convs_and_norms(layer, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), after_construction)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("size", "stride"), [(7, 2), (8, 2), (9, 3)])
def test_strided_pointwise_is_the_strided_convolution(size: int, stride: int, channels_last: bool) -> None:
    """Same output and gradients as torch's own strided form, whose backward is not to be trusted with few channels."""
    ours = conv(8, 16, 1, stride=stride).double()
    reference = nn.Conv2d(8, 16, 1, stride=stride, bias=False).double()
    reference.load_state_dict(ours.state_dict())
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(2, 8, size, size, dtype=torch.float64).contiguous(memory_format=layout)
    results = []
    for layer in (ours, reference):
        input = x.clone().requires_grad_()
        output = layer(input)
        output.square().sum().backward()
        results.append((output.detach(), input.grad, layer.weight.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_few_channels_survive_a_strided_projection() -> None:
    """In a process of its own: what is guarded against ends the process."""
    code = (
        "import torch; from netsmith.nn.layers import conv;"
        "c = conv(8, 16, stride=2).to(memory_format=torch.channels_last);"
        "x = torch.randn(8, 8, 56, 56).contiguous(memory_format=torch.channels_last).requires_grad_();"
        "c(x).square().sum().backward()"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
