"""`netsmith models` and `netsmith profile` as typed."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from artifact_models import write_colours
from pydantic import ValidationError
from typed import fresh, here

from netsmith.arch.names import find_layout, list_models
from netsmith.cli.tables import short, table
from netsmith.report.diagram import network_svg
from netsmith.run.preprocess import LARGEST_SIZE, Preprocess


def answer(*arguments: str, cwd: Path = Path()) -> Any:
    done = here(*arguments, "--json", "--quiet", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_models_lists_figures_and_published_accuracy():
    done = fresh("models", cwd=Path())
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = (line.split() for line in done.stdout.splitlines())
    assert header[0] == "model"
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["resnet50"] == [*["25.56M", "4.089G", "224", "76.13", "/", "80.86", "ImageNet", "v2", "v1", "+16"]]
    assert by_name["resnet20_cifar"] == ["269.7k", "40.55M", "32", "91.25", "CIFAR-10", "akamaster"]
    assert by_name["resnet8_cifar"][-3:] == ["-", "-", "-"]
    assert list(by_name) == list_models()


def test_models_as_json_are_exact():
    [row] = answer("models", "efficientnet_b2")["models"]
    weights = row.pop("weights")
    assert weights[0] == {"name": "efficientnet_b2.v1", "top1": 80.608, "resolution": 288, "licence": "BSD-3-Clause"}
    assert row == {
        "name": "efficientnet_b2",
        "family": "efficientnet",
        "params": 9_109_994,
        "macs": 1_087_529_456,
        "resolution": 288,
        "classes": 1000,
        "published": {"dataset": "ImageNet", "top1": [80.61]},
    }
    assert [row["name"] for row in answer("models", "wide*")["models"]] == ["wide_resnet50_2", "wide_resnet101_2"]


def test_models_and_profile_of_a_name_load_nothing_heavy():
    for arguments in (["models"], ["profile", "resnet18", "--no-latency"]):
        code = (
            f"import sys; from netsmith.cli.main import run; code = run({arguments}); "
            "print(code, *{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        code, *loaded = done.stderr.split()
        assert code == "0"
        assert not {"torch", "numpy", "onnx", "onnxruntime", "PIL"} & set(loaded)


def test_profile_of_a_name():
    found = answer("profile", "resnet18", "--no-latency")
    assert found["total"]["params"] == 11_689_512
    assert found["total"]["macs"] == 1_814_073_344
    assert found["latency"] is None
    assert [stage["name"] for stage in found["stages"]] == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert found["stages"][1]["shape"] == [64, 56, 56]
    for rows in (found["stages"], found["parts"]):
        assert sum(row["macs"] for row in rows) == found["total"]["macs"]
        assert sum(row["params"] for row in rows) == found["total"]["params"]
        assert max(row["peak_bytes"] for row in rows) == found["total"]["peak_bytes"]
    assert "parts" not in answer("profile", "resnet18", "--no-latency", "--stages")


def test_profile_as_a_table():
    done = here("profile", "efficientnet_b0", "--img-size", "64", "--num-classes", "10", "--no-latency", cwd=Path())
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "efficientnet_b0: efficientnet, input 3 x 64 x 64, 10 classes"
    [first] = [line.split() for line in lines if line.split()[:1] == ["features.1.0"]]
    assert first[:4] == ["features.1.0", "mbconv", "16x64x64", "1,448"]  # the stem does not stride at 64 pixels
    [total] = [line.split() for line in lines if line.startswith("total")]
    assert total[1] == f"{5_288_548 - 990 * 1281:,}"
    assert "latency" not in done.stdout


def test_profile_measures_a_name_here():
    found = answer("profile", "resnet8_cifar", "--seconds", "0.2")["latency"]
    assert 0 < found["p50_ms"] <= found["p90_ms"] <= found["high"]
    assert (found["threads"], found["runtime"]) == (1, "onnxruntime")


def test_profile_of_an_artifact_compared_with_names(tmp_path: Path):
    write_colours(tmp_path / "model")
    alone = answer("profile", str(tmp_path / "model"), "--seconds", "0.1")
    assert alone["total"]["params"] == 269_722 - 7 * 65
    assert alone["classes"] == 3
    assert alone["size_bytes"] > 0
    assert alone["latency"]["p50_ms"] > 0
    both = answer(
        "profile", "model", "--compare", "resnet8_cifar", "resnet14_cifar@0.5", "--seconds", "0.1", cwd=tmp_path
    )
    assert [row["name"] for row in both["networks"]] == ["model", "resnet8_cifar", "resnet14_cifar@0.5"]
    assert all(row["latency"]["p50_ms"] > 0 for row in both["networks"])
    in_torch = [row["latency_torch"] for row in both["networks"]]
    if find_spec("torch") is not None:
        assert all(found["runtime"] == "torch" and found["p50_ms"] > 0 for found in in_torch)
    else:
        assert in_torch == [None, None, None]
    done = here("profile", "--compare", "resnet18", "model", "--no-latency", cwd=tmp_path)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines[:3]] == ["network", "resnet18", "model"]
    assert lines[0][-1] == "MB"
    assert float(lines[1][-1]) == pytest.approx(4 * 11.69, rel=0.02)


def test_profile_draws_the_network(tmp_path: Path):
    drawn = tmp_path / "new" / "net.svg"
    arguments = ("profile", "resnet8_cifar@0.5", "--num-classes", "3", "--no-latency", "--svg", str(drawn))
    assert here(*arguments, cwd=tmp_path).returncode == 0
    assert drawn.read_text(encoding="utf-8") == f"{network_svg(find_layout('resnet8_cifar@0.5', num_classes=3))}\n"
    again = here(*arguments, cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert "already exists" in again.stderr
    assert here(*arguments, "--overwrite", cwd=tmp_path).returncode == 0
    assert [path.name for path in drawn.parent.iterdir()] == ["net.svg"]


# Arguments (in an empty folder) and what the sentence must hold.
MISTYPED = [
    (["models", "resnet"], "write 'resnet*'"),
    (["models", "renset50"], "did you mean 'resnet50'"),
    (["models", "a", "b"], "'b' is one argument too many"),
    (["profile"], "MODEL is missing"),
    (["profile", "resnet51"], "did you mean resnet"),
    (["profile", "resnet50.v2"], "the network alone, which is wanted here, is 'resnet50'"),
    (["profile", ""], "the argument after 'profile' is empty"),
    (["profile", "runs/pets"], "there is no runs/pets"),
    (["profile", "."], ". is neither an artifact"),
    (["profile", "resnet50@0"], "above 0"),
    (["profile", "resnet50@hight=2"], "is not width, depth or resolution"),
    (["profile", "resnet50@1000"], "outside 0.01..100"),
    (["profile", "resnet50:phi=64"], "an input of size"),
    (["profile", "resnet50:phi=-20"], "a resolution of 14 is too small for strides of 32"),
    (["profile", "resnet50@resolution=0.1"], "a resolution of 22 is too small for strides of 32"),
    (["profile", "resnet50@0.001"], "a width multiplier of 0.001 is outside 0.01..100"),
    (["profile", "resnet50@depth=0.001"], "a depth multiplier of 0.001 is outside 0.01..100"),
    (["profile", "resnet50@0.5,width=2"], "gives width twice"),
    (["profile", "nowhere.json"], "there is no layout file nowhere.json"),
    (
        ["train", "digits", "--model", "nowhere.json", "--epochs", "1", "-o", "run"],
        "there is no layout file nowhere.json",
    ),
    (["profile", "resnet18", "--compare", "nothing_like_it"], "no model is called 'nothing_like_it'"),
    (["profile", "resnet18", "--img-size", "3"], "--img-size is 3; give 4 to 4096"),
    (["profile", "resnet18", "--img-size", "100000"], "--img-size is 100000"),
    (["profile", "resnet18", "--img-size", "-5"], "--img-size is -5"),
    (["profile", "resnet18", "--img-size", "big"], "--img-size"),
    (["profile", "resnet18", "--num-classes", "0"], "num_classes is 0"),
    (["profile", "resnet18", "--threads", "0"], "--threads is 0"),
    (["profile", "resnet18", "--seconds", "0"], "--seconds is 0"),
    (["profile", "resnet18", "--seconds", "nan"], "--seconds is nan"),
    (["profile", "resnet18", "--no-latency", "--svg", "/proc/net.svg"], "/proc/net.svg cannot be written"),
    (["profile", "resnet18", "--svg", "net.svg", "--compare", "resnet34"], "--svg draws one network"),
    (["profile", "resnet18", "--latncy"], "there is no flag '--latncy'"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTYPED, ids=[" ".join(arguments) for arguments, _ in MISTYPED])
def test_mistyped(tmp_path: Path, arguments: list[str], said: str):
    done = here(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr
    assert done.stderr.startswith("netsmith: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_an_artifacts_size_and_classes_are_its_own(tmp_path: Path):
    write_colours(tmp_path / "model")
    for flag in ("--img-size", "--num-classes"):
        done = here("profile", str(tmp_path / "model"), flag, "64", cwd=tmp_path)
        assert done.returncode == 2
        assert f"{flag} is for names of networks" in done.stderr


def test_the_largest_size_is_that_of_preprocessing():
    assert Preprocess(size=LARGEST_SIZE).size == LARGEST_SIZE
    with pytest.raises(ValidationError):
        Preprocess(size=LARGEST_SIZE + 1)


def test_short_numbers_and_tables():
    assert [short(count) for count in (0, 7, 999, 1000, 12_345, 25_557_032, 4_089_184_256, 2e12)] == [
        "0", "7", "999", "1.000k", "12.35k", "25.56M", "4.089G", "2.000T",
    ]  # fmt: skip
    assert table(["name", "n"], [["a", "10"], ["bcdef", "7"]]) == "name    n\na      10\nbcdef   7"
