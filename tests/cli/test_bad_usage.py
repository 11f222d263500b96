"""What a person mistypes and what netsmith says: one sentence with what, where and the mend; exit 2; nothing kept."""

import os

import pytest
from typed import fresh

# Arguments (in an empty folder) and what the sentence must hold.
MISTYPED = [
    (["adit", "photos"], "there is no verb 'adit'; did you mean 'audit'?"),
    (["xyzzy"], "there is no verb 'xyzzy'; choose from"),
    (["--versoin"], "there is no flag '--versoin'; did you mean '--version'?"),
    (["audit"], "DATA is missing; see netsmith audit --help"),
    (["audit", "digits", "--strct"], "there is no flag '--strct'; did you mean '--strict'?"),
    (["audit", "digits", "more"], "'more' is one argument too many; see netsmith audit --help"),
    (["audit", "digits", "--seed"], "--seed needs a value; see netsmith audit --help"),
    (["audit", "digits", "--seed", "x"], "--seed"),
    (["audit", "photos"], "photos"),
    (["audit", ""], "netsmith: "),
]


@pytest.mark.parametrize(("arguments", "said"), MISTYPED, ids=[" ".join(arguments) for arguments, _ in MISTYPED])
def test_mistyped(tmp_path, arguments, said):
    done = fresh(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.startswith("netsmith: ")
    assert done.stderr.count("\n") == 1, "one sentence on one line"
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == [], "nothing is written"
