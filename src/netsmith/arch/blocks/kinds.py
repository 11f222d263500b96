"""All block kinds.

A kind is two records in one module. The paper's (`BlockSpec`) has `paper_out(paper_in)` and `lower(place)`, which
writes its widths and decisions out; the lowered one (`Block`) has `add(draft, source)`, which declares its graph,
`out_channels(channels)`, and `resized(widths)`, which follows a graph whose channels were cut. Its `name` is the prefix
of its parameters. A new kind is a module beside these and a name in both unions; nothing else lists the kinds.
"""

from netsmith.arch.blocks.inverted import InvertedResidual, InvertedResidualBlock, MBConv, MBConvBlock
from netsmith.arch.blocks.residual import Basic, BasicBlock, Bottleneck, BottleneckBlock

Block = BasicBlock | BottleneckBlock | InvertedResidualBlock | MBConvBlock
BlockSpec = Basic | Bottleneck | InvertedResidual | MBConv
