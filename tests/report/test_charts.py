"""Charts of any lines, and as files of their own."""

import xml.etree.ElementTree as ET

from netsmith.report.charts import Estimate, Series, forest, lines, standalone

FRONT = Series(title="a <b>", x=[1.0, 10.0], y=[0.5, 0.6], low=[0.4, 0.6], high=[0.6, 0.6], dots=True)
BAND = Series(title="", x=[1.0, 10.0], y=[0.5, 0.7], low=[0.4, 0.6], high=[0.6, 0.9], colour=5, dashed=True)


def chart() -> str:
    return standalone(
        lines([FRONT, BAND], name="n", across="MACs, million", label="top-1, %", about="x & y", share=True, log_x=True)
    )


def test_a_chart_is_a_file_that_names_its_colours() -> None:
    root = ET.fromstring(chart())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["aria-label"] == "x & y"
    words = [text.strip() for text in root.itertext() if text.strip()]
    assert {"a <b>", "MACs, million", "top-1, %"} <= set(words)
    style = words[0]
    for variable in ("--accent", "--muted", "--ink", "--line"):
        assert f"{variable}:" in style
        assert f"var({variable})" in chart()


def test_the_same_numbers_give_the_same_bytes() -> None:
    assert chart() == chart()


def test_a_forest_has_a_row_for_each_number_and_marks_those_that_leave_out_zero() -> None:
    open_, clear = (
        Estimate(title="a $b$", value=0.01, low=-0.02, high=0.04),
        Estimate(title="c", value=0.03, low=0.01, high=0.05),
    )
    both = forest([open_, clear], name="n", label="points", about="x", share=True)
    words = {text.strip() for text in ET.fromstring(standalone(both)).itertext()}
    assert {"a $b$", "c", "points"} <= words
    assert "var(--accent)" in both
    assert "var(--accent)" not in forest([open_], name="n", label="points", about="x")
