"""Place: what a paper's block meets where it stands in a network, so that lowering can write its decisions out."""

from dataclasses import dataclass

from netsmith.arch.graph import Activation
from netsmith.arch.widths import Width, paper_width, scaled_width


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a block stands.

    Attributes:
        name: prefix of the block's parameters.
        paper_in: channels that come in, on the paper's scale: decisions are made on these.
        channels: channels that come in.
        stride: of the block; the first of a stage strides.
        multiplier: of widths.
        activation: of the network.
    """

    name: str
    paper_in: int
    channels: int
    stride: int
    multiplier: float
    activation: Activation

    def width(self, width: Width, *, groups: int = 1) -> int:
        """A width under the multiplier; grouped ones stay multiples of the groups."""
        return scaled_width(width, self.multiplier, groups=groups)

    def keeps_shape(self, out: Width) -> bool:
        """Whether the paper's block puts out the shape that comes in."""
        return self.stride == 1 and self.paper_in == paper_width(out)
