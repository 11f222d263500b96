"""SqueezeNet (Iandola et al. 2016, arXiv 1602.07360).

Deliberate choices: initial weights are torchvision's: the last convolution starts small, the others uniform by fan-in.
The published tables are in `netsmith.arch.families.squeezenet`, the block in `netsmith.nn.fire`.
"""

from torch import Generator, nn


def init_weights(network: nn.Module, generator: Generator) -> None:
    """Set every parameter as torchvision's SqueezeNets do."""
    convs = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    for conv in convs:
        if conv is convs[-1]:
            nn.init.normal_(conv.weight, 0.0, 0.01, generator=generator)
        else:
            nn.init.kaiming_uniform_(conv.weight, generator=generator)
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
