"""`netsmith predict`: name what is in pictures, without torch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.errors import InputError, near

if TYPE_CHECKING:
    from netsmith.artifact.predictor import Picture, Prediction, Unreadable

EXAMPLES = """\
Examples:

  netsmith predict runs/pets/model cat.jpg          the most probable classes
  netsmith predict runs/pets photos/ --csv > a.csv  every picture below a folder
  netsmith predict model '2026-*/**/*.png' --json   a pattern, expanded here
  curl -s URL | netsmith predict model -            one picture from a pipe
  find . -name '*.jpg' | netsmith predict model --list -
"""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
"""How a text cell begins that gets an apostrophe in front in CSV."""
FLAGS = ("--list", "--top-k", "--csv", "--batch-size", "-b", "--threads", "--runtime", "--quiet", "-q", "--json")


def predict(
    artifact: Path,
    /,
    *images: Annotated[str, Parameter(allow_leading_hyphen=True)],
    list_file: Annotated[str | None, Parameter(name="--list", allow_leading_hyphen=True)] = None,
    top_k: int | None = None,
    csv: Annotated[bool, Parameter(negative=())] = False,
    batch_size: Annotated[int, Parameter(name=["--batch-size", "-b"])] = 32,
    threads: int | None = None,
    runtime: str | None = None,
    output: Output = PLAIN,
) -> None:
    """Name the most probable classes of pictures, or their tags.

    A model of one class per picture gives its most probable classes; one that
    tags gives every label whose probability reaches that label's threshold.

    Pictures that cannot be read are named and counted, the others are
    predicted; exit 2 only if none could be read.

    Args:
        artifact: Folder of a model, or of a run.
        images: Files, folders (with all below), patterns such as '*.jpg', or - for one picture on standard input.
        list_file: Text file with one path per line, or - for standard input.
        top_k: Classes to show per picture; 5 if not given, of a model that tags its tags (text) or all (--json, --csv).
        csv: The result as CSV: image, rank, label, probability; of a model that tags also tag, 1 or 0. Names that
            begin like a formula (= + - @ ') get an apostrophe in front.
        batch_size: Pictures per call of the model.
        threads: Threads of the model; those that it prefers if not given.
        runtime: What runs the model: onnxruntime, openvino, openvino-bf16; what it prefers if not given.
    """
    from netsmith.artifact.predictor import Prediction, Predictor

    for (
        name
    ) in images:  # `-` is a picture, so words with a hyphen arrive here; those that are no files are mistyped flags
        if name.startswith("-") and name != "-" and not Path(name).exists():
            raise InputError(f"there is no flag {name!r}; {near(name, FLAGS)}")
    if csv and output.json:
        raise InputError("--csv and --json exclude each other; give one of them")
    if not images and list_file is None:
        raise InputError("there is nothing to predict; name pictures, folders or patterns, or give --list")
    if list_file == "-" and "-" in images:
        raise InputError("standard input cannot be both a picture (-) and a list (--list -); give one of them")
    with Console(output) as console:
        predictor = Predictor(artifact, threads=threads, runtime=runtime, warn=console.warn)
        names = [*images, *(_listed(list_file) if list_file is not None else [])]
        pictures = list(_pictures(names, console))
        answers: list[Prediction] = []
        unreadable: list[Unreadable] = []
        for answer in predictor.stream(pictures, top_k=top_k, batch_size=batch_size):
            if isinstance(answer, Prediction):
                answers.append(answer)
            else:
                unreadable.append(answer)
                console.warn(_printable(answer.reason))
            console.progress("predicting", len(answers) + len(unreadable), len(pictures))
        if not answers:
            raise InputError(f"none of the {len(pictures)} pictures could be read; name at least one that can")
        if unreadable:
            console.warn(f"{len(unreadable)} of {len(pictures)} pictures could not be read")
        text = _csv(answers) if csv else _table(answers, top_k)
        console.result(_document(artifact, answers, unreadable), text, exact=csv)


def _listed(list_file: str) -> list[str]:
    """Paths of a list, one per line; empty lines are skipped."""
    import sys

    try:
        text = sys.stdin.read() if list_file == "-" else Path(list_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--list {list_file} cannot be read ({error}); give a text file with one path per line"
        ) from error
    return [line for line in text.splitlines() if line.strip()]


def _pictures(names: Sequence[str], console: Console) -> Iterator[tuple[str, "Picture"]]:
    """What the names stand for; a path that is not there stays in, to be told like any other unreadable picture."""
    import glob
    import sys

    for name in names:
        path = Path(name)
        if name == "-":
            yield "standard input", _from_pipe(sys.stdin.buffer)
        elif path.is_dir():
            yield from _below(path, console)
        elif not path.exists() and any(letter in name for letter in "*?["):
            found = sorted(glob.glob(name, recursive=True))
            if not found:
                raise InputError(f"the pattern {name!r} matches nothing; check it and quote it against the shell")
            yield from _pictures([item for item in found if item != "-"], console)
        else:
            yield name, path


def _from_pipe(stream: IO[bytes]) -> bytes:
    from netsmith.data.prepare import ImageError, read_stream

    try:
        return read_stream(stream)
    except ImageError as error:
        raise InputError(f"standard input {error}") from None


def _below(folder: Path, console: Console) -> Iterator[tuple[str, Path]]:
    """Pictures in a folder and below, by their extensions, in order; hidden files are left out."""
    import os

    from netsmith.data.prepare import EXTENSIONS

    others, count = 0, 0
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            if Path(name).suffix.lower() in EXTENSIONS:
                count += 1
                yield os.path.join(root, name), Path(root, name)
            else:
                others += 1
    if not count:
        raise InputError(f"{folder} holds no pictures; name a folder with some, or single files")
    if others:
        console.say(f"{folder}: {others} files that are no pictures are left out")


def _document(artifact: Path, answers: "Sequence[Prediction]", unreadable: "Sequence[Unreadable]") -> dict[str, Any]:
    return {
        "artifact": str(artifact),
        "images": [
            {
                "image": answer.name,
                **({} if answer.tags is None else {"tags": list(answer.tags)}),
                "classes": [
                    {"label": label, "probability": probability}
                    for label, probability in zip(answer.labels, answer.probabilities, strict=True)
                ],
            }
            for answer in answers
        ],
        "unreadable": [{"image": item.name, "reason": item.reason} for item in unreadable],
    }


def _csv(answers: "Sequence[Prediction]") -> str:
    """One row per picture and class, quoted as RFC 4180 says where a name needs it.

    Names come from file names and data sets, and a spreadsheet carries out a cell that begins like a formula.
    """
    import csv
    import io

    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    tagged = any(answer.tags is not None for answer in answers)
    rows.writerow(["image", "rank", "label", "probability", *(["tag"] if tagged else [])])
    for answer in answers:
        for rank, (label, probability) in enumerate(zip(answer.labels, answer.probabilities, strict=True), start=1):
            tag = [] if answer.tags is None else [int(label in answer.tags)]
            rows.writerow([_inert(answer.name), rank, _inert(label), f"{probability:.6g}", *tag])
    return text.getvalue().removesuffix("\n")


def _inert(text: str) -> str:
    """Text that no spreadsheet carries out: with an apostrophe in front where it begins like a formula, or with an
    apostrophe, so that taking one away gives the text back (OWASP, "CSV Injection"). Of a name that is not UTF-8 the
    bytes that are not are escaped, because the file is."""
    from netsmith.data.items import encodable

    text = encodable(text)
    return f"'{text}" if text.startswith(FORMULA) else text


def _table(answers: "Sequence[Prediction]", top_k: int | None) -> str:
    """One line per picture: its classes in columns, or its tags where the model gives tags and no `top_k` is given."""
    if top_k is None and any(answer.tags is not None for answer in answers):
        return _tag_table(answers)
    rows = [
        [_printable(answer.name)]
        + [
            f"{probability:6.1%} {_printable(label)}"
            for label, probability in zip(answer.labels, answer.probabilities, strict=True)
        ]
        for answer in answers
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _tag_table(answers: "Sequence[Prediction]") -> str:
    width = max(len(_printable(answer.name)) for answer in answers)
    lines: list[str] = []
    for answer in answers:
        known = dict(zip(answer.labels, answer.probabilities, strict=True))
        tags = "  ".join(f"{known[label]:6.1%} {_printable(label)}" for label in answer.tags or ())
        lines.append(f"{_printable(answer.name):<{width}}  {tags or 'no label'}")
    return "\n".join(lines)


def _printable(text: str) -> str:
    from netsmith.data.items import printable

    return printable(text)
