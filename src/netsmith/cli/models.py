"""`netsmith models`: the networks by name, without torch."""

from typing import Any

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.cli.tables import short, table
from netsmith.errors import InputError, near

SHOWN_TAGS = 2

EXAMPLES = """\
Examples:

  netsmith models                   every network
  netsmith models 'efficientnet*'   those whose names match a pattern
  netsmith models --json            with exact numbers and all tags of weights

Any of them can be scaled where a name is asked for: resnet50@0.75,
resnet50@width=0.5,depth=0.75, efficientnet_b0:phi=-1.5; or taken with its
published weights: resnet50.v2. The first tag is what --pretrained takes.
"""


def models(pattern: str = "*", /, *, output: Output = PLAIN) -> None:
    """List the networks: size, work, resolution, accuracy, weights.

    Parameters are all trained numbers; MACs are the multiply-accumulates of
    convolutions and linear layers for one picture at the published resolution.

    Args:
        pattern: Only names that match, such as 'resnet*'.
    """
    from netsmith.arch.cost import cost
    from netsmith.arch.names import MODELS, find_layout, list_models
    from netsmith.arch.pretrained import pretrained
    from netsmith.arch.published import PUBLISHED

    names = list_models(pattern)
    if not names:
        begins = any(name.startswith(pattern) for name in MODELS)
        hint = f"write {pattern + '*'!r} for all that begin so" if begins else near(pattern, MODELS)
        raise InputError(f"no model matches {pattern!r}; {hint}")
    rows: list[list[str]] = []
    documents: list[dict[str, Any]] = []
    for name in names:
        layout, published = find_layout(name), PUBLISHED.get(name)
        whole = cost(layout)
        accuracy = (
            [" / ".join(f"{top1:.2f}" for top1 in published.top1), published.dataset] if published else ["-", "-"]
        )
        weights = pretrained().get(name, ())
        tags = [entry.tag for entry in weights]
        rows.append([name, short(whole.params), short(whole.macs), str(layout.resolution[0]), *accuracy, _some(tags)])
        documents.append(
            {
                "name": name,
                "family": layout.family,
                "params": whole.params,
                "macs": whole.macs,
                "resolution": layout.resolution[0],
                "classes": layout.num_classes,
                "published": {"dataset": published.dataset, "top1": list(published.top1)} if published else None,
                "weights": [
                    {"name": entry.name, "top1": entry.top1, "resolution": entry.size, "licence": entry.licence}
                    for entry in weights
                ],
            }
        )
    with Console(output) as console:
        header = ["model", "params", "MACs", "pixels", "published top-1 %", "data set", "weights"]
        console.result({"models": documents}, table(header, rows))


def _some(tags: list[str]) -> str:
    """The first tags, which fit a line, and how many more there are."""
    if not tags:
        return "-"
    more = f" +{len(tags) - SHOWN_TAGS}" if len(tags) > SHOWN_TAGS else ""
    return " ".join(tags[:SHOWN_TAGS]) + more
