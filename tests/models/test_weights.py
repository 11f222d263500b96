"""Checkpoints as they come, good and bad; nothing in them is ever run."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from netsmith.arch.layout import Layout
from netsmith.arch.names import find_layout
from netsmith.errors import InputError
from netsmith.models.build import build, load_weights
from netsmith.models.keymaps import convert_weights
from netsmith.models.weights import check_weights, read_weights


def tiny() -> Layout:
    return find_layout("resnet8_cifar@width=0.5", num_classes=3)


def state() -> dict[str, torch.Tensor]:
    return build(tiny(), seed=5).state_dict()


def saved(document: object, **options: Any) -> bytes:
    content = io.BytesIO()
    torch.save(document, content, **options)
    return content.getvalue()


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state().items()}


GOOD = {
    "plain": lambda: saved(state()),
    "old format": lambda: saved(state(), _use_new_zipfile_serialization=False),
    "safetensors": lambda: safetensors.torch.save(state()),
    "state_dict": lambda: saved({"epoch": 3, "state_dict": state(), "best": 0.9}),
    "model": lambda: saved({"model": state(), "optimizer": {"lr": torch.ones(2, 2)}}),
    "two levels": lambda: saved({"model": {"state_dict": state()}}),
    "parallel": lambda: saved({"state_dict": prefixed("module.")}),
    "compiled and parallel": lambda: saved(prefixed("module._orig_mod.")),
    "averaged": lambda: saved(
        {
            "model": build(tiny(), seed=6).state_dict(),
            "model_ema": {"n_averaged": torch.tensor(3), **prefixed("module.")},
        }
    ),
}


@pytest.mark.parametrize("kind", GOOD)
def test_finds_the_weights(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(GOOD[kind]())
    found = read_weights(path)
    assert found.keys() == state().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state().items())


class Bomb:
    """Runs code when a careless reader unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["zip", "old format", "pickle", "newest pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(kind: str, tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "weights.pth"
    document = {"state_dict": state(), "hook": Bomb(victim)}
    match kind:
        case "zip":
            path.write_bytes(saved(document))
        case "old format":
            path.write_bytes(saved(document, _use_new_zipfile_serialization=False))
        case "pickle":
            path.write_bytes(pickle.dumps({"hook": Bomb(victim)}, protocol=2))
        case _:
            path.write_bytes(pickle.dumps({"hook": Bomb(victim)}, protocol=5))
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert not victim.exists()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "could run code" in str(caught.value) or kind == "newest pickle"


def _npz() -> bytes:
    content = io.BytesIO()
    np.savez(content, weight=np.ones((2, 2)))
    return content.getvalue()


def _zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.txt", "hello")
    return content.getvalue()


BAD = {
    "empty": lambda: b"",
    "one byte": lambda: b"\x80",
    "text": lambda: b"hello, these are no weights",
    "picture": lambda: b"\x89PNG\r\n\x1a\n" + bytes(100),
    "npz": _npz,
    "zip": _zip,
    "zip cut short": lambda: saved(state())[:-200],
    "zip cut to its head": lambda: saved(state())[:100],
    "old format cut short": lambda: saved(state(), _use_new_zipfile_serialization=False)[:-50],
    "old format cut to its head": lambda: saved(state(), _use_new_zipfile_serialization=False)[:300],
    "safetensors cut short": lambda: safetensors.torch.save(state())[:-50],
    "safetensors cut to its head": lambda: safetensors.torch.save(state())[:60],
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_what_is_no_whole_checkpoint_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(BAD[kind]())
    with pytest.raises(InputError, match=r"cut short"):
        read_weights(path)


@pytest.mark.parametrize("document", [[1, 2], {}, {"epoch": 3}, {"state_dict": {"bias": torch.ones(2)}}, torch.ones(3)])
def test_checkpoints_without_weights_are_refused(document: object, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(saved(document))
    with pytest.raises(InputError, match="holds no tensors by name"):
        read_weights(path)


def test_a_checkpoint_that_holds_itself(tmp_path: Path) -> None:
    document: dict[str, object] = {"epoch": 3}
    document["model"] = document
    (tmp_path / "weights.pth").write_bytes(saved(document))
    with pytest.raises(InputError, match="holds no tensors by name"):
        read_weights(tmp_path / "weights.pth")


def test_names_from_a_file_cannot_break_the_line() -> None:
    with pytest.raises(InputError) as caught:
        check_weights({**state(), "a\nb": torch.ones(1)}, tiny(), where="a.pth")
    assert "\n" not in str(caught.value)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        read_weights(tmp_path / "absent.pth")
    with pytest.raises(InputError, match="is a folder"):
        read_weights(tmp_path)


def test_check_lists_what_differs() -> None:
    weights = state()
    del weights["conv1.weight"]
    weights["extra.weight"] = torch.ones(2)
    weights["fc.bias"] = torch.ones(5)
    with pytest.raises(InputError) as caught:
        check_weights(weights, tiny(), where="a.pth")
    assert str(caught.value) == (
        "a.pth does not hold the weights of resnet8_cifar@width=0.5: "
        "1 missing: conv1.weight; 1 unexpected: extra.weight; 1 of another shape: fc.bias (found 5, wanted 3); "
        "give those of this network, or export it again"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    weights = state()
    weights["layer1.0.bn1.weight"][0] = value
    with pytest.raises(InputError, match=r"layer1\.0\.bn1\.weight holds numbers that are not finite"):
        load_weights(tiny(), weights, where="a.pth")


def test_integers_are_no_weights() -> None:
    weights = state()
    weights["fc.weight"] = weights["fc.weight"].to(torch.int8)
    with pytest.raises(InputError, match=r"fc\.weight holds int8 numbers"):
        load_weights(tiny(), weights, where="a.pth")


def akamaster(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    return {name.replace("fc.", "linear."): tensor for name, tensor in kept.items()}


def test_cifar_names_and_missing_counters() -> None:
    converted = convert_weights(akamaster(state()), tiny(), where="a.th")
    assert converted.source == "akamaster or kuangliu"
    assert converted.weights.keys() == state().keys()
    assert all(torch.equal(converted.weights[name], tensor) for name, tensor in state().items())


def test_kuanglius_projections() -> None:
    layout = find_layout("resnet18@0.125", num_classes=10, img_size=32)
    weights = {name.replace("downsample", "shortcut"): tensor for name, tensor in build(layout).state_dict().items()}
    assert convert_weights(akamaster(weights), layout, where="a.pth").source == "akamaster or kuangliu"


def test_half_precision_becomes_float32() -> None:
    weights = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state().items()}
    converted = convert_weights(weights, tiny(), where="a.pth")
    assert {tensor.dtype for tensor in converted.weights.values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize(
    ("name", "classes", "says"),
    [
        ("resnet14_cifar", 10, "it looks like resnet8_cifar; give --model resnet8_cifar"),
        ("mobilenet_v2", 10, "it looks like resnet8_cifar; give --model resnet8_cifar"),
        ("resnet8_cifar", 7, "it has 10 classes, not 7; give --num-classes 10"),
    ],
)
def test_weights_of_another_network_are_recognised(name: str, classes: int, says: str) -> None:
    weights = akamaster(build(find_layout("resnet8_cifar")).state_dict())
    with pytest.raises(InputError, match=says):
        convert_weights(weights, find_layout(name, num_classes=classes), where="a.th")


def test_weights_for_small_pictures_are_recognised() -> None:
    weights = build(find_layout("resnet18", img_size=32, num_classes=10)).state_dict()
    with pytest.raises(InputError, match="it looks like resnet18 for 32 pixels"):
        convert_weights(weights, find_layout("resnet18"), where="a.pth")


def test_timms_efficientnets_keep_torchs_norm_constants() -> None:
    """torchvision's B5 has eps 1e-3 and timm's, under its own names, 1e-5."""
    from netsmith.models.keymaps import native_layers, timm_layers

    layout = find_layout("efficientnet_b5@width=0.1,depth=0.1", num_classes=3)
    theirs = dict(zip(native_layers(layout), timm_layers(layout), strict=True))
    weights = build(layout).state_dict()
    renamed = {
        f"{theirs[layer]}.{leaf}": tensor
        for layer, _, leaf, tensor in ((*name.rpartition("."), tensor) for name, tensor in weights.items())
    }
    assert layout.norm_eps == 1e-3
    assert convert_weights(weights, layout, where="a.pth").layout.norm_eps == 1e-3
    converted = convert_weights(renamed, layout, where="a.pth")
    assert (converted.source, converted.layout.norm_eps) == ("timm", 1e-5)


def test_nothing_but_a_counter_is_no_endless_search(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(saved({"n_averaged": torch.zeros(2, 2)}))
    assert read_weights(path) == {}


def test_a_packed_checkpoint_is_refused(tmp_path: Path) -> None:
    """A few kilobytes of it may come to gigabytes."""
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(io.BytesIO(saved({"fc.weight": torch.zeros(1000, 1000)}))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="unpacks to more bytes than it has"):
        read_weights(path)


def test_a_tensor_that_claims_more_than_it_holds_is_not_copied(tmp_path: Path) -> None:
    """Its shape is wrong, which is said before anything of that size is made."""
    path = tmp_path / "weights.pth"
    endless = torch.zeros(1, dtype=torch.float16).expand(1 << 22, 1 << 22)
    path.write_bytes(saved(state() | {"conv1.weight": endless}))
    with pytest.raises(InputError, match="conv1.weight \\(found 4194304x4194304"):
        convert_weights(read_weights(path), tiny(), where="weights.pth")


@pytest.mark.parametrize(
    "odd", [torch.zeros(3, 4).to_sparse(), torch.zeros(3, 4, device="meta")], ids=("sparse", "meta")
)
def test_tensors_without_their_numbers_are_none(odd: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(saved({"fc.weight": odd}))
    with pytest.raises(InputError, match="holds no tensors by name"):
        read_weights(path)
