"""Which parameters an optimizer treats alike: weight decay by what a parameter is, rate by how deep it lies.

- Weight decay acts on weights of convolutions and linear layers; on norms and biases it costs accuracy (He et al. 2019,
  "Bag of tricks", section 3.1). `weight_decay_on` has it as older papers did.
- With `layer_decay` the rate falls from the classifier to the stem, a factor for each stage of the layout: early layers
  of published weights fit any pictures, late ones the classes they learned (Howard and Ruder 2018, section 3.2).
  All of the head has the whole rate, auxiliary classifiers too.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from netsmith.arch.layout import Layout, layout_sections
from netsmith.errors import InputError
from netsmith.run.recipe import Recipe
from netsmith.train.requirements import NORMS

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def classifiers(network: nn.Module) -> set[str]:
    """Names of the layers that give logits, as the network's layout states them; without one, its last layer."""
    layout = getattr(network, "layout", None)
    if isinstance(layout, Layout):
        return {layout.head.logits, *(each.head.logits for each in layout.auxiliary)}
    return {[name for name, layer in network.named_modules() if isinstance(layer, LAYERS)][-1]}


def parameter_groups(
    network: nn.Module, recipe: Recipe, parameters: Iterable[Tensor], factors: Mapping[Tensor, float]
) -> list[dict[str, Any]]:
    """Groups of parameters, each with its "weight_decay" and its "rate_factor".

    Args:
        network: that they belong to, or are trained beside.
        recipe: its `weight_decay`, `weight_decay_on` and `head_first` are used.
        parameters: to divide into groups.
        factors: of the rate, for parameters where it is not 1; see `rate_factors`.
    """
    spared = _spared(network, recipe)
    # torch's fused SGD takes no group of which some have been updated and some have not.
    first = classifiers(network) if recipe.head_first else set[str]()
    body = set(network.parameters())
    earlier = {parameter for name in first for parameter in network.get_submodule(name).parameters()}
    found: dict[tuple[bool, float, float], list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        decay = 0.0 if parameter in spared else recipe.weight_decay
        found[parameter in earlier or parameter not in body, factors.get(parameter, 1.0), decay].append(parameter)
    return [
        {"params": found[key], "weight_decay": key[2], "rate_factor": key[1]} for key in sorted(found, reverse=True)
    ]


def _spared(network: nn.Module, recipe: Recipe) -> set[Tensor]:
    """Parameters without weight decay."""
    if recipe.weight_decay_on == "all":
        return set()
    if recipe.weight_decay_on == "weights":
        return {parameter for parameter in network.parameters() if parameter.ndim < 2}
    return {p for module in network.modules() if isinstance(module, NORMS) for p in module.parameters()}


def rate_factors(network: nn.Module, recipe: Recipe) -> dict[Tensor, float]:
    """The factor of the rate of every parameter for which it is not 1.

    Args:
        network: with its layout, where the recipe's `layer_decay` is not 1.
        recipe: its `layer_decay` is used.

    Raises:
        InputError: the network has no layout.
    """
    if recipe.layer_decay == 1.0:
        return {}
    layout = getattr(network, "layout", None)
    if not isinstance(layout, Layout):
        raise InputError(f"layer_decay {recipe.layer_decay} needs a network with a layout; set it to 1")
    depths = {stage.name: depth for depth, stage in enumerate(layout.stages, start=1)} | {"stem": 0}
    depth_of = {
        op.name: depths[part.stage] for part in layout_sections(layout) if part.stage in depths for op in part.ops
    }
    return {
        parameter: recipe.layer_decay ** (len(depths) - depth_of[layer])
        for name, parameter in network.named_parameters()
        if (layer := name.rpartition(".")[0]) in depth_of  # all others belong to heads
    }
