"""experiments/kernels.py on made pictures."""

from dataclasses import replace
from pathlib import Path

import kernels
import pytest
from kernels import FULL, NETWORKS, SMALL, Setting, arms
from made_study import SIDE, made_study

from netsmith.arch.cost import cost
from netsmith.arch.lower import lower
from netsmith.arch.scale_to import scale_to
from netsmith.errors import InputError

TARGET = 9_000_000
TINY = Setting(data="made", side=SIDE, macs=(TARGET,), epochs=0.5)


@pytest.mark.parametrize("setting", [SMALL, FULL], ids=["small", "full"])
def test_every_network_comes_near_every_target_and_not_above(setting: Setting) -> None:
    for arm, spec in arms(setting).items():
        for target in setting.macs:
            macs = cost(lower(scale_to(spec, macs=target, rule="width"))).macs
            assert 0.85 * target < macs <= target, (arm, target)


def test_rows_table_and_chart(tmp_path: Path) -> None:
    study = made_study(tmp_path, name="kernels", seeds=1)
    kernels.main(study, TINY)
    rows = list(study._rows.values())
    assert [(row["arm"], row["target_macs"]) for row in rows] == [(arm, TARGET) for arm in NETWORKS]
    assert all(row["macs"] <= TARGET and row["test_top1"] is not None for row in rows)
    table = (study.folder / "table.md").read_text().splitlines()
    assert len(table) == 2 + len(NETWORKS)
    assert [path.name for path in study.folder.glob("*.svg")] == ["accuracy-by-macs.svg"]  # one seed: no intervals


def test_a_missing_network_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no network inception_nothing"):
        kernels.main(made_study(tmp_path), replace(TINY, networks={"a": "resnet18", "b": "inception_nothing"}))
