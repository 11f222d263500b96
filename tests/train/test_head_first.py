"""The classifier first: what learns when, what it costs, and that a run goes on the same from either side."""

from pathlib import Path

import pytest
import torch
from tiny_training import tiny_data, tiny_network, tiny_recipe, weights_hash
from torch import nn

from netsmith.arch.names import find_layout
from netsmith.models.build import build
from netsmith.run.clock import FakeClock
from netsmith.run.plan import Plan
from netsmith.train.head_first import HeadFirst
from netsmith.train.objectives import Classify, Outcome
from netsmith.train.trainer import Trainer

STEPS = 20  # of which the first eight are the classifier's


def trainer(folder: Path, **changes: object) -> Trainer:
    folder.mkdir(exist_ok=True)
    recipe = tiny_recipe(epochs=STEPS * 8 / 50, head_first=0.4, warmup=0.0, **changes)
    return Trainer(
        tiny_network(),
        tiny_data(),
        recipe,
        plan=Plan(folder / "plan.jsonl"),
        clock=FakeClock(),
        checkpoints=folder / "checkpoints",
    )


def test_only_the_classifier_learns_until_its_share_is_over(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    network = run.state.network
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    backward: list[int] = []
    network.get_submodule("3").register_full_backward_hook(lambda *_: backward.append(run.step))

    def changed() -> set[str]:
        return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, start[name])}

    run.advance(4)
    run.evaluate()  # which leaves the whole network in evaluation mode, and then in training mode
    run.advance(8)
    assert changed() == {"9.weight", "9.bias"}
    assert backward == []
    assert {name.split(".")[1] for name in run.state.tensors() if name.startswith("optimizer.")} == {"9"}
    run.advance()
    assert changed() == set(start)
    assert backward == list(range(8, STEPS))


@pytest.mark.parametrize("opt", ["sgd", "lamb"])
def test_a_run_goes_on_from_both_sides_of_the_switch_as_if_never_stopped(opt: str, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", opt=opt, momentum=0.9)
    whole.advance()
    for stop in (3, 8, 9):
        folder = tmp_path / str(stop)
        first = trainer(folder, opt=opt, momentum=0.9)
        first.advance(stop)
        first.save()
        second = trainer(folder, opt=opt, momentum=0.9)
        assert second.resume()
        second.advance()
        assert weights_hash(second.network) == weights_hash(whole.network), stop


def test_a_timed_run_is_over_in_time_and_its_plan_replays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, compute, seen = FakeClock(), Classify.forward, list[bool]()

    def forward(self: Classify, images: torch.Tensor, targets: torch.Tensor) -> Outcome:
        seen.append(self.network.get_submodule("0").weight.requires_grad)
        clock.tick((0.05 if seen[-1] else 0.01) * len(images) / 8)  # a fifth, and it was thought to be a third
        return compute(self, images, targets)

    monkeypatch.setattr(Classify, "forward", forward)
    settings = {"time_s": 6.0, "head_first": 0.4, "dtype": "float32", "channels_last": False, "ema": None}

    def timed(folder: Path) -> Trainer:
        folder.mkdir(exist_ok=True)
        plan = Plan(folder / "plan.jsonl")
        return Trainer(tiny_network(), tiny_data(val=4), tiny_recipe(epochs=None, **settings), plan=plan, clock=clock)

    run = timed(tmp_path / "a")
    run.advance()
    assert 0.93 * 6.0 < run.seconds <= 1.02 * 6.0
    trained = seen[-run.step :]
    assert trained == sorted(trained)
    assert trained.index(True) == pytest.approx(0.4 * run.step, abs=0.08 * run.step)  # replanned as its speed is known
    (tmp_path / "b").mkdir()
    (tmp_path / "b/plan.jsonl").write_text((tmp_path / "a/plan.jsonl").read_text())
    again = timed(tmp_path / "b")
    again.advance()
    assert seen[-again.step :] == trained
    assert weights_hash(again.network) == weights_hash(run.network)


@pytest.mark.parametrize("name", ["googlenet", "squeezenet1_1", "vgg11"])
def test_every_layer_that_gives_logits_is_a_classifier(name: str) -> None:
    network = build(find_layout(name, num_classes=3, img_size=64))
    head = HeadFirst(network.train(), 0.5)
    head.at(0.0)
    expected = {
        "googlenet": {"fc", "aux1.fc2", "aux2.fc2"},
        "squeezenet1_1": {"classifier.1"},
        "vgg11": {"classifier.6"},
    }
    learning = {each.rpartition(".")[0] for each, weight in network.named_parameters() if weight.requires_grad}
    assert learning == expected[name]
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    assert dropouts
    assert all(module.training for module in dropouts)
    assert not any(module.training for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    head.at(0.5)
    assert all(module.training for module in network.modules())
    assert all(weight.requires_grad for weight in network.parameters())
