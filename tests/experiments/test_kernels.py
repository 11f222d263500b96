"""experiments/kernels.py on made pictures, with networks that are there in place of the Inceptions."""

from dataclasses import replace
from pathlib import Path

import kernels
import pytest
from kernels import FULL, SMALL, Setting, with_kernel
from made_study import SIDE, made_study

from netsmith.arch import graph as g
from netsmith.arch.layout import layout_graph
from netsmith.arch.lower import lower
from netsmith.arch.names import MODELS, find_spec
from netsmith.arch.scale import for_size
from netsmith.errors import InputError

TINY = Setting(
    data="made", naive="mobilenet_v2", reduced="mobilenet_v2", kernels=(5,), side=SIDE, macs=(4_000_000,), epochs=0.5
)


def test_one_kernel_size_changes_kernels_only() -> None:
    spec = for_size(find_spec("mobilenet_v2"), 32)
    before, after = (layout_graph(lower(each)) for each in (spec, with_kernel(spec, 7)))
    pairs = [(a, b) for a, b in zip(before.ops, after.ops, strict=True) if isinstance(a, g.Conv)]
    changed = 0
    for a, b in pairs:
        assert isinstance(b, g.Conv)
        assert (a.name, a.in_channels, a.out_channels, a.stride) == (b.name, b.in_channels, b.out_channels, b.stride)
        changed += (set(a.kernel), set(b.kernel)) == ({3}, {7})
        assert set(b.kernel) in ({1}, {7}) or a.name == "features.0.0"  # the stem stays
    assert changed == 17
    assert g.shapes(before)[before.output] == g.shapes(after)[after.output]


def test_rows_table_and_chart(tmp_path: Path) -> None:
    study = made_study(tmp_path, name="kernels", seeds=1)
    kernels.main(study, TINY)
    rows = list(study._rows.values())
    assert {(row["arm"], row["target_macs"]) for row in rows} == {
        (kernels.NAIVE, 4_000_000), (kernels.REDUCED, 4_000_000), ("reduced, 5x5", 4_000_000)
    }  # fmt: skip
    assert all(row["macs"] <= 4_000_000 for row in rows)
    assert all(row["test_top1"] is not None for row in rows)
    assert "reduced, 5x5" in (study.folder / "table.md").read_text()
    assert (study.folder / "accuracy-by-macs.svg").exists()


@pytest.mark.parametrize("setting", [SMALL, FULL], ids=["small", "full"])
def test_missing_networks_are_one_sentence(setting: Setting, tmp_path: Path) -> None:
    study = made_study(tmp_path)
    for names in ({"naive": "inception_nothing"}, {"naive": "resnet18", "reduced": "inception_nothing"}):
        with pytest.raises(InputError, match="no network inception_nothing"):
            kernels.main(study, replace(setting, **names))
    if setting.naive in MODELS:
        assert setting.reduced in MODELS
