import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsmith.errors import InputError
from netsmith.run.budget import (
    Budget,
    BudgetRow,
    format_duration,
    format_size,
    parse_count,
    parse_duration,
    parse_size,
)

counts = st.none() | st.integers(1, 10**15)


@given(latency=st.none() | st.floats(1e-9, 1e9), size=counts, macs=counts, params=counts)
def test_printed_and_parsed_is_the_same_to_the_last_bit(latency, size, macs, params):
    budget = Budget(latency_ms=latency, size_bytes=size, macs=macs, params=params)
    if budget.limits():
        assert Budget.parse(str(budget)) == budget
    assert Budget.model_validate_json(budget.model_dump_json()) == budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("latency=5ms,size=4MB", Budget(latency_ms=5.0, size_bytes=4_000_000)),
        ("latency=250us", Budget(latency_ms=0.25)),
        ("latency=.1s", Budget(latency_ms=100.0)),
        ("size=4MiB", Budget(size_bytes=4 * 2**20)),
        ("size=1.5kB", Budget(size_bytes=1500)),
        (" macs = 300 M , params=2M ", Budget(macs=300_000_000, params=2_000_000)),
        ("params=12345", Budget(params=12345)),
    ],
)
def test_grammar(text, budget):
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is not KEY=VALUE; write it like latency=5ms,size=4MB"),
        ("latency=5ms,", "'' is not KEY=VALUE"),
        ("latency", "'latency' is not KEY=VALUE"),
        ("latency=", "'latency=' is not KEY=VALUE"),
        ("latncy=5ms", "unknown key 'latncy'; did you mean 'latency'?"),
        ("accuracy=90%", "unknown key 'accuracy'; choose from latency, size, macs, params"),
        ("latency=5", "latency '5' has no unit; add us, ms or s"),
        ("latency=5msec", "unknown unit 'msec'; did you mean 'ms'"),
        ("size=4mb", "unknown unit 'mb'; did you mean 'MB'"),
        ("size=4", "size '4' has no unit"),
        ("size=1.5B", "size '1.5B' is 1.5, which is not a whole number"),
        ("size=0MB", "must be above zero"),
        ("latency=-5ms", "'-5ms' is not a number with a unit"),
        ("latency=nan", "is not a number"),
        ("latency=1e3ms", "unknown unit 'e'|is not a number"),
        ("latency=5ms,latency=6ms", "gives latency twice"),
    ],
)
def test_what_does_not_parse_is_said(text, said):
    with pytest.raises(InputError) as error:
        Budget.parse(text)
    assert any(part in str(error.value) for part in said.split("|")), error.value


def test_rows():
    budget = Budget.parse("latency=5ms,size=4MB")
    measured = {"latency_ms": 5.0000001, "size_bytes": 3_712_345, "macs": 1.0, "params": 2.0}
    rows = budget.rows(measured)
    assert rows == [
        BudgetRow(name="latency_ms", limit=5.0, measured=5.0000001, met=False),
        BudgetRow(name="size_bytes", limit=4e6, measured=3712345.0, met=True),
    ]
    assert str(rows[0]) == "latency 5.0000001ms of 5ms", "rounding never hides a miss"
    assert str(rows[1]) == "size 3712kB of 4MB"
    assert not budget.met(measured)
    assert budget.met({"latency_ms": 5.0, "size_bytes": 4_000_000}), "the limit itself is allowed"
    assert Budget().rows({}) == []
    assert BudgetRow.model_validate_json(json.dumps(rows[0].model_dump())) == rows[0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172800), ("1m 30s", 90), ("0.5s", 0.5)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a duration"),
        ("ten", "is not a duration"),
        ("-3s", "is not a duration"),
        ("90", "has no unit; add s, m, h or d"),
        ("10ms", "unknown unit 'ms'"),
        ("10min", "unknown unit 'min'"),
        ("30m1h", "from days to seconds"),
        ("1m1m", "from days to seconds"),
        ("0s", "above zero"),
    ],
)
def test_bad_durations(text, said):
    with pytest.raises(InputError) as error:
        parse_duration(text, what="--time")
    assert said in str(error.value)
    assert str(error.value).startswith("--time")


def test_sizes_and_counts():
    assert [parse_size("4MB"), parse_size("1KiB"), parse_count("1.5k"), parse_count("42")] == [
        4_000_000,
        1024,
        1500,
        42,
    ]
    assert [format_size(size) for size in (4_000_000, 4_194_304, 4_194_305, 1)] == ["4MB", "4MiB", "4194305B", "1B"]
    with pytest.raises(InputError, match="--size '5 X'"):
        parse_size("5 X", what="--size")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0s"), (4.23, "4.2s"), (59.7, "1m"), (90, "1m30s"), (7200, "2h"), (90061, "1d1h1m1s")]
)
def test_durations_for_people(seconds, text):
    assert format_duration(seconds) == text
