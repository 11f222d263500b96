"""`netsmith curves`: the learning curves of one run or several, as one picture."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output

EXAMPLES = """\
Examples:

  netsmith curves runs/r18                          runs/r18/curves.svg, and what they say
  netsmith curves runs/plain56 runs/resnet56 -o twins.svg
                            two runs in one picture: validation solid, training
                            broken, and the gradients of both by depth
"""


def curves(
    run: Path,
    /,
    *runs: Path,
    output_file: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    output: Output = PLAIN,
) -> None:
    """Draw the learning curves of one run or several in one picture.

    Loss and top-1 on training and validation pictures, learning rate, norm of
    the gradient, and gradients by depth, of runs finished or not; and what
    they say in plain words. Nothing is measured.

    Args:
        run: Folder of a run.
        runs: More of them, to compare.
        output_file: The SVG to write; curves.svg of the run if only one is named.
    """
    from netsmith.errors import InputError
    from netsmith.report.curves import curve_of, write_curves
    from netsmith.report.evidence import gather
    from netsmith.report.history import validation_pictures
    from netsmith.report.lessons import lessons
    from netsmith.run.folder import RunFolder

    if output_file is None and runs:
        raise InputError("where the picture of several runs goes is not said; name the file with -o")
    path = output_file or RunFolder(run).curves
    with Console(output) as console:
        drawn, said = [], []
        for folder in (run, *runs):
            evidence = gather(RunFolder(folder))
            pictures = validation_pictures(evidence)
            found = curve_of(evidence, pictures=pictures)
            if found is None:
                why = evidence.gaps.get("metrics.jsonl", "There is none yet.")
                raise InputError(f"{folder} has no learning curve to draw: {why.rstrip('.')}; train first")
            drawn.append(found)
            said.append({"run": str(folder), "lessons": [each.text for each in lessons(evidence, pictures=pictures)]})
        write_curves(drawn, path)
        told = [f"{each['run']}: {text}" for each in said for text in each["lessons"]]
        console.result({"curves": str(path), "runs": said}, "\n".join([*told, str(path)]))
