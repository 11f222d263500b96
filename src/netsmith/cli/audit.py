"""`netsmith audit`: what is in a data set and what is wrong with it, before anything is trained."""

from typing import Annotated

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output

EXAMPLES = """\
Examples:

  netsmith audit photos/               a folder per class, or train/ val/ test/
  netsmith audit photos.zip --json     the same in an archive, as JSON
  netsmith audit labels.csv --strict   exit 2 if a listed picture is unusable
"""


def audit(
    data: str,
    /,
    *,
    strict: Annotated[bool, Parameter(show_default=False)] = False,
    seed: int = 0,
    output: Output = PLAIN,
) -> None:
    """Say what is in a data set and what is wrong with it.

    Reads every picture once: unreadable and truncated files, wrong extensions,
    copies within and across splits and under different labels, sizes, class
    counts, and the splits that training would use.

    Args:
        data: Folder, zip, tar, tar shards ('x-{000..127}.tar', '*.tar'), CSV (image_path,label[,split];
            for any number of labels per picture image_path,labels[,split]), .npz (images,labels[,split]) or the name
            digits.
        strict: Refuse where a picture would be left out.
        seed: Seed of the splits whose sizes are shown.
    """
    from netsmith.data.audit import audit as audit_source
    from netsmith.data.sources import open_source

    with Console(output) as console:
        source = open_source(data)
        found = audit_source(
            source, strict=strict, seed=seed, progress=lambda done, total: console.progress("reading", done, total)
        )
        console.result(found.to_json(), "\n".join(found.summary()))
