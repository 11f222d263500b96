"""Published weights under this project's names, for the classes, channels and resolution that are wanted.

Deliberate choice: the strides stay the published ones at any resolution, because the weights were trained with them;
untrained networks drop strides for small pictures.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout, at_size
from netsmith.arch.names import find_layout
from netsmith.arch.pretrained import Weights
from netsmith.data.pretrained import weights_file
from netsmith.models.adapt import adapt, shared_classes
from netsmith.models.keymaps import convert_weights
from netsmith.models.weights import entries_of, read_weights
from netsmith.run.progress import Progress, silent


def published_network(
    weights: Weights,
    *,
    fresh: Callable[[Layout], dict[str, Tensor]],
    num_classes: int | None = None,
    labels: Sequence[str] | None = None,
    in_channels: int = 3,
    img_size: int | None = None,
    folder: Path | None = None,
    progress: Progress = silent,
) -> tuple[Layout, dict[str, Tensor]]:
    """Layout and `state_dict` of a published network.

    Args:
        weights: which.
        fresh: gives a layout the weights of a new network, for a new head.
        num_classes: number of logits; the published one when None. The head is new where it differs.
        labels: names of the classes instead: those that the weights know by the same name keep what they know.
        in_channels: channels of the images.
        img_size: side of the square images, pixels; that of the weights when None.
        folder: the user's own files, looked at first.
        progress: told how far a download is.

    Raises:
        InputError: no such file and none to be had, one that is damaged, one of another network; numbers out of range.
    """
    # What is asked for is checked before anything is downloaded.
    count = num_classes if labels is None else len(labels)
    wanted = find_layout(weights.model, num_classes=count, in_channels=in_channels)
    size = img_size or weights.size
    published = find_layout(weights.model)
    layout = at_size(published, size)
    largest = 2 * 4 * cost(layout).params + (16 << 20)  # twice its float32 numbers, and names
    path = weights_file(weights, folder=folder, largest=largest, progress=progress)
    converted = convert_weights(read_weights(path), published, where=str(path))
    layout = at_size(converted.layout, size)
    return adapt(
        layout,
        entries_of(layout, converted.weights),
        fresh,
        classes=shared_classes(weights.classes, labels) if labels is not None else _by_number(layout, wanted),
        in_channels=wanted.input.channels,
    )


def _by_number(published: Layout, wanted: Layout) -> Sequence[int | None]:
    same = published.num_classes == wanted.num_classes
    return range(wanted.num_classes) if same else [None] * wanted.num_classes
