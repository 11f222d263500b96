"""All block kinds.

A kind is two records in one module. The paper's (`BlockSpec`; most are a `Single`) has `paper_out(paper_in)` and
`lower(place)`, which writes its widths and decisions out, `reduction` (whether it is there to shrink the map, so that
depth does not repeat it) and `layers` (its count in names with {layer}); the lowered one (`Block`) has `add(draft,
source)`, which declares its graph, and `resized(widths)`, which follows a graph whose channels were cut. Its `name` is
the prefix of its parameters. A new kind is a module beside these and a name in both unions; nothing else lists the
kinds.
"""

from netsmith.arch.blocks.branches import Branches, BranchesBlock
from netsmith.arch.blocks.cardinal import Cardinal, CardinalBlock
from netsmith.arch.blocks.fire import Fire, FireBlock
from netsmith.arch.blocks.inverted import (
    Bneck,
    FusedMBConv,
    FusedMBConvBlock,
    InvertedResidual,
    InvertedResidualBlock,
    MBConv,
    MBConvBlock,
)
from netsmith.arch.blocks.pieces import Conv, ConvBlock, LocalNorm, LocalNormBlock, Pool, PoolBlock
from netsmith.arch.blocks.preactivation import PreBasic, PreBasicBlock, PreBottleneck, PreBottleneckBlock
from netsmith.arch.blocks.residual import Basic, BasicBlock, Bottleneck, BottleneckBlock
from netsmith.arch.blocks.separable import Separable, SeparableBlock

Block = (
    BasicBlock
    | BottleneckBlock
    | PreBasicBlock
    | PreBottleneckBlock
    | CardinalBlock
    | InvertedResidualBlock
    | MBConvBlock
    | FusedMBConvBlock
    | SeparableBlock
    | FireBlock
    | BranchesBlock
    | ConvBlock
    | PoolBlock
    | LocalNormBlock
)
BlockSpec = (
    Basic
    | Bottleneck
    | PreBasic
    | PreBottleneck
    | Cardinal
    | InvertedResidual
    | MBConv
    | Bneck
    | FusedMBConv
    | Separable
    | Fire
    | Branches
    | Conv
    | Pool
    | LocalNorm
)
