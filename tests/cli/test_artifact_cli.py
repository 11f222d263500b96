"""predict, bench and verify as a person types them."""

import csv
import io
import json
import shutil
import subprocess
import sys

import pytest
from artifact_models import COLOURS, LABELS, colour_model, colour_picture, write_colour_run, write_colours
from kept_word import broken
from typed import here

from netsmith.artifact.bundle import Preferred, load_bundle, write_preferred
from netsmith.artifact.measure import measure
from netsmith.run.files import write_json
from netsmith.run.machine import machine


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an artifact, pictures, and things that are no pictures."""
    place = tmp_path_factory.mktemp("place")
    write_colours(place / "model")
    (place / "pics" / "sub").mkdir(parents=True)
    for index, colour in enumerate(COLOURS):
        (place / "pics" / f"{colour}.png").write_bytes(colour_picture(colour, seed=index))
    (place / "pics" / "sub" / 'a, "b".JPG').write_bytes(colour_picture("red", kind="JPEG"))
    (place / "pics" / "notes.txt").write_text("no picture")
    (place / "pics" / ".hidden.png").write_bytes(b"hidden")
    (place / "bad.jpg").write_bytes(b"nonsense")
    return place


def netsmith(place, *arguments, stdin=b""):
    code = "import sys; from netsmith.cli.main import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=place, input=stdin, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_folder_is_predicted_with_all_below_as_csv(place):
    code, out, err = netsmith(place, "predict", "model", "pics", "--csv", "--top-k", "2")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [row["image"] for row in rows[::2]] == [
        "pics/blue.png",
        "pics/green.png",
        "pics/red.png",
        'pics/sub/a, "b".JPG',
    ]
    assert [row["label"] for row in rows[::2]] == [LABELS[2], LABELS[1], LABELS[0], LABELS[0]]
    assert [row["rank"] for row in rows] == ["1", "2"] * 4
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)
    assert "1 files that are no pictures are left out" in err


def test_no_cell_of_the_csv_is_a_formula(tmp_path):
    """Labels and file names are other people's words."""
    labels = ("=1+1", "@here", "'quoted")
    write_colours(tmp_path / "model", labels=labels)
    names = ["=cmd|' !A0.png", "+1.png", "-1.png", "@x.png", "plain=1.png"]
    for name in names:
        (tmp_path / name).write_bytes(colour_picture("red"))
    (tmp_path / "list.txt").write_text("\n".join(names))
    code, out, err = netsmith(tmp_path, "predict", "model", "--list", "list.txt", "--csv")
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["image"] for row in rows[::3]] == [*(f"'{name}" for name in names[:4]), names[4]]
    assert {row["label"] for row in rows} == {f"'{label}" for label in labels}
    assert all(float(row["probability"]) < 1 and int(row["rank"]) > 0 for row in rows)  # numbers stay numbers


def test_json_is_one_document_with_what_could_not_be_read(place):
    code, out, err = netsmith(place, "predict", "model", "pics/*.png", "bad.jpg", "gone.png", "--json", "--quiet")
    document = json.loads(out)
    assert code == 0
    assert [row["image"] for row in document["images"]] == ["pics/blue.png", "pics/green.png", "pics/red.png"]
    assert document["images"][0]["classes"][0]["label"] == LABELS[2]
    assert sum(row["probability"] for row in document["images"][0]["classes"]) == pytest.approx(1, abs=1e-5)
    assert [row["image"] for row in document["unreadable"]] == ["bad.jpg", "gone.png"]
    assert "2 of 5 pictures could not be read" in err


def test_the_table_keeps_one_line_per_picture_whatever_the_labels(place):
    code, out, _ = netsmith(place, "predict", "model", "pics/blue.png", "pics/red.png", "--top-k", "1")
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == 2
    assert lines[0].split() == ["pics/blue.png", "98.8%", "blue\\nas", "the", "sky"]


def test_a_picture_and_a_list_come_from_standard_input(place):
    code, out, _ = netsmith(place, "predict", "model", "-", stdin=colour_picture("green"))
    assert (code, out.split()[0:2]) == (0, ["standard", "input"])
    listed = b"pics/red.png\n\npics/blue.png\r\n"
    code, out, _ = netsmith(place, "predict", "model", "--list", "-", "--top-k", "1", stdin=listed)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["pics/red.png", "pics/blue.png"]
    code, _, err = netsmith(place, "predict", "model", "-", stdin=b"")
    assert code == 2
    assert "standard input is empty" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "model"], "nothing to predict"),
        (["predict", "model", "bad.jpg", "gone.png"], "none of the 2 pictures could be read"),
        (["predict", "model", "pics/x*.png"], "matches nothing"),
        (["predict", "model", "pics/sub", "--json", "--csv"], "exclude each other"),
        (["predict", "model", "pics", "--topk", "3"], "no flag '--topk'; did you mean '--top-k'"),
        (["predict", "model", "pics", "--top-k", "0"], "at least 1"),
        (["predict", "model", "pics", "--threads", "0"], "threads is 0"),
        (["predict", "model", "pics", "--runtime", "tvm"], "no runtime 'tvm'"),
        (["predict", "model", "-", "--list", "-"], "cannot be both"),
        (["predict", "model", "--list", "gone.txt"], "--list gone.txt cannot be read"),
        (["predict", "gone", "pics"], "there is no gone"),
        (["predict", "pics", "pics"], "neither an artifact"),
        (["predict", "model", "model"], "holds no pictures"),
        (["bench", "pics"], "neither an artifact"),
        (["bench", "model", "--seconds", "-1"], "above 0"),
        (["bench", "model", "--threads", "0"], "threads is 0"),
        (["bench", "model", "--runtimes", "openvno"], "no runtime 'openvno'; did you mean 'openvino'"),
        (["bench", "model", "--runtimes", "all", "--threads", "0"], "threads is 0"),
        (["bench", "model", "--runtimes", "all", "--runtime", "openvino"], "give one of them"),
        (["bench", "model", "--runtimes", "all", "-b", "1,x"], "--batch-size 1,x is no list"),
        (["bench", "model", "-b", "8"], "give --runtimes too"),
        (["verify", "model", "--runtime", "tvm"], "no runtime 'tvm'"),
        (["val", "model", "--data", "digits", "--runtime", "tvm"], "no runtime 'tvm'"),
        (["verify", "pics"], "neither an artifact"),
        (["verify", "gone"], "there is no gone"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(place, arguments, message):
    done = here(*arguments, cwd=place)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("netsmith: ")


def test_bench_says_how_fast_and_how_sure(place):
    code, out, _ = netsmith(place, "bench", "model", "--seconds", "0.2", "--json", "--quiet")
    document = json.loads(out)
    assert code == 0
    found = document["measurement"]
    assert found["low"] <= found["p90_ms"] <= found["high"]
    assert {"noise", "warmup", "runs", "resize_ms", "peak_memory_bytes"} <= found.keys()
    assert document["best_threads"] in [row["threads"] for row in document["threads"]]
    code, out, _ = netsmith(place, "bench", "model", "--seconds", "0.1", "--threads", "1", "--quiet")
    assert code == 0
    assert "p90" in out
    assert "threads     p50" not in out


def test_bench_compares_runtimes_and_says_why_one_does_not_run(place):
    typed = ["bench", "model", "--runtimes", "onnxruntime, torch", "-b", "2", "--threads", "1", "--seconds", "0.1"]
    code, out, err = netsmith(place, *typed, "--json")
    document = json.loads(out)
    assert code == 0, err
    row, absent = document["entries"]
    assert (row["runtime"], row["threads"], row["batch"], row["same_answers"]) == ("onnxruntime", 1, 2, 3)
    assert (absent["runtime"], absent["measurement"]) == ("torch", None)
    assert "model.safetensors" in absent["reason"]
    assert (document["choice"], document["written"]) == (None, False)  # nothing was asked about single pictures


def test_bench_writes_what_it_chose_and_shows_the_table(place, tmp_path):
    shutil.copytree(place / "model", tmp_path / "model")
    typed = ["bench", "model", "--write", "--runtimes", "onnxruntime", "--threads", "1", "--seconds", "0.1", "-b", "1"]
    code, out, err = netsmith(tmp_path, *typed)
    assert code == 0, err
    assert out.splitlines()[2].split()[:3] == ["runtime", "threads", "batch"]
    assert out.splitlines()[3].split()[:3] == ["onnxruntime", "1", "1"]
    assert "model keeps preferring onnxruntime with 1 thread: nothing is faster" in out.splitlines()[-1]


def test_bench_writes_what_runs_here_where_the_preference_cannot(place, tmp_path):
    shutil.copytree(place / "model", tmp_path / "model")
    write_preferred(load_bundle(tmp_path / "model"), Preferred(threads=1000))
    typed = ["bench", "model", "--write", "--runtimes", "onnxruntime", "--seconds", "0.05", "-b", "1", "--json", "-q"]
    done = here(*typed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["preferred"]["threads"], document["written"]) == (1000, True)
    chosen = load_bundle(tmp_path / "model").config.preferred
    assert chosen.model_dump() == document["choice"]["preferred"]
    assert chosen.threads <= machine().cores_usable


def test_verify_goes_red_when_the_result_is_edited(tmp_path):
    bundle = write_colours(tmp_path / "timed", model=colour_model())
    write_colour_run(tmp_path, latency=measure(bundle.folder, seconds=0.3))
    results = tmp_path / "run" / "results.json"
    code, out, _ = netsmith(tmp_path, "verify", "run", "--seconds", "0.3", "--json")
    before = json.loads(out)
    assert code == (0 if before["ok"] else 1)
    assert not broken(before)
    document = json.loads(results.read_text())
    document["final"]["top1"]["test"]["value"] = 0.8
    write_json(results, document)
    code, out, err = netsmith(tmp_path, "verify", "run", "--seconds", "0.3", "--json")
    assert code == 1
    document = json.loads(out)
    assert document["ok"] is False
    assert broken(document) == ["top1 test"]
    assert " of " in err
    assert "top1 test" in err


def test_verify_goes_red_when_the_model_is_edited(place, tmp_path):
    shutil.copytree(place / "model", tmp_path / "model")
    with open(tmp_path / "model" / "model.onnx", "ab") as file:
        file.write(b"\0")
    code, out, err = netsmith(tmp_path, "verify", "model")
    assert code == 1
    assert "FAILED  hash of model.onnx" in out
    assert "hash of model.onnx" in err
