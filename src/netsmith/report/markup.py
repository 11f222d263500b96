"""HTML by construction: every string becomes text, only `Markup` is taken as it is.

Class names, file names and commands come from strangers, so there is no way to write them unescaped by mistake:
`tag` escapes its children and attributes unless they were made by `tag` (or `raw`, for the style sheet and charts).
"""

import html
from collections.abc import Iterable, Sequence

_LONGEST = 72  # letters of a name that are shown
_UNBROKEN = 18  # letters of a name that a narrow table keeps on one line
_JOINERS = "\u200c\u200d"  # decide how letters of some scripts join; they cannot reorder or hide text
_VOID = {"meta", "br"}


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


Content = str | None
"""What an element holds: `Markup` as it is, other text escaped, None nothing."""


def raw(content: str) -> Markup:
    """Take a string as HTML; only for what this package wrote itself."""
    return Markup(content)


def visible(value: str) -> str:
    """Text with every character that is unseen, breaks lines, changes the direction of its neighbours or is no
    character at all (lone surrogates of undecodable file names) written out as an escape."""
    if value.isprintable():
        return value
    return "".join(
        letter if letter.isprintable() or letter in _JOINERS else letter.encode("unicode_escape").decode()
        for letter in value
    )


def escape(value: str) -> Markup:
    """Text as HTML that shows exactly this text, safe between tags and in quoted attributes."""
    return value if isinstance(value, Markup) else Markup(html.escape(visible(value)))


def tag(name: str, /, *children: Content, **attributes: str | int | None) -> Markup:
    """An element.

    Args:
        name: of the element.
        children: see `Content`.
        attributes: by name (`class_` is class, `_` is `-`); escaped; None is left out.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{shown}>" if name in _VOID else f"<{name}{shown}>{join(children)}</{name}>")


def join(parts: Iterable[Content]) -> Markup:
    """Parts one after another."""
    return Markup("".join(escape(part) for part in parts if part is not None))


def sentence(*parts: Content) -> Markup:
    """A paragraph of parts with spaces between."""
    return tag("p", *(piece for part in parts if part for piece in (part, " ")))


def name(value: str) -> Markup:
    """A name from outside (class, file): isolated from the direction of its neighbours; a very long one is cut in the
    middle and whole in its tooltip."""
    half = (_LONGEST - 3) // 2
    short = value if len(value) <= _LONGEST else f"{value[:half]} … {value[-half:]}"
    title = value[:500] if short != value else None
    return tag("bdi", short, title=title, style=f"--letters:{min(len(short), _UNBROKEN)}")


def code(value: str) -> Markup:
    """Something to type or a value as the machine sees it."""
    return tag("code", value)


def number(value: str) -> Markup:
    """A table cell with a number."""
    return tag("td", value, class_="number")


def numbers(title: str) -> Markup:
    """The head of a column of numbers."""
    return tag("th", title, class_="number")


def table(head: Sequence[Content], rows: Iterable[Sequence[Content]], *, class_: str | None = None) -> Markup:
    """A table that scrolls sideways on its own where the page is narrow.

    Args:
        head: of the columns; see `numbers`.
        rows: cells; those that are not `td` or `th` yet are put into one.
        class_: of the table.
    """
    titles = (_cell(title, "th") for title in head)
    body = (tag("tr", *(_cell(cell, "td") for cell in row)) for row in rows)
    return tag(
        "div",
        tag("table", tag("thead", tag("tr", *titles)), tag("tbody", *body), class_=class_),
        class_="scroll",
    )


def _cell(cell: Content, kind: str) -> Markup:
    return cell if isinstance(cell, Markup) and cell.startswith(("<td", "<th")) else tag(kind, cell)


def folded(summary: str, *children: Content) -> Markup:
    """Content that opens on a click."""
    return tag("details", tag("summary", summary), *children)
