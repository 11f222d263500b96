"""What a training makes of the model that it goes on with: said in the ledger, the report and aloud, and kept."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from striped import LABELS, PREPROCESS, SIDE, stripes, write_stripes
from untimed import untimed

from netsmith.arch.names import find_layout
from netsmith.artifact.bundle import artifact_hash
from netsmith.artifact.verify import Check, Verification
from netsmith.cli.main import run
from netsmith.export.network import export_network
from netsmith.fit import finish, stage
from netsmith.fit.finish import ATTEMPTS, Finisher
from netsmith.fit.single import LEFT_ALONE, AtWork
from netsmith.fit.trained import row_of as of_artifact
from netsmith.models.build import build
from netsmith.run.budget import format_duration
from netsmith.run.clock import FakeClock
from netsmith.run.ledger import Ledger, LedgerRow
from netsmith.run.machine import machine
from netsmith.run.result import Result
from netsmith.train import loop, precision

FORM = {
    *("artifact", "model", "precision", "runtime", "threads", "params", "macs"),
    *("size_bytes", "memory_bytes", "latency_ms", "top1"),
}


@pytest.fixture(autouse=True, scope="module")
def unmeasured() -> object:
    """Nothing is timed, and every verification holds."""
    with pytest.MonkeyPatch.context() as patch:
        untimed(patch)
        patch.setattr(finish, "measure", stage.measure)
        patch.setattr(finish, "verify_fresh", lambda path, **_: Verification(str(path), ()))
        yield


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`stripes.npz`; `untrained`, a model of them; `others.npz`."""
    root = tmp_path_factory.mktemp("trained")
    write_stripes(root / "stripes.npz", train=80, test=20)
    pixels, labels = stripes(80, seed=3)
    np.savez(root / "others.npz", images=pixels, labels=np.array([*LABELS[:3], "zigzag"])[labels])
    network = build(find_layout("resnet8_cifar@0.5", num_classes=len(LABELS), img_size=SIDE))
    export_network(network.eval(), root / "untrained", labels=LABELS, preprocess=PREPROCESS)
    return root


@pytest.fixture(scope="module")
def better(ground: Path) -> Path:
    """A run that went on with `untrained`, killed when it was judged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Finisher, "complete", interrupted)
        assert trained(ground, ground / "better", "untrained", "--epochs", "10") == 130
    return ground / "better"


def trained(ground: Path, out: Path, parent: str, *flags: str, data: str = "stripes.npz", lr: str = "0.05") -> int:
    asked = ["-b", "40", "--threads", "1", "--no-amp", "--lr", lr, "--from", str(ground / parent)]
    return run(["train", str(ground / data), *asked, *flags, "-o", str(out)])


def row_of(out: Path) -> LedgerRow:
    [row] = [row for row in Ledger(out / "ledger.jsonl", clock=FakeClock()).own if row.stage == "train"]
    return row


def test_a_better_one_says_so_everywhere_and_a_killed_run_does_not_judge_again(ground, better, capsys, monkeypatch):
    before = artifact_hash(ground / "untrained")
    monkeypatch.setattr(stage, "measure_many", interrupted)
    assert trained(ground, better, "untrained", "--epochs", "10", "--resume") == 0
    row, result = row_of(better), Result.load(better / "results.json")
    assert row.reason.endswith("; some of these pictures may be ones it was trained on"), "it does not say on which"
    assert row.after["doubtful"]
    assert row.reason.startswith(f"better than {ground / 'untrained'}: top-1 ")
    assert f"train: {row.reason}" in capsys.readouterr().err.splitlines()
    assert (row.verdict, row.inputs, row.output) == ("done", [before], result.artifact)
    assert row.before.keys() == FORM
    assert row.after.keys() == FORM | {"id", "steps", "epochs", "seconds", "change", "doubtful"}
    assert row.after["top1"] == result.final.top1.model_dump()["val"]
    moved = row.after["top1"]["value"] - row.before["top1"]["value"]
    assert row.after["change"]["value"] == pytest.approx(moved)
    page = (better / "report.html").read_text()
    assert "went on with it is <strong>better</strong>" in page
    assert "Some of these pictures may be ones that it was trained on." in page
    assert artifact_hash(ground / "untrained") == before


@pytest.mark.parametrize(
    ("epochs", "lr", "said", "shown"),
    [
        ("1", "1e-6", "train: no different from {} beyond chance: top-1 ", "no different"),
        ("3", "5", "warning: train: worse than {}: top-1 ", "worse"),
    ],
)
def test_one_that_is_not_better_is_kept_and_says_so(ground, better, tmp_path, capsys, epochs, lr, said, shown):
    capsys.readouterr()
    assert trained(ground, tmp_path / "out", "better/model", "--epochs", epochs, lr=lr) == 0
    assert any(line.startswith(said.format(better / "model")) for line in capsys.readouterr().err.splitlines())
    assert f"went on with it is <strong>{shown}</strong>" in (tmp_path / "out" / "report.html").read_text()
    assert Result.load(tmp_path / "out" / "results.json").artifact == row_of(tmp_path / "out").output


def test_a_classifier_for_other_classes_is_told_and_nothing_stands_before(ground, tmp_path, capsys):
    out, parent = tmp_path / "others", ground / "untrained"
    assert trained(ground, out, "untrained", "--epochs", "1", data="others.npz") == 0
    said = capsys.readouterr()
    kept = ", ".join(LABELS[:3])
    note = f"{parent} has other classes: its classifier keeps what it knows of {kept}, is new for zigzag, loses up"
    assert f"note: {note}" in said.err.splitlines()
    assert note in (out / "report.html").read_text()
    assert "memory  " in said.out
    row, final = row_of(out), Result.load(out / "results.json").final
    assert row.reason.endswith(f"nothing stands before it: it began with {parent}, which has other classes")
    assert (row.before, row.inputs) == ({}, [])
    assert row.after.keys() == FORM | {"id", "steps", "epochs", "seconds"}
    assert f" epochs in {format_duration(row.after['seconds'])}, top-1 " in said.err, "as training said"
    assert row.after["memory_bytes"] == final.memory_bytes == 10**7
    assert row.after["latency_ms"] == final.latency_ms.model_dump()
    stages = [each.stage for each in Ledger(out / "ledger.jsonl", clock=FakeClock()).own]
    assert stages.index("train") < stages.index("test"), "measured before the test pictures are read"


def test_a_model_that_is_gone_in_the_end_does_not_take_the_training_with_it(ground, tmp_path, capsys, monkeypatch):
    gone, made = tmp_path / "gone", Finisher.make
    shutil.copytree(ground / "untrained", gone)

    def moved(*of: Any, **more: Any) -> Any:
        gone.rename(tmp_path / "elsewhere")
        return made(*of, **more)

    monkeypatch.setattr(Finisher, "make", moved)
    assert trained(ground, tmp_path / "out", str(gone), "--epochs", "1") == 0
    row = row_of(tmp_path / "out")
    alone = f"{gone} could not be judged beside it: "
    assert f"nothing stands before it: {alone}" in row.reason
    assert any(line.startswith(f"warning: {alone}") for line in capsys.readouterr().err.splitlines())
    assert (row.before, row.output) == ({}, Result.load(tmp_path / "out" / "results.json").artifact)


LOST = RuntimeError("measuring 2 models failed with exit code 1:\nTraceback (most recent call last):\nOSError: lost")


@pytest.mark.parametrize(
    ("ends", "alone"),
    [([None], None), ([None, None], "was not measured in time"), ([LOST], "be judged beside it: OSError: lost")],
)
def test_trouble_that_passes_does_not_take_the_verdict_and_no_trouble_the_training(
    ground, tmp_path, capsys, monkeypatch, ends, alone
):
    """Of measurements that end so, or for None not in time."""
    timed, left = stage.measure_many, list(ends)

    def troubled(models: Any, **asked: Any) -> Any:
        if not left:
            return timed(models, **asked)
        if end := left.pop(0):
            raise end
        return [None for _ in models]

    monkeypatch.setattr(stage, "measure_many", troubled)
    assert trained(ground, tmp_path / "out", "untrained", "--epochs", "1") == 0
    row, said = row_of(tmp_path / "out"), capsys.readouterr().err
    assert not left
    assert ("was not measured in time; it is tried once more" in said) == (None in ends)
    assert "--resume" not in row.reason + said, "nobody can go on with what is finished"
    if alone is None:
        assert row.inputs == [artifact_hash(ground / "untrained")]
    else:
        assert row.before == {}
        assert row.reason.endswith(alone)


def test_a_run_with_its_classes_in_another_order_than_the_model_is_not_held_against_it(ground, tmp_path):
    """As runs were begun before classes took the model's order: its logits are of other classes than the targets."""
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AtWork, "train", interrupted)
        assert trained(ground, out, "untrained", "--epochs", "1") == 130
    record = json.loads((out / "data.json").read_text())
    record["classes"].reverse()
    for item in record["items"].values():
        item["label"] = len(LABELS) - 1 - item["label"]
    (out / "data.json").write_text(json.dumps(record))
    assert trained(ground, out, "untrained", "--epochs", "1", "--resume") == 0
    row = row_of(out)
    assert row.before == {}
    assert row.reason.endswith(f"it began with {ground / 'untrained'}, whose classes are in another order")


def test_a_latency_that_does_not_hold_is_measured_again_only_where_it_is_verified_again(ground, tmp_path, monkeypatch):
    measure, measured = finish.measure, list[Path]()

    def counted(folder: Path, **asked: Any) -> Any:
        measured.append(folder)
        return measure(folder, **asked)

    late = Check("latency p50", 1.0, 2.0, False)
    monkeypatch.setattr(finish, "measure", counted)
    monkeypatch.setattr(finish, "verify_fresh", lambda path, **_: Verification(str(path), (late,)))
    assert trained(ground, tmp_path / "out", "untrained", "--epochs", "1") == 1
    assert len(measured) == ATTEMPTS


def test_a_rounded_model_is_gone_on_with_by_its_float_weights_and_not_compared(ground, tmp_path):
    rounded = tmp_path / "rounded"
    shutil.copytree(ground / "untrained", rounded)
    config = json.loads((rounded / "config.json").read_text())
    config |= {"precision": "bfloat16", "preferred": {"runtime": "openvino-bf16", "threads": 1}}
    (rounded / "config.json").write_text(json.dumps(config))
    assert trained(ground, tmp_path / "out", str(rounded), "--epochs", "1") == 0
    row = row_of(tmp_path / "out")
    assert f"it began with {rounded}, whose graph is rounded to bfloat16, by its float weights" in row.reason
    assert (row.before, row.after["runtime"]) == ({}, "onnxruntime")


def test_a_row_counts_for_the_artifact_that_it_is_of(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", clock=FakeClock())
    assert of_artifact(ledger, "0" * 64) is None
    row = ledger.add("train", verdict="done", reason="before a kill", output="0" * 64)
    assert (of_artifact(ledger, "0" * 64), of_artifact(ledger, "1" * 64)) == (row, None)
    ledger.add("train", verdict="done", reason="its outcome is to be judged in another row")
    assert of_artifact(ledger, "0" * 64) is None


@pytest.mark.parametrize(
    ("flags", "length", "more", "said"),
    [
        (["avx512_bf16"], ["--epochs", "1"], [], True),
        (["avx512_bf16"], ["--epochs", "1"], ["-q"], False),
        (["avx512_bf16"], ["--epochs", "1"], ["--no-amp"], False),
        (["avx512_bf16"], ["--time", "9s"], [], False),
        (["avx2"], ["--epochs", "1"], [], False),
    ],
)
def test_bfloat16_that_a_fixed_length_leaves_alone_is_said(
    ground, tmp_path, capsys, monkeypatch, flags, length, more, said
):
    here = machine().model_copy(update={"flags": flags})
    monkeypatch.setattr(precision, "machine", lambda: here)
    monkeypatch.setattr(loop, "train", interrupted)
    asked = ["--model", "resnet8_cifar@0.5", "-b", "40", "--threads", "1", *length, *more]
    assert run(["train", str(ground / "stripes.npz"), *asked, "-o", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.splitlines().count(LEFT_ALONE) == said


def test_a_run_keeps_its_epochs_and_says_how_to_train_for_more(ground, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop, "train", interrupted)
    out = tmp_path / "out"
    assert trained(ground, out, "untrained", "--epochs", "1") == 130
    for flags, given in ((["--epochs", "2"], "--epochs 2"), (["--time", "9s"], "--time")):
        capsys.readouterr()
        assert trained(ground, out, "untrained", *flags, "--resume") == 2
        told = capsys.readouterr().err
        assert f"{out} was begun with --epochs 1, not {given}, and a length in epochs is part of a run" in told
        assert f"netsmith train --from {out} goes on with its model" in told


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
