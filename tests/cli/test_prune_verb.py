"""`netsmith prune` as typed wrongly: one sentence, exit 2, nothing written."""

from pathlib import Path

import pytest

from netsmith.cli.main import run


@pytest.mark.parametrize(("typed", "says"), [
    ("", "how small it should get is not said; give one of --macs, --params, --latency and --unstructured"),
    ("--macs 0.5 --params 0.5", "--macs and --params do not go together"),
    ("--macs 0.5 --unstructured 0.9", "--macs and --unstructured do not go together"),
    ("--macs 0", "--macs is 0 of what it is; give a share above 0 and below 1"),
    ("--macs 2x", "--macs is 2 of what it is"),
    ("--macs half", "--macs 'half' is neither a number"),
    ("--latency 5", "--latency is 5 of what it is; give a share above 0 and below 1, or a time such as 5ms"),
    ("--latency 5parsec", "latency '5parsec' has the unknown unit"),
    ("--unstructured 0.9 --round-to 8", "--round-to is about whole channels and does not go with --unstructured"),
    ("--unstructured 0.9 --baseline", "--baseline is about whole channels"),
    ("--macs 0.5 --steps 0", "--steps is 0; give a number of rounds, at least 1"),
    ("--macs 0.5 --max-drop -1", "--max-drop is -1; give points of accuracy, 0 to 100"),
    ("--macs 0.5 --time 5m --epochs 3", "--time and --epochs do not go together"),
    ("--macs 0.5 --importance magnitude", "--importance"),
    ("--macs 0.5 --lr -1", "--lr is -1; it must be above 0"),
    ("--macs 0.5", "there is no"),
])  # fmt: skip
def test_one_sentence(typed: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prune", str(tmp_path / "nothing"), *typed.split(), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prune", "model", "--macs", "0.5"]) == 2
    assert "name its folder with -o" in capsys.readouterr().err
