"""The report of finished, stopped, damaged and hostile runs, read back as HTML."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_runs import CLASSES, fit_run, train_run

from netsmith.cli.main import run as netsmith
from netsmith.errors import InputError
from netsmith.report.evidence import gather
from netsmith.report.page import write_report
from netsmith.run.clock import FakeClock
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.result import Result

VOID = {"meta", "br"}


class Page(HTMLParser):
    """A page's text by section, its tags, its links; fails on tags that do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.sections: dict[str, str] = {"": ""}
        self._section = ""
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()
        assert self.open == []
        self.text = " ".join(self.sections.values())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
            self.sections[self._section] = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.sections[self._section] += data


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit_run(tmp_path_factory.mktemp("fit") / "pets")


@pytest.fixture
def copy(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """The finished run, to be damaged."""
    return RunFolder(Path(shutil.copytree(finished.path, tmp_path / "pets")))


def test_a_finished_fit(finished: RunFolder) -> None:
    path = write_report(finished)
    page, result = Page(path), Result.load(finished.results)
    assert path == finished.report
    test = result.final.top1.test
    assert test is not None
    assert f"gets {100 * test.value:.1f}% of 600 test pictures right (95% interval {100 * test.low:.1f}" in page.text
    assert "meets the budget (latency 4.137 ms of 5 ms, size 3.313 MB of 4 MB)." in page.text
    assert list(page.sections)[1:] == ["sure", "accuracy", "race", "learning", "data", "repeat", "refused"]
    assert "The test split was read once" in page.sections["sure"]
    assert "33 checks in a fresh process" in page.sections["sure"]
    assert all(name in page.sections["accuracy"] for name in CLASSES)
    assert re.search(r"photos/\w+/n\d{8}\.JPEG", page.sections["accuracy"])
    assert "mobilenet_v2-d1-w0.25-r64out after rung 1, p < 0.0001" in page.sections["race"]
    assert "mobilenet_v2-d1-w0.75-r96won" in page.sections["race"]
    assert "it is cut short" in page.sections["data"]
    assert "netsmith verify" in page.sections["repeat"]
    assert "the validation loss did not fall" in page.sections["refused"]
    assert page.html.count("<svg") == 4


def test_the_page_needs_nothing_else(finished: RunFolder) -> None:
    page = Page(write_report(finished))
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    for tag, key, value in page.attributes:
        assert not key.startswith("on"), (tag, key)
        assert key not in {"src", "srcset", "action", "data"}, (tag, key)
        assert key not in {"href", "xlink:href"} or value.startswith("#"), (tag, key, value)
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page.html)
    assert not re.search(r"https?://|@import|url\((?!#)", without_namespaces)
    ids = [value for _, key, value in page.attributes if key == "id"]
    targets = [value[1:] for _, key, value in page.attributes if key in {"href", "xlink:href"}]
    assert set(targets) <= set(ids)


def test_the_same_run_gives_the_same_bytes(finished: RunFolder) -> None:
    first = write_report(finished).read_bytes()
    assert write_report(finished).read_bytes() == first


FILES = (
    *("results.json", "ledger.jsonl", "plan.jsonl", "recipe.yaml", "metrics.jsonl", "data.json"),
    *("predictions/test.npz", "predictions/val.npz", "model/config.json"),
)


def damage(path: Path) -> None:
    path.write_bytes(b'{"half": [\n\x00\xff\n')


@pytest.mark.parametrize("harm", [damage, Path.unlink], ids=["damaged", "absent"])
@pytest.mark.parametrize("file", FILES)
def test_a_missing_or_damaged_file_is_a_gap_and_no_other(
    copy: RunFolder, file: str, harm: Callable[[Path], None]
) -> None:
    harm(copy.path / file)
    gaps = gather(copy).gaps
    assert list(gaps) == [file]
    assert file in gaps[file]


@pytest.mark.parametrize("harm", [damage, Path.unlink], ids=["damaged", "absent"])
@pytest.mark.parametrize("kept", [(), ("results.json", "predictions/val.npz")], ids=["none", "some"])
def test_without_its_files_the_page_says_so(
    copy: RunFolder, kept: tuple[str, ...], harm: Callable[[Path], None]
) -> None:
    harmed = [file for file in FILES if file not in kept]
    for file in harmed:
        harm(copy.path / file)
    page = Page(write_report(copy))
    assert "<svg" not in page.html
    silent = {"results.json"} if harm is Path.unlink else set[str]()  # its absence is what an interrupted run is
    assert [file for file in harmed if file not in page.text and file not in silent] == []
    unfinished = "This run is not finished." if silent else "The result of this run cannot be read."
    assert ("It was not verified in a fresh process." if kept else unfinished) in page.sections[""]


def test_nothing_but_a_claimed_folder(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "new", command=["fit", "photos"]) as run:
        page = Page(write_report(run))
    assert "This run is not finished. No stage of it is recorded yet." in page.text
    assert "netsmith fit photos --resume" in page.text


def test_a_stopped_fit(tmp_path: Path) -> None:
    page = Page(write_report(fit_run(tmp_path / "pets", train=60, val=30, test=30, finished=False)))
    assert "This run is not finished." in page.text
    assert "netsmith fit photos --budget latency=5ms,size=4MB --time 10m" in page.text
    assert "--resume" in page.text
    assert "The labels of the test split were not read." in page.sections["sure"]
    assert "still in the race" in page.sections["race"]
    assert "won" not in page.sections["race"].replace("the winner", "")
    assert "No learning curve is recorded." in page.sections["learning"]


def test_a_stopped_fit_shows_the_training_of_the_one_in_front(tmp_path: Path) -> None:
    run = fit_run(tmp_path / "pets", train=60, val=30, test=30, finished=False)
    whole = train_run(tmp_path / "other")
    leader = run.candidates / "mobilenet_v2-d1-w0.75-r96"
    leader.mkdir(parents=True)
    (leader / "metrics.jsonl").write_bytes(whole.metrics.read_bytes())
    page = Page(write_report(run))
    assert "mobilenet_v2-d1-w0.75-r96 is in front so far; this is its training." in page.sections["learning"]
    assert "56 moments recorded" in page.sections["learning"]


def test_a_fit_that_ended_without_a_model(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "none", command=["fit", "photos"]) as run:
        Ledger(run.ledger, clock=FakeClock()).add("candidates", verdict="failed", reason="nothing fits the budget")
        page = Page(write_report(run))
    assert "This run ended without a result. Stage “candidates”: nothing fits the budget." in page.text


def test_train_has_no_race(tmp_path: Path) -> None:
    page = Page(write_report(train_run(tmp_path / "r18")))
    assert "race" not in page.sections
    assert "no budget was given" in page.text


def test_stages_show_both_sides_and_what_is_none_is_left_out(tmp_path: Path) -> None:
    run = train_run(tmp_path / "r18")
    ledger = Ledger(run.ledger, clock=FakeClock())
    assert "Before and after" not in Page(write_report(run)).text
    latency = {"p50": 4.0, "p90": 5.0, "low": 4.9, "high": 5.1, "noise": 0.01}
    interval = {"value": 0.95, "low": 0.9, "high": 0.97, "n": 100}
    before = {
        "precision": "<i>float32", "runtime": "onnxruntime", "threads": 2, "size_bytes": 4_000_000, "macs": 1000,
        "latency_ms": latency, "top1": interval, "memory_bytes": None, "model": "resnet18",
    }  # fmt: skip
    after = before | {"precision": "int8", "size_bytes": 1_100_000, "latency_ms": latency | {"p50": 1.5}}
    ledger.add("quantize", verdict="kept", reason="smaller and faster", before=before, after=after)
    ledger.add("prune", verdict="refused", reason="damaged", before=before, after=after | {"size_bytes": "small"})
    page = Page(write_report(run))
    shown = page.sections["stages"]
    assert all(
        each in shown for each in ("quantize", "4.00 ms", "1.50 ms", "1.10 MB", "<i>float32, onnxruntime × 2", "kept")
    )
    assert "prune" not in shown
    assert "<i>float32" not in page.html


def test_a_training_stands_alone_or_beside_what_it_went_on_with(tmp_path: Path) -> None:
    run = train_run(tmp_path / "r18")
    page = Page(write_report(run))
    assert "71.4 MB of memory in use" in page.text
    assert "which had this model alone, needed 71.4 MB of memory" in page.sections["sure"]
    interval = {"value": 0.95, "low": 0.9, "high": 0.97, "n": 100}
    made = {
        "precision": "float32", "runtime": "onnxruntime", "threads": 2, "size_bytes": 4_000_000, "macs": 1000,
        "latency_ms": {"p50": 4.0, "p90": 5.0, "low": 4.9, "high": 5.1, "noise": 0.01}, "top1": interval,
        "memory_bytes": 90_000_000, "id": "resnet18", "steps": 56, "epochs": 12.0, "seconds": 61.5,
    }  # fmt: skip
    ledger = Ledger(run.ledger, clock=FakeClock())
    ledger.add("train", verdict="done", reason="nothing stands before it", after=made)
    page = Page(write_report(run))
    assert "90.0 MB" in page.sections["stages"]
    assert "Training of resnet18: 56 steps, 12.0 epochs, 61.5 seconds." in page.text
    assert "before" not in page.sections["stages"].partition("runs in")[2]
    assert "went on with" not in page.sections[""]
    change = {"value": -0.02, "low": -0.031, "high": -0.009, "n": 100}
    ledger.add(
        "train", verdict="done", reason="worse", before=made | {"size_bytes": 2}, after=made | {"change": change}
    )
    page = Page(write_report(run))
    assert (
        "Beside the model that it went on with it is worse: -2.00 points on 100 validation pictures, paired, 95% "
        "interval -3.10 to -0.90." in page.sections[""]
    )
    assert "2 B" in page.sections["stages"]
    ledger.add("train", verdict="done", reason="damaged", after=made | {"change": {"value": "much"}})
    assert "went on with" not in Page(write_report(run)).sections[""]


def test_a_missed_budget_and_a_failed_verification_are_said_first(tmp_path: Path) -> None:
    run = fit_run(tmp_path / "pets", train=60, val=30, test=30, budget="latency=4.1ms")
    Ledger(run.ledger, clock=FakeClock()).add("verify", verdict="failed", reason="33 checks; not held: size")
    verdict = Page(write_report(run)).sections[""]
    assert "does not meet the budget (latency 4.137 ms of 4.1 ms)" in verdict
    assert "Its verification failed: 33 checks; not held: size." in verdict


def test_an_edited_result_is_noticed(copy: RunFolder) -> None:
    document = json.loads(copy.results.read_text())
    document["final"]["top1"]["test"] |= {"value": 0.99, "high": 0.995}
    copy.results.write_text(json.dumps(document))
    page = Page(write_report(copy))
    assert "results.json says 99.0% of 600 for the test split, but the recorded answers give" in page.text


def test_a_second_reading_of_test_is_said(copy: RunFolder) -> None:
    Ledger(copy.ledger, clock=FakeClock()).add("test", verdict="done", reason="again", splits_read=["test"])
    assert "The test split was read 2 times" in Page(write_report(copy)).sections["sure"]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    classes = ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "كلب\u202egpj", "long " * 100]
    names = "</td></table><script>{number}</script>\n\x00" + "n" * 300 + ".png"
    page = Page(write_report(fit_run(tmp_path / "a&b <i>", classes=classes, train=60, val=40, test=40, names=names)))
    assert not page.tags & {"script", "img"}
    assert all(not key.startswith("on") for _, key, _ in page.attributes)
    assert "<script>alert(1)</script>" in page.text
    assert "كلب\\u202egpj" in page.text
    assert not set(page.html) & {"\u202e", "\x00"}


def test_a_thousand_classes(tmp_path: Path) -> None:
    classes = [f"class {label}" for label in range(1000)]
    path = write_report(fit_run(tmp_path / "many", classes=classes, train=1000, val=500, test=1500))
    page = Page(path)
    assert "The 15 weakest classes" in page.text
    assert "All 1,000 classes" in page.text
    assert "Confusion matrix" not in page.text
    assert path.stat().st_size < 2_000_000


def test_only_a_report_is_replaced(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "new", command=["fit", "photos"])
    elsewhere = tmp_path / "out" / "pets.html"
    assert write_report(run, to=elsewhere) == elsewhere
    write_report(run, to=elsewhere)
    precious = tmp_path / "thesis.html"
    precious.write_text("years of work")
    for path in (precious, tmp_path, run.marker):
        with pytest.raises(InputError, match="is no report"):
            write_report(run, to=path)
    assert precious.read_text() == "years of work"
    run.close()
    with pytest.raises(InputError, match="is not a run folder"):
        write_report(RunFolder(tmp_path))


def test_the_verb(finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "pets.html"
    assert netsmith(["report", str(finished.path), "-o", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(target)}
    assert target.exists()
    assert netsmith(["report", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
