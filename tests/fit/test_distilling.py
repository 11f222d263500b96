"""distill as a person types it: a student kept beside its twin, one refused, and what does not go together."""

import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import yaml
from kept_word import broken
from numpy.typing import NDArray
from PIL import Image

from netsmith.arch.names import find_layout
from netsmith.artifact.bundle import artifact_hash, load_bundle
from netsmith.artifact.verify import as_document, verify
from netsmith.cli.main import run
from netsmith.data.audit import audit
from netsmith.data.lineage import add_lineage, read_lineage
from netsmith.data.prepare import prepare
from netsmith.data.sources import open_source
from netsmith.data.splits import split
from netsmith.data.unlabelled import refuse_useless, with_unlabelled
from netsmith.errors import InputError
from netsmith.export.network import export_network
from netsmith.fit import single
from netsmith.fit.compressing import _keep_record
from netsmith.fit.finish import Finisher
from netsmith.fit.parent import open_parent, record_lineage
from netsmith.fit.trying import Finalist
from netsmith.models.build import build
from netsmith.run.clock import FakeClock, SystemClock
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.plan import Plan
from netsmith.run.preprocess import Preprocess
from netsmith.run.recipe import Recipe
from netsmith.train import loop
from netsmith.train.feed import TrainingData
from netsmith.train.trainer import Trainer

STUDENT = "resnet20_cifar@width=0.25,depth=0.5"
SHOWN = Preprocess(size=16)


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All of scikit-learn's digits, 16 x 16 and grey as colours."""
    found = audit(open_source("digits")).dataset
    pixels = np.stack([prepare(found.read(item), SHOWN) for item in found.items])
    return pixels, np.array([item.label for item in found.items])


@pytest.fixture(scope="module")
def teacher(digits: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact trained on them for a second."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    images, labels = digits
    recipe = Recipe(model="t", img_size=16, epochs=4.0, batch_size=64, lr=0.1, flip=False, crop_scale=None, threads=1)
    data = TrainingData(images, labels, images[:0], labels[:0], SHOWN, "digits")
    network = build(find_layout("resnet20_cifar@width=0.5,depth=0.5", num_classes=10, img_size=16))
    Trainer(network, data, recipe, plan=Plan(folder.parent / "plan.jsonl"), clock=SystemClock()).advance()
    export_network(network.eval(), folder, labels=[str(label) for label in range(10)], preprocess=SHOWN)
    return folder


@pytest.fixture(scope="module")
def few(digits: tuple[NDArray[np.uint8], NDArray[np.int64]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`few.npz`, digits of which four of each are to train on, and `more`, a thousand without labels."""
    folder = tmp_path_factory.mktemp("few")
    images, labels = digits
    order = np.random.default_rng(0).permutation(len(labels))
    train = np.concatenate([order[labels[order] == label][:4] for label in range(10)])
    rest = np.setdiff1d(order, train)
    chosen = np.concatenate([train, rest[:400]])
    split = np.array(["train"] * 40 + ["val"] * 200 + ["test"] * 200)
    np.savez(folder / "few.npz", images=images[chosen], labels=labels[chosen], split=split)
    (folder / "more").mkdir()
    for at in rest[400:1400].tolist():
        Image.fromarray(images[at]).save(folder / "more" / f"{at}.png")
    return folder


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latencies are measured for a moment: these tests are not about them."""
    monkeypatch.setattr(single, "Finisher", partial(Finisher, measure_s=0.2))


def distilled(teacher: Path, out: Path, *flags: str, student: str = STUDENT, data: str = "digits") -> int:
    typed = ["distill", student, "--teacher", str(teacher), "--data", data, "-o", str(out), "--threads", "1", "-q"]
    return run([*typed, *flags])


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_student_is_kept_beside_its_twin_and_tells_whom_it_learned_from(
    digits: tuple[NDArray[np.uint8], NDArray[np.int64]],
    teacher: Path,
    few: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Because it may learn on pictures without labels; always shown alike, so the teacher is asked about each once."""
    out = tmp_path / "run"
    still = ["--no-flip", "--pad", "0", "--img-size", "16", "--epochs", "3", "--lr", "0.1", "--temperature", "1"]
    more = ["--unlabelled", str(few / "more"), "--label-weight", "1"]
    with monkeypatch.context() as patch:  # killed when it is kept already, and only measured
        patch.setattr(Finisher, "complete", interrupted)
        assert distilled(teacher, out, *still, *more, data=str(few / "few.npz")) == 130
    with monkeypatch.context() as patch:  # nothing is trained again
        patch.setattr(loop, "train", interrupted)
        assert distilled(teacher, out, *still, *more, "--resume", data=str(few / "few.npz")) == 0
    recipe = Recipe.load(out / "recipe.yaml")
    assert recipe.teachers == (artifact_hash(teacher),)
    assert (recipe.distill_loss, recipe.temperature, recipe.label_weight) == ("kd", 1.0, 1.0)
    ledger = Ledger(out / "ledger.jsonl", clock=FakeClock())
    row = ledger.newest("distill")
    assert row is not None
    assert row.verdict == "kept"
    assert "beside its twin without a teacher" in row.reason
    assert row.after["top1"]["value"] > row.before["top1"]["value"]
    assert (row.output, row.splits_read) == (artifact_hash(out / "model"), ["train", "val"])
    assert row.after["loss"] == "kd"
    assert row.after["teachers"] == [{"name": str(teacher), "sha256": artifact_hash(teacher)}]
    assert [each.stage for each in ledger.rows].index("distill") < [each.stage for each in ledger.rows].index("test")
    assert not broken(as_document(verify(out, seconds=0.2)))
    assert not (out / "candidates").exists()
    config = load_bundle(out).config
    assert set(config.files) == {"model.onnx", "golden.npz", "model.safetensors"}
    assert config.provenance.doubtful, "the teacher does not say what it was trained on"
    told, seen = row.after["unlabelled"], read_lineage(out / "lineage.json")
    assert told == {"folder": str(few / "more"), "pictures": len(seen), "left_out": 1000 - len(seen)}
    assert len(seen) > 900
    assert set(seen.values()) == {"train"}
    assert f"{len(seen):,} pictures of {few / 'more'} trained on" in (out / "report.html").read_text()
    _are_for_training_once_labelled(out, digits, few, tmp_path)


def _are_for_training_once_labelled(
    run: Path, digits: tuple[NDArray[np.uint8], NDArray[np.int64]], few: Path, tmp_path: Path
) -> None:
    """In what begins with the student, and with what began with it."""
    images, labels = digits
    at = np.array([int(path.stem) for path in (few / "more").iterdir()])
    with np.load(few / "few.npz") as found:
        everything = {"images": [found["images"], images[at]], "labels": [found["labels"], labels[at]]}
    path = tmp_path / "labelled.npz"
    np.savez(path, **{name: np.concatenate(both) for name, both in everything.items()})
    audited, later = audit(open_source(path)), tmp_path / "later"
    shutil.copytree(run, later)
    (later / "lineage.json").unlink()
    record_lineage(RunFolder(later), audit(open_source(few / "few.npz")).dataset, [open_parent(run)])
    winner = cast(Finalist, SimpleNamespace(trained=RunFolder(run)))
    chosen = RunFolder(tmp_path / "chosen")
    chosen.path.mkdir()
    add_lineage(chosen.lineage, {"0" * 64: "val"})
    _keep_record(winner, chosen)
    seen = read_lineage(run / "lineage.json")
    assert read_lineage(chosen.lineage) == {**seen, "0" * 64: "val"}
    for folder in (run, later):
        parted = open_parent(folder).pictures(audited, seed=1).items
        assert {item.split for item in parted} == {"train", "val", "test"}
        assert {item.split for item in parted if item.group in seen} == {"train"}
    (later / "lineage.json").write_text('{"format": 1, "splits": {"train": ["x"]}}')
    with pytest.raises(InputError, match=r"lineage\.json cannot be read"):
        _ = open_parent(later).splits


def test_a_student_below_its_twin_is_refused_with_both_numbers(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here because its teacher knows nothing, and the labels count for nothing."""
    fool, out = tmp_path / "fool", tmp_path / "run"
    network = build(find_layout(STUDENT, num_classes=10, img_size=16), seed=5)
    export_network(network.eval(), fool, labels=load_bundle(teacher).config.labels, preprocess=SHOWN)
    short = ["--epochs", "1", "--lr", "0.1", "--ema", "0", "--label-weight", "0", "--loss", "dist"]
    assert distilled(fool, out, *short, student=str(teacher)) == 1
    said = capsys.readouterr().err
    assert "distill is refused" in said
    assert "points, more than the 0 allowed" in said
    lies = f"what is refused lies in {out / 'candidates' / 'student'}\n"
    assert said.endswith(lies)
    assert not (out / "model").exists()
    rows = Ledger(out / "ledger.jsonl", clock=FakeClock()).rows
    assert (rows[0].stage, rows[-1].verdict) == ("parent", "refused")
    assert rows[-1].before["top1"]["value"] > rows[-1].after["top1"]["value"]
    twin = out / "candidates" / "twin"
    assert load_bundle(twin).config.labels == load_bundle(teacher).config.labels
    twins = yaml.safe_load((twin / "recipe.yaml").read_text())
    assert (twins["teachers"], twins["epochs"] > 1.0) == ([], True)
    assert distilled(fool, out, *short, "--resume", student=str(teacher)) == 1
    said = capsys.readouterr().err
    assert "was refused" in said
    assert said.endswith(lies)
    assert distilled(teacher, out, *short, "--resume", student=str(teacher)) == 2, "another teacher"
    assert "was begun with teachers" in capsys.readouterr().err


def test_what_does_not_go_together_is_told_and_nothing_is_written(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"

    def refused(*flags: str, of: Path = teacher) -> str:
        assert distilled(of, out, "--epochs", "1", *flags) == 2
        assert not out.exists()
        return capsys.readouterr().err

    other = tmp_path / "other"
    network = build(find_layout(STUDENT, num_classes=3, img_size=16)).eval()
    export_network(network, other, labels=("0", "1", "cat"), preprocess=SHOWN)
    assert "does not know the classes 2, 3, 4 and 5 more" in refused(of=other)
    assert "is no folder, and as the name of a network: no model is called" in refused(of=Path("resnet5000"))
    assert "is there twice" in refused("--teacher", str(teacher))
    assert "a mixture has two" in refused("--loss", "dkd", "--mixup", "0.2")
    assert "has no stage 'stage9'" in refused("--hints", "stage9")
    assert "--temperature is 0; it must be above 0" in refused("--temperature", "0")
    assert "are of none" in refused("--unlabelled", str(other), "--class-balance", "sampling")


def test_a_student_of_other_classes_is_told_to_get_another_classifier(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the rule of `train --from`, aloud and in the ledger; a teacher of other classes is refused, see above."""
    monkeypatch.setattr(loop, "train", interrupted)
    student, out = tmp_path / "student", tmp_path / "run"
    network = build(find_layout(STUDENT, num_classes=3, img_size=16)).eval()
    export_network(network, student, labels=("0", "1", "cat"), preprocess=SHOWN)
    typed = ["distill", str(student), "--teacher", str(teacher), "--data", "digits", "--epochs", "1", "-o", str(out)]
    assert run(typed) == 130
    note = (
        f"{student} has other classes: its classifier keeps what it knows of 0, 1, is new for 2, 3, 4 and 5 more, "
        "loses cat"
    )
    assert f"note: {note}" in capsys.readouterr().err.splitlines()
    split = Ledger(out / "ledger.jsonl", clock=FakeClock()).newest("split")
    assert split is not None
    assert note in split.after["notes"]


def test_no_run_is_written_into_what_it_is_made_of(
    teacher: Path, few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, pictures = tmp_path / "own", few / "more"
    shutil.copytree(teacher, own)
    before = sorted(tmp_path.rglob("*"))

    def refused(out: Path, *typed: str) -> str:
        assert run([*typed, "--epochs", "1", "-o", str(out), "-q"]) == 2
        return capsys.readouterr().err

    taught = ("distill", STUDENT, "--data", "digits", "--teacher", str(teacher))
    assert "a model that is only read" in refused(teacher / "run", *taught)
    assert "a model that is only read" in refused(own / "run", *taught[:1], str(own), *taught[2:])
    assert "lies in the folder of the pictures" in refused(pictures / "run", *taught, "--unlabelled", str(pictures))
    inside = refused(pictures / "run", *taught[:2], "--data", str(pictures), *taught[4:])
    assert "lies in the folder of the pictures" in inside
    assert "a model that is only read" in refused(own / "run", "train", "digits", "--from", str(own))
    assert sorted(tmp_path.rglob("*")) == before
    assert not [*few.rglob("run"), *teacher.rglob("run")]


def test_pictures_without_labels_are_those_that_the_data_does_not_hold(tmp_path: Path) -> None:
    labelled, more = tmp_path / "labelled", tmp_path / "more" / "deep"
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    for at, pixels in enumerate(pictures[:10]):
        (labelled / "ab"[at % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(labelled / "ab"[at % 2] / f"{at}.png")
    more.mkdir(parents=True)
    for at, pixels in enumerate(pictures[8:]):  # two of them are labelled already, under another encoding
        Image.fromarray(pixels).save(more / f"{at}.bmp")
    (more / "again.bmp").write_bytes((more / "3.bmp").read_bytes())
    (more / "broken.png").write_bytes(b"nothing")
    said: list[str] = []
    dataset = split(audit(open_source(labelled)).dataset, seed=0)
    found, left_out = with_unlabelled(dataset, tmp_path / "more", say=said.append)
    assert left_out == 4
    assert found.items[:10] == dataset.items
    assert [Path(item.name).name for item in found.items[10:]] == ["2.bmp", "3.bmp"]
    assert found.targets(found.items[9:]).tolist() == [dataset.items[9].label, -1, -1]
    assert found.read(found.items[11]) == (more / "3.bmp").read_bytes()
    assert "2 pictures without a label" in said[0]
    assert "1 cannot be read, 3 are there twice" in said[0]
    refuse_useless(dataset, tmp_path / "more")
    for name in ("1.bmp", "2.bmp", "3.bmp", "again.bmp"):
        (more / name).unlink()
    with pytest.raises(InputError, match="none of its 2 pictures is of use"):
        with_unlabelled(dataset, tmp_path / "more", say=said.append)
    with pytest.raises(InputError, match=r"is of use \(1 cannot be read, 1 are there twice or in"):
        refuse_useless(dataset, tmp_path / "more")
