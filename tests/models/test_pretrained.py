"""Published weights in networks: from a folder, with other heads and inputs, and back to the libraries."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from reference_models import stir, timm_model, torchvision_model

from netsmith.arch.layout import at_size
from netsmith.arch.names import find_layout
from netsmith.errors import InputError
from netsmith.models.adapt import repeated
from netsmith.models.build import build, construct, create_model, load_weights
from netsmith.models.keymaps import KEYMAPS, foreign_names
from netsmith.models.saving import COUNTERPARTS, Library, for_library, write_weights
from netsmith.models.weights import entries_of, read_weights

TINY = "resnet20_cifar.akamaster"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of weights as a user keeps them: a stirred resnet20_cifar."""
    network = build(find_layout("resnet20_cifar"), seed=3)
    stir(network, seed=4)
    (tmp_path / f"{TINY}.safetensors").write_bytes(safetensors.torch.save(network.state_dict()))
    return tmp_path


@pytest.mark.parametrize("name", [TINY, "resnet20_cifar"])
def test_comes_with_the_weights_of_the_file(name: str, folder: Path) -> None:
    network = create_model(name, pretrained=True, pretrained_dir=folder)
    expected = read_weights(folder / f"{TINY}.safetensors")
    assert network.training
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_a_tag_asks_for_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert create_model(TINY, pretrained_dir=folder).layout == create_model("resnet20_cifar").layout
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"resnet20_cifar\.akamaster cannot be had"):
        create_model(TINY)


def test_another_head_is_new_and_the_rest_stays(folder: Path) -> None:
    published, other, again = (
        create_model(TINY, pretrained_dir=folder, num_classes=count, seed=seed).state_dict()
        for count, seed in ((None, 0), (3, 7), (3, 7))
    )
    assert other["fc.weight"].shape == (3, 64)
    assert torch.equal(other["fc.weight"], build(find_layout("resnet20_cifar", num_classes=3), seed=7).fc.weight)
    assert all(torch.equal(other[key], again[key]) for key in other)
    assert all(torch.equal(other[key], published[key]) for key in other if not key.startswith("fc."))


def test_a_grey_picture_gives_what_it_gave_in_colour(folder: Path) -> None:
    colour = create_model(TINY, pretrained_dir=folder).eval()
    grey = create_model(TINY, pretrained_dir=folder, in_channels=1).eval()
    picture = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(grey(picture), colour(picture.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [2, 3, 4, 7])
def test_kernels_repeat_in_turn_and_keep_their_scale(channels: int) -> None:
    kernels = torch.randn(5, 3, 3, 3)
    found = repeated(kernels, channels)
    assert found.shape == (5, channels, 3, 3)
    for channel in range(channels):
        assert torch.equal(found[:, channel], kernels[:, channel % 3] * (3 / channels))


def test_more_channels_and_classes_in_a_network(folder: Path) -> None:
    network = create_model(TINY, pretrained_dir=folder, in_channels=5, num_classes=2, img_size=48, drop_path=0.1)
    assert network.conv1.weight.shape == (16, 5, 3, 3)
    assert (network.layout.resolution, network.layout.drop_path) == ((48, 48), 0.1)
    assert network(torch.randn(2, 5, 48, 48)).shape == (2, 2)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(50)])
def test_files_that_are_no_weights(content: bytes, tmp_path: Path) -> None:
    (tmp_path / f"{TINY}.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"resnet20_cifar\.akamaster\.pth") as caught:
        create_model(TINY, pretrained_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network(tmp_path: Path) -> None:
    other = build(find_layout("resnet32_cifar"))
    (tmp_path / f"{TINY}.safetensors").write_bytes(safetensors.torch.save(other.state_dict()))
    with pytest.raises(InputError, match="it looks like resnet32_cifar"):
        create_model(TINY, pretrained_dir=tmp_path)


def test_real_weights_of_cifar10(test_data: Path) -> None:
    """The published file, found by its published name; its accuracy is measured elsewhere."""
    network = create_model("resnet56_cifar", pretrained=True, pretrained_dir=test_data / "weights-cifar10-resnet")
    assert network.fc.weight.shape == (10, 64)
    assert float(network.bn1.running_var.std()) > 0.0


def test_written_weights_come_back(tmp_path: Path) -> None:
    network = build(find_layout("mobilenet_v2@0.35"))
    for name in ("a.safetensors", "a.pth", "a"):
        size = write_weights(tmp_path / name, network.state_dict())
        assert size == (tmp_path / name).stat().st_size
        found = read_weights(tmp_path / name)
        assert all(torch.equal(found[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("name", "img_size", "said"),
    [
        ("resnet20_cifar", None, "has no network resnet20_cifar"),
        ("mobilenet_v2@0.35", None, "has no network mobilenet_v2@0.35"),
        ("mobilenet_v2", 32, "trained with other strides"),
    ],
)
def test_what_no_library_has_is_not_written(name: str, img_size: int | None, said: str) -> None:
    layout = find_layout(name, img_size=img_size)
    with pytest.raises(InputError, match=said):
        for_library({}, layout, "torchvision")


def test_variances_too_small_for_the_librarys_constant() -> None:
    layout = replace(find_layout("mobilenet_v2"), norm_eps=1e-7)
    weights = {"features.0.1.running_var": torch.tensor([1.0, 1e-6])}
    with pytest.raises(InputError, match=r"features\.0\.1\.running_var is so small"):
        for_library(weights, layout, "timm")


def _reference(library: Library, name: str) -> torch.nn.Module:
    try:
        return (torchvision_model if library == "torchvision" else timm_model)(name)
    except ImportError:
        pytest.skip(f"{library} is not installed")


@pytest.mark.reference
@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("torchvision", "mobilenet_v2"),
        ("timm", "mobilenet_v2"),
        ("timm", "resnet18"),
        pytest.param("torchvision", "efficientnet_b5", marks=pytest.mark.slow),
        *(
            pytest.param(library, name, marks=pytest.mark.slow)
            for library, name in (
                *(("torchvision", "googlenet"), ("torchvision", "inception_v3")),
                *(("timm", "inception_v4"), ("timm", "inception_resnet_v2")),
                *(("timm", "mobilenet_v3_small"), ("timm", "resnetv2_50")),  # a linear layer here, a convolution there
            )
        ),
        pytest.param("timm", "efficientnet_b5", marks=pytest.mark.slow),  # its norms have another constant there
    ],
)
def test_the_library_loads_and_computes_the_same(library: Library, name: str, tmp_path: Path) -> None:
    network = build(find_layout(name), seed=1)
    stir(network, seed=2)
    saved = for_library(network.state_dict(), network.layout, library)
    path = tmp_path / "weights.safetensors"
    write_weights(path, saved.weights)
    theirs = _reference(library, name)
    theirs.load_state_dict(safetensors.torch.load_file(path), strict=True)
    picture = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    layout = at_size(network.layout, 96)
    ours = load_weights(layout, copy.deepcopy(entries_of(layout, network.state_dict())), where="ours")
    with torch.no_grad():
        expected, found = ours.eval()(picture), theirs.eval()(picture)
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    assert saved.moved == (library == "timm" and name in ("efficientnet_b5", "mobilenet_v3_small"))


@pytest.mark.reference
@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTERPARTS["timm"])
def test_names_and_shapes_are_timms(name: str) -> None:
    with torch.device("meta"):
        theirs = _reference("timm", name).state_dict()
        ours = build_meta(name)
    layout = find_layout(name)
    keymap = next(keymap for keymap in KEYMAPS[layout.family] if keymap.source == "timm")
    names = foreign_names(keymap, layout)
    shapes = {names[key]: tuple(shape) for key, shape in ours.items()}
    for layer in keymap.pointwise:
        shapes[f"{layer}.weight"] += (1, 1)
    assert shapes == {key: tuple(value.shape) for key, value in theirs.items()}


def build_meta(name: str) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in construct(find_layout(name)).state_dict().items()}
