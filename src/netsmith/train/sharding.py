"""Networks that are divided over the processes: each holds a part of every parameter, of its gradient, of what the
optimizer remembers about it and of its average, and a block is whole only while it computes.

Choices made on purpose:

- torch's `fully_shard` divides every parameter along its first axis and gathers what a unit of the network needs around
  the unit's forward and backward calls; gradients are added up and divided again as each unit's are there. It changes
  no name and wraps nothing. A unit is a block of the layout, or another of its pieces that holds a matrix; the norms
  between them belong to the network itself and are gathered for the whole of a call.
- The optimizer moves plain tensors that share the memory of the parts: what acts element by element (SGD, AdamW,
  RMSProp) computes what it computes on wholes, with the same fused kernels. Norms over a whole tensor (clipping, LAMB)
  are added up. What needs whole matrices (Muon) is refused.
- Autocast's copies of weights, which autograd would keep for the backward pass, are made again (`recasting`).
- Buffers are whole everywhere: running statistics are small, and exchanged as without parts.
- Networks begin in the host's memory and come to the device unit by unit; checkpoints are gathered tensor by tensor. So
  no device ever holds a whole network, and a checkpoint is that of one process: runs go on with any number of them.

Source: Rajbhandari et al. 2020, "ZeRO" (arXiv 1910.02054), stage 3; Zhao et al. 2023, "PyTorch FSDP" (arXiv
2304.11277).
"""

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from netsmith.models.network import Network
from netsmith.train.division import Whole
from netsmith.train.memory import give_back_large_blocks
from netsmith.train.objectives import Objective
from netsmith.train.ranks import Ranks
from netsmith.train.recasting import recast

# What a unit gives may be a view (logits after a flatten); torch warns of changing such in place, and nothing does.
warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)


def units(network: nn.Module) -> list[nn.Module]:
    """What is gathered at once: the pieces of a network that hold a matrix, in the order of running.

    Args:
        network: of a layout; of any other the children are the pieces.
    """
    if isinstance(network, Network):
        beside = (name for _, names in network.auxiliary.values() for name in names)
        pieces = [network.get_submodule(name) for name in (*network.order, *beside)]
    else:
        pieces = list(network.children())
    return [piece for piece in pieces if any(parameter.ndim > 1 for parameter in piece.parameters())]


class Sharded(Whole):
    """Each process holds a part of every parameter: a stretch of its first axis, none of them longer than the first's.

    Args:
        ranks: all processes; two or more.
        device: of this one.
    """

    joint = True

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        if device.type == "cpu":
            give_back_large_blocks()
        self.summed = ranks.world.size
        self.device, self._ranks = device, ranks
        self._mesh = init_device_mesh(device.type, (ranks.world.size,))
        self._held: dict[Tensor, Parameter] = {}
        self._skeleton: nn.Module | None = None

    def place(self, objective: Objective, device: torch.device) -> None:
        network, objective.network = objective.network, nn.Identity()
        objective.to(device)
        objective.network = network

    @torch.no_grad()
    def divide(self, trained: nn.Module, *others: nn.Module) -> None:
        self._skeleton = _skeleton(trained)
        recast(trained)
        for network in (trained, *others):
            self._divide(network)
        self._held = {each: Parameter(self.local(each), requires_grad=False) for each in trained.parameters()}

    def _divide(self, network: nn.Module) -> None:
        for parameter in network.parameters():
            parameter.data = parameter.data.contiguous()  # a part is a stretch of memory
        for module in (*units(network), network):
            # Also the network's own are given back between its calls, so that its parameters are always the parts.
            divided = fully_shard(module, mesh=self._mesh, reshard_after_forward=True)
            # Losses are weighed by their share of the batch: gradients are sums. gloo knows no other way to add up.
            divided.set_gradient_divide_factor(1.0)
            divided.set_force_sum_reduction_for_comms(True)
        if isinstance(network, Network):
            register_fsdp_forward_method(network, "forward_all")

    def held(self, parameter: Parameter) -> Parameter:
        return self._held.get(parameter, parameter)  # what is trained beside the network is whole

    def local(self, tensor: Tensor) -> Tensor:
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor

    def part(self, whole: Tensor, of: Tensor) -> Tensor:
        if not isinstance(of, DTensor) or whole.shape != of.shape:
            return whole
        length = -(-len(whole) // self.summed)
        return whole[self._ranks.world.rank * length :][:length]

    def whole(self, part: Tensor, of: Tensor) -> Tensor:
        if not isinstance(of, DTensor) or part.shape != of.to_local().shape:
            return part
        divided = DTensor.from_local(part, of.device_mesh, of.placements, shape=of.shape, stride=of.stride())
        return divided.full_tensor()

    def kept(self, whole: Tensor) -> Tensor:
        return whole.cpu() if self._ranks.leads else whole.to("meta")

    def take_gradients(self) -> None:
        for parameter, held in self._held.items():
            held.grad = None if parameter.grad is None else self.local(parameter.grad)
            parameter.grad = None

    def over_all(self, norms: Tensor) -> Tensor:
        squares = norms.double().square().reshape(-1)
        self._ranks.add_up([squares])
        return squares.sqrt().to(norms.dtype).view_as(norms)

    def plain(self, network: nn.Module) -> nn.Module:
        assert self._skeleton is not None, "the network was divided"
        state = {name: self.kept(self.whole(self.local(each), each)) for name, each in network.state_dict().items()}
        plain = copy.deepcopy(self._skeleton)
        plain.load_state_dict(state, assign=True)
        return plain


def _skeleton(network: nn.Module) -> nn.Module:
    """A copy of a network without the memory of its state."""
    memo: dict[int, Tensor] = {}  # what deepcopy takes for copied already
    for tensor in network.state_dict(keep_vars=True).values():
        empty = tensor.to("meta")
        memo[id(tensor)] = Parameter(empty, tensor.requires_grad) if isinstance(tensor, Parameter) else empty
    return copy.deepcopy(network, memo)
