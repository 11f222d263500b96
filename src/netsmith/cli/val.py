"""`netsmith val`: how well an artifact does on labelled pictures, without torch."""

from pathlib import Path
from typing import Literal

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.cli.tables import share
from netsmith.run.scores import SCORE_NAMES as NAMES

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
    threads: int | None = None,
    runtime: str | None = None,
    output: Output = PLAIN,
) -> None:
    """Score an artifact on labelled pictures: top-1, top-5, loss; of tags mAP, F1.

    The pictures are prepared and answered as netsmith predict would; intervals
    hold 95 of 100 times. Nothing is written. The test pictures of a run that is
    not finished stay sealed.

    Args:
        path: Folder of a run, or of a model.
        data: Pictures with labels, as for netsmith train; those of the run if not given.
        split: Which of them; of a run val if not given, of other data all.
        threads: Threads of the model; those that it prefers if not given.
        runtime: What runs the model: onnxruntime, openvino, openvino-bf16; what it prefers if not given.
    """
    from netsmith.artifact.validate import validate

    with Console(output) as console:
        answered = validate(
            path,
            data=data,
            split=split,
            runtime=runtime,
            threads=threads,
            warn=console.warn,
            progress=console.progress,
        )
        for note in answered.notes:
            console.say(note)
        scores = answered.found.scores
        loss = scores["loss"]
        shares = {name: interval for name, interval in scores.items() if name != "loss"}
        width = max(len(NAMES[name]) for name in shares) + 1
        document = {
            "artifact": str(answered.bundle.folder),
            "data": answered.source,
            "split": answered.split,
            **{name: interval.model_dump() for name, interval in scores.items()},
        }
        lines = [
            f"{answered.bundle.folder} on {answered.source}, {answered.split}",
            *(f"{NAMES[name]:<{width}} {share(interval)}" for name, interval in shares.items()),
            f"{'loss':<{width}} {loss.value:.4f} ({loss.low:.4f} to {loss.high:.4f})",
        ]
        console.result(document, "\n".join(lines))
