"""The last rung of `quantize`: where nothing else holds, training with rounding simulated does."""

import shutil
import signal
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from kept_word import broken
from striped import LABELS, PREPROCESS, SIDE, Weights, stripes, write_solved, write_stripes
from torch.nn import functional as F
from untimed import untimed

from netsmith.arch.graph import Norm
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.names import find_layout
from netsmith.arch.ties import ties
from netsmith.artifact.bundle import Bundle, artifact_hash, load_bundle
from netsmith.artifact.verify import as_document, verify
from netsmith.cli.main import run
from netsmith.errors import CheckError, Diverged, InputError
from netsmith.export.network import normalised
from netsmith.export.onnx_graph import write_onnx
from netsmith.export.repack import repack
from netsmith.fit import finish, quantizing, rounding, stage, training_rounded
from netsmith.fit.parent import Parent, open_parent
from netsmith.fit.quantizing import QuantizeJob, quantize_run
from netsmith.fit.session import Session
from netsmith.fit.stage import Stage
from netsmith.models.build import build, load_model
from netsmith.run.clock import FakeClock
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.recipe import Recipe

NETWORK = "resnet20_cifar@0.5,depth=0.34"
APART = 100.0
"""Between the ranges of channels of one map."""
TRAINING = {"epochs": 8.0, "batch_size": 32, "threads": 1, "flip": False}
"""Mirrored stripes are other stripes."""


def trained() -> tuple[Layout, Weights]:
    """A network that knows stripes."""
    layout = find_layout(NETWORK, num_classes=len(LABELS), img_size=SIDE)
    network = build(layout, seed=0)
    pixels, labels = stripes(160, seed=0)
    images, targets = normalised(pixels, PREPROCESS), torch.from_numpy(labels)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    steps = 50
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        part = torch.randperm(160, generator=torch.Generator().manual_seed(step))[:64]
        optimizer.zero_grad()
        F.cross_entropy(network(images[part]), targets[part], label_smoothing=0.1).backward()
        optimizer.step()
    return layout, {name: tensor.numpy().copy() for name, tensor in network.eval().state_dict().items()}


def far_apart(layout: Layout, weights: Weights) -> None:
    """Some channels of every map become large, and what reads them as much smaller: the function stays.

    Those that pass residual sums cannot be equalized, and more layers read them than may stay in float.
    """
    graph = layout_graph(layout)
    norms = {op.name for op in graph.ops if isinstance(op, Norm)}
    draw = np.random.default_rng(5)
    for slots in ties(graph).slots():
        layers = {slot.parameter.rpartition(".")[0] for slot in slots}
        if not (layers & norms and any(slot.axis for slot in slots)) or draw.random() > 0.3:
            continue
        for slot in slots:
            layer, _, entry = slot.parameter.rpartition(".")
            if layer in norms and entry in ("weight", "bias"):
                weights[slot.parameter][slot.position] *= APART
            elif slot.axis:
                weights[slot.parameter][slot.first : slot.last, slot.position] /= APART


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`stripes.npz`, and `model`, which rounding spoils."""
    root = tmp_path_factory.mktemp("training-rounded")
    write_stripes(root / "stripes.npz")
    layout, weights = trained()
    far_apart(layout, weights)
    write_solved(root / "model", layout, weights)
    return root


def job(ground: Path, **asked: Any) -> QuantizeJob:
    given: dict[str, Any] = {
        "precision": "int8",
        "calibration": "minmax",
        "pictures": 64,
        "max_drop": 5.0,
        "measure_s": 0.2,
    }
    return QuantizeJob(source=ground / "model", **(given | asked))


def typed(ground: Path, out: Path, **told: Any) -> Session:
    return Session(data=str(ground / "stripes.npz"), output=out, command=["quantize", "model", "-o", str(out)], **told)


@pytest.fixture(scope="module")
def refused(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run after nine rungs without training; copied by those that go on with it."""
    out = tmp_path_factory.mktemp("refused") / "out"
    with pytest.MonkeyPatch.context() as patch:
        untimed(patch)
        with pytest.raises(CheckError, match="training with rounding was not tried: give --time"):
            quantize_run(job(ground), typed(ground, out))
    assert len(rows(out, "rung")) == 9
    return out


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Bundle]:
    """What would be shipped; how a run ends is seen by `test_as_a_person_types_it`."""
    untimed(monkeypatch)
    shipped: list[Bundle] = []
    monkeypatch.setattr(stage.Stage, "ship", lambda self, bundle: shipped.append(bundle))
    return shipped


def test_what_no_other_rung_holds_is_held_by_training_with_rounding(ground, refused, made, tmp_path, monkeypatch):
    """The run that was refused goes on with a length; stopped in training and killed before the outcome, it goes on."""
    out, before = shutil.copytree(refused, tmp_path / "out"), artifact_hash(ground / "model")

    def stop(title: str, done: float, total: float, *more: Any, **others: Any) -> None:
        if title == "training" and done > total / 5:
            signal.raise_signal(signal.SIGINT)

    again = job(ground, training=TRAINING, resume=True)
    with pytest.raises(KeyboardInterrupt):
        quantize_run(again, typed(ground, out, progress=stop))
    assert len(rows(out, "rung")) == 9
    assert [*(out / "checkpoints").glob("*.safetensors")], "what was learned stays"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(f"{quantizing.__name__}._Ladder._settle", killed)
        quantize_run(again, typed(ground, out))
    assert (rows(out, "rung")[-1].verdict, len(rows(out, "quantize"))) == ("kept", 1)
    quantize_run(job(ground, resume=True), typed(ground, out))

    *others, last = rows(out, "rung")
    assert all(row.after["drops"] and not row.after["rung"]["trained"] for row in others)
    lost = last.before["top1"]["value"] - last.after["top1"]["value"]
    assert lost <= 0.05 < min(last.before["top1"]["value"] - row.after["top1"]["value"] for row in others)
    assert last.reason.startswith("per channel, minmax, trained with rounding: ")
    assert (last.after["steps"], last.after["epochs"]) == (40, 8.0)
    assert [row.verdict for row in rows(out, "quantize")] == ["refused", "kept"]
    assert artifact_hash(ground / "model") == before

    bundle = made[0]
    config = bundle.config
    assert config.quantization is not None
    assert config.quantization.rung == "per channel, minmax, trained with rounding"
    assert config.provenance.weights == f"{bundle.layout.name} of artifact {before}, trained on with rounding simulated"
    assert config.provenance.recipe == finish.recipe_hash(Recipe.load(out / "recipe.yaml"))
    # What ships beside the graph is what it was made of, again by export as for any network.
    weights = {name: tensor.numpy() for name, tensor in load_model(bundle.folder).state_dict().items()}
    remade = write_onnx(bundle.layout, weights, preprocess=config.preprocess)
    assert sha256(remade).hexdigest() == config.quantization.source

    # Disturbed neither by signals nor, once it is measured again, by the machine: the same weights, trained once.
    other = shutil.copytree(refused, tmp_path / "other")
    with (
        monkeypatch.context() as patch,
        pytest.raises(CheckError, match=r"trained with rounding answers well enough, .* --resume"),
    ):
        untimed(patch, noise=2.0)
        quantize_run(again, typed(ground, other))
    assert [row.after["slow"] for row in rows(other, "rung")] == [False] * 9 + [True]
    trained = (other / "metrics.jsonl").read_text()
    quantize_run(job(ground, resume=True), typed(ground, other))
    assert (other / "metrics.jsonl").read_text() == trained
    assert [row.verdict for row in rows(other, "quantize")] == ["refused", "refused", "kept"]
    assert "of 10 rungs tried" in rows(other, "quantize")[-1].reason
    assert made[1].config.files["model.safetensors"] == bundle.config.files["model.safetensors"]


def killed(*given: Any) -> None:
    raise KeyboardInterrupt


def test_a_training_that_breaks_down_is_a_refused_rung(ground, refused, made, tmp_path, monkeypatch):
    """Told in the outcome beside the nearest; tried anew only where training is asked for again."""
    out = shutil.copytree(refused, tmp_path / "out")

    def broken_down(*given: Any, **more: Any) -> None:
        raise Diverged("the loss is not finite at step 3", "there is no checkpoint yet")

    monkeypatch.setattr(rounding, "train_rounded", broken_down)
    again = job(ground, training=TRAINING, resume=True)
    for given, count in ((again, 10), (replace(again, training={}), 10), (again, 11)):
        with pytest.raises(
            CheckError, match=r"none of 10 rungs will do; .* trained with rounding: the loss is not fin"
        ):
            quantize_run(given, typed(ground, out))
        assert len(rows(out, "rung")) == count
    assert rows(out, "rung")[-1].verdict == "refused"
    assert not made


def test_what_cannot_be_trained_is_told_before_the_first_rung(ground, tmp_path):
    """And nothing holds the run to it."""
    with pytest.raises(InputError, match="--device cuda:99: this torch sees"):
        quantize_run(job(ground, training={**TRAINING, "device": "cuda:99"}), typed(ground, tmp_path / "out"))
    assert not rows(tmp_path / "out", "rung")
    assert not (tmp_path / "out" / "recipe.yaml").exists()


@pytest.mark.slow
def test_as_a_person_types_it(ground, tmp_path, monkeypatch, capsys):
    """The run verifies in a fresh process, and its report says what was done."""
    untimed(monkeypatch)
    out = tmp_path / "out"
    command = ["quantize", str(ground / "model"), "--data", str(ground / "stripes.npz"), "-o", str(out)]
    command += ["--calibration", "minmax", "--calibration-size", "64", "--max-drop", "5"]
    assert run([*command, "--epochs", "16", "--no-flip", "--threads", "1"]) == 0
    told = capsys.readouterr().err
    assert "rung: per channel, minmax, trained with rounding" in told
    assert "training with rounding: 40 steps, 16.0 epochs, top-1" in told
    assert "--epochs 16.0 --no-flip --threads 1" in (out / "results.json").read_text()
    page = (out / "report.html").read_text()
    assert "per channel, minmax, trained with rounding: top-1" in page
    assert broken(as_document(verify(out, seconds=0.2))) == []


def rows(folder: Path, name: str) -> list[Any]:
    return [row for row in Ledger(folder / "ledger.jsonl", clock=FakeClock()).rows if row.stage == name]


def test_the_recipe_is_the_parents_but_slower(ground, tmp_path):
    """What it began with, how long it took and where it ran are left behind; a run that goes on is held to its own."""
    bundle = load_bundle(ground / "model")
    first = RunFolder(tmp_path / "first")
    first.path.mkdir()
    own = Recipe(
        model="resnet20_cifar", img_size=24, train_size=20, epochs=3.0, lr=0.2, opt="adamw", mixup=0.2, ema=0.99,
        teachers=("0" * 64,), batch_size=16, device="cuda:1", seed=4, momentum=0.8, weight_decay=0.05,
    )  # fmt: skip
    own.save(first.recipe)
    parent = Parent(first.path, bundle, first)
    run = RunFolder(tmp_path / "second")
    run.path.mkdir()
    audited = typed(ground, run.path).read(seed=0)
    work = cast(Stage, SimpleNamespace(parent=parent, run=run, audited=audited))
    other = training_rounded.compose(work, {"epochs": 1.0, "opt": "sgd"}, seed=7)
    assert (other.lr, other.momentum, other.weight_decay, other.mixup) == (0.003, 0.9, 5e-4, 0.2)
    assert not run.recipe.exists()
    found = training_rounded.compose(work, {"time_s": 60.0, "batch_size": 8, "opt": "adamw"}, seed=7)
    some = replace(audited.dataset, items=tuple(each for each in audited.dataset.items if each.label))
    lacking = cast(Stage, SimpleNamespace(parent=parent, run=run, audited=audited, dataset=some))
    with pytest.raises(InputError, match="class number 0 has none"):
        training_rounded.compose(lacking, {"epochs": 1.0, "class_balance": "loss"}, seed=7)
    found.save(run.recipe)
    assert (found.lr, found.momentum, found.weight_decay) == (0.02, 0.8, 0.05)
    assert (found.opt, found.mixup, found.batch_size) == ("adamw", 0.2, 8)
    assert (found.model, found.parent, found.img_size, found.seed) == (bundle.layout.name, parent.artifact, SIDE, 7)
    assert (found.epochs, found.time_s, found.teachers, found.device) == (None, 60.0, (), "auto")
    assert (found.train_size, found.ema, found.grad_clip, found.dtype) == (None, None, 1.0, "float32")
    assert training_rounded.compose(work, {}, seed=7) == found
    with pytest.raises(InputError, match="was begun with batch_size 8, not 4"):
        training_rounded.compose(work, {"batch_size": 4}, seed=7)


def test_a_recipe_file_takes_the_place_of_the_parents_and_is_as_much_slower(ground, tmp_path):
    """Also where the run goes on, which another file does not."""
    run, file = RunFolder(tmp_path / "run"), tmp_path / "mine.yaml"
    run.path.mkdir()
    file.write_text("opt: adamw\nlr: 0.01\nweight_decay: 0.1\nthreads: 2\nepochs: 9\nema: 0.9\nimg_size: 64\nseed: 3\n")
    audited = typed(ground, run.path).read(seed=0)
    parent = open_parent(ground / "model")
    work = cast(Stage, SimpleNamespace(parent=parent, run=run, audited=audited))
    found = training_rounded.compose(work, {"time_s": 60.0}, seed=7, config=file)
    assert (found.opt, found.lr, found.weight_decay, found.threads) == ("adamw", pytest.approx(0.001), 0.1, 2)
    assert (found.epochs, found.ema, found.img_size, found.seed) == (None, None, SIDE, 7)
    other = training_rounded.compose(work, {"time_s": 60.0, "opt": "sgd", "lr": 0.02}, seed=7, config=file)
    assert (other.opt, other.lr, other.weight_decay) == ("sgd", 0.02, 5e-4)
    found.save(run.recipe)
    assert training_rounded.compose(work, {"time_s": 60.0}, seed=7, config=file) == found
    file.write_text("opt: adamw\nlr: 0.02\n")
    with pytest.raises(InputError, match=r"was begun with lr 0\.001, not 0\.002"):
        training_rounded.compose(work, {"time_s": 60.0}, seed=7, config=file)


def test_why_there_can_be_no_training_is_said(ground, tmp_path, monkeypatch):
    parent = open_parent(ground / "model")
    assert training_rounded.obstacle(parent) is None
    monkeypatch.setattr(training_rounded, "find_spec", lambda name: None)
    assert training_rounded.obstacle(parent) == "it needs torch: pip install 'netsmith[train]'"
    monkeypatch.undo()
    bare = repack(load_bundle(ground / "model"), tmp_path / "bare", with_weights=False)
    assert "shipped without model.safetensors" in (training_rounded.obstacle(open_parent(bare.folder)) or "")
