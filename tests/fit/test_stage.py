"""The frame of a stage: what it opens and refuses, how it judges, what a kept and a refused one leave behind."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from artifact_models import colour_model, colour_picture, write_colour_run

from netsmith.artifact.bundle import Preferred, Provenance, artifact_hash, write_bundle
from netsmith.artifact.golden import make_golden
from netsmith.artifact.latency import Measurement
from netsmith.artifact.runtimes import REFERENCE, open_model
from netsmith.data.lineage import read_lineage
from netsmith.data.record import from_data_json
from netsmith.errors import CheckError, InputError
from netsmith.fit import stage as stage_frame
from netsmith.fit.judged import Judged, best, compare, verdict
from netsmith.fit.parent import open_parent
from netsmith.fit.session import Session
from netsmith.fit.stage import Stage, run_stage
from netsmith.run.clock import FakeClock
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.metrics import Interval
from netsmith.run.result import Latency, Result
from netsmith.run.scores import Answers, change, told_apart

MEASURED = Measurement(
    p50_ms=1.0, p90_ms=1.0, low=1.0, high=1.0, noise=0.0, peak_memory_bytes=None,
    threads=1, runtime="onnxruntime", warmup=1, runs=40, resize_ms=None,
)  # fmt: skip


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data/` and `run/`, a finished run with a ledger of its own."""
    root = tmp_path_factory.mktemp("stage")
    run = write_colour_run(root, latency=MEASURED)
    ledger = Ledger(run.ledger, clock=FakeClock())
    ledger.add("session", verdict="done", reason="netsmith fit data")
    ledger.add("test", verdict="done", reason="once", inputs=[artifact_hash(run.model)], splits_read=["test"])
    return root


def other(stage: Stage, order: tuple[int, ...]) -> Path:
    """A candidate whose outputs read the colour channels in this order."""
    bundle = stage.parent.bundle
    config, content = bundle.config, colour_model(order=order)
    golden = make_golden(
        bundle.golden().encoded, config.preprocess, lambda pixels: open_model(content).run(pixels).probabilities
    )
    made = write_bundle(
        stage.candidate("other"),
        model=content,
        layout=bundle.layout,
        labels=config.labels,
        preprocess=config.preprocess,
        golden=golden,
        provenance=stage.finisher.inherited(Provenance(licence="CC0-1.0")),
    )
    return made.folder


def typed(ground: Path, out: Path, data: str = "") -> Session:
    return Session(data=data, output=out, command=["prune", str(ground / "run"), "-o", str(out)])


def begun(ground: Path, out: Path, order: tuple[int, ...], *, resume: bool = False, max_drop: float = 0.0) -> Result:
    def work(stage: Stage) -> Result:
        made = open_parent(other(stage, order)).bundle if stage.ledger.newest("prune") is None else None
        before, after = stage.judge(stage.parent.bundle, made or stage.parent.bundle)
        stage.settle(before, after, verdict(before, after, max_drop=max_drop))
        assert made is not None
        return stage.ship(made)

    return run_stage("prune", open_parent(ground / "run"), typed(ground, out), work, resume=resume, measure_s=0.2)


def test_a_kept_stage_is_a_whole_run_that_tells_the_whole_story(ground, tmp_path):
    before = artifact_hash(ground / "run")
    parent = json.loads((ground / "run" / "data.json").read_text())
    channels = {"red": 0, "green": 1, "blue": 2}
    order = tuple(next(at for colour, at in channels.items() if name.startswith(colour)) for name in parent["classes"])
    result = begun(ground, tmp_path / "out", order)
    assert artifact_hash(ground / "run") == before, "the input is never written to"
    run = RunFolder(tmp_path / "out")
    assert {path.name for path in run.path.iterdir()} >= {"model", "results.json", "report.html", "data.json"}
    assert not run.candidates.exists()
    assert {key: row["split"] for key, row in json.loads(run.data.read_text())["items"].items()} == {
        key: row["split"] for key, row in parent["items"].items()
    }
    ledger = Ledger(run.ledger, clock=FakeClock())
    stages = [row.stage for row in ledger.rows]
    assert stages == ["session", "test", "parent", "session", "audit", "split", "prune", "test", "verify"]
    row = ledger.newest("prune")
    assert row is not None
    assert (row.verdict, row.output) == ("kept", result.artifact)
    assert row.inputs == [artifact_hash(ground / "run" / "model")]
    assert row.before["top1"] == row.after["top1"] == result.final.top1.model_dump()["val"]
    assert row.after["memory_bytes"] > 1e6
    assert result.commands == ["netsmith fit data", f"netsmith prune {ground / 'run'} -o {tmp_path / 'out'}"]
    with pytest.raises(InputError, match="holds a finished run of"):
        begun(ground, tmp_path / "out", (0, 1, 2))


def test_what_is_refused_leaves_its_numbers_and_no_model(ground, tmp_path):
    with pytest.raises(CheckError, match=r"prune is refused, it loses [\d.]+ points, more than the 0 allowed: top-1"):
        begun(ground, tmp_path / "out", (1, 1, 1))
    run = RunFolder(tmp_path / "out")
    assert not run.model.exists()
    assert not run.finished
    row = Ledger(run.ledger, clock=FakeClock()).rows[-1]
    assert (row.stage, row.verdict) == ("prune", "refused")
    assert row.before["top1"]["value"] > row.after["top1"]["value"]
    assert row.after["latency_ms"]["p50"] > 0
    with pytest.raises(CheckError, match="prune is refused"):  # a row that is there is obeyed, at any limit
        begun(ground, tmp_path / "out", (1, 1, 1), resume=True, max_drop=100.0)
    shutil.copytree(ground / "run", tmp_path / "other")
    config = json.loads((tmp_path / "other" / "model" / "config.json").read_text())
    config["preferred"]["threads"] = 2
    (tmp_path / "other" / "model" / "config.json").write_text(json.dumps(config))
    session = typed(ground, tmp_path / "out")
    with pytest.raises(InputError, match=r"which is not .*other as it is now"):
        run_stage("prune", open_parent(tmp_path / "other"), session, lambda stage: pytest.fail("begun"), resume=True)


def test_a_model_without_its_run_may_have_seen_what_validates(ground, tmp_path):
    bare = shutil.copytree(ground / "run" / "model", tmp_path / "bare")
    said: list[str] = []

    def opened(model: Path, name: str, data: str) -> None:
        session = replace(typed(ground, tmp_path / name, data), warn=said.append)
        with pytest.raises(KeyboardInterrupt):
            run_stage("prune", open_parent(model), session, stopped)

    def stopped(stage: Stage) -> Result:
        other(stage, (0, 1, 2))
        raise KeyboardInterrupt

    pictures = str(ground / "data")
    opened(ground / "run", "known", "")
    opened(bare, "same", pictures)  # folders of train, val and test: the splits it was trained with
    assert said == []
    shutil.copytree(ground / "data" / "val", tmp_path / "others")
    opened(bare, "other", str(tmp_path / "others"))
    assert said == [
        f"{bare} has no run beside it and was trained on other pictures or splits: some that validate now may be "
        "pictures it has seen, which flatters it; give the folder of its run, or the data and --seed of its training"
    ]
    config = json.loads((bare / "config.json").read_text())
    config["provenance"]["data"] = None
    (bare / "config.json").write_text(json.dumps(config))
    opened(bare, "unsaid", pictures)
    assert "has no run beside it and does not say what it was trained on" in said[1]
    made = tmp_path / "other" / "candidates" / "other"
    opened(made, "descendant", str(tmp_path / "others"))
    assert said[2].startswith(f"{made} descends from a model whose training pictures are not known: some that validate")
    opened(tmp_path / "known" / "candidates" / "other", "heir", pictures)
    assert len(said) == 3


def test_what_a_model_knew_stays_known_behind_runs_on_other_pictures(ground, tmp_path):
    """Its run may be gone by then; a run whose pictures are the same has nothing to write down."""
    mixed, others = tmp_path / "mixed", tmp_path / "others"
    for path in (ground / "data").rglob("*.png"):
        side, name = path.relative_to(ground / "data").parts[:2]
        (mixed / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, mixed / name / f"{side}-{path.name}")
        (others / name).mkdir(parents=True, exist_ok=True)
        new = colour_picture("red", seed=crc32(f"{side} {name} {path.name}".encode()))
        (others / name / f"{side}-{path.name}").write_bytes(new)

    def stopped(stage: Stage) -> Result:
        other(stage, (0, 1, 2))
        raise KeyboardInterrupt

    def opened(source: Path, out: str, data: Path) -> Path:
        with pytest.raises(KeyboardInterrupt):
            run_stage("prune", open_parent(source), typed(ground, tmp_path / out, str(data)), stopped)
        return tmp_path / out / "candidates" / "other"

    first = shutil.copytree(ground / "run", tmp_path / "first")
    child = opened(first, "child", others)
    shutil.rmtree(first)
    grandchild = opened(opened(child, "again", others), "grandchild", mixed)
    for run in ("child", "again"):
        recorded = read_lineage(tmp_path / run / "lineage.json")
        assert len(recorded) == len(list(mixed.rglob("*.png")))
    rows = json.loads((tmp_path / "grandchild" / "data.json").read_text())["items"].values()
    assert {(row["split"], Path(row["name"]).name.split("-")[0]) for row in rows} == {
        (side, side) for side in ("train", "val", "test")
    }
    assert set(open_parent(grandchild).splits) > {row["group"] for row in rows}, "and those of others"
    opened(ground / "run", "alike", ground / "data")
    assert not (tmp_path / "alike" / "lineage.json").exists()


def test_pictures_of_a_run_that_are_elsewhere_now_are_asked_for(ground, tmp_path):
    moved = shutil.copytree(ground / "run", tmp_path / "moved")
    record = json.loads((moved / "data.json").read_text())
    (moved / "data.json").write_text(json.dumps({**record, "source": "photos/of/then"}))
    with pytest.raises(InputError, match="was made from photos/of/then, .* give its pictures with --data"):
        run_stage("prune", open_parent(moved), typed(ground, tmp_path / "out"), lambda stage: pytest.fail("begun"))
    assert not (tmp_path / "out").exists()


def test_bad_input_is_one_sentence_and_nothing_is_written(ground, tmp_path):
    shutil.copytree(ground / "data", tmp_path / "more")
    for side in ("train", "val", "test"):
        (tmp_path / "more" / side / "red").rename(tmp_path / "more" / side / "fox")
    shutil.copytree(ground / "data", tmp_path / "fewer")
    for side in ("train", "val", "test"):
        shutil.rmtree(sorted((tmp_path / "fewer" / side).iterdir())[0])
    shutil.copytree(ground / "run" / "model", tmp_path / "lonely")
    run = ground / "run"
    for path, data, out, words in (
        (run, "more", "out", "has classes that the model does not know (fox)"),
        (run, "fewer", "out", "lacks classes of the model"),
        (run, "", str(ground / "run" / "model" / "out"), "a model that is only read"),
        (run, "", str(ground / "run"), "a model that is only read"),
        (tmp_path / "lonely", "", "out", "say with --data which pictures to use"),
        (run, "nothing", "out", "nothing"),
    ):
        session = typed(ground, tmp_path / out, str(tmp_path / data) if data else "")
        with pytest.raises(InputError) as told:
            run_stage("prune", open_parent(path), session, lambda stage: pytest.fail("begun"))
        assert words in str(told.value)
        assert not (tmp_path / "out").exists()
    damaged = tmp_path / "lonely" / "model.onnx"
    damaged.write_bytes(damaged.read_bytes() + b"x")
    with pytest.raises(InputError, match=r"is not the file that config\.json describes"):
        open_parent(tmp_path / "lonely")


def test_a_step_ends_with_its_model_and_the_next_one_begins_there(ground, tmp_path):
    """The test pictures, the verification and the report are left to the run that it is a step of."""
    parent = open_parent(ground / "run")
    audited = typed(ground, tmp_path, str(ground / "data")).read(seed=0)
    whole = replace(audited, dataset=parent.pictures(audited, seed=0))
    assert whole.dataset.subset("test")
    said: list[str] = []
    for source, out in ((parent, "one"), (None, "two")):
        session = replace(typed(ground, tmp_path / out, str(ground / "data")), whole=whole, say=said.append)

        def work(stage: Stage) -> Result:
            with pytest.raises(AssertionError):
                stage.finisher.prepared("test", stage.parent.bundle.config.preprocess)
            return stage.ship(stage.parent.bundle)

        result = run_stage("prune", source or open_parent(tmp_path / "one"), session, work, measure_s=0.2)
        assert result.final.top1 is not None
        assert (result.final.top1.test, result.final.top1.val is not None) == (None, True)
        run = RunFolder(tmp_path / out)
        assert run.finished
        assert not run.report.exists()
        assert not run.predictions("test").exists()
        rows = Ledger(run.ledger, clock=FakeClock()).own
        assert [row.stage for row in rows] == ["session", "audit", "split"]
        assert not any("test" in row.splits_read for row in rows)
        assert from_data_json(json.loads(run.data.read_text()), whole.dataset) == whole.dataset
    assert said == [], "what was read is told by the whole run"


def test_memory_is_that_of_the_runtime_and_the_threads_that_were_timed(ground, tmp_path, monkeypatch):
    """Also where one file is judged twice, and where its own preference cannot be had here."""
    monkeypatch.setattr(stage_frame, "choose_runtime", lambda bundle, **_: (REFERENCE, bundle.config.preferred.threads))
    monkeypatch.setattr(stage_frame, "measure_many", lambda models, **_: [MEASURED for _ in models])

    def measured(folder: Path, *, runtime: str, threads: int, **_: object) -> Measurement:
        return replace(MEASURED, runtime=runtime, peak_memory_bytes=threads * 10**6)

    def work(stage: Stage) -> Result:
        one = stage.parent.bundle
        two = replace(one, config=one.config.model_copy(update={"preferred": Preferred(threads=2)}))
        assert [each.memory_bytes for each in stage.judge(one, two)] == [10**6, 2 * 10**6]
        raise KeyboardInterrupt

    monkeypatch.setattr(stage_frame, "measure", measured)
    with pytest.raises(KeyboardInterrupt):
        run_stage("prune", open_parent(ground / "run"), typed(ground, tmp_path / "out"), work)


def judged(right: list[bool], *, p50: float = 1.0, spread: float = 0.1) -> Judged:
    logits = np.array([[0.0, 1.0] if each else [1.0, 0.0] for each in right], np.float32)
    answers = Answers(logits, np.ones(len(right), np.int64))
    return Judged(
        artifact="0" * 64, model="net", metric="top1", score=answers.headline,
        latency=Latency(p50=p50, p90=1.2 * p50, low=(1.2 - spread) * p50, high=(1.2 + spread) * p50, noise=0.0),
        size_bytes=10, memory_bytes=None, params=1, macs=1, precision="float32", runtime="onnxruntime", threads=1,
        answers=answers,
    )  # fmt: skip


def test_the_verdict_asks_for_the_drop_and_the_speed_that_were_asked_for():
    before = judged([True] * 190 + [False] * 10)
    worse = judged([True] * 189 + [False] * 11, p50=0.5)
    assert verdict(before, worse, max_drop=0.5).kept, "one of 200 is exactly half a point"
    assert not verdict(before, worse, max_drop=0.4).kept
    assert "loses 0.50 points, more than the 0.4 allowed" in verdict(before, worse, max_drop=0.4).reason
    assert verdict(before, worse, faster=True).kept
    slow = verdict(before, judged([True] * 200, p50=1.01), max_drop=0.5, faster=True)
    assert not slow.kept
    assert "it is not faster: top-1 95.00% -> 100.00%" in slow.reason
    assert "p50 1 -> 1.01 ms (0.99x)" in slow.reason
    late = replace(worse, latency=Latency(p50=0.5, p90=3.0, low=2.9, high=3.1, noise=0.0))
    assert not verdict(before, late, faster=True).kept, "quick on average and late now and then"
    chance = verdict(before, judged([True] * 200, p50=0.96), faster=True)
    assert "it is not faster by more than 5%: top-1" in chance.reason, "of many candidates one is, by chance"
    uneven = replace(worse, latency=Latency(p50=0.8, p90=0.9, low=0.9, high=0.9, noise=0.3))
    assert "faster by 25%, within the noise of the machine, 30%" in verdict(before, uneven, faster=True).reason
    assert verdict(before, worse, share=0.48).kept, "alike"
    assert "it takes 0.50 of the time, more than the 0.4 asked for" in verdict(before, worse, share=0.4).reason
    assert verdict(before, uneven, share=0.65).kept, "within the noise"
    assert not verdict(before, uneven, share=0.6).kept


def test_a_model_is_better_or_worse_only_beyond_chance():
    before = judged([True] * 180 + [False] * 20)
    better = compare(before, judged([True] * 190 + [False] * 10, p50=0.5), name="runs/a")
    assert better.reason.startswith("better than runs/a: top-1 90.00% -> 95.00% on 200 validation pictures (+5.00")
    assert "p50 1 -> 0.5 ms (2.00x)" in better.reason
    assert better.change == change(before.answers, judged([True] * 190 + [False] * 10).answers)
    worse = compare(before, judged([True] * 170 + [False] * 30), name="runs/a")
    assert worse.reason.startswith("worse than runs/a, which stays the better model: top-1 90.00% -> 85.00%")
    for right in ([True] * 182 + [False] * 18, [True] * 180 + [False] * 20, [True] * 178 + [False] * 22):
        assert compare(before, judged(right), name="x").reason.startswith("no different from x beyond chance: ")
    doubted = compare(before, judged([True] * 170 + [False] * 30), name="runs/a", doubtful=True).reason
    assert doubted.startswith("worse than runs/a: top-1 90.00% -> 85.00%")
    assert doubted.endswith(" MB; some of these pictures may be ones it was trained on")
    mixed = compare(before, judged([False] * 20 + [True] * 180), name="x")
    assert (mixed.change.value, mixed.change.low < 0 < mixed.change.high) == (0.0, True), "as many lost as won"


def test_the_best_is_the_most_accurate_and_among_equals_the_lightest():
    top = judged([True] * 190 + [False] * 10, p50=2.0)
    assert best([top, judged([True] * 180 + [False] * 20, p50=0.1)]) is top, "ten of 200 is beyond chance"
    light = judged([True] * 189 + [False] * 11, p50=1.0)
    assert best([top, light]) is light, "one of 200 is one standard error"
    small = replace(judged([True] * 190 + [False] * 10, p50=1.5), size_bytes=5)
    assert best([top, light, small]) is small, "time times bytes"
    assert best([top, judged([True] * 189 + [False] * 11, p50=1.95)]) is top, "no lighter to speak of"
    mixed = judged([False] * 4 + [True] * 188 + [False] * 8, p50=1.0)
    assert best([top, mixed]) is mixed, "two of the six that only one has right"
    assert best([top, judged([False] * 4 + [True] * 186 + [False] * 10, p50=1.0)]) is top, "four of four"
    assert best([mixed]) is mixed


def test_a_change_has_the_interval_of_paired_answers():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 400)
    first = rng.normal(size=(400, 4)).astype(np.float32)
    second = first + rng.normal(size=(400, 4)).astype(np.float32) / 10
    each = [(logits.argmax(1) == targets).astype(float) for logits in (first, second)]
    found = change(Answers(first, targets), Answers(second, targets))
    assert found.value == pytest.approx((each[1] - each[0]).mean())
    assert found.n == 400
    tags = rng.random((400, 4)) < 0.3
    same = change(Answers(first, tags), Answers(first, tags))
    assert same == Interval(value=0.0, low=0.0, high=0.0, n=400)
    moved = change(Answers(first, tags), Answers(second, tags))
    assert moved.low < moved.value < moved.high


@pytest.mark.parametrize(("won", "lost", "of", "value", "low", "high", "word"), [
    # By hand: (11 - 3) / 50 = 0.16, and 1.959964 * sqrt((14 / 50 - 0.16 ** 2) / 50) = 0.139805.
    (10, 2, 48, 8 / 48, 0.020195, 0.299805, "better"),
    (2, 10, 48, -8 / 48, -0.299805, -0.020195, "worse"),
    (4, 0, 200, 0.02, -0.003807, 0.043411, "no different"),
    (0, 0, 10_000, 0.0, -0.000277, 0.000277, "no different"),
    (2, 0, 4, 0.5, -0.263065, 0.929731, "no different"),
    (1, 0, 1, 1.0, -0.733536, 1.0, "no different"),
])  # fmt: skip
def test_a_few_that_differ_are_no_proof(
    won: int, lost: int, of: int, value: float, low: float, high: float, word: str
) -> None:
    """The interval of Bonett and Price 2012, and the word that it gives."""
    both = (of - won - lost) * [True]
    found = change(
        judged([False] * won + [True] * lost + both).answers, judged([True] * won + [False] * lost + both).answers
    )
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=1e-5)
    assert told_apart(found) == word
