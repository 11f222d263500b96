"""The ladder on small networks: what is kept is faster and answers as well, what is not is refused with its numbers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kept_word import broken
from PIL import Image
from striped import LABELS, Weights, neighbours, solved, stripes, write_solved, write_stripes
from untimed import untimed

from netsmith.arch.layout import Layout
from netsmith.artifact.bundle import Bundle, Preferred, artifact_hash, load_bundle, write_preferred
from netsmith.artifact.comparison import compare, own_contenders
from netsmith.artifact.latency import ThreadChoice
from netsmith.artifact.predictions import Predictions
from netsmith.artifact.runtimes import REFERENCE, RUNTIMES, open_session
from netsmith.artifact.verify import as_document, verify
from netsmith.data.items import Dataset, Item
from netsmith.data.prepare import Pixels
from netsmith.errors import CheckError, InputError
from netsmith.fit import finish, quantizing, rounding, stage
from netsmith.fit.calibration import calibration_pictures
from netsmith.fit.quantizing import QuantizeJob, quantize_run
from netsmith.fit.session import Session
from netsmith.run.budget import Budget
from netsmith.run.clock import FakeClock
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.machine import machine
from netsmith.run.result import Result
from netsmith.run.scores import thresholds_for

NETWORK = "resnet20_cifar@1.0,depth=0.34"
OTHER = Preferred(runtime=REFERENCE if RUNTIMES["openvino"].obstacle() else "openvino")
"""Than int8 is made for, where there is another one here."""
needs_openvino = pytest.mark.skipif(
    RUNTIMES["openvino"].obstacle() is not None, reason=f"openvino {RUNTIMES['openvino'].obstacle()}"
)
needs_bfloat16 = pytest.mark.skipif(
    RUNTIMES["openvino-bf16"].obstacle() is not None, reason=f"openvino-bf16 {RUNTIMES['openvino-bf16'].obstacle()}"
)
APART = 1e5
"""Between the ranges of two channels of one map: no step is right for both."""


def far_apart(layout: Layout, weights: Weights) -> None:
    """One channel between two layers becomes huge, and what reads it as much smaller: the function stays."""
    _, norm, second = neighbours(layout)
    for entry in ("weight", "bias"):
        weights[f"{norm}.{entry}"][0] *= APART
    weights[f"{second}.weight"][:, 0] /= APART


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`stripes.npz`, and models `good`, `apart` and `small`, whose activations have no kernels of integers."""
    root = tmp_path_factory.mktemp("quantizing")
    write_stripes(root / "stripes.npz")
    write_solved(root / "good", *solved(NETWORK))
    write_solved(root / "apart", *solved(NETWORK, far_apart))
    write_solved(root / "small", *solved("mobilenet_v3_small@0.1"))
    return root


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """int8 counts as twice as fast, and nothing is timed: these tests are about accuracy."""
    untimed(monkeypatch)


def quantized(ground: Path, model: str, out: Path, **asked: Any) -> Result:
    return quantize_run(QuantizeJob(source=ground / model, measure_s=0.2, pictures=64, **asked), typed(ground, out))


def typed(ground: Path, out: Path, say: Any = None) -> Session:
    more = {} if say is None else {"say": say}
    return Session(data=str(ground / "stripes.npz"), output=out, command=["quantize", "model", "-o", str(out)], **more)


def rows(folder: Path, name: str) -> list[Any]:
    return [row for row in Ledger(folder / "ledger.jsonl", clock=FakeClock()).rows if row.stage == name]


@pytest.mark.usefixtures("quick")
def test_where_the_first_rungs_collapse_the_ladder_goes_on_to_one_that_holds(ground, tmp_path):
    """Also when it is stopped between two of them."""
    write_preferred(load_bundle(ground / "apart"), OTHER)
    before = artifact_hash(ground / "apart")
    told: list[str] = []

    def stop(text: str) -> None:
        told.append(text)
        if text.startswith("rung: per tensor, "):
            raise KeyboardInterrupt

    job = QuantizeJob(source=ground / "apart", measure_s=0.2, pictures=64, max_drop=5.0)
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        quantize_run(job, typed(ground, tmp_path / "out", stop))
    assert len(rows(tmp_path / "out", "rung")) == 3
    assert not (tmp_path / "out" / "model").exists()
    half_removed = tmp_path / "out" / "candidates" / "int8"
    half_removed.mkdir(parents=True)
    (half_removed / "model.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"was begun with --max-drop 5\.0, not 1\.0"):
        quantize_run(replace(job, resume=True, max_drop=1.0), typed(ground, tmp_path / "out"))
    result = quantize_run(replace(job, resume=True), typed(ground, tmp_path / "out"))

    tried = rows(tmp_path / "out", "rung")
    names = [row.reason.split(":")[0] for row in tried]
    assert names[:3] == [f"per channel, {method}" for method in ("minmax", "entropy", "percentile")]
    assert names[3].startswith("per tensor, ")
    assert [row.verdict for row in tried] == ["refused"] * (len(tried) - 1) + ["kept"]
    assert any(f"prefers {OTHER.runtime} and is timed in it" in text for text in told) == (OTHER.runtime != REFERENCE)
    assert {(row.before["runtime"], row.after["runtime"]) for row in tried} == {(OTHER.runtime, REFERENCE)}
    assert all(row.before["threads"] == row.after["threads"] for row in tried), "nothing wins by its threads"
    assert all(row.after["top1"]["value"] < 0.7 for row in tried[:4]), "every rung that rounds that map collapses"
    assert tried[-1].before["top1"]["value"] > 0.8
    first, _, second = neighbours(load_bundle(ground / "apart").layout)
    assert {first, second} <= {*tried[-1].after["excluded"]}, "both layers that the map is between"
    (outcome,) = rows(tmp_path / "out", "quantize")
    assert (outcome.verdict, outcome.output) == ("kept", result.artifact)
    assert {row.after["max_drop"] for row in [*tried, outcome]} == {5.0}

    config = load_bundle(tmp_path / "out").config
    assert (config.format, config.precision) == (3, "int8")
    assert config.quantization is not None
    assert config.quantization.rung == names[-1]
    assert {*config.quantization.excluded} == {*tried[-1].after["excluded"]}
    assert config.quantization.source == load_bundle(ground / "apart").config.files["model.onnx"]
    assert config.files["model.safetensors"] == load_bundle(ground / "apart").config.files["model.safetensors"]
    assert artifact_hash(ground / "apart") == before
    found = verify(tmp_path / "out", seconds=0.2)
    assert not broken(as_document(found))
    assert "golden probabilities" in {check.name for check in found.checks}
    assert result.final.precision == "int8"
    assert result.final.size_bytes < 0.6 * load_bundle(ground / "apart").size_bytes


@pytest.mark.usefixtures("quick")
def test_layers_in_float_that_break_a_limit_are_not_what_is_kept(ground, tmp_path):
    """Though they answer well; what is equalized is as small as what is rounded whole."""
    rounded = load_bundle(ground / "apart").size_bytes * 3 // 10
    result = quantized(
        ground, "apart", tmp_path / "out", max_drop=5.0, calibration="minmax", budget=Budget(size_bytes=rounded)
    )
    *_, one, in_float, equalized = rows(tmp_path / "out", "rung")
    assert (one.after["rung"]["excluded"], one.after["over"]) == (1, False)
    assert (in_float.verdict, in_float.after["over"]) == ("refused", True)
    assert "it misses size" in in_float.reason
    assert (equalized.verdict, equalized.after["rung"]["excluded"]) == ("kept", 0)
    assert equalized.after["pairs"] == 6
    assert equalized.reason.endswith("; 6 pairs of layers equalized")
    assert result.final.size_bytes <= rounded


def test_where_int8_is_slower_the_float_model_stays(ground, tmp_path, monkeypatch):
    """Measured, not pretended: its activations go back and forth between integers and floats."""
    monkeypatch.setattr(quantizing, "INT8_IN", (REFERENCE,))
    with pytest.raises(CheckError) as told:
        quantized(ground, "small", tmp_path / "out", max_drop=100.0, precision="int8")
    assert "quantize is refused, none of 2 rungs will do; the nearest, per" in str(told.value)
    assert "it is not faster: top-1" in str(told.value)
    run = RunFolder(tmp_path / "out")
    assert not run.model.exists()
    assert not run.finished
    tried = rows(run.path, "rung")
    assert [row.after["slow"] for row in tried] == [True, True]
    assert all(row.after["latency_ms"]["p50"] > row.before["latency_ms"]["p50"] for row in tried)
    (outcome,) = rows(run.path, "quantize")
    assert outcome.verdict == "refused"
    assert outcome.after in [row.after for row in tried]
    with pytest.raises(CheckError, match="quantize is refused"):  # asked again: nothing is measured anew
        quantized(ground, "small", tmp_path / "out", max_drop=100.0, precision="int8", resume=True)
    assert len(rows(run.path, "rung")) == 2


@pytest.fixture(scope="module")
def served(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, list[str]]:
    """A run whose int8 was faster in OpenVINO, and what it said."""
    out, told = tmp_path_factory.mktemp("served") / "out", list[str]()
    job = QuantizeJob(source=ground / "good", measure_s=0.2, pictures=64, max_drop=5.0)
    with pytest.MonkeyPatch.context() as patch:
        untimed(patch, quick={"openvino": 1.5})
        quantize_run(job, typed(ground, out, told.append))
    return RunFolder(out), told


@needs_openvino
def test_int8_prefers_the_runtime_in_which_it_is_faster_and_keeps_its_word_in_both(served, tmp_path):
    """Each runtime is held against its own answers: they are further apart than rounding explains."""
    run, told = served
    result = Result.load(run.results)
    (rung,) = rows(run.path, "rung")
    (elsewhere,) = rung.after["elsewhere"]
    assert (rung.before["runtime"], rung.after["runtime"], elsewhere["runtime"]) == (REFERENCE, "openvino", REFERENCE)
    assert (rung.after["latency_ms"]["p50"], elsewhere["latency_ms"]["p50"]) == (pytest.approx(2 / 3), 1.0)
    assert f"{Preferred(threads=2)} -> {Preferred(runtime='openvino', threads=2)}" in rung.reason
    assert rung.reason.endswith(
        f"; in {Preferred(threads=2)} top-1 {elsewhere['top1']['value']:.2%}, p50 1 ms, p90 1 ms"
    )
    assert not any("is judged without" in text for text in told)
    bundle = load_bundle(run.path)
    assert (result.final.runtime, bundle.config.preferred.runtime) == ("openvino", "openvino")
    assert not run.candidates.exists()
    golden = bundle.golden()
    assert [*golden.others] == ["openvino"]
    for name in (REFERENCE, "openvino"):
        expected = open_session(bundle, runtime=name).run(golden.pixels).probabilities
        np.testing.assert_allclose(golden.of(name), expected, atol=1e-6)
    predictions = Predictions.load(run.predictions("test"))
    assert predictions.runtime == "openvino"
    found = verify(run.path, seconds=0.2, runtime=REFERENCE)  # in its own a fresh process did so before it was shipped
    assert not broken(as_document(found))
    assert {"golden probabilities", "logits test", "top1 test from the data"} <= {each.name for each in found.checks}

    run = RunFolder(shutil.copytree(run.path, tmp_path / "out"))
    replace(predictions, logits=1.1 * predictions.logits).save(run.predictions("test"))
    assert broken(as_document(verify(run.path, seconds=0.2))) == ["logits test"], "of one runtime they are the same"
    assert not broken(as_document(verify(run.path, seconds=0.2, runtime=REFERENCE))), (
        "of two they may be this far apart"
    )
    replace(predictions, logits=1.1 * predictions.logits, runtime=REFERENCE).save(run.predictions("test"))
    found = broken(as_document(verify(run.path, seconds=0.2)))
    assert f"logits test in {REFERENCE}" in found, "which runs here, so it is asked"
    assert "logits test" not in found
    replace(predictions, logits=np.roll(predictions.logits, 1, axis=1)).save(run.predictions("test"))
    assert "logits test" in broken(as_document(verify(run.path, seconds=0.2, runtime=REFERENCE)))


@needs_openvino
@pytest.mark.slow
def test_bench_holds_a_runtime_against_what_was_judged_in_it(served, tmp_path):
    """Measured: whichever is faster here, both are the model's answers; what was never judged may not be."""
    bundle = load_bundle(shutil.copytree(served[0].model, tmp_path / "model"))
    found = compare(bundle, own_contenders(bundle)[:2], threads=[1], batches=[1], seconds=0.2, visits=1)
    assert [(each.runtime, each.against, found.agrees(each)) for each in found.entries] == [
        (REFERENCE, REFERENCE, True), ("openvino", "openvino", True),
    ]  # fmt: skip
    golden = bundle.golden()
    wrong = replace(golden, others={"openvino": golden.probabilities[::-1]})
    (bundle.folder / "golden.npz").write_bytes(wrong.to_bytes())
    _, entry = compare(bundle, own_contenders(bundle)[:2], threads=[1], batches=[1], seconds=0.2, visits=1).entries
    assert not found.agrees(entry)


@needs_bfloat16
def test_where_no_int8_will_do_bfloat16_is_held_to_the_same(ground, tmp_path, monkeypatch):
    """And int8 that is asked for by name is int8 or nothing."""
    untimed(monkeypatch, int8=0.5, quick={"openvino-bf16": 2.0})
    result = quantized(ground, "good", tmp_path / "out", max_drop=5.0)
    tried = [(row.reason.split(":")[0], row.verdict) for row in rows(tmp_path / "out", "rung")]
    assert tried == [
        ("per channel, minmax", "refused"), ("per tensor, minmax", "refused"), ("bfloat16 in OpenVINO", "kept"),
    ]  # fmt: skip
    assert (result.final.precision, result.final.runtime) == ("bfloat16", "openvino-bf16")
    assert result.final.size_bytes < 0.55 * load_bundle(ground / "good").size_bytes
    assert not broken(as_document(verify(tmp_path / "out", seconds=0.2, runtime=REFERENCE)))
    with pytest.raises(CheckError, match="none of 2 rungs will do"):
        quantized(ground, "good", tmp_path / "int8", max_drop=5.0, precision="int8")

    absent = replace(RUNTIMES["openvino-bf16"], package="a_package_that_nobody_has")
    monkeypatch.setitem(RUNTIMES, "openvino-bf16", absent)
    with pytest.raises(CheckError, match="bfloat16 in OpenVINO was not tried: openvino-bf16 is not installed"):
        quantized(ground, "good", tmp_path / "without", max_drop=5.0)


@needs_bfloat16
@pytest.mark.parametrize(("speed", "runtime"), [(2.0, "openvino-bf16"), (0.5, REFERENCE)])
def test_weights_in_bfloat16_are_computed_with_as_they_are_where_that_is_faster(
    ground, tmp_path, monkeypatch, speed, runtime
):
    made: list[Bundle] = []
    monkeypatch.setattr(stage.Stage, "ship", lambda self, bundle: made.append(bundle))
    untimed(monkeypatch, quick={"openvino-bf16": speed})
    quantized(ground, "good", tmp_path / "out", precision="bfloat16", max_drop=5.0)
    assert (made[0].config.precision, made[0].config.preferred.runtime) == ("bfloat16", runtime)
    assert [*made[0].golden().others] == [runtime][: runtime != REFERENCE]
    (row,) = rows(tmp_path / "out", "quantize")
    judged = [row.before, row.after, *row.after["elsewhere"]]
    assert [each["runtime"] for each in judged[1:]] == [runtime, *({REFERENCE, "openvino-bf16"} - {runtime})]
    assert {each["threads"] for each in judged} == {2}, "nothing wins by its threads"


@pytest.mark.usefixtures("quick")
def test_weights_in_sixteen_bits_keep_the_answers(ground, tmp_path, monkeypatch):
    made: list[Bundle] = []
    monkeypatch.setattr(stage.Stage, "ship", lambda self, bundle: made.append(bundle))  # how a run ends is seen above
    write_preferred(load_bundle(shutil.copytree(ground / "good", tmp_path / "other")), OTHER)
    quantized(ground, str(tmp_path / "other"), tmp_path / "out", precision="float16")
    config = made[0].config
    assert config.preferred == OTHER
    assert (config.format, config.precision, config.quantization) == (1, "float16", None)
    assert made[0].size_bytes < 0.55 * load_bundle(ground / "good").size_bytes
    (row,) = rows(tmp_path / "out", "quantize")
    assert row.after["top1"] == row.before["top1"]
    assert row.after["max_drop"] == 0.5
    assert not rows(tmp_path / "out", "rung")


def test_weights_that_float16_cannot_hold_are_told_before_there_is_a_folder(ground, tmp_path):
    layout, weights = solved(NETWORK, far_apart)
    _, _, second = neighbours(layout)
    weights[f"{second}.weight"] *= 1e9
    write_solved(tmp_path / "huge", layout, weights)
    job = QuantizeJob(source=tmp_path / "huge", precision="float16")
    with pytest.raises(InputError, match="use --precision bfloat16"):
        quantize_run(job, typed(ground, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("quick")
def test_tags_are_given_from_thresholds_of_the_rounded_answers(ground, tmp_path, monkeypatch):
    """Not from those of the float model, whose probabilities are others."""
    made: list[Bundle] = []
    monkeypatch.setattr(stage.Stage, "ship", lambda self, bundle: made.append(bundle))
    pixels, labels = stripes(60, seed=4)
    rows = ["image_path,labels,split"]
    for at, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        Image.fromarray(picture).save(tmp_path / f"{at}.png")
        rows.append(f"{at}.png,{LABELS[label]};{LABELS[label - 1]},{('train', 'val', 'test')[at // 20]}")
    (tmp_path / "tags.csv").write_text("\n".join(rows) + "\n")
    whole = write_solved(tmp_path / "model", *solved(NETWORK), thresholds=(0.0, 0.1, 0.9, 1.0))
    session = Session(data=str(tmp_path / "tags.csv"), output=tmp_path / "out", command=["quantize"])
    quantize_run(QuantizeJob(source=tmp_path / "model", pictures=20, max_drop=100.0), session)
    one = np.eye(len(LABELS), dtype=bool)[labels[20:40]]
    targets = one | np.roll(one, -1, axis=1)
    rounded, before = (open_session(each).run(pixels[20:40]).logits for each in (made[0], whole))
    assert made[0].config.thresholds == thresholds_for(rounded, targets) != thresholds_for(before, targets)


@needs_openvino
def test_a_runtime_that_fails_is_left_out_and_the_rest_goes_on(ground, tmp_path, monkeypatch):
    """Here as one that is installed and does not load."""
    made: list[Bundle] = []
    monkeypatch.setattr(stage.Stage, "ship", lambda self, bundle: made.append(bundle))
    untimed(monkeypatch, quick={})

    def best(model: bytes, *, runtime: str, **asked: Any) -> ThreadChoice:
        if runtime != REFERENCE:
            raise RuntimeError("it failed with exit code 1:\nTraceback:\nImportError: libopenvino.so: no such file")
        return ThreadChoice(threads=2, measurements=())

    monkeypatch.setattr(finish, "preferred_threads", best)
    told: list[str] = []
    session = replace(typed(ground, tmp_path / "out"), warn=told.append)
    quantize_run(QuantizeJob(source=ground / "good", measure_s=0.2, pictures=64, max_drop=5.0), session)
    assert made[0].config.preferred.runtime == REFERENCE
    (rung,) = rows(tmp_path / "out", "rung")
    assert (rung.verdict, rung.after["elsewhere"]) == ("kept", [])
    assert rung.after["without"] == {"openvino": "ImportError: libopenvino.so: no such file"}
    assert "int8 is judged without openvino: ImportError: libopenvino.so: no such file" in told


@pytest.mark.usefixtures("quick")
def test_a_ladder_of_before_goes_on_with_int8_as_it_was_typed(ground, tmp_path, monkeypatch):
    """Once a plain `quantize` asked for int8; now it may also end in bfloat16."""
    monkeypatch.setattr(stage.Stage, "ship", lambda self, bundle: None)
    told: list[str] = []

    def stop(text: str) -> None:
        if text.startswith("rung: "):
            raise KeyboardInterrupt

    job = QuantizeJob(source=ground / "good", measure_s=0.2, pictures=64, max_drop=5.0, precision="int8")
    with pytest.raises(KeyboardInterrupt):
        quantize_run(job, typed(ground, tmp_path / "out", stop))
    with pytest.raises(InputError, match=r"was begun with --precision int8, not bfloat16"):
        quantize_run(replace(job, resume=True, precision="bfloat16"), typed(ground, tmp_path / "out"))
    with pytest.raises(InputError, match=r"was begun with no --calibration, not entropy"):
        quantize_run(replace(job, resume=True, calibration="entropy"), typed(ground, tmp_path / "out"))
    quantize_run(replace(job, resume=True, precision=None), typed(ground, tmp_path / "out", told.append))
    assert f"{tmp_path / 'out'} was begun with --precision int8, and goes on so: int8 or nothing" in told
    assert [row.verdict for row in rows(tmp_path / "out", "rung")] == ["kept"]


class _NoReader:
    def read(self, name: str) -> bytes | Pixels:
        raise AssertionError("nothing is read")


def test_calibration_takes_training_pictures_of_all_classes_alike():
    rng = np.random.default_rng(0)
    items = [
        Item(f"{i:064x}", tuple(sorted({*rng.integers(0, 3, rng.integers(0, 3)).tolist()})), split, str(i), "", 8, 8)
        for i, split in enumerate(["train"] * 60 + ["val"] * 20 + ["test"] * 20)
    ]
    tags = Dataset(("a", "b", "c"), tuple(items), "made", _NoReader(), task="tag")
    chosen = calibration_pictures(tags, 16, seed=0)
    assert len({item.key for item in chosen}) == len(chosen) == 16
    assert {item.split for item in chosen} == {"train"}
    assert all(sum(label in item.labels for item in chosen) >= 4 for label in range(3))
    assert any(not item.labels for item in chosen)
    assert calibration_pictures(tags, 16, seed=1) != chosen
    assert len(calibration_pictures(tags, 1000, seed=0)) == 60
    single = replace(tags, task="classify", items=tuple(replace(item, labels=(n % 3,)) for n, item in enumerate(items)))
    assert [item.label for item in calibration_pictures(single, 9, seed=0)] == [0, 1, 2] * 3


def test_the_ground_is_what_it_is_meant_to_be(ground):
    """The spoilt network computes what the good one does, so that only rounding can tell them apart."""
    pixels, labels = stripes(80, seed=3)
    answers = [open_session(load_bundle(ground / name)).run(pixels).logits for name in ("good", "apart")]
    np.testing.assert_allclose(answers[0], answers[1], atol=0.05)
    assert (answers[1].argmax(1) == labels).mean() > 0.8
    assert json.loads((ground / "good" / "config.json").read_text())["labels"] == list(LABELS)


@pytest.mark.usefixtures("quick")
def test_no_more_threads_than_this_machine_has(ground, tmp_path, monkeypatch):
    """Whatever the model prefers, which may be of another machine; and it is said."""
    many = shutil.copytree(ground / "good", tmp_path / "many")
    write_preferred(load_bundle(many), Preferred(threads=1000))
    used: list[int] = []

    def looked(*arguments: Any, threads: int, **more: Any) -> Any:
        used.append(threads)
        raise KeyboardInterrupt

    monkeypatch.setattr(rounding, "observe", looked)
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        quantize_run(QuantizeJob(source=many), replace(typed(ground, tmp_path / "out"), warn=told.append))
    assert used == [machine().cores_usable]
    assert f"{many} prefers 1000 threads, this machine gives {machine().cores_usable}" in told
