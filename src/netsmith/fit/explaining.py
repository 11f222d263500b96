"""What a run says of itself when it ends: its pages and pictures, and what its curves show."""

from netsmith.report.curves import curve_of, write_curves
from netsmith.report.evidence import gather
from netsmith.report.history import validation_pictures
from netsmith.report.lessons import lessons
from netsmith.report.page import write_report
from netsmith.run.folder import RunFolder


def explain(run: RunFolder) -> None:
    """The pages and pictures that explain a run, the report last."""
    evidence = gather(run)
    curve = curve_of(evidence, pictures=validation_pictures(evidence))
    if curve is not None:
        write_curves([curve], run.curves)
    write_report(run)


def what_it_shows(run: RunFolder) -> list[str]:
    """What the curves of a training say, a sentence each; nothing where it went well."""
    evidence = gather(run)
    return [lesson.text for lesson in lessons(evidence, pictures=validation_pictures(evidence))]
