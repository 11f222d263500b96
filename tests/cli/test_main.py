"""Exit codes, signals and pipes, as a person meets them."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from netsmith.cli import main as cli
from netsmith.cli.console import Console, Output
from netsmith.errors import CheckError, InputError

VERB = textwrap.dedent(
    '''
    import os, sys, time
    from netsmith.errors import CheckError, InputError

    EXAMPLES = "Examples: probe wait"

    def probe(what: str, /) -> None:
        """Do something."""
        if what == "wait":
            try:
                print("ready", flush=True)
                time.sleep(60)
            except KeyboardInterrupt:
                raise KeyboardInterrupt("go on with --resume") from None
        if what == "threads":
            print(*(os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")))
        if what == "much":
            for line in range(1_000_000):
                print(line)
        if what == "input":
            raise InputError("photos/ is empty; name another folder")
        if what == "check":
            raise CheckError("latency 6ms of 5ms")
        if what == "extra":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        if what == "missing":
            raise ModuleNotFoundError("No module named 'netsmiht'", name="netsmiht")
        if what == "defect":
            raise RuntimeError("a defect")
    '''
)
RUN = "import sys; from netsmith.cli import main; main.VERBS['probe'] = main.Verb('probe_verb:probe', ''); main.main()"


@pytest.fixture
def start(tmp_path):
    """Start `netsmith probe WHAT` in a process of its own."""
    (tmp_path / "probe_verb.py").write_text(VERB)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]

    def started(what: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        return subprocess.Popen(
            [sys.executable, "-c", RUN, "probe", what],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    return started


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("nothing", 0, ""),
        ("input", 2, "netsmith: photos/ is empty; name another folder\n"),
        ("extra", 2, "netsmith: probe needs the package torch; pip install 'netsmith[train]'\n"),
        ("check", 1, "netsmith: latency 6ms of 5ms\n"),
    ],
)
def test_exit_codes(start, what, code, said):
    process = start(what)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", said)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "PASSIVE 5000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
        ({"GOMP_SPINCOUNT": "7"}, "None 7"),
    ],
)
def test_threads_that_wait_soon_leave_their_core_unless_told_otherwise(start, monkeypatch, given, found):
    """Set before a verb imports torch, which reads it once."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    out, err = start("threads").communicate(timeout=60)
    assert (out, err) == (f"{found}\n", "")


@pytest.mark.parametrize(("what", "error"), [("defect", "RuntimeError: a defect"), ("missing", "named 'netsmiht'")])
def test_a_defect_keeps_its_traceback(start, what, error):
    process = start(what)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" in err
    assert error in err


@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_signals_say_how_to_go_on(start, number, code, name):
    process = start("wait")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, f"netsmith: stopped by {name}; go on with --resume\n")


def test_a_closed_pipe_is_quiet(start):
    process = start("much")
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_sigterm_is_the_callers_again_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    assert cli.run(["--version"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_every_verb_is_in_the_list_with_its_line(capsys):
    assert cli.run(["--help"]) == 0
    listed = capsys.readouterr().out
    for name, verb in cli.VERBS.items():
        assert name in listed
        assert " ".join(verb.help.split())[:30] in " ".join(listed.split())


@pytest.mark.parametrize("verb", cli.VERBS)
def test_a_verb_teaches(verb, capsys):
    assert cli.run([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: netsmith {verb}")
    assert f"netsmith {verb} " in text.partition("Examples:")[2], "an example that can be typed"
    assert cli.VERBS[verb].help.rstrip(".") in " ".join(text.split()), "the list says the same as the verb"
    assert "--json" in text
    assert "--quiet" in text


def test_errors_are_no_subclass_of_each_other():
    assert not issubclass(CheckError, InputError)
    assert not issubclass(InputError, CheckError)
    assert issubclass(InputError, ValueError)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize(("arguments", "code"), [(["nonsense"], 2), (["models", "resnet18"], 0)])
def test_a_log_on_a_full_disk_changes_no_exit_code(arguments: list[str], code: int) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "netsmith", *arguments], stdout=subprocess.DEVNULL, stderr=full)
    assert done.returncode == code


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_warning_that_finds_no_room_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with open(descriptor, "w", closefd=False) as full:
        monkeypatch.setattr(sys, "stderr", full)
        with Console(Output()) as console:
            console.warn("the disk is full")
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)  # where the rest of it goes
    os.close(descriptor)
