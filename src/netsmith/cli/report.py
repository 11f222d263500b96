"""`netsmith report`: the page that explains a run, written again from what the run recorded."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output

EXAMPLES = """\
Examples:

  netsmith report runs/pets                 write runs/pets/report.html again
  netsmith report runs/pets -o pets.html    write it elsewhere, to send or to keep
"""


def report(
    run: Path,
    /,
    *,
    output_file: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    output: Output = PLAIN,
) -> None:
    """Write the report of a run, finished or not, as one HTML file.

    Nothing is measured and nothing else in the folder changes.

    Args:
        run: Folder of the run.
        output_file: The file to write; report.html of the run if not given.
    """
    from netsmith.report.page import write_report
    from netsmith.run.folder import RunFolder

    with Console(output) as console:
        path = write_report(RunFolder(run), to=output_file)
        console.result({"report": str(path)}, str(path))
