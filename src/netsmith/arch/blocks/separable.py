"""Depthwise separable convolutions: MobileNet's block (Howard et al. 2017, arXiv 1704.04861, figure 3).

Deliberate choices: no reference of the family stands in torchvision, so the names are built like its MobileNetV2's.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from netsmith.arch import graph as g
from netsmith.arch.blocks.draft import Draft, Widths
from netsmith.arch.blocks.place import Place
from netsmith.arch.blocks.single import Single
from netsmith.arch.limits import check_name, check_widths, check_window
from netsmith.arch.widths import Width, paper_width


@dataclass(frozen=True, kw_only=True)
class SeparableBlock:
    """Depthwise convolution and 1x1 to `out` channels, each with norm and activation."""

    kind: ClassVar[str] = "separable"
    name: str
    kernel: int
    out: int
    stride: int
    activation: g.Activation

    def __post_init__(self) -> None:
        check_name(self.name)
        check_widths(self.name, self.out)
        check_window(self.name, kernel=self.kernel, stride=self.stride)

    def add(self, draft: Draft, source: str) -> str:
        """Append the block's operations; the name of its output is returned."""
        channels = draft.channels(source)
        x = draft.conv_norm_act(
            f"{self.name}.0", source, channels,
            kernel=self.kernel, stride=self.stride, groups=channels, activation=self.activation,
        )  # fmt: skip
        return draft.conv_norm_act(f"{self.name}.1", x, self.out, activation=self.activation)

    def resized(self, widths: Widths) -> "SeparableBlock":
        """The record of this block in a graph whose channels were cut."""
        return replace(self, out=widths.out(f"{self.name}.1.0"))


@dataclass(frozen=True, kw_only=True)
class Separable(Single):
    """Depthwise and pointwise convolution (Howard et al. 2017, table 1: a pair of rows)."""

    kind: ClassVar[str] = "separable"
    out: Width
    kernel: int = 3

    def __post_init__(self) -> None:
        check_widths(self.kind, paper_width(self.out))
        check_window(self.kind, kernel=self.kernel, stride=1)

    def lower(self, place: Place) -> SeparableBlock:
        """Every width and decision written out."""
        return SeparableBlock(
            name=place.name, kernel=self.kernel, out=place.width(self.out), stride=place.stride,
            activation=place.activation,
        )  # fmt: skip
