"""Other projects' networks with the same weights, and how far our outputs are from theirs."""

import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netsmith.arch.names import find_layout, list_models
from netsmith.models.build import build, construct
from netsmith.models.keymaps import convert_weights
from netsmith.models.saving import COUNTERPARTS

V1 = tuple(list_models("resnet*_v1"))
"""torchvision's networks with the strides moved; `torchvision_model` does so."""
TORCHVISION = tuple(name for name in list_models() if name in COUNTERPARTS["torchvision"] or name in V1)
TORCHVISION_FLAGS = {"googlenet": {"init_weights": True}, "inception_v3": {"init_weights": True}}
TORCHVISION_AUXILIARY = {"aux_logits": "aux", "aux_logits1": "aux1", "aux_logits2": "aux2"}
"""torchvision's name of an output in training -> ours."""
_SIDES = {"inception_v3": 299, "inception_v4": 128, "inception_resnet_v2": 128, "alexnet_2012": 224}
"""Of pictures for networks that cannot read small ones, in training with the auxiliary classifier."""
TIMM = {name: COUNTERPARTS["timm"][name] for name in list_models() if name in COUNTERPARTS["timm"]}
TIMM_ONLY = tuple(name for name in TIMM if name not in TORCHVISION)
PLAIN = tuple(name for name in list_models() if name not in {*TORCHVISION, *TIMM})
"""Networks that no library has; the plain versions at the end of this file are their references."""
_LARGE = 1 << 28
"""Parameters above which both networks share the memory of their weights, in float32."""


@dataclass(frozen=True)
class Difference:
    """Largest differences to a reference, as shares of the reference's largest number.

    Logits in evaluation; logits (the auxiliary ones too) and the gradient of any parameter in training.
    """

    evaluation: float
    training: float
    gradient: float


REFERENCES = tuple(
    (name, source)
    for name in list_models()
    for source, names in (("torchvision", TORCHVISION), ("timm", TIMM), ("plain", PLAIN))
    if name in names
)
"""Networks and what each is compared with, in the order of the tables."""


def side(name: str) -> int:
    """Side of the pictures on which a network is compared with its reference, pixels."""
    return _SIDES.get(name, 32 if name.endswith("_cifar") else 64)


def torchvision_model(name: str) -> nn.Module:
    """torchvision's network with random weights; ImportError where it is not installed."""
    without_operators()
    import torchvision

    same = name.removesuffix("_v1") if name in V1 else name
    network = torchvision.models.get_model(COUNTERPARTS["torchvision"][same], **TORCHVISION_FLAGS.get(name, {}))
    if name in V1:
        for layer in network.modules():
            if isinstance(layer, torchvision.models.resnet.Bottleneck):
                layer.conv1.stride, layer.conv2.stride = layer.conv2.stride, (1, 1)
    return network


def timm_model(name: str) -> nn.Module:
    """timm's network of our name with random weights; ImportError where it is not installed."""
    without_operators()
    import timm

    return timm.create_model(TIMM[name])


def without_operators() -> None:
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


def difference(name: str, reference: nn.Module) -> Difference:
    """Load the reference's weights into our network and compare what both compute on two random pictures.

    Args:
        name: of our network.
        reference: the other project's.
    """
    torch.manual_seed(0)
    stir(reference, seed=1)
    converted = convert_weights(reference.state_dict(), find_layout(name), where=f"{name}'s reference")
    with torch.device("meta"):
        ours = construct(replace(converted.layout, drop_path=0.0))
    ours.load_state_dict(converted.weights, assign=True)
    for layer in ours.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    if not (large := sum(parameter.numel() for parameter in ours.parameters()) > _LARGE):
        # A rounding difference that moves one value across a ReLU's kink changes float32 gradients by percents.
        ours, reference = ours.double(), reference.double()
    images = torch.randn(2, 3, side(name), side(name), dtype=torch.float32 if large else torch.float64)
    with torch.no_grad():
        evaluation = _share(ours.eval()(images), reference.eval()(images))
    theirs_out, ours_out = _training_outputs(reference.train()(images)), ours.train().forward_all(images)
    training = max(_share(ours_out[output], theirs) for output, theirs in theirs_out.items())
    torch.cat(list(theirs_out.values())).square().sum().backward()
    torch.cat([ours_out[output] for output in theirs_out]).square().sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    gradients = {**reference.state_dict(), **_gradients(reference)}
    expected = convert_weights(gradients, find_layout(name), where=f"{name}'s gradients").weights
    # The shift of a norm that only convolutions with norms read has no gradient but rounding: nothing to compare.
    noise = 1e-9 * max(float(expected[key].abs().max()) for key in _gradients(ours))
    gradient = max(_share(value, expected[key], least=noise) for key, value in _gradients(ours).items())
    return Difference(evaluation, training, gradient)


def _training_outputs(found: Any) -> dict[str, Tensor]:
    """A reference's outputs in training by our names; torchvision's Inceptions give auxiliary logits too."""
    if isinstance(found, Tensor):
        return {"logits": found}
    return {TORCHVISION_AUXILIARY.get(name, name): logits for name, logits in found._asdict().items()}


def _gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def norm_settings(network: nn.Module) -> set[tuple[float, float]]:
    """The constant and the momentum of a network's batch norms, as they occur."""
    norms = (layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    return {(layer.eps, round(layer.momentum or 0.0, 9)) for layer in norms}  # torchvision writes 1 - 0.9997


def _share(ours: Tensor, theirs: Tensor, *, least: float = 0.0) -> float:
    largest = max(float(theirs.detach().abs().max()), least)
    assert 0.0 < largest < float("inf"), "the reference's numbers say nothing"
    share = float((ours - theirs).detach().abs().max()) / largest
    return share if share == share else float("inf")


def plain_difference(name: str) -> float:
    """A network that no library has against its plain version, in evaluation, as a share of the largest logit."""
    layout = find_layout(name)
    network = build(layout).double().eval()
    stir(network, seed=1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, side(name), side(name), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        if sum(len(stage.blocks) for stage in layout.stages) > 200:  # or the sum of so many branches overflows
            for layer in network.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.weight.mul_(0.03)
        state = network.state_dict()
        match layout.family:
            case "alexnet":
                images *= 64.0  # the paper's pixels reach 255: its normalisation hardly shows on small numbers
                expected = plain_alexnet(state, images)
            case "inception":
                expected = plain_inception(state, images)
            case "resnetv2":
                expected = plain_preactivated(state, images)
            case _:
                expected = plain_resnet(state, images, shortcuts=not name.startswith("plain"))
        return _share(network(images), expected)


def plain_resnet(state: Mapping[str, Tensor], x: Tensor, *, shortcuts: bool) -> Tensor:
    """The paper's table 1 and section 4.2, written from its text with functional calls: an independent reference.

    Blocks have the convolutions that the weights have; a shortcut without weights is zero-padded where shapes change.
    """

    def normed(x: Tensor, conv: str, norm: str, stride: int) -> Tensor:
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{norm}.weight"], state[f"{norm}.bias"])

    large = state["conv1.weight"].shape[-1] == 7
    x = F.relu(normed(x, "conv1", "bn1", 2 if large else 1))
    x = F.max_pool2d(x, 3, 2, padding=1) if large else x
    for block in dict.fromkeys(key.rpartition(".conv")[0] for key in state if ".conv" in key):
        stride = 2 if block.endswith(".0") and block != "layer1.0" else 1
        convs = sum(key.startswith(f"{block}.conv") for key in state)
        y = x
        for i in range(1, convs + 1):
            y = normed(y, f"{block}.conv{i}", f"{block}.bn{i}", stride if i == 1 else 1)
            y = F.relu(y) if i < convs else y
        if not shortcuts:
            x = torch.zeros_like(y)
        elif f"{block}.downsample.0.weight" in state:
            x = normed(x, f"{block}.downsample.0", f"{block}.downsample.1", stride)
        elif x.shape != y.shape:
            zeros = torch.zeros(len(x), x.shape[1] // 2, *y.shape[2:])
            x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
        x = F.relu(x + y)
    return F.linear(x.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])


def plain_preactivated(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """He et al. 2016, Identity Mappings, figure 4e, for 32 pixels, with functional calls: an independent reference."""

    def activated(x: Tensor, norm: str) -> Tensor:
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.relu(F.batch_norm(x, mean, var, state[f"{norm}.weight"], state[f"{norm}.bias"]))

    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for block in dict.fromkeys(key.rpartition(".conv")[0] for key in state if ".conv" in key):
        first_of_stage = block.endswith(".0")
        stride = 2 if first_of_stage and block != "layer1.0" else 1
        first = y = activated(x, f"{block}.bn1")
        shortcut = first if first_of_stage else x
        convs = sum(key.startswith(f"{block}.conv") for key in state)
        for i in range(1, convs + 1):
            weight = state[f"{block}.conv{i}.weight"]
            strides = stride if i == convs - 1 else 1  # the first 3x3 of two, or the only one of three
            y = F.conv2d(y if i == 1 else activated(y, f"{block}.bn{i}"), weight, None, strides, weight.shape[-1] // 2)
        if f"{block}.downsample.0.weight" in state:
            shortcut = F.conv2d(shortcut, state[f"{block}.downsample.0.weight"], stride=stride)
        elif shortcut.shape != y.shape:
            zeros = torch.zeros(len(x), x.shape[1] // 2, *y.shape[2:])
            shortcut = torch.cat([zeros, shortcut[:, :, ::2, ::2], zeros], dim=1)
        x = shortcut + y
    return F.linear(activated(x, "bn").mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])


def plain_alexnet(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Krizhevsky et al. 2012, figure 2 and section 3, for 224 pixels, with functional calls: an independent reference.

    The second, fourth and fifth convolutions read half of the channels each; responses are normalised behind the first
    two, maps pooled behind those and the last.
    """

    def normalised(x: Tensor) -> Tensor:
        """Section 3.3: k = 2, n = 5, alpha = 1e-4, beta = 0.75."""
        around = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
        total = sum(around[:, i : i + x.shape[1]] for i in range(5))
        return x / (2 + 1e-4 * total) ** 0.75

    names = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
    for i, name in enumerate(names[:5]):
        weight = state[f"{name}.weight"]
        padding = 2 if i < 2 else 1
        x = F.relu(
            F.conv2d(x, weight, state[f"{name}.bias"], 4 if i == 0 else 1, padding, 1, 2 if i in (1, 3, 4) else 1)
        )
        x = normalised(x) if i < 2 else x
        x = F.max_pool2d(x, 3, 2) if i in (0, 1, 4) else x
    x = x.flatten(1)
    for i, name in enumerate(names[5:]):
        x = F.linear(x if i == 0 else F.relu(x), state[f"{name}.weight"], state[f"{name}.bias"])
    return x


def plain_inception(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Modules as Szegedy et al. 2015, figure 2, without its pools, written with functional calls: an independent
    reference. The stem is GoogLeNet's; modules have the branches that the weights have, and pools stand between stages.
    """

    def normed(x: Tensor, unit: str, stride: int = 1) -> Tensor:
        weight = state[f"{unit}.conv.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = state[f"{unit}.bn.running_mean"], state[f"{unit}.bn.running_var"]
        return F.relu(F.batch_norm(x, mean, var, state[f"{unit}.bn.weight"], state[f"{unit}.bn.bias"]))

    x = F.max_pool2d(normed(x, "conv1", 2), 3, 2, ceil_mode=True)
    x = F.max_pool2d(normed(normed(x, "conv2"), "conv3"), 3, 2, ceil_mode=True)
    units = [key.removesuffix(".conv.weight") for key in state if key.endswith(".conv.weight")]
    for module in dict.fromkeys(unit.partition(".")[0] for unit in units if "branch" in unit):
        if module in ("inception4", "inception5"):  # the first of a stage
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        branches: dict[str, Tensor] = {}
        for unit in (unit for unit in units if unit.startswith(f"{module}.")):
            branch = unit.split(".")[1]
            branches[branch] = normed(branches.get(branch, x), unit)
        x = torch.cat(list(branches.values()), dim=1)
    return F.linear(x.mean(dim=(2, 3)), state["fc.weight"], state["fc.bias"])
