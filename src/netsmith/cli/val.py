"""`netsmith val`: how well an artifact does on labelled pictures, without torch."""

from pathlib import Path
from typing import Literal

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.cli.tables import share

EXAMPLES = """\
Examples:

  netsmith val runs/pets                          the validation pictures of a run
  netsmith val runs/pets --split test             its test pictures
  netsmith val model --data cifar10.npz           any pictures of the same classes
"""


def val(
    path: Path,
    /,
    *,
    data: str | None = None,
    split: Literal["train", "val", "test", "all"] | None = None,
    output: Output = PLAIN,
) -> None:
    """Score an artifact on labelled pictures: top-1, top-5, loss.

    The pictures are prepared and answered as netsmith predict would; intervals
    hold 95 of 100 times. Nothing is written. The test pictures of a run that is
    not finished stay sealed.

    Args:
        path: Folder of a run, or of a model.
        data: Pictures with labels, as for netsmith train; those of the run if not given.
        split: Which of them; of a run val if not given, of other data all.
    """
    from netsmith.artifact.validate import validate
    from netsmith.run.metrics import cross_entropy_interval

    with Console(output) as console:
        answered = validate(path, data=data, split=split, progress=console.progress)
        for note in answered.notes:
            console.say(note)
        found = answered.found
        loss = cross_entropy_interval(found.logits, answered.targets)
        document = {
            "artifact": str(answered.bundle.folder),
            "data": answered.source,
            "split": answered.split,
            "top1": found.top1.model_dump(),
            "top5": found.top5.model_dump(),
            "loss": loss.model_dump(),
        }
        lines = [
            f"{answered.bundle.folder} on {answered.source}, {answered.split}",
            f"top-1  {share(found.top1)}",
            f"top-5  {share(found.top5)}",
            f"loss   {loss.value:.4f} ({loss.low:.4f} to {loss.high:.4f})",
        ]
        console.result(document, "\n".join(lines))
