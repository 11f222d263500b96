import json

import pytest

from netsmith.errors import InputError
from netsmith.run.files import read_jsonl
from netsmith.run.plan import Plan


def refuse():
    raise AssertionError("a recorded choice must not be computed again")


def test_decide_records_once_and_replay_obeys(tmp_path):
    path = tmp_path / "plan.jsonl"
    plan = Plan(path)

    def compute():
        assert not path.exists(), "nothing is written before it is computed"
        return 120

    assert plan.decide("total_steps", at=0, compute=compute, why="0.5 s per step") == 120
    assert read_jsonl(path) == [{"at": 0, "kind": "total_steps", "value": 120, "why": "0.5 s per step"}]
    assert plan.decide("total_steps", at=0, compute=refuse, why="") == 120
    assert Plan(path).decide("total_steps", at=0, compute=refuse, why="") == 120
    assert len(read_jsonl(path)) == 1
    assert plan.decide("total_steps", at=60, compute=lambda: 110, why="a new mark") == 110
    assert plan.decide("threads", at=0, compute=lambda: 2, why="another kind") == 2


def test_first_run_and_replay_see_the_same_types(tmp_path):
    plan = Plan(tmp_path / "plan.jsonl")
    first = plan.decide("dtype", at=0, compute=lambda: {"conv": ("bfloat16", 1)}, why="measured")
    again = Plan(plan.path).decide("dtype", at=0, compute=refuse, why="")
    assert first == again == {"conv": ["bfloat16", 1]}


def test_value_is_the_newest_at_or_before(tmp_path):
    plan = Plan(tmp_path / "plan.jsonl")
    plan.record("total_steps", 100, at=0, why="")
    plan.record("threads", 2, at=0, why="")
    plan.record("total_steps", 90, at=50, why="slower than thought")
    plan.record("total_steps", 80, at=50, why="again at the same step: the later row holds")
    assert [plan.value("total_steps", step) for step in (0, 49, 50, 99)] == [100, 100, 80, 80]
    with pytest.raises(KeyError, match="micro_batch"):
        plan.value("micro_batch", 10)
    assert [row.value for row in plan.rows] == [100, 2, 90, 80]


def test_rows_beyond_a_checkpoint_are_obeyed(tmp_path):
    plan = Plan(tmp_path / "plan.jsonl")
    plan.record("total_steps", 100, at=0, why="")
    plan.record("total_steps", 90, at=50, why="")
    resumed = Plan(plan.path)
    assert resumed.value("total_steps", 40) == 100
    assert resumed.decide("total_steps", at=50, compute=refuse, why="") == 90


def test_a_plan_of_another_recipe_is_refused(tmp_path):
    plan = Plan(tmp_path / "plan.jsonl")
    plan.record("total_steps", 90, at=50, why="")
    with pytest.raises(InputError, match="step 50 but none at step 40"):
        plan.decide("total_steps", at=40, compute=lambda: 1, why="")
    assert len(read_jsonl(plan.path)) == 1


def test_torn_last_line_is_no_row_and_is_cut_off(tmp_path):
    path = tmp_path / "plan.jsonl"
    Plan(path).record("threads", 2, at=0, why="")
    path.write_bytes(path.read_bytes() + b'{"at": 10, "kind": "thre')
    plan = Plan(path)
    assert len(plan.rows) == 1
    plan.record("threads", 1, at=10, why="")
    assert [json.loads(line)["value"] for line in path.read_text().splitlines()] == [2, 1]


@pytest.mark.parametrize("line", ["nonsense", '{"at": -1, "kind": "k", "value": 1, "why": ""}', '{"at": 1}', "[]"])
def test_damaged_plan(tmp_path, line):
    path = tmp_path / "plan.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=r"plan\.jsonl is not a plan"):
        Plan(path)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}])
def test_values_must_be_json(tmp_path, value):
    plan = Plan(tmp_path / "plan.jsonl")
    with pytest.raises((ValueError, TypeError)):
        plan.record("threads", value, at=0, why="")
    assert not plan.path.exists()


def test_rows_of_accidents_come_in_any_order(tmp_path):
    plan = Plan(tmp_path / "plan.jsonl")
    assert plan.add("grad_accum", 2, at=50, why="memory ran out") == 2
    assert plan.add("grad_accum", 4, at=20, why="a smaller machine") == 4
    assert [(row.at, row.value) for row in Plan(plan.path).rows] == [(50, 2), (20, 4)]
