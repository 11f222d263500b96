"""Draft: a graph in the making, and the widths of a finished one read back by layer."""

from typing import Literal, TypedDict

from netsmith.arch import graph as g
from netsmith.errors import InputError

Size = int | tuple[int, ...]
"""A kernel: the same in every dimension, or one number for each."""

Padding = int | tuple[tuple[int, int], ...] | Literal["half", "same"]
"""The same all around, or (before, after) for each dimension, or "half" the kernel (odd ones keep the size at stride
1), or TensorFlow's "same": the size divided by the stride, rounded up, with the odd position behind."""


class Draft:
    """Collects a graph's operations; every output's shape is known as it grows, so blocks state only decisions."""

    def __init__(self, *, input: g.Shape, norm_eps: float, norm_momentum: float) -> None:
        self.ops: list[g.Op] = []
        self.shapes: dict[str, g.Shape] = {"input": input}
        self.dimensions = len(input) - 1
        self.norm_eps = norm_eps
        self.norm_momentum = norm_momentum

    def beginning_with(self, name: str) -> "Draft":
        """An empty draft whose input is a map of this one."""
        return Draft(input=self.shapes[name], norm_eps=self.norm_eps, norm_momentum=self.norm_momentum)

    def channels(self, name: str) -> int:
        """Channels of an operation's output (features, behind a flatten)."""
        return self.shapes[name][0]

    def add(self, op: g.Op) -> str:
        """Append an operation; its name is returned.

        Raises:
            InputError: when the name is taken or what comes in does not fit.
        """
        if op.name in self.shapes:
            raise InputError(f"two operations are called {op.name!r}; block and layer names must differ")
        self.shapes[op.name] = g.shape_of(op, tuple(self.shapes[name] for name in g.sources(op)))
        self.ops.append(op)
        return op.name

    def conv(
        self, name: str, source: str, out: int, *, kernel: Size = 1, stride: int = 1, groups: int = 1,
        bias: bool = False, padding: Padding = "half",
    ) -> str:  # fmt: skip
        """A convolution."""
        window = self._window(name, source, kernel, stride, padding)
        op = g.Conv(
            name=name, source=source, in_channels=self.channels(source), out_channels=out, **window,
            groups=groups, bias=bias,
        )  # fmt: skip
        return self.add(op)

    def _window(self, name: str, source: str, kernel: Size, stride: int, padding: Padding) -> "_Window":
        """Kernel, stride and padding with one entry per dimension."""
        kernels = (kernel,) * self.dimensions if isinstance(kernel, int) else kernel
        sides = self.shapes[source][1:]
        if len(kernels) != len(sides):
            raise InputError(f"{name}: a kernel of {len(kernels)} sides reads a map of {len(sides)}; give as many")
        match padding:
            case int():
                pairs = tuple((padding, padding) for _ in kernels)
            case "half":
                pairs = tuple((each // 2, each // 2) for each in kernels)
            case "same":
                lacking = (
                    max(0, (-(-side // stride) - 1) * stride + each - side)
                    for side, each in zip(sides, kernels, strict=True)
                )
                pairs = tuple((lack // 2, lack - lack // 2) for lack in lacking)
            case _:
                pairs = padding
        if len(pairs) != len(sides):
            raise InputError(f"{name}: a padding of {len(pairs)} sides is for a map of {len(sides)}; give as many")
        return {"kernel": kernels, "stride": (stride,) * self.dimensions, "padding": pairs}

    def conv_norm_act(
        self, name: str, source: str, out: int, *, kernel: Size = 1, stride: int = 1, groups: int = 1,
        padding: Padding = "half", activation: g.Activation,
    ) -> str:  # fmt: skip
        """A convolution, batch norm and an activation, called `name`.0, .1 and .2."""
        x = self.conv(f"{name}.0", source, out, kernel=kernel, stride=stride, groups=groups, padding=padding)
        return self.activate(f"{name}.2", self.norm(f"{name}.1", x), activation)

    def norm(self, name: str, source: str) -> str:
        """Batch norm over the source's channels."""
        channels = self.channels(source)
        return self.add(
            g.Norm(name=name, source=source, channels=channels, eps=self.norm_eps, momentum=self.norm_momentum)
        )

    def activate(self, name: str, source: str, function: g.Activation) -> str:
        """An activation."""
        return self.add(g.Activate(name=name, source=source, function=function))

    def total(self, name: str, *parts: str) -> str:
        """An element-wise sum."""
        return self.add(g.Add(name=name, sources=parts))

    def pool(
        self, name: str, source: str, reduce: Literal["max", "avg"], *, kernel: Size, stride: int,
        padding: Padding = "half", ceil: bool = False, count_padding: bool = False,
    ) -> str:  # fmt: skip
        """Max or average pooling."""
        window = self._window(name, source, kernel, stride, padding)
        op = g.Pool(name=name, source=source, reduce=reduce, **window, ceil=ceil, count_padding=count_padding)
        return self.add(op)

    def subsample(self, name: str, source: str, *, stride: int) -> str:
        """Every stride-th position."""
        return self.pool(name, source, "max", kernel=1, stride=stride)

    def global_pool(self, name: str, source: str) -> str:
        """The average over all positions."""
        return self.add(g.GlobalPool(name=name, source=source))

    def flatten(self, name: str, source: str) -> str:
        """All of a map as one vector."""
        return self.add(g.Flatten(name=name, source=source))

    def linear(self, name: str, source: str, out: int) -> str:
        """A linear layer."""
        return self.add(g.Linear(name=name, source=source, in_features=self.channels(source), out_features=out))

    def squeeze_excite(
        self, name: str, source: str, width: int, function: g.Activation, *, gate: g.Activation = "sigmoid"
    ) -> str:
        """Squeeze-excitation (Hu et al. 2018): global pool, two 1x1 convolutions with `function` between and `gate`
        behind them, gate."""
        channels = self.channels(source)
        pooled = self.global_pool(f"{name}.avgpool", source)
        squeezed = self.activate(f"{name}.activation", self.conv(f"{name}.fc1", pooled, width, bias=True), function)
        scale = self.activate(f"{name}.scale", self.conv(f"{name}.fc2", squeezed, channels, bias=True), gate)
        return self.add(g.Gate(name=name, source=source, gate=scale))


class _Window(TypedDict):
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: g.Padding


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
