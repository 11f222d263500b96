"""Pictures with several labels, as a person types it: audit, train, val, predict, verify, export and report.

Real pictures: scikit-learn's digits, one to three different ones in the quarters of a picture, labelled by name; of
the ten 0, 1, 2 and 3 are used.
"""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from kept_word import broken
from PIL import Image

from netsmith.artifact.bundle import load_bundle
from netsmith.artifact.predictor import Predictor
from netsmith.artifact.validate import validate
from netsmith.cli.main import run
from netsmith.report.tagging import score_tags
from netsmith.run.files import write_json
from netsmith.run.result import Result


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    digits = pytest.importorskip("sklearn.datasets").load_digits(n_class=4)
    folder, draw = tmp_path_factory.mktemp("tiles"), np.random.default_rng(0)
    rows = ["image_path,labels"]
    for index in range(320):
        shown = draw.choice(4, size=draw.integers(1, 4), replace=False)
        canvas = np.zeros((16, 16), np.uint8)
        for place, digit in zip(draw.permutation(4), shown, strict=False):
            pixels = digits.images[draw.choice(np.flatnonzero(digits.target == digit))] * 15.9
            canvas[8 * (place // 2) :, 8 * (place % 2) :][:8, :8] = pixels
        Image.fromarray(canvas).save(folder / f"{index}.png")
        rows.append(f"{index}.png,{';'.join(f'digit {digit}' for digit in sorted(shown))}")
    path = folder / "tiles.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(table: Path) -> Path:
    folder = table.parent.parent / f"{table.parent.name}-run"
    command = ["train", str(table), "--model", "resnet20_cifar@0.25", "--epochs", "8", "--threads", "1", "-b", "32"]
    assert run([*command, "-q", "-o", str(folder)]) == 0
    return folder


def test_what_was_trained_is_far_better_than_chance_and_keeps_its_word(trained: Path, table: Path) -> None:
    final = Result.load(trained / "results.json").final
    assert (final.metric, final.top1) == ("map", None)
    assert final.headline.test is not None
    assert final.headline.test.value > 0.5 + 0.2  # a tag is on half of the pictures
    document = json.loads((trained / "results.json").read_text())["final"]
    assert {"map", "f1_macro", "f1_micro"} <= document.keys()
    assert "top1" not in document
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert list(rows[-1]["val"]) == ["map", "loss"]
    page = (trained / "report.html").read_text()
    assert "mean average precision on" in page
    assert "Validation mAP" in page
    assert "top-1" not in page
    assert "which by chance are the shares of pictures that have each" in page
    config = json.loads((trained / "model" / "config.json").read_text())
    assert (config["format"], config["task"], config["activation"]) == (2, "tag", "sigmoid")
    assert len(config["thresholds"]) == 4


def test_answers_that_know_nothing_have_the_map_that_the_report_calls_chance() -> None:
    targets = np.random.default_rng(0).random((50, 4)) < [0.5, 0.2, 0.1, 0.0]
    scores = score_tags(np.zeros((50, 4), np.float32), targets, thresholds=None)
    assert scores.by_chance == pytest.approx(scores.headline.value)


def test_verify_finds_edited_scores_and_thresholds(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify = ["verify", str(trained), "--seconds", "0.2", "--json"]
    run(verify)
    found = json.loads(capsys.readouterr().out)
    assert not broken(found)
    names = {check["name"] for check in found["checks"]}
    assert {"map val", "f1_macro test", "f1_micro val", "map test from the data", "labels val in the data"} <= names
    path = trained / "results.json"
    document = path.read_text()
    try:
        edited = json.loads(document)
        edited["final"]["f1_macro"]["val"]["value"] = edited["final"]["f1_macro"]["val"]["high"]
        write_json(path, edited)
        assert run(verify) == 1
        assert "f1_macro val" in broken(json.loads(capsys.readouterr().out))
    finally:
        path.write_text(document)


def test_predictions_are_the_labels_above_their_thresholds(
    trained: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [str(table.parent / f"{index}.png") for index in range(12)]
    predictor = Predictor(trained)
    thresholds = dict(zip(predictor.labels, predictor.bundle.config.thresholds or (), strict=True))
    answers = predictor.predict(pictures)
    for answer, row in zip(answers, predictor.predict_proba(pictures), strict=True):
        known = dict(zip(answer.labels, answer.probabilities, strict=True))
        assert known == pytest.approx(dict(zip(predictor.labels, row.tolist(), strict=True)))
        assert answer.tags == tuple(label for label in answer.labels if known[label] >= thresholds[label])
    assert len(predictor.predict(pictures[0], top_k=2)[0].labels) == 2
    assert run(["predict", str(trained), *pictures, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["images"]
    assert [tuple(image["tags"]) for image in shown] == [answer.tags for answer in answers]
    assert run(["predict", str(trained), *pictures, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 12 * 4
    assert {row["label"] for row in rows if row["tag"] == "1" and row["image"] == pictures[0]} == {*answers[0].tags}
    assert run(["predict", str(trained), *pictures]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert all(tag in line for line, answer in zip(lines, answers, strict=True) for tag in answer.tags or ("no label",))


def test_val_scores_and_refuses_data_of_the_other_kind(
    trained: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["val", str(trained)]) == 0
    said = capsys.readouterr().out
    assert [line.split("  ")[0] for line in said.splitlines()[1:]] == ["mAP", "F1 macro", "F1 micro", "loss"]
    scores = Result.load(trained / "results.json").final.scores("val")
    assert validate(trained).found.scores["f1_micro"] == scores["f1_micro"]
    assert run(["val", str(trained / "model"), "--data", "digits"]) == 2
    assert "one class per picture and the model answers any number of labels" in capsys.readouterr().err


def test_a_copy_keeps_its_thresholds(trained: Path, tmp_path: Path) -> None:
    assert run(["export", str(trained), "-o", str(tmp_path / "ship"), "--golden", "synthetic", "-q"]) == 0
    assert load_bundle(tmp_path / "ship").config.thresholds == load_bundle(trained).config.thresholds
    assert run(["verify", str(tmp_path / "ship"), "-q"]) == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--class-balance", "sampling"], "use --class-balance loss"),
        (["--bce-loss"], "each has its binary cross-entropy anyway"),
    ],
)
def test_what_several_labels_do_not_have_is_refused(
    table: Path, tmp_path: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(table), "--model", "resnet20_cifar", "--epochs", "1", "-o", str(tmp_path / "run")]
    assert run([*command, *flags]) == 2
    assert says in capsys.readouterr().err
    if "--class-balance" in flags:
        assert run(["fit", str(table), "-o", str(tmp_path / "run"), *flags]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_fit_races_by_map(table: Path, tmp_path: Path) -> None:
    assert run(["fit", str(table), "--time", "60s", "-o", str(tmp_path / "run"), "-q"]) == 0
    final = Result.load(tmp_path / "run" / "results.json").final
    assert final.metric == "map"
    rows = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    entries = [entry for row in rows if row["stage"] == "race" for entry in row["after"]["entries"]]
    assert entries
    assert all(set(entry["map"]) == {"value", "low", "high", "n"} for entry in entries)
