"""Strings from strangers become text, and numbers do not say more or other than they are."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsmith.report.markup import escape, name, raw, table, tag, visible
from netsmith.report.wording import (
    between,
    bounds,
    brief,
    budget_cells,
    count,
    figures,
    moment,
    p_value,
    percent,
    size,
    within,
)
from netsmith.run.budget import BudgetRow
from netsmith.run.metrics import wilson


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader


@given(st.text(st.sampled_from("<>&\"'/=!- abx;#1\u202e\n\udc80") | st.characters()))
def test_any_string_stays_text(value: str) -> None:
    html = tag("td", value, title=value)
    html.encode()  # no lone surrogates
    reader = _read(html)
    assert reader.tags == ["td"]
    assert reader.text == visible(value)
    assert reader.attributes == [("title", visible(value))]


@pytest.mark.parametrize("hidden", ["\u202e", "\u2066", "\u200b", "\x00", "\n", "\x1b", "\udc80", "\ufeff", "\u2028"])
def test_characters_that_mislead_are_written_out(hidden: str) -> None:
    assert hidden not in visible(f"a{hidden}b")
    assert visible(f"a{hidden}b").startswith("a\\")


def test_ordinary_names_stay_as_they_are() -> None:
    for value in ("كلب", "نمی\u200cدانم", "犬", "Ünïcode 😀", "a&b"):
        assert visible(value) == value
    assert escape(raw("<b>")) == "<b>"


def test_a_long_name_is_cut_in_the_middle() -> None:
    long = "a" * 500 + "b" * 500
    reader = _read(name(long))
    assert len(reader.text) < 80
    assert (reader.text[0], reader.text[-1]) == ("a", "b")
    assert dict(reader.attributes)["title"] == long[:500]


def test_a_cell_that_looks_like_markup_is_still_text() -> None:
    reader = _read(table(["<th>"], [["<td>x</td>"]]))
    assert reader.tags.count("td") == 1
    assert "<td>x</td>" in reader.text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (3.14159, "3.14"), (1234.5, "1,230"), (0.8, "0.800"), (9.999, "10.0"), (224.0, "224"), (1e-7, "1e-07")],
)
def test_figures(value: float, shown: str) -> None:
    assert figures(value) == shown


def test_units() -> None:
    assert (size(3_312_889), size(999), size(4_096)) == ("3.31 MB", "999 B", "4.10 kB")
    assert (count(61_204_480), count(12)) == ("61.2 M", "12")
    assert between(1.158121, 1.161731) == "1.158 to 1.162 ms"
    assert between(2.0, 2.0) == "2.00000 to 2.00000 ms"
    assert (p_value(0.0213), p_value(1e-9)) == ("p = 0.021", "p < 0.0001")
    assert moment("2026-11-22T06:00:00.123Z") == "2026-11-22 06:00:00 UTC"
    assert moment("yesterday") == "yesterday"
    assert [within(title) for title in ("Latency", "MACs", "")] == ["latency", "MACs", ""]
    assert brief({"a": [1, 2.5, None], "b": "x\ny"}) == "a: 1, 2.5, None, b: x\\ny"


def test_more_pictures_bear_more_digits() -> None:
    assert (percent(0.94216, n=600), percent(0.94216, n=10_000)) == ("94.2%", "94.22%")
    assert bounds(wilson(50, 100)) == "40.4–59.6%"


@given(
    st.sampled_from(["latency_ms", "size_bytes", "macs", "params"]),
    st.floats(1e-2, 1e10),
    st.floats(0.9999, 1.0001) | st.floats(1e-3, 1e3),
)
def test_a_budget_row_never_contradicts_its_verdict(quantity: str, limit: float, ratio: float) -> None:
    limit, measured = float(f"{limit:.6g}"), float(f"{limit * ratio:.10g}")
    _, shown_limit, shown = budget_cells(
        BudgetRow(name=quantity, limit=limit, measured=measured, met=measured <= limit)
    )
    left, right = shown.split(" "), shown_limit.split(" ")
    assert left[1:] == right[1:]
    assert (float(left[0]) <= float(right[0])) == (measured <= limit)
