"""experiments/resnet_vs_efficientnet.py on made pictures, with measurements made up."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import resnet_vs_efficientnet as versus
import torch
from int8 import quantized
from made_study import SIDE, made_study
from resnet_vs_efficientnet import FULL, SMALL, Setting, Subject, int8_accuracy, on_front, scaled, untrained
from study import Study, parse

from netsmith.arch.names import MODELS
from netsmith.artifact.evaluate import evaluate
from netsmith.artifact.latency import Measurement
from netsmith.artifact.runtimes import open_model
from netsmith.export.network import convert_network
from netsmith.models.build import build
from netsmith.train.evaluate import evaluate_network

TINY = Setting(
    families={"ResNet": ("resnet8_cifar",), "EfficientNet": ("resnet14_cifar",)},  # a small one stands in
    rates=(0.05, 0.1),
    subjects=(Subject(data="made", side=SIDE, macs=(1_500_000,), epochs=0.5),),
)


def test_every_network_exists() -> None:
    for setting in (SMALL, FULL):
        assert {name for names in setting.families.values() for name in names} <= set(MODELS)
        assert [subject.data for subject in setting.subjects] == ["cifar10", "fashion-mnist", "imagenette224"]


def pretend(monkeypatch: pytest.MonkeyPatch, *, noise: float = 0.01) -> list[int]:
    """Made-up measurements in place of real ones; the numbers of models of every call."""
    timed: list[int] = []

    def measured(models: Sequence[bytes], **how: Any) -> list[Measurement]:
        timed.append(len(models))
        assert how["threads"] == 1
        return [
            Measurement(
                p50_ms=1.0, p90_ms=1.0 + place, low=1.0 + place, high=1.01 + place, noise=noise,
                peak_memory_bytes=None, threads=1, runtime="onnxruntime", warmup=1, runs=100, resize_ms=None,
            )
            for place in range(len(models))
        ]  # fmt: skip

    monkeypatch.setattr(versus, "measure_many", measured)
    return timed


def test_rows_fronts_and_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = pretend(monkeypatch)
    study = made_study(tmp_path, name="versus")
    versus.main(study, TINY)
    trained = list(study._rows.values())
    assert len(trained) == 2 * (2 + 1)  # both rates with the first seed, the chosen one with the other
    assert all(0 <= row[f"int8_{split}_top1"] <= 1 for row in trained for split in ("val", "test"))
    rows = [json.loads(line) for line in (study.folder / "made-fronts.jsonl").read_text().splitlines()]
    assert {(row["family"], row["seed"]) for row in rows} == {
        (family, seed) for family in TINY.families for seed in (0, 1)
    }
    for family in TINY.families:
        mine = [row for row in rows if row["family"] == family]
        assert len({row["lr"] for row in mine}) == 1
        tried = [row for row in trained if row["family"] == family and row["seed"] == 0]
        assert next(row for row in mine if row["seed"] == 0)["val_top1"] == max(row["val_top1"] for row in tried)
    assert all(row["macs"] <= 1_500_000 and row["ms"] > 0 and row["int8_ms"] > 0 for row in rows)
    assert {type(row[f"front_{cost}"]) for row in rows for cost in versus.COSTS} == {bool}
    assert sorted(path.stem for path in study.folder.glob("*.svg")) == [
        "made-gaps",
        "made-macs",
        "made-ms",
        "made-params",
    ]
    versus.main(made_study(tmp_path, name="versus"), TINY)
    assert timed[0] == 4  # both networks in fp32 and in int8
    assert sum(timed) == 4  # quiet measurements are kept


def test_latencies_apart_train_nothing_and_the_quietest_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = made_study(tmp_path, name="versus")
    study = Study("versus", replace(made.options, latencies=True), say=lambda line: None)
    layouts = [scaled(name, 1_500_000, side=SIDE, classes=3) for (name,) in TINY.families.values()]
    pretend(monkeypatch, noise=0.9)
    versus.main(study, TINY)
    assert not study.path.exists()
    assert [row["noise"] for row in versus.latencies(study, layouts, seconds=0.1)] == [0.9, 0.9]
    timed = pretend(monkeypatch, noise=0.02)
    found = versus.latencies(study, layouts, seconds=0.1)
    assert timed == [4]  # the noisy ones, again
    assert [(row["noise"], row["int8_noise"], row["ms"], row["int8_ms"]) for row in found] == [
        (0.02, 0.02, 1.0, 2.0),
        (0.02, 0.02, 3.0, 4.0),
    ]


def test_only_an_experiment_with_latencies_has_the_flag() -> None:
    assert parse("", ["--latencies"], timed=True).latencies
    for wrong, timed in ((["--latencies"], False), (["--latencies", "--estimate"], True)):
        with pytest.raises(SystemExit):
            parse("", wrong, timed=timed)
    assert parse("", ["--only", "a"], sets=["a", "b"]).only == "a"


def test_only_one_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = pretend(monkeypatch)
    made = made_study(tmp_path, name="versus")
    for only in ("other", "made"):
        assert timed == []
        versus.main(Study("versus", replace(made.options, latencies=True, only=only), say=lambda line: None), TINY)
    assert timed == [4]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_int8_answers_as_the_network_does_and_is_the_graph_that_is_timed(name: str, tmp_path: Path) -> None:
    pictures = made_study(tmp_path).pictures("made", side=SIDE)
    layout = scaled(name, 1_500_000, side=SIDE, classes=pictures.classes)
    network = build(layout, seed=1).eval()
    for kept, parameter in network.named_parameters():
        if kept.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)  # all 0 at first, and the quantizer shares equal tensors
    rules, test = pictures.preprocess, pictures.test
    model = convert_network(network, labels=["a", "b", "c"], preprocess=rules).model
    small = quantized(model, pictures.train.pixels)
    ours = evaluate_network(network, test.pixels, test.labels, mean=rules.mean, std=rules.std).logits
    theirs = evaluate(open_model(small), test.pixels, test.labels).logits
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99
    assert int8_accuracy(network, pictures)["int8_test_top1"] == float(np.mean(theirs.argmax(1) == test.labels))
    kinds = [Counter(node.op_type for node in onnx.load_from_string(file).graph.node) for file in (model, small)]
    assert kinds[1]["QuantizeLinear"] > kinds[1]["Conv"] == kinds[0]["Conv"]
    weights = {tensor.name: tensor for tensor in onnx.load_from_string(small).graph.initializer}
    of_convs = [tensor for kept, tensor in weights.items() if kept.endswith("weight_quantized")]
    assert {tensor.data_type for tensor in of_convs} == {onnx.TensorProto.INT8}
    assert all(weights[tensor.name.replace("quantized", "scale")].dims == tensor.dims[:1] for tensor in of_convs)

    def wires(file: bytes) -> list[tuple[str, list[str], list[str]]]:
        nodes = onnx.load_from_string(file).graph.node
        return sorted((node.op_type, [*node.input], [*node.output]) for node in nodes)

    assert wires(untrained(layout, "int8")) == wires(small)


def test_a_network_that_diverged_has_no_int8(tmp_path: Path) -> None:
    pictures = made_study(tmp_path).pictures("made", side=SIDE)
    found = int8_accuracy(None, pictures)
    assert (found["int8_val_top1"], found["int8_test_top1"]) == (None, None)


def test_the_front_is_what_nothing_beats_on_validation() -> None:
    def rows(macs: int, val: float, test: float) -> list[dict[str, Any]]:
        return [
            {"seed": 0, "macs": macs, "val_top1": val, "test_top1": test, "int8_ms": 4 - macs, "int8_val_top1": val}
        ]

    groups = [rows(1, 0.5, 0.9), rows(2, 0.5, 0.9), rows(2, 0.7, 0.1), rows(3, 0.6, 1.0)]
    assert on_front(groups, "macs") == [True, False, True, False]
    assert on_front(groups, "int8_ms") == [False, False, True, True]
