"""`report.html`: everything a run recorded, in the order a person asks, in one file that needs nothing else.

No script, no font and no picture from anywhere: the page's own content policy forbids them, so even a class name that
slipped through as HTML could not run. The same run folder gives the same bytes.
"""

import shlex
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from netsmith import __version__
from netsmith.artifact.predictions import Predictions
from netsmith.errors import InputError
from netsmith.report import accuracy, history, origin, outcome
from netsmith.report.answers import Scores, score
from netsmith.report.evidence import Evidence, gather
from netsmith.report.markup import Content, Markup, join, raw, tag
from netsmith.report.stages import stages, tried
from netsmith.report.style import CSS
from netsmith.report.tagging import TagScores, score_tags
from netsmith.run.files import FULL_DISK, write_text
from netsmith.run.folder import RunFolder
from netsmith.run.scores import are_tags

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_GENERATOR = '<meta name="generator" content="netsmith '


def write_report(run: RunFolder, *, to: Path | None = None) -> Path:
    """Write the report of a run, finished or not.

    Args:
        run: the folder; it is read without its lock.
        to: the file to write; by default `report.html` of the run. An earlier report is replaced, another file is not.

    Returns:
        The file that was written.

    Raises:
        InputError: no run folder, or `to` is a folder, another file, or cannot be written.
    """
    path = to or run.report
    evidence = gather(run)
    try:
        if path.exists() and not _is_report(path):
            raise InputError(f"{path} exists and is no report of netsmith; name another file with -o")
        write_text(path, render(evidence))
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise InputError(f"{path} cannot be written ({error.strerror}); name another file with -o") from error
    return path


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as handle:
        return _GENERATOR.encode() in handle.read(2000)


def render(evidence: Evidence) -> str:
    """The page as HTML.

    Args:
        evidence: see `netsmith.report.evidence.gather`.
    """
    temperature = evidence.model.temperature if evidence.model is not None else 1.0
    thresholds = evidence.model.thresholds if evidence.model is not None else None
    scores = {
        split: _score(answers, temperature=temperature, thresholds=thresholds)
        for split, answers in evidence.predictions.items()
    }
    sections = [section for section in _sections(evidence, scores) if section[2] is not None]
    title = f"{evidence.path.resolve().name}: netsmith {' '.join(evidence.command[:1])}"
    head = tag(
        "head",
        raw('<meta charset="utf-8">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"netsmith {__version__}"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", title),
        tag("style", raw(CSS)),
    )
    body = tag(
        "body",
        tag("header", tag("h1", evidence.path.resolve().name), tag("p", _subtitle(evidence))),
        tag(
            "main",
            outcome.verdict(evidence),
            outcome.tiles(evidence),
            outcome.budget(evidence),
            tag("nav", *(piece for anchor, name, _ in sections for piece in (tag("a", name, href=f"#{anchor}"), " "))),
            *(tag("section", tag("h2", name), content, id=anchor) for anchor, name, content in sections),
        ),
        tag("footer", f"Written by netsmith {__version__} from the files of this run and nothing else."),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _score(answers: Predictions, *, temperature: float, thresholds: tuple[float, ...] | None) -> Scores | TagScores:
    if are_tags(answers.targets):
        return score_tags(answers.logits, answers.targets, thresholds=thresholds)
    classes = cast(NDArray[np.int64], answers.targets)
    return score(answers.logits, classes, temperature=temperature)


def _subtitle(evidence: Evidence) -> Content:
    return shlex.join(["netsmith", *evidence.command])


def _sections(evidence: Evidence, scores: dict[str, Scores | TagScores]) -> list[tuple[str, str, Markup | None]]:
    """(anchor, title, content) in the order a person asks; None where the kind of run has no such thing."""
    return [
        ("sure", "How sure is this?", outcome.certainty(evidence, scores)),
        ("accuracy", "Where it is right and wrong", accuracy.accuracy(evidence, scores)),
        ("orders", "What was tried", tried(evidence)),
        ("stages", "Before and after", stages(evidence)),
        ("race", "The race", history.race(evidence)),
        ("learning", "Training", history.learning(evidence)),
        ("data", "The data", origin.data(evidence)),
        ("repeat", "Machine, versions, commands", origin.repeat(evidence)),
        ("refused", "What was refused", join([history.refusals(evidence), history.ledger(evidence)])),
    ]
