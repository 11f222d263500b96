"""Published weights as files: found in the user's folder or the cache, else downloaded; and how their pictures are
prepared.

    --pretrained-dir DIR   looked at first: NAME.TAG.safetensors, NAME.TAG.pth, or the file as it was published
    NETSMITH_CACHE         the cache; weights are in its folder `weights`
    HF_HUB_OFFLINE=1       nothing is downloaded, from anywhere
    HF_ENDPOINT            a mirror of the Hugging Face hub

Deliberate choices: a file that the user put somewhere is used as it is when it has the name of the weights, and held to
the published hash when it has the published name. Files are data only: whoever reads them runs nothing.
"""

import os
from pathlib import Path

from netsmith.arch.pretrained import Source, Weights
from netsmith.data.cache import cache_root
from netsmith.data.download import LARGEST, DownloadError, download
from netsmith.errors import InputError
from netsmith.run.files import sha256_file
from netsmith.run.preprocess import Preprocess
from netsmith.run.progress import Progress, silent

PLACES: dict[Source, str] = {
    "torchvision": "https://download.pytorch.org/models",
    "akamaster": "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models",
}
HUB = "https://huggingface.co"


def weights_url(weights: Weights) -> str:
    """Where weights are on the net; `HF_ENDPOINT` takes the place of the Hugging Face hub."""
    if weights.source == "timm":
        hub = os.environ.get("HF_ENDPOINT") or HUB
        if not hub.startswith(("http://", "https://")):
            raise InputError(f"HF_ENDPOINT is {hub!r}, which is no address; give one such as {HUB}")
        return f"{hub.rstrip('/')}/{weights.file}/resolve/main/model.safetensors"
    return f"{PLACES[weights.source]}/{weights.file}"


def weights_file(
    weights: Weights, *, folder: Path | None = None, largest: int = LARGEST, progress: Progress = silent
) -> Path:
    """The file of published weights.

    Args:
        weights: which.
        folder: the user's own files, looked at first.
        largest: bytes above which a download is refused.
        progress: told how many MB have arrived.

    Raises:
        InputError: `folder` is no folder; the file cannot be had or is damaged. One sentence, which says what to put
            where.
    """
    url = weights_url(weights)
    if folder is not None and (own := _own_file(weights, folder)) is not None:
        return own
    ending = "safetensors" if weights.source == "timm" else "pth"
    cache = cache_root() / "weights"
    by_hand = cache / f"{weights.name}.safetensors"
    if by_hand.is_file() and ending != "safetensors":
        return by_hand
    path = cache / f"{weights.name}.{ending}"
    try:
        return download(url, path, sha256=weights.hash_prefix, largest=largest, progress=progress)
    except DownloadError as error:
        raise InputError(
            f"the weights {weights.name} cannot be had ({error}); try again, or fetch {url} elsewhere and save it as "
            f"{path}, or under the name {path.name} in the folder of --pretrained-dir"
        ) from error


def _own_file(weights: Weights, folder: Path) -> Path | None:
    if not folder.is_dir():
        raise InputError(f"--pretrained-dir {folder} is no folder; give the one that holds files of weights")
    named = [folder / f"{weights.name}.{ending}" for ending in ("safetensors", "pth")]
    if (found := next((path for path in named if path.is_file()), None)) is not None:
        return found
    published = folder / weights.file.rpartition("/")[2]
    if weights.source == "timm" or not published.is_file():
        return None
    if not sha256_file(published).startswith(weights.hash_prefix):
        raise InputError(
            f"{published} is damaged (its SHA-256 does not begin with {weights.hash_prefix}); "
            f"fetch {weights_url(weights)} again"
        )
    return published


def weights_preprocess(weights: Weights, *, size: int | None = None) -> Preprocess:
    """Evaluation preprocessing that weights were trained for.

    Args:
        weights: which.
        size: side of the input in pixels, where another one is wanted; the share that the centre cut keeps stays.
    """
    return Preprocess(
        size=size or weights.size,
        resize="squash" if weights.resize is None else "shorter",
        crop=1.0 if weights.resize is None else weights.size / weights.resize,
        interpolation=weights.interpolation,
        mean=weights.mean,
        std=weights.std,
    )
