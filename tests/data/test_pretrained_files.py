"""Where files of published weights are looked for, and the table that says so."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
from local_site import serving

from netsmith.arch.names import list_models
from netsmith.arch.pretrained import Weights, find_weights, pretrained, split_tag
from netsmith.data import pretrained as places
from netsmith.data.pretrained import weights_file, weights_preprocess, weights_url
from netsmith.errors import InputError

CONTENT = b"not really weights"
EVERY = [weights for group in pretrained().values() for weights in group]


def published(source: str = "torchvision") -> Weights:
    """Weights whose published name has the hash of `CONTENT`."""
    weights = find_weights("resnet18", "v1" if source == "torchvision" else "a1_in1k")
    if source == "timm":
        return weights
    return replace(weights, file=f"resnet18-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NETSMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def test_the_table_is_sound() -> None:
    assert set(pretrained()) <= set(list_models())
    assert len({weights.name for weights in EVERY}) == len(EVERY) > 90
    for weights in EVERY:
        preprocess = weights_preprocess(weights)
        assert weights.source == "timm" or re.fullmatch(r"[0-9a-f]{8,10}", weights.hash_prefix), weights
        # The side before the cut is exactly the published one, whatever a share of it rounds to.
        assert weights.resize is None or round(preprocess.size / preprocess.crop) == weights.resize, weights
        assert len(set(weights.classes)) == len(weights.classes) == (10 if "cifar" in weights.model else 1000)
        assert weights_url(weights).startswith("https://")


def test_some_rows_are_what_everybody_knows() -> None:
    best = find_weights("resnet50")
    assert (best.name, best.top1, best.size, best.resize) == ("resnet50.v2", 80.858, 224, 232)
    assert weights_url(best) == "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
    timm = find_weights("mobilenet_v2", "ra_in1k")
    assert weights_url(timm) == "https://huggingface.co/timm/mobilenetv2_100.ra_in1k/resolve/main/model.safetensors"
    assert (timm.interpolation, timm.resize, timm.licence) == ("bicubic", 256, "Apache-2.0")
    assert best.classes[0] == "tench"
    assert best.classes[999] == "toilet tissue"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("resnet50", ("resnet50", None)),
        ("resnet50.v2", ("resnet50", "v2")),
        ("resnet50@0.75", ("resnet50@0.75", None)),
        ("efficientnet_b0:phi=-1.5", ("efficientnet_b0:phi=-1.5", None)),
        ("resnet50.", ("resnet50", "")),
    ],
)
def test_a_tag_is_no_multiplier(name: str, parts: tuple[str, str | None]) -> None:
    assert split_tag(name) == parts


@pytest.mark.parametrize(
    ("model", "tag", "said"),
    [
        ("resnet5", None, "no model is called 'resnet5'"),
        ("resnet50", "v3", "no weights with the tag 'v3'; choose from v2, v1"),
        ("resnet50@0.75", None, "it is scaled; take resnet50 or"),
        ("efficientnet_b0:phi=-1", None, "it is scaled; take efficientnet_b0 or"),
        ("resnet8_cifar", None, "resnet8_cifar has no published weights"),
    ],
)
def test_weights_that_are_not_there(model: str, tag: str | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_weights(model, tag)


@pytest.mark.parametrize("name", ["resnet18.v1.safetensors", "resnet18.v1.pth", "published"])
def test_the_users_folder_comes_first(name: str, tmp_path: Path, cache: Path) -> None:
    weights = published()
    own = tmp_path / "own" / (weights.file if name == "published" else name)
    for path in (own, cache / "resnet18.v1.pth"):
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
    assert weights_file(weights, folder=own.parent) == own
    assert weights_file(weights) == cache / "resnet18.v1.pth"


def test_a_published_name_promises_its_hash(tmp_path: Path) -> None:
    weights = published()
    (tmp_path / weights.file).write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match="is damaged .*; fetch https://download.pytorch.org/models/"):
        weights_file(weights, folder=tmp_path)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--pretrained-dir .* is no folder"):
        weights_file(published(), folder=tmp_path / "none")


def test_downloads_from_both_places(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    with serving(CONTENT) as site:
        monkeypatch.setitem(places.PLACES, "torchvision", f"{site.url}/models")
        monkeypatch.setenv("HF_ENDPOINT", f"{site.url}/mirror/")
        weights, timm = published(), published("timm")
        assert weights_file(weights).read_bytes() == CONTENT
        assert weights_file(timm) == cache / "resnet18.a1_in1k.safetensors"
        assert site.paths == [f"/models/{weights.file}", "/mirror/timm/resnet18.a1_in1k/resolve/main/model.safetensors"]


@pytest.mark.parametrize("case", ["offline", "no network", "not there", "damaged"])
def test_one_sentence_says_what_to_put_where(case: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    weights = published()
    with serving(b"something else") as site:
        monkeypatch.setitem(places.PLACES, "torchvision", "http://127.0.0.1:1" if case == "no network" else site.url)
        site.status = 404 if case == "not there" else 200
        if case == "offline":
            monkeypatch.setenv("HF_HUB_OFFLINE", "true")
        with pytest.raises(InputError) as caught:
            weights_file(weights)
    said = str(caught.value)
    reason = {"offline": "HF_HUB_OFFLINE", "no network": "refused", "not there": "404", "damaged": "SHA-256"}[case]
    assert reason in said
    assert "\n" not in said
    assert f"fetch http://127.0.0.1:{1 if case == 'no network' else site.url.rpartition(':')[2]}/{weights.file}" in said
    assert f"save it as {cache / 'resnet18.v1.pth'}" in said


@pytest.mark.parametrize("endpoint", ["file:///etc", "huggingface.co", "ftp://x"])
def test_an_endpoint_is_a_web_address(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(InputError, match="HF_ENDPOINT"):
        weights_file(published("timm"))
