"""experiments/degradation.py on made pictures."""

import xml.etree.ElementTree as ET
from pathlib import Path

import degradation
import pytest
import torch
from degradation import FULL, KINDS, SMALL, Setting, gradients
from made_study import SIDE, made_study

from netsmith.arch.names import MODELS, find_layout
from netsmith.errors import InputError
from netsmith.models.build import build

TINY = Setting(data="made", depths=(8, 14), side=SIDE, epochs=4.0, warmup=0.1, marks=2)


def test_every_network_exists() -> None:
    names = [name.format(depth=depth) for name in KINDS.values() for depth in {*SMALL.depths, *FULL.depths}]
    assert not set(names) - set(MODELS)


def test_rows_table_and_charts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(degradation, "KINDS", {"residual": "resnet{depth}_cifar"})
    study = made_study(tmp_path, name="degradation")
    degradation.main(study, TINY)
    rows = made_study(tmp_path, name="degradation")._rows.values()
    assert {(row["kind"], row["depth"], row["seed"]) for row in rows} == {
        ("residual", depth, seed) for depth in (8, 14) for seed in (0, 1)
    }
    for row in rows:
        assert len(row["curve"]) == 3
        for at in row["curve"]:
            assert {"train_top1", "train_loss", "test_top1", "test_loss"} <= at.keys()
            assert len(at["gradients"]) == len(at["weights"]) == row["depth"] - 1
            assert min(at["gradients"]) > 0
    table = (study.folder / "table.md").read_text().splitlines()
    assert len(table) == 2 + 2
    assert "| `resnet14_cifar` |" in table[3]
    charts = sorted(path.name for path in study.folder.glob("*.svg"))
    assert charts == [
        "curves-residual.svg",
        "gaps.svg",
        *(f"gradients-{depth}-{moment}.svg" for depth in (14, 8) for moment in ("early", "end", "start")),
    ]
    for name in charts:
        assert ET.parse(study.folder / name).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_gradients_are_those_of_the_loss_and_leave_the_network_as_it_was(tmp_path: Path) -> None:
    pictures = made_study(tmp_path).pictures("made", side=SIDE)
    network = build(find_layout("resnet8_cifar", num_classes=3, img_size=SIDE), dropout=0.0).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = gradients(network, pictures)
    assert not network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    network.train()
    rules = pictures.preprocess
    x = torch.from_numpy(pictures.train.pixels).permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor(rules.mean)[:, None, None]) / torch.tensor(rules.std)[:, None, None]
    torch.nn.functional.cross_entropy(network(x), torch.from_numpy(pictures.train.labels)).backward()
    first = next(network.parameters())
    assert first.grad is not None
    assert found["gradients"][0] == pytest.approx(first.grad.norm().item(), rel=1e-4)
    assert found["weights"][0] == pytest.approx(first.norm().item())


def test_a_missing_network_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(degradation, "KINDS", {"odd": "odd{depth}_cifar"})
    with pytest.raises(InputError, match="no network odd8_cifar"):
        degradation.main(made_study(tmp_path), TINY)
