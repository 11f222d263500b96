"""experiments/scaling.py on made pictures."""

from pathlib import Path

import pytest
import scaling
from made_study import SIDE, made_study
from scaling import BASE, FULL, SMALL, Setting, networks

from netsmith.arch.cost import cost
from netsmith.arch.lower import lower
from netsmith.arch.scale import RULES

TINY = Setting(data="made", bases=("resnet8_cifar",), side=SIDE, epochs=0.5)


@pytest.mark.parametrize("setting", [SMALL, FULL], ids=["small", "full"])
def test_every_rule_comes_near_the_target_and_not_above(setting: Setting) -> None:
    for base in setting.bases:
        macs = {rule: cost(lower(spec)).macs for rule, spec in networks(base, setting=setting).items()}
        assert set(macs) == {BASE, *RULES}
        for rule in RULES:
            assert 0.9 * setting.factor < macs[rule] / macs[BASE] <= setting.factor, (base, rule)


def test_rows_table_and_chart(tmp_path: Path) -> None:
    study = made_study(tmp_path, name="scaling")
    scaling.main(study, TINY)
    rows = list(study._rows.values())
    assert {(row["base"], row["rule"], row["seed"]) for row in rows} == {
        ("resnet8_cifar", rule, seed) for rule in (BASE, *RULES) for seed in (0, 1)
    }
    sides = {row["rule"]: row["side"] for row in rows}
    assert sides["resolution"] > sides["compound"] > sides["width"] == sides["depth"] == sides[BASE] == SIDE
    table = (study.folder / "table.md").read_text().splitlines()
    assert len(table) == 2 + 1 + len(RULES)
    assert sorted(path.name for path in study.folder.glob("*.svg")) == ["gaps.svg", "resnet8_cifar.svg"]
