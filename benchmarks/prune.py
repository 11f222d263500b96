"""ResNet-56 at half its MACs, against Torch-Pruning: `python benchmarks/prune.py --data DIR -o RUNS`.

Both begin with the published CIFAR-10 weights (93.39 %), cut channels to at most half the MACs with widths that are
multiples of 8, and train on for 20 minutes with the same recipe, Trainer and threads. They differ in which channels go:

- `netsmith`: `netsmith prune MODEL --macs 0.5 --time 20m`, the accuracy of the artifact that it ships;
- `torch-pruning`: `BasePruner` with group L2 norms, global, `round_to=8`, little by little until half the MACs are gone
  (as its own benchmark of this network does, 400 steps at most). It takes zero padding for an element-wise operation,
  so behind a zero-padded shortcut it removes the positions that it removed before, which are other channels there;
- `torch-pruning-hessian`: the same by `GroupHessianImportance`, the importance that netsmith's cell uses and its own
  best before training (LOG.md): squared gradients of single training pictures, taken again whenever widths have
  changed, as its own benchmark of importances takes them at every step. (Its `accumulate_grad` keeps the last picture's
  alone in 1.6.1, so they are averaged here.) Pictures are asked one by one, so only the first 256 are: a cut then takes
  minutes, which its row says. netsmith's importance was chosen among five on validation pictures, so the peer is the
  better of these two there;
- `torch-pruning-taylor`, if asked for: likewise by `GroupTaylorImportance`, gradients of as many pictures as netsmith
  asks;
- `torch-pruning-inner`, if asked for: by L2 norms, but only inside blocks, where padding cannot matter;
- `unpruned`: the network as it was.

The weights were trained on all 50,000 training pictures. So validation pictures, on which one chooses, are 5,000 of the
test batch, stratified and always the same, and the accuracy reported is that on the other 5,000; training sees the
50,000. Three seeds, each a row; mean and spread are printed, and netsmith's distance from its peer is a row.

Every run is a process of its own and is kept in the output folder with the commit it was made at, so the script can be
stopped and started again, and done in pieces: `--cells netsmith --seeds 0`; a run of netsmith's by another command is
refused. Nothing else may run on the machine; three hours and a half on two cores.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_weights import halves_npz, published
from results import RESULTS, Row, append, begun, made, of_run, origin, origin_of, run

from netsmith.arch.cost import cost
from netsmith.arch.layout import Layout
from netsmith.arch.select import select
from netsmith.artifact.bundle import load_bundle
from netsmith.compress.prune.pools import find_pools
from netsmith.run.files import write_json
from netsmith.run.metrics import Interval
from netsmith.run.plan import Plan
from netsmith.run.waiting import waiting

if TYPE_CHECKING:
    from torch import Tensor, nn

    from netsmith.models.network import Network

HERE = Path(__file__).resolve()
MODEL = "resnet56_cifar"
PEERS = {
    "torch-pruning": "l2", "torch-pruning-hessian": "hessian", "torch-pruning-taylor": "taylor",
    "torch-pruning-inner": "l2",
}  # fmt: skip
"""Cells of Torch-Pruning, each with its importance."""
CELLS = ("netsmith", *PEERS)
USUAL = ("netsmith", "torch-pruning", "torch-pruning-hessian")
SEEDS = (0, 1, 2)
ROUND_TO, SHARE = 8, 0.5
TORCH_PRUNING_STEPS = 400
DERIVED = {"l2": 0, "taylor": 1024, "hessian": 256}
"""Training pictures whose gradients Torch-Pruning is given, by importance."""
RECIPE: dict[str, Any] = {
    "opt": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "batch_size": 128,
    "sched": "cosine", "warmup": 0.05, "smoothing": 0.0, "ema": 0.998, "flip": True, "pad": 4, "crop_scale": None,
}  # fmt: skip
"""Of training after the cut, for both."""


# What both begin with


def pictures(options: argparse.Namespace) -> Path:
    """CIFAR-10 with the test batch divided: half of it for validation, the rest the test pictures."""
    return halves_npz(options.data, options.output)


def model(options: argparse.Namespace) -> Path:
    """The published network as a model folder."""
    return published(MODEL, options.data, options.output)


def recipe_file(options: argparse.Namespace) -> Path:
    """`RECIPE` as a file."""
    import yaml

    path = options.output / "recipe.yaml"
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in RECIPE.items()}
    path.write_text(yaml.safe_dump({"model": MODEL, "img_size": 32, "epochs": 1.0, **fields}))
    return path


# Cells


def netsmith_command(options: argparse.Namespace, seed: int) -> list[str]:
    """What is typed."""
    return [
        "prune", str(model(options)), "--data", str(pictures(options)), "--macs", str(SHARE),
        "--round-to", str(ROUND_TO), "--importance", options.importance, "--time", options.time,
        "--config", str(recipe_file(options)), "--seed", str(seed), "--max-drop", "100", "--no-baseline",
    ]  # fmt: skip


def netsmith_row(options: argparse.Namespace, seed: int) -> Row:
    """Of a run, made now where it is not there."""
    folder = options.output / f"netsmith-{options.importance}-{options.time}-{seed}"
    found = run(netsmith_command(options, seed), folder)
    return {
        **made(folder), **of_run(found), "command": found.commands[-1], "model": widths(folder / "model"),
        "note": f"seed {seed}, {found.final.macs:,} MACs, {pace(folder)}",
    }  # fmt: skip


def pace(folder: Path) -> str:
    """Epochs, images/s and dtype of a training, of its rows and plan."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = [row["images_per_s"] for row in rows if row.get("images_per_s")]
    plan = Plan(folder / "plan.jsonl")
    dtype = next((row.value for row in plan.rows if row.kind == "dtype"), "float32")
    return f"{rows[-1]['epoch']:.1f} epochs, {statistics.median(rates):,.0f} images/s, {dtype}"


def widths(folder: Path) -> str:
    """Output channels of a model's stages."""
    layout = load_bundle(folder).layout
    return f"{layout.name} {'-'.join(str(stage.blocks[-1].out) for stage in layout.stages)}"  # pyright: ignore


def reference_row(options: argparse.Namespace, cell: str, seed: int) -> Row:
    """Of Torch-Pruning, in a process of its own, made now where it is not there."""
    folder = options.output / f"{cell}-{options.time}-{seed}"
    answer = folder / "answer.json"
    begun(folder, finished=answer.exists(), asked={"recipe": json.dumps(RECIPE), "round-to": str(ROUND_TO)})
    if not answer.exists():
        command = [sys.executable, str(HERE), "--child", cell, "--seeds", str(seed), "--data", str(options.data), "-o"]
        command += [str(options.output), "--time", options.time]
        print("$", cell, "seed", seed, flush=True)
        subprocess.run(command, check=True, env=os.environ | waiting(os.environ))  # as netsmith's has it
    row: Row = json.loads(answer.read_text())
    return {
        **made(folder),
        **row,
        "note": f"{row['note']}, {pace(folder)}",
        "command": "BasePruner, then the same Trainer",
    }


def torch_pruning(options: argparse.Namespace, cell: str, seed: int) -> None:
    """Cut as Torch-Pruning chooses, train on, answer; writes `answer.json`."""
    from torch import from_numpy

    from netsmith.data.audit import audit
    from netsmith.data.cache import prepared
    from netsmith.data.masters import masters
    from netsmith.data.sources import open_source
    from netsmith.data.splits import split
    from netsmith.export.network import export_network, normalised
    from netsmith.models.build import load_model
    from netsmith.run.budget import parse_duration
    from netsmith.run.clock import SystemClock
    from netsmith.run.folder import RunFolder
    from netsmith.run.recipe import Recipe
    from netsmith.train.evaluate import evaluate_network
    from netsmith.train.feed import TrainingData
    from netsmith.train.loop import train

    whole = load_model(model(options))
    most = int(SHARE * cost(whole.layout).macs)
    preprocess = load_bundle(model(options)).config.preprocess
    dataset = split(audit(open_source(str(pictures(options)))).dataset, seed=seed)
    items = dataset.subset("train")
    clock, importance = SystemClock(), PEERS[cell]
    asked = prepared(dataset, sorted(items, key=lambda item: item.key)[: DERIVED[importance]], preprocess)
    began = clock.now()
    network = cut_by_torch_pruning(
        whole, most=most, inner=cell == "torch-pruning-inner", importance=importance,
        images=normalised(asked.pixels.copy(), preprocess), labels=from_numpy(asked.labels.copy()),
    )  # fmt: skip
    seconds = clock.now() - began
    found = masters(dataset, items, side=round(1.15 * 32), encoding="decoded", warn=print)
    val, test = (prepared(dataset, dataset.subset(side), preprocess) for side in ("val", "test"))
    fields = {**RECIPE, "model": network.layout.name, "img_size": 32, "seed": seed}
    recipe = Recipe.from_mapping({**fields, "time_s": parse_duration(options.time)}, where="the benchmark")
    folder = RunFolder(options.output / f"{cell}-{options.time}-{seed}")
    folder.path.mkdir(exist_ok=True)
    trained = train(
        network, TrainingData.of(found, val, preprocess), recipe, run=folder, plan=Plan(folder.plan),
        clock=clock, resume=True,
    )  # fmt: skip
    made = export_network(
        trained.network, folder.model, labels=dataset.classes, preprocess=preprocess, overwrite=True
    )  # fmt: skip
    answers = evaluate_network(
        trained.network, test.pixels, test.labels, mean=preprocess.mean, std=preprocess.std
    )  # fmt: skip
    assert trained.val is not None, "there are validation pictures"
    top1: Interval = answers.headline
    row = {
        "val_top1": trained.val.headline.value, "test_top1": top1.value, "test_low": top1.low, "test_high": top1.high,
        "n": top1.n, "size_bytes": made.size_bytes, "model": widths(folder.model),
        "note": f"seed {seed}, {cost(network.layout).macs:,} MACs, cut in {seconds:.0f} s",
    }  # fmt: skip
    write_json(folder.path / "answer.json", row)


def cut_by_torch_pruning(
    network: "Network", *, most: int, images: "Tensor", labels: "Tensor", importance: str = "l2", inner: bool = False
) -> "Network":
    """The network as Torch-Pruning leaves it when it has so many MACs at most.

    Args:
        network: in evaluation mode; not changed.
        most: MACs.
        images: float32 [N,3,H,W], as the network reads them; labels: int64 [N]. Their gradients are what `taylor` and
            `hessian` go by.
        importance: "l2", "taylor" or "hessian".
        inner: leave alone what blocks add to.
    """
    import copy

    import torch
    import torch_pruning
    from torch import nn

    from netsmith.models.build import load_weights

    worked = copy.deepcopy(network).eval()
    kinds = torch_pruning.importance
    measure = {
        "l2": lambda: kinds.GroupMagnitudeImportance(p=2),
        "taylor": kinds.GroupTaylorImportance,
        "hessian": kinds.GroupHessianImportance,
    }[importance]()
    protected: list[nn.Module] = [
        module
        for name, module in worked.named_modules()
        if isinstance(module, nn.Linear) or (inner and (name == "conv1" or name.endswith(".conv2")))
    ]
    pruner = torch_pruning.pruner.BasePruner(
        worked,
        torch.zeros(1, 3, *network.layout.resolution),
        importance=measure,
        global_pruning=True,
        pruning_ratio=1.0,
        iterative_steps=TORCH_PRUNING_STEPS,
        ignored_layers=protected,
        round_to=ROUND_TO,
    )
    derived: Layout | None = None
    for _ in range(TORCH_PRUNING_STEPS):
        layout = layout_as_wide_as(worked, network.layout)
        if cost(layout).macs <= most:
            return load_weights(layout, worked.state_dict(), where="Torch-Pruning's network")
        if importance != "l2" and layout != derived:
            give_gradients(worked, images, labels, squared=importance == "hessian")
            derived = layout
        pruner.step()
    raise SystemExit("Torch-Pruning did not reach the target")


def give_gradients(worked: "nn.Module", images: "Tensor", labels: "Tensor", *, squared: bool) -> None:
    """Put the mean gradient of the pictures' losses where Torch-Pruning reads it, `squared`: the mean of its squares.

    Single pictures have gradients of their own only where the network is in evaluation mode.
    """
    import torch
    from torch.nn import functional as F

    parameters = list(worked.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    size = 1 if squared else 64
    for some, of in zip(images.split(size), labels.split(size), strict=True):
        loss = F.cross_entropy(worked(some), of, reduction="sum")
        for sums, gradient in zip(total, torch.autograd.grad(loss, parameters), strict=True):
            sums += (gradient**2 if squared else gradient) / len(images)
    for parameter, gradient in zip(parameters, total, strict=True):
        parameter.grad = gradient


def layout_as_wide_as(worked: "nn.Module", layout: Layout) -> Layout:
    """A layout with the widths that its network's modules have now; which channels they were does not matter to it."""
    pools = find_pools(layout, round_to=1)
    drop: list[int] = []
    kept: dict[str, int] = {}
    for pool in pools.pools:
        width = len(worked.get_parameter(f"{pool.name}.weight"))
        others = sum(kept[other.name] for other in pools.pools if other.name in kept and pool.name in other.counts)
        kept[pool.name] = width - others
        drop += pool.classes[kept[pool.name] :]
    pruned = select(layout, pools.ties.keep(drop)).layout
    return replace(pruned, name=f"{layout.name}+pruned")


def unpruned_row(options: argparse.Namespace) -> Row:
    """The network as it was, on the same test pictures."""
    path = options.output / "unpruned.json"
    begun(path, finished=path.exists())
    if not path.exists():
        from netsmith.artifact.evaluate import evaluate
        from netsmith.artifact.runtimes import open_session
        from netsmith.data.audit import audit
        from netsmith.data.cache import prepared
        from netsmith.data.sources import open_source

        bundle = load_bundle(model(options))
        dataset = audit(open_source(str(pictures(options)))).dataset
        scores: list[Interval] = []
        for side in ("val", "test"):
            asked = prepared(dataset, [item for item in dataset.items if item.split == side], bundle.config.preprocess)
            scores.append(evaluate(open_session(bundle), asked.pixels, asked.labels).headline)
        val, test = scores
        row = {
            "val_top1": val.value, "test_top1": test.value, "test_low": test.low, "test_high": test.high, "n": test.n,
            "size_bytes": bundle.size_bytes, "model": widths(bundle.folder),
            "note": f"{cost(bundle.layout).macs:,} MACs", "command": "evaluate",
        }  # fmt: skip
        write_json(path, row)
    return {**made(path), **json.loads(path.read_text())}


def against_peer(rows: Sequence[Row]) -> Row | None:
    """netsmith's distance from Torch-Pruning, of whose cells the one that is best on validation counts.

    Returns:
        Columns of a row, or None where a side is missing.
    """
    by_cell: dict[str, list[Row]] = {}
    for row in rows:
        by_cell.setdefault(row["subject"], []).append(row)
    peers = [cell for cell in PEERS if cell in by_cell]
    if not peers or "netsmith" not in by_cell:
        return None
    peer = max(peers, key=lambda cell: statistics.mean(row["val_top1"] for row in by_cell[cell]))
    ours, theirs = ([100 * row["test_top1"] for row in by_cell[cell]] for cell in ("netsmith", peer))
    note = f"{statistics.mean(ours):.2f} against {statistics.mean(theirs):.2f} %, "
    note += f"{statistics.mean(ours) - statistics.mean(theirs):+.2f} points"
    if min(len(ours), len(theirs)) > 1:
        error = math.sqrt(sum(statistics.variance(side) / len(side) for side in (ours, theirs)))
        note += f", standard error {error:.2f}"
    note += f", seeds {len(ours)} and {len(theirs)}; best on validation of {', '.join(peers)}"
    return {
        **origin_of([*by_cell["netsmith"], *by_cell[peer]]), "subject": f"netsmith against {peer}", "note": note,
        "test_top1": statistics.mean(ours) / 100,
    }  # fmt: skip


def summary(rows: Iterable[Row]) -> str:
    """Mean and spread of each subject's test accuracy."""
    by_subject: dict[str, list[float]] = {}
    for row in rows:
        by_subject.setdefault(row["subject"], []).append(100 * row["test_top1"])
    lines = [
        f"{subject}: {statistics.mean(values):.2f} % (n {len(values)}, "
        f"{min(values):.2f} to {max(values):.2f}{f', sd {statistics.stdev(values):.2f}' if len(values) > 1 else ''})"
        for subject, values in by_subject.items()
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what is missing, and add rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of cifar10 and the weights")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--time", default="20m", help="of training after the cut")
    parser.add_argument("--importance", default="hessian", help="of netsmith's cell, see LOG.md")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(USUAL))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--results", type=Path, default=RESULTS, help="file that rows are added to")
    parser.add_argument("--child", choices=CELLS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.child is not None:
        torch_pruning(options, options.child, options.seeds[0])
        return
    common = {**origin("prune"), "budget": f"macs={SHARE:g}x, widths of {ROUND_TO}, {options.time}"}
    rows: list[Row] = [{**common, "subject": "unpruned", **unpruned_row(options)}]
    for seed in options.seeds:
        for cell in options.cells:
            row = netsmith_row(options, seed) if cell == "netsmith" else reference_row(options, cell, seed)
            rows.append({**common, "subject": cell, **row})
            print(f"{cell}, seed {seed}: {100 * rows[-1]['test_top1']:.2f} %, {rows[-1]['note']}", flush=True)
    print(summary(rows))
    if compared := against_peer(rows):
        rows.append({**common, **compared, "command": "python benchmarks/prune.py"})
        print(f"{rows[-1]['subject']}: {rows[-1]['note']}")
    append(options.results, rows)


if __name__ == "__main__":
    main()
