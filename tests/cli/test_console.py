import json

import pytest

from netsmith.cli.console import Console, Output, tell
from netsmith.run.clock import FakeClock


def test_plain_progress_is_at_most_a_line_every_two_seconds(capsys):
    clock = FakeClock()
    with Console(Output(), clock=clock) as console:
        for step in range(100):
            clock.tick(0.1)
            console.progress("training", step + 1, 100, "top-1 90%")
        console.result({}, "done")
    printed = capsys.readouterr()
    assert printed.out == "done\n"
    lines = printed.err.splitlines()
    assert 4 <= len(lines) <= 6
    assert lines[0].startswith("training  21%  ")
    assert lines[0].endswith("left  top-1 90%")
    assert lines[-1] == "training  100%  top-1 90%"


def test_time_left_is_what_the_work_says(capsys):
    clock = FakeClock()
    with Console(Output(), clock=clock) as console:
        for step in range(3):
            clock.tick(3)
            console.progress("training", 10 * step, 100, "loss 1", left=90.0 - 3 * step)
    assert capsys.readouterr().err.splitlines() == [
        "training  10%  1m27s left  loss 1",
        "training  20%  1m24s left  loss 1",
    ]


def test_lines_grow_rarer_in_long_work(capsys):
    clock = FakeClock()
    with Console(Output(), clock=clock) as console:
        for step in range(10 * 3600):
            clock.tick(1)
            console.progress("training", step, 10 * 3600)
    assert 600 <= len(capsys.readouterr().err.splitlines()) <= 900


def test_what_is_said_comes_after_the_progress_before_it(capsys):
    clock = FakeClock()
    with Console(Output(), clock=clock) as console:
        for step in (0, 50, 100):
            console.progress("training", step, 100, f"val {step} %")
            clock.tick(1.5)
        console.say("100 % on validation")
    assert capsys.readouterr().err.splitlines() == ["training  100%  val 100 %", "100 % on validation"]


def test_quick_work_is_not_announced(capsys):
    with Console(Output(), clock=FakeClock(advance=0.001)) as console:
        for step in range(100):
            console.progress("reading", step, 100)
        console.progress("writing", 1, None)
    assert capsys.readouterr().err == ""


def test_each_piece_has_its_own_time_left(capsys):
    clock = FakeClock()
    with Console(Output(), clock=clock) as console:
        console.progress("reading", 0, 4)
        clock.tick(100)
        console.progress("reading", 4, 4)
        console.progress("training", 0, 10)
        clock.tick(5)
        console.progress("training", 5, 10)
        clock.tick(5)
        console.progress("counting", 0, None)
        clock.tick(5)
        console.progress("counting", 1234, None, "files")
    assert capsys.readouterr().err.splitlines() == [
        "reading  100%",
        "training  50%  5.0s left",
        "counting  1234  files",
    ]


def test_quiet_leaves_result_and_warnings(capsys):
    with Console(Output(quiet=True), clock=FakeClock(advance=5)) as console:
        console.progress("reading", 1, 2)
        console.say("a remark")
        console.warn("careful")
        console.result({"a": 1}, "text")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("text\n", "warning: careful\n")


def test_json_is_the_only_thing_on_stdout(capsys):
    with Console(Output(json=True), clock=FakeClock(advance=5)) as console:
        console.say("a remark")
        console.progress("reading", 1, 2)
        console.progress("reading", 2, 2)
        console.result({"näme": [1.5, None]}, "text")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"näme": [1.5, None]}
    assert "a remark" in printed.err
    assert "reading" in printed.err


def test_json_holds_no_nan():
    with Console(Output(json=True)) as console, pytest.raises(ValueError, match="JSON"):
        console.result(float("nan"), "")


def test_live_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Console(Output(), clock=FakeClock(advance=1)) as console:
        console.progress("training", 1, 2, "top-1 90%")
        console.say("a [remark]")
        console.progress("training", 2, 2, "top-1 91%")
        console.result({}, "done")
    printed = capsys.readouterr()
    assert printed.out == "done\n"
    assert "a [remark]" in printed.err
    assert "top-1 91%" in printed.err


HOSTILE = "cat\x1b[31m\x9b2J\r\u202edog\udce9"


def test_nothing_that_a_terminal_obeys_is_printed(capsys):
    with Console(Output(), clock=FakeClock(advance=5)) as console:
        console.progress(HOSTILE, 1, 2, HOSTILE)
        console.progress(HOSTILE, 2, 2, HOSTILE)
        console.say(HOSTILE)
        console.warn(HOSTILE)
        console.result({}, f"{HOSTILE}\n\tünï 猫")
    tell(HOSTILE)
    printed = capsys.readouterr()
    for letter in "\x1b\x9b\r\u202e\udce9":
        assert letter not in printed.out + printed.err
    assert printed.err.count("cat\\x1b[31m\\x9b2J\\r\\u202edog\\udce9") >= 5
    assert printed.out.endswith("\n\tünï 猫\n"), "what is harmless stays"


def test_what_json_holds_comes_back_and_draws_nothing(capsys):
    with Console(Output(json=True)) as console:
        console.result({HOSTILE: [HOSTILE, "\n"]}, "")
    printed = capsys.readouterr().out
    assert all(letter.isprintable() or letter == "\n" for letter in printed)
    assert json.loads(printed) == {HOSTILE: [HOSTILE, "\n"]}


def test_what_is_for_programs_is_exact(capsys):
    with Console(Output()) as console:
        console.result({}, "a\x1b,b\r", exact=True)
    assert capsys.readouterr().out == "a\x1b,b\r\n"


def test_the_live_bar_obeys_no_names(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Console(Output(), clock=FakeClock(advance=1)) as console:
        console.progress("training", 1, 2)
        console.say("cat\x1b[31m")
    assert "cat\\x1b[31m" in capsys.readouterr().err
