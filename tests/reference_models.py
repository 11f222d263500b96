"""Other projects' networks with the same weights, and how far our outputs are from theirs."""

import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsmith.arch.names import find_layout, list_models
from netsmith.models.build import build
from netsmith.models.keymaps import convert_weights
from netsmith.models.saving import COUNTERPARTS

CIFAR = tuple(list_models("*_cifar"))
_TOO_LARGE = ("efficientnet_l2", "tf_efficientnet_l2")  # two with gradients do not fit into memory
TORCHVISION = tuple(name for name in list_models() if name in COUNTERPARTS["torchvision"])
TIMM = {
    name: COUNTERPARTS["timm"][name]
    for name in list_models()
    if name in COUNTERPARTS["timm"] and name not in _TOO_LARGE
}
TIMM_ONLY = tuple(name for name in TIMM if name not in TORCHVISION)


@dataclass(frozen=True)
class Difference:
    """Largest differences to a reference, as shares of the reference's largest number.

    Logits in evaluation; logits and the gradient of any parameter in training.
    """

    evaluation: float
    training: float
    gradient: float


def torchvision_model(name: str) -> nn.Module:
    """torchvision's network with random weights; ImportError where it is not installed."""
    _without_operators()
    import torchvision

    return getattr(torchvision.models, name)()


def timm_model(name: str) -> nn.Module:
    """timm's network of our name with random weights; ImportError where it is not installed."""
    _without_operators()
    import timm

    return timm.create_model(TIMM[name])


def _without_operators() -> None:
    """Let torchvision import beside a torch that has not its compiled operators, which no network here needs."""
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("absent"))


def stir(network: nn.Module, *, seed: int) -> None:
    """Give batch norms statistics and weights far from 0 and 1, and turn off all that is random in training."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0.0, 0.1, generator=generator)
            nn.init.uniform_(layer.running_var, 0.2, 2.0, generator=generator)
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, 0.0, 0.1, generator=generator)
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
        if type(layer).__name__ == "StochasticDepth":
            layer.p = 0.0


def difference(name: str, reference: nn.Module, *, size: int, batch: int = 2) -> Difference:
    """Load the reference's weights into our network and compare what both compute.

    Args:
        name: of our network.
        reference: the other project's.
        size: side of the random pictures, pixels.
        batch: number of pictures.
    """
    torch.manual_seed(0)
    stir(reference, seed=1)
    converted = convert_weights(reference.state_dict(), find_layout(name), where=f"{name}'s reference")
    ours = build(converted.layout, dropout=0.0, drop_path=0.0)
    ours.load_state_dict(converted.weights)
    # In float64: a rounding difference that moves one value across a ReLU's kink changes float32 gradients by percents.
    ours, reference = ours.double(), reference.double()
    images = torch.randn(batch, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        evaluation = _share(ours.eval()(images), reference.eval()(images))
    theirs_out, ours_out = reference.train()(images), ours.train()(images)
    training = _share(ours_out, theirs_out)
    theirs_out.square().sum().backward()
    ours_out.square().sum().backward()
    gradients = {**reference.state_dict(), **_gradients(reference)}
    expected = convert_weights(gradients, find_layout(name), where=f"{name}'s gradients").weights
    # The shift of a norm that only convolutions with norms read has no gradient but rounding: nothing to compare.
    noise = 1e-9 * max(float(expected[key].abs().max()) for key in _gradients(ours))
    gradient = max(_share(value, expected[key], least=noise) for key, value in _gradients(ours).items())
    return Difference(evaluation, training, gradient)


def _gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def _share(ours: Tensor, theirs: Tensor, *, least: float = 0.0) -> float:
    largest = max(float(theirs.detach().abs().max()), least)
    assert 0.0 < largest < float("inf"), "the reference's numbers say nothing"
    share = float((ours - theirs).detach().abs().max()) / largest
    return share if share == share else float("inf")


def cifar_difference(name: str, *, size: int = 32, batch: int = 2) -> float:
    """Our CIFAR ResNet against `plain_cifar_resnet`, in evaluation, as a share of the largest logit."""
    network = build(find_layout(name))
    stir(network, seed=1)
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return _share(network.eval()(images), plain_cifar_resnet(network.state_dict(), images))


def plain_cifar_resnet(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The paper's section 4.2 with option A, written from its text with functional calls: an independent reference."""

    def normed(x: Tensor, conv: str, norm: str, stride: int) -> Tensor:
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=1)
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{norm}.weight"], state[f"{norm}.bias"])

    x = F.relu(normed(x, "conv1", "bn1", 1))
    for stage in (1, 2, 3):
        for index in range(sum(key.startswith(f"layer{stage}.") and key.endswith("conv1.weight") for key in state)):
            block, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            y = F.relu(normed(x, f"{block}.conv1", f"{block}.bn1", stride))
            y = normed(y, f"{block}.conv2", f"{block}.bn2", 1)
            if stride == 2:
                zeros = torch.zeros(len(x), x.shape[1] // 2, *y.shape[2:])
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
            x = F.relu(x + y)
    return F.linear(x.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])
