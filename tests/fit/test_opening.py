"""What a run writes down of its pictures before anything else."""

from pathlib import Path

from artifact_models import COLOURS, colour_picture

from netsmith.data.audit import audit
from netsmith.data.sources import open_source
from netsmith.fit.opening import record_split
from netsmith.run.clock import FakeClock
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger


def test_the_ledger_counts_what_is_left_out_and_what_is_there_again(tmp_path: Path) -> None:
    photos, run = tmp_path / "photos", RunFolder(tmp_path / "run")
    run.path.mkdir()
    for colour in COLOURS:
        (photos / colour).mkdir(parents=True)
        for seed in range(4):
            (photos / colour / f"{seed}.png").write_bytes(colour_picture(colour, seed=seed))
    for name in ("again.png", "once-more.png"):
        (photos / "red" / name).write_bytes(colour_picture("red", seed=1))
    (photos / "blue" / "broken.png").write_bytes(b"nothing")
    record_split(audit(open_source(photos)), seed=0, run=run, ledger=Ledger(run.ledger, clock=FakeClock()))
    row = Ledger(run.ledger, clock=FakeClock()).newest("audit")
    assert row is not None
    assert (row.after["pictures"], row.after["duplicates"]) == (14, 2)
    assert [each["name"] for each in row.after["skipped"]] == ["blue/broken.png"]
