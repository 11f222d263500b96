"""Networks from layouts, names and folders.

Deliberate choices: a network is constructed without memory, then every tensor is set once, from the seed's own
generator or from the weights; the global random state is neither read nor changed, so the same layout and seed give the
same weights wherever they are built.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from netsmith.arch import graph as g
from netsmith.arch.heads import with_dropout
from netsmith.arch.layout import Layout, at_size, layout_graph
from netsmith.arch.names import find_layout
from netsmith.arch.pretrained import Weights, find_weights, split_tag
from netsmith.artifact.bundle import CONFIG, WEIGHTS, load_bundle
from netsmith.errors import InputError, near
from netsmith.models import alexnet, efficientnet, inception, mnasnet, mobilenet_v2, resnet, squeezenet, vgg
from netsmith.models.adapt import adapt, shared_classes
from netsmith.models.network import Init, Network, build_network
from netsmith.models.pretrained import published_network
from netsmith.models.weights import check_weights, entries_of, read_weights
from netsmith.run.files import sha256_file
from netsmith.run.progress import Progress, silent

INITS: dict[str, Init] = {
    "alexnet": alexnet.init_weights,
    "vgg": vgg.init_weights,
    "googlenet": inception.init_googlenet,
    "inception": inception.init_plain,
    "inception_v3": inception.init_v3,
    "inception_v4": inception.init_torch,
    "inception_resnet_v2": inception.init_torch,
    "resnet": resnet.init_weights,
    "resnetv2": resnet.init_weights,
    "squeezenet": squeezenet.init_weights,
    "mobilenet_v1": mobilenet_v2.init_weights,
    "mobilenet_v2": mobilenet_v2.init_weights,
    "mobilenet_v3": mobilenet_v2.init_weights,
    "mnasnet": mnasnet.init_weights,
    "efficientnet": efficientnet.init_weights,
    "tf_efficientnet": efficientnet.init_weights,
}
"""Initial weights of each family."""


def construct(layout: Layout) -> Network:
    """The network of a layout with torch's own initial weights, on the default device.

    Raises:
        InputError: an unknown family, an input that is not a picture, names that no pieces can have.
    """
    if layout.family not in INITS:
        raise InputError(f"{layout.name}: no family is called {layout.family!r}; {near(layout.family, INITS)}")
    if len(layout.input.size) != 2:
        raise InputError(f"{layout.name}: networks read images of 2 dimensions, not {len(layout.input.size)}")
    return build_network(layout, init=INITS[layout.family])


def build(
    layout: Layout,
    *,
    seed: int = 0,
    dropout: float | None = None,
    drop_path: float | None = None,
    zero_init_residual: bool = False,
) -> Network:
    """The network of a layout with fresh weights, in training mode, float32, on the CPU.

    Args:
        layout: what to build; kept as `.layout`, with the rates below where they are given.
        seed: of the initial weights; equal seeds give equal weights, whatever torch's global generators hold.
        dropout: probability wherever the head drops, 0 <= dropout < 1; the layout's when None.
        drop_path: stochastic depth rate of the last block, 0 <= drop_path < 1, growing linearly from 0 at the first;
            the layout's when None.
        zero_init_residual: start every residual branch at zero; meant for long training with large batches. Off, as in
            torchvision's networks: over a few epochs small ResNets learn clearly less with it.

    Raises:
        InputError: an unknown family, a rate out of range.
    """
    network = _allocate(_with_rates(layout, dropout=dropout, drop_path=drop_path))
    network.init_weights(torch.Generator().manual_seed(seed), zero_init_residual=zero_init_residual)
    return network


def _with_rates(layout: Layout, *, dropout: float | None, drop_path: float | None) -> Layout:
    if drop_path is not None:
        layout = replace(layout, drop_path=drop_path)
    if dropout is not None:
        layout = replace(layout, head=with_dropout(layout.head, dropout))
    return layout


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    img_size: int | None = None,
    pretrained: bool = False,
    pretrained_dir: Path | str | None = None,
    seed: int = 0,
    dropout: float | None = None,
    drop_path: float | None = None,
    zero_init_residual: bool = False,
) -> Network:
    """A network by name, such as "resnet50", "resnet50@width=0.5", "efficientnet_b0:phi=-1.5" or "resnet50.v2".

    Args:
        name: see `netsmith.arch.names`; `list_models()` gives the published ones. With a tag after a dot it comes with
            those published weights; `netsmith models` lists the tags.
        num_classes: number of logits, at least 1; the published one when None.
        in_channels: channels of the images, at least 1.
        img_size: side of the square images, pixels, at least 4; the published one when None. Small ones change the stem
            and strides, except with published weights.
        pretrained: start from published weights, the network's default ones where the name has no tag. A head for other
            classes is new; a first convolution for other channels is computed from the published one
            (`netsmith.models.adapt`).
        pretrained_dir: folder of weights files, looked at before the cache and the net.
        seed, dropout, drop_path, zero_init_residual: see `build`.

    Raises:
        InputError: an unknown name, numbers out of range, weights that cannot be had.
    """
    model, tag = split_tag(name)
    if pretrained or tag is not None:
        return load_pretrained(
            find_weights(model, tag),
            num_classes=num_classes,
            in_channels=in_channels,
            img_size=img_size,
            folder=None if pretrained_dir is None else Path(pretrained_dir),
            seed=seed,
            dropout=dropout,
            drop_path=drop_path,
        )
    layout = find_layout(name, num_classes=num_classes, in_channels=in_channels, img_size=img_size)
    return build(layout, seed=seed, dropout=dropout, drop_path=drop_path, zero_init_residual=zero_init_residual)


def load_pretrained(
    weights: Weights,
    *,
    num_classes: int | None = None,
    labels: Sequence[str] | None = None,
    in_channels: int = 3,
    img_size: int | None = None,
    folder: Path | None = None,
    progress: Progress = silent,
    seed: int = 0,
    dropout: float | None = None,
    drop_path: float | None = None,
) -> Network:
    """A network with published weights, in training mode, float32, on the CPU.

    Args:
        weights: which; `netsmith.arch.pretrained.find_weights` gives them by name, and
            `netsmith.data.pretrained.weights_preprocess` says how their pictures are prepared.
        num_classes, in_channels, img_size: see `create_model`.
        labels: names of the classes in place of their number, see `published_network`.
        folder: the user's own files, looked at first.
        progress: told how far a download is.
        seed: of what is new in the head.
        dropout, drop_path: see `build`.

    Raises:
        InputError: the weights cannot be had, are damaged or do not fit; numbers out of range.
    """
    layout, state = published_network(
        weights,
        num_classes=num_classes,
        labels=labels,
        in_channels=in_channels,
        img_size=img_size,
        fresh=lambda layout: build(layout, seed=seed).state_dict(),
        folder=folder,
        progress=progress,
    )
    return load_weights(_with_rates(layout, dropout=dropout, drop_path=drop_path), state, where=weights.name).train()


def continue_model(
    folder: Path | str,
    *,
    labels: Sequence[str],
    img_size: int | None = None,
    seed: int = 0,
    dropout: float | None = None,
    drop_path: float | None = None,
) -> Network:
    """The network of an artifact to go on training, for these classes, in training mode, float32, on the CPU.

    Strides stay what they are at any side. Classes that the artifact knows by the same name keep their weights.

    Args:
        folder: an artifact, or a run folder that holds one.
        labels: names of the classes.
        img_size: side of the square images, pixels; the artifact's when None.
        seed: of what is new in the head.
        dropout, drop_path: see `build`.

    Raises:
        InputError: as `load_model`; the maps become too small at that side.
    """
    trained = load_model(folder)
    layout, state = adapt(
        at_size(trained.layout, img_size or trained.layout.resolution[0]),
        trained.state_dict(),
        lambda layout: build(layout, seed=seed).state_dict(),
        classes=shared_classes(load_bundle(Path(folder)).config.labels, labels),
        in_channels=trained.layout.input.channels,
    )
    where = f"the weights of {folder}"
    state = entries_of(layout, state)
    return load_weights(_with_rates(layout, dropout=dropout, drop_path=drop_path), state, where=where).train()


def load_weights(layout: Layout, weights: dict[str, torch.Tensor], *, where: str) -> Network:
    """The network of a layout with given weights, in evaluation mode, float32, on the CPU.

    Args:
        layout: what to build.
        weights: tensors by the network's own names.
        where: how an error names the weights, such as a file name.

    Raises:
        InputError: names or shapes are not the layout's; the message lists them.
    """
    check_weights(weights, layout, where=where)
    network = _allocate(layout)
    network.load_state_dict(weights, strict=True)
    return network.eval()


def load_model(folder: Path | str) -> Network:
    """The network of an artifact, with its float weights, in evaluation mode.

    Args:
        folder: an artifact, or a run folder that holds one.

    Raises:
        InputError: no artifact, one without float weights, weights that are damaged or not of the layout.
    """
    bundle = load_bundle(Path(folder))
    path = bundle.folder / WEIGHTS
    if not path.is_file():
        raise InputError(
            f"{bundle.folder} was shipped without {WEIGHTS}; load the folder it came from, or use netsmith.Predictor"
        )
    if bundle.config.files.get(WEIGHTS) != sha256_file(path):
        raise InputError(f"{path} is not the file that {CONFIG} describes; export the artifact again")
    return load_weights(bundle.layout, read_weights(path), where=str(path))


def _allocate(layout: Layout) -> Network:
    """The network with the memory of its tensors, unset."""
    with torch.device("meta"):
        network = construct(layout)
    expected = {name: shape for name, shape, _ in g.state(layout_graph(layout))}
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert expected == found, "a module and the graph of its record differ"
    return network.to_empty(device="cpu")
