"""Place: what a paper's record meets where it stands in a network, so that lowering can write its decisions out."""

from dataclasses import dataclass

from netsmith.arch.blocks.draft import Padding, Size
from netsmith.arch.graph import Activation
from netsmith.arch.widths import Width, paper_width, scaled_width


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a block or piece stands.

    Attributes:
        name: prefix of a block's parameters; "" where names are complete.
        paper_in: channels that come in, on the paper's scale: decisions are made on these.
        channels: channels that come in.
        sides: of the map that comes in.
        stride: of the block; the first of a stage strides.
        staged: whether that stride decides; elsewhere (stem, head, inside a block) each piece keeps its own.
        multiplier: of widths.
        activation: of the network.
        layer: what {layer} in a name stands for: how many layers came before, as torchvision counts in `features`.
    """

    name: str
    paper_in: int
    channels: int
    sides: tuple[int, ...]
    stride: int
    staged: bool
    multiplier: float
    activation: Activation
    layer: int

    def width(self, width: Width, *, groups: int = 1) -> int:
        """A width under the multiplier; grouped ones stay multiples of the groups."""
        return scaled_width(width, self.multiplier, groups=groups)

    def keeps_shape(self, out: Width) -> bool:
        """Whether the paper's block puts out the shape that comes in."""
        return self.stride == 1 and self.paper_in == paper_width(out)

    def strides(self, own: int) -> int:
        """The stride of a piece that has its own."""
        return self.stride if self.staged else own

    def named(self, name: str) -> str:
        """The complete name of a layer; {layer} is its number, {next} the one after."""
        complete = f"{self.name}.{name}" if self.name else name
        return complete.replace("{layer}", str(self.layer)).replace("{next}", str(self.layer + 1))

    def window(self, kernel: Size, padding: Padding) -> Size:
        """A kernel without padding is at most the map, so that networks for small pictures come to be."""
        if padding != 0:
            return kernel
        kernels = (kernel,) * len(self.sides) if isinstance(kernel, int) else kernel
        clipped = tuple(map(min, kernels, self.sides))
        return kernel if clipped == kernels else clipped
