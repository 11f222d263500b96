import json
import subprocess
import sys

import pytest

from netsmith.errors import InputError
from netsmith.run.budget import BudgetRow
from netsmith.run.machine import Machine, machine, versions
from netsmith.run.metrics import wilson
from netsmith.run.result import Final, Latency, Result, Top1

CPUINFO = """\
processor\t: {0}
model name\t: Example 9000
physical id\t: 0
core id\t\t: {1}
flags\t\t: fpu avx avx2 amx_bf16 avx512_bf16 zzz
"""


def fake(root, monkeypatch, *, quota="max 100000", allowed=(0, 1, 2, 3)):
    (root / "proc").mkdir(exist_ok=True)
    (root / "sys/fs/cgroup").mkdir(parents=True, exist_ok=True)
    blocks = [CPUINFO.format(core, core // 2) for core in range(8)]
    (root / "proc/cpuinfo").write_text("\n".join(blocks))
    (root / "sys/fs/cgroup/cpu.max").write_text(quota)
    (root / "sys/fs/cgroup/memory.max").write_text("1000000")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(allowed), raising=False)
    return Machine.here(root=root)


def test_cores_are_those_the_process_may_use(tmp_path, monkeypatch):
    here = fake(tmp_path, monkeypatch)
    assert (here.cpu, here.cores_physical, here.cores_logical, here.cores_usable) == ("Example 9000", 2, 4, 4)
    assert here.flags == ["avx", "avx2", "avx512_bf16", "amx_bf16"]
    assert here.memory_bytes == 1_000_000
    assert fake(tmp_path, monkeypatch, quota="250000 100000").cores_usable == 2
    assert fake(tmp_path, monkeypatch, quota="50000 100000").cores_usable == 1


def test_processors_that_are_named_alike_are_told_apart(tmp_path, monkeypatch):
    here = fake(tmp_path, monkeypatch)
    path = tmp_path / "proc/cpuinfo"
    plain = path.read_text()
    for model, named in (("17", "Example 9000 (family 25, model 17)"), ("2", "Example 9000 (family 25, model 2)")):
        path.write_text(plain.replace("model name", f"cpu family\t: 25\nmodel\t\t: {model}\nmodel name"))
        found = Machine.here(root=tmp_path)
        assert found.cpu == named
        assert found.key != here.key


def test_key_changes_with_what_changes_timings_only(tmp_path, monkeypatch):
    here = fake(tmp_path, monkeypatch)
    assert here.key == here.model_copy(update={"memory_bytes": 1, "os": "Other"}).key
    others = [{"cpu": "B"}, {"flags": ["avx"]}, {"cores_usable": 1}, {"cores_physical": 1}]
    assert len({here.key, *(here.model_copy(update=other).key for other in others)}) == 5
    assert len(here.key) == 12


def test_this_machine():
    here = machine()
    assert here.cpu
    assert here == machine()
    assert Machine.model_validate_json(here.model_dump_json()) == here


def test_versions_import_nothing():
    code = (
        "import sys, json; from netsmith.run.machine import versions, machine; machine(); found = versions();"
        "print(json.dumps([found, [name for name in ('torch', 'onnxruntime', 'numpy') if name in sys.modules]]))"
    )
    found, imported = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    assert imported == []
    assert found == versions()
    assert {"python", "netsmith", "numpy"} <= set(found)


def result() -> Result:
    return Result(
        final=Final(
            model="resnet18",
            precision="float32",
            runtime="onnxruntime",
            threads=2,
            params=11_000_000,
            macs=1_800_000_000,
            size_bytes=44_000_000,
            memory_bytes=70_000_000,
            latency_ms=Latency(p50=1.0, p90=1.2, low=1.1, high=1.3, noise=0.02),
            top1=Top1(val=wilson(90, 100), test=None),
        ),
        budget=[BudgetRow(name="latency_ms", limit=5.0, measured=1.3, met=True)],
        machine=machine(),
        versions=versions(),
        commands=["netsmith fit digits"],
        artifact="0" * 64,
    )


def test_result_round_trip(tmp_path):
    result().save(tmp_path / "results.json")
    assert Result.load(tmp_path / "results.json") == result()
    document = json.loads((tmp_path / "results.json").read_text())
    assert list(document) == ["format", "final", "budget", "machine", "versions", "commands", "artifact"]
    assert document["final"]["top1"]["val"]["n"] == 100
    assert document["final"].pop("memory_bytes") == 70_000_000
    (tmp_path / "older.json").write_text(json.dumps(document))
    assert Result.load(tmp_path / "older.json").final.memory_bytes is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["final"].pop("macs"), "final.macs"),
        (lambda d: d["final"].update(extra=1), "final.extra"),
        (lambda d: d["final"]["top1"]["val"].update(low="0.1"), "final.top1.val.low"),
        (lambda d: d["final"]["top1"]["val"].update(low=0.99), "final.top1.val"),
        (lambda d: d.update(format=2), "format"),
        (lambda d: d.update(artifact="abc"), "artifact"),
    ],
)
def test_an_edited_result_is_refused(tmp_path, change, said):
    document = json.loads(result().model_dump_json())
    change(document)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError) as error:
        Result.load(path)
    assert f"results.json is not a result: {said}:" in str(error.value)


def test_no_result_and_half_a_result(tmp_path):
    with pytest.raises(InputError, match="did not finish"):
        Result.load(tmp_path / "results.json")
    (tmp_path / "results.json").write_text('{"format": 1')
    with pytest.raises(InputError, match="is not a result: the file"):
        Result.load(tmp_path / "results.json")
