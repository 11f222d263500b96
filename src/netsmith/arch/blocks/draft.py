"""Draft: a graph in the making, and the widths of a finished one read back by layer."""

from typing import Literal

from netsmith.arch import graph as g
from netsmith.errors import InputError


class Draft:
    """Collects a graph's operations; every output's channels are known as it grows, so blocks state only decisions."""

    def __init__(self, *, channels: int, dimensions: int, norm_eps: float, norm_momentum: float) -> None:
        self.ops: list[g.Op] = []
        self.channels = {"input": channels}
        self.dimensions = dimensions
        self.norm_eps = norm_eps
        self.norm_momentum = norm_momentum

    def add(self, op: g.Op, channels: int) -> str:
        """Append an operation whose output has `channels` channels; its name is returned."""
        if op.name in self.channels:
            raise InputError(f"two operations are called {op.name!r}; block and layer names must differ")
        self.ops.append(op)
        self.channels[op.name] = channels
        return op.name

    def conv(
        self, name: str, source: str, out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> str:
        """A convolution padded to keep the size at stride 1 (odd kernels)."""
        each = self.dimensions
        into = self.channels[source]
        op = g.Conv(
            name=name, source=source, in_channels=into, out_channels=out, kernel=(kernel,) * each,
            stride=(stride,) * each, padding=(kernel // 2,) * each, groups=groups, bias=bias,
        )  # fmt: skip
        return self.add(op, out)

    def norm(self, name: str, source: str) -> str:
        """Batch norm over the source's channels."""
        channels = self.channels[source]
        op = g.Norm(name=name, source=source, channels=channels, eps=self.norm_eps, momentum=self.norm_momentum)
        return self.add(op, channels)

    def activate(self, name: str, source: str, function: g.Activation) -> str:
        """An activation."""
        return self.add(g.Activate(name=name, source=source, function=function), self.channels[source])

    def total(self, name: str, *parts: str) -> str:
        """An element-wise sum."""
        return self.add(g.Add(name=name, sources=parts), self.channels[parts[0]])

    def max_pool(self, name: str, source: str, *, kernel: int, stride: int) -> str:
        """Max pooling padded by half the kernel."""
        return self._pool(name, source, "max", kernel, stride, kernel // 2)

    def subsample(self, name: str, source: str, *, stride: int) -> str:
        """Every stride-th position."""
        return self._pool(name, source, "max", 1, stride, 0)

    def _pool(
        self, name: str, source: str, reduce: Literal["max", "avg"], kernel: int, stride: int, padding: int
    ) -> str:
        each = self.dimensions
        op = g.Pool(
            name=name, source=source, reduce=reduce,
            kernel=(kernel,) * each, stride=(stride,) * each, padding=(padding,) * each,
        )  # fmt: skip
        return self.add(op, self.channels[source])

    def squeeze_excite(self, name: str, source: str, width: int, function: g.Activation) -> str:
        """Squeeze-excitation (Hu et al. 2018): global pool, two 1x1 convolutions, sigmoid, gate."""
        channels = self.channels[source]
        pooled = self.add(g.GlobalPool(name=f"{name}.avgpool", source=source), channels)
        squeezed = self.activate(f"{name}.activation", self.conv(f"{name}.fc1", pooled, width, bias=True), function)
        scale = self.activate(f"{name}.scale", self.conv(f"{name}.fc2", squeezed, channels, bias=True), "sigmoid")
        return self.add(g.Gate(name=name, source=source, gate=scale), channels)


class Widths:
    """Widths of a graph's layers by name, for records that follow a graph whose channels were cut."""

    def __init__(self, graph: g.Graph) -> None:
        self._ops = {op.name: op for op in graph.ops}

    def conv(self, name: str) -> g.Conv:
        """The convolution of a name."""
        op = self._ops[name]
        assert isinstance(op, g.Conv)
        return op

    def out(self, name: str) -> int:
        """Channels that a convolution or linear layer puts out."""
        op = self._ops[name]
        return op.out_features if isinstance(op, g.Linear) else self.conv(name).out_channels

    def pad(self, name: str) -> g.Pad:
        """The zero padding of a name."""
        op = self._ops[name]
        assert isinstance(op, g.Pad)
        return op
