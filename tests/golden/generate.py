"""Write the golden contracts beside this script: `python tests/golden/generate.py DATA`, with torchvision and timm.

A contract lists the entries of a reference's state_dict, "name type shape", in the reference's own names and order.
torchvision's networks, and timm's where it alone has them, are made on the meta device; a network that neither has is
its own reference, so that its names stay. The CIFAR ResNets are the checkpoints in DATA/weights-cifar10-resnet (BSD-2,
akamaster/pytorch_resnet_cifar10), which hold no counters of batches.
"""

import json
import sys
import types
from pathlib import Path

import torch

from netsmith.arch.names import MODELS, find_layout
from netsmith.models.build import construct
from netsmith.models.saving import COUNTERPARTS

HERE = Path(__file__).parent
CIFAR_FILES = {"resnet20_cifar": "resnet20-12fca82f.th", "resnet56_cifar": "resnet56-4bfd9763.th"}


def entry(name: str, tensor: torch.Tensor) -> str:
    """One line of a contract; the shape of a scalar is "-"."""
    return f"{name} {str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape)) or '-'}"


def write(path: Path, reference: str, networks: dict[str, list[str]]) -> None:
    """Write the contracts of one family, one line per entry."""
    path.write_text(json.dumps({"reference": reference, "networks": networks}, indent=0) + "\n")


def main(data: Path) -> None:
    """Write one file per family, and one for the checkpoints."""
    sys.modules["torchvision._meta_registrations"] = types.ModuleType("absent")  # needs operators that CPU wheels lack
    import timm
    import torchvision

    files: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name, spec in MODELS.items():
        if not name.endswith("_cifar") and not name.startswith("tf_"):  # timm's tf_ networks have the others' entries
            with torch.device("meta"):
                if name in COUNTERPARTS["torchvision"]:
                    network = torchvision.models.get_model(COUNTERPARTS["torchvision"][name])
                    key = (f"{spec.family}.json", "torchvision")
                elif name in COUNTERPARTS["timm"]:
                    network, key = timm.create_model(COUNTERPARTS["timm"][name]), (f"{spec.family}_timm.json", "timm")
                else:
                    network, key = construct(find_layout(name)), (f"{spec.family}_own.json", "netsmith")
            files.setdefault(key, {})[name] = [entry(*item) for item in network.state_dict().items()]
    versions = {"netsmith": "", "timm": timm.__version__, "torchvision": torchvision.__version__.partition("+")[0]}
    for (file, reference), networks in files.items():
        write(HERE / file, f"{reference} {versions[reference]}".strip(), networks)
    checkpoints: dict[str, list[str]] = {}
    for name, file in CIFAR_FILES.items():
        state = torch.load(data / "weights-cifar10-resnet" / file, map_location="cpu", weights_only=True)["state_dict"]
        checkpoints[name] = [entry(key.removeprefix("module."), tensor) for key, tensor in state.items()]
    write(HERE / "resnet_cifar.json", "akamaster/pytorch_resnet_cifar10", checkpoints)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
