"""`fit` against plain networks scaled down to the same budget, on imagenette224: `python benchmarks/fit_imagenette.py
--data DIR -o RUNS`.

For each budget: one `netsmith fit` of M minutes, and one `netsmith train` of M minutes for ResNet-18 and for
MobileNetV2, each at the widest multiplier of a grid that meets the budget at the pictures' own 224 pixels (timed
untrained here, exactly as fit times its candidates), with netsmith's own default recipe. Runs alternate, nothing else
may run on the machine. A run that is there already is not repeated, so the script can be stopped and started again;
equal peers of two budgets are trained once. Photos overlap ImageNet; nothing here is pretrained.

Rows go to benchmarks/results.csv: test and validation top-1 with intervals, latency, size; McNemar's p-value of fit
against the better peer on the same test pictures; and whether a winner that fits another budget beats that budget's
winner on validation. How long each fit was at work, by the times its own rows record, is printed.
"""

import argparse
import json
from pathlib import Path

from results import RESULTS, append, made, of_run, origin, right, run

from netsmith.arch.names import find_layout
from netsmith.artifact.measure import measure_many
from netsmith.export.probe import probe_onnx
from netsmith.fit.field import HEADROOM
from netsmith.fit.session import spent_before
from netsmith.fit.stopwatch import config_bytes
from netsmith.run.budget import Budget
from netsmith.run.clock import SystemClock
from netsmith.run.folder import RunFolder
from netsmith.run.ledger import Ledger
from netsmith.run.machine import machine
from netsmith.run.metrics import mcnemar
from netsmith.run.preprocess import Preprocess

BUDGETS = ("latency=15ms,size=6MB", "latency=3ms", "size=1MB")
PEERS = ("resnet18", "mobilenet_v2")
WIDTHS = (1.0, 0.75, 0.5, 0.35, 0.25, 0.18, 0.12, 0.06)
SIDE, CLASSES = 224, 10
SHOWN = ("subject", "budget", "model", "val_top1", "test_top1", "size_bytes", "note")


def widest(base: str, budget: Budget) -> str | None:
    """Name of the widest scaled network that meets the budget at 224 pixels, or None."""
    for width in WIDTHS:
        name = base if width == 1.0 else f"{base}@width={width}"
        layout = find_layout(name, num_classes=CLASSES, img_size=SIDE)
        model = probe_onnx(layout, preprocess=Preprocess(size=SIDE))
        if budget.size_bytes is not None and len(model) + config_bytes(layout) > budget.size_bytes:
            continue
        if budget.latency_ms is not None:
            cores = min(machine().cores_physical, machine().cores_usable)
            [found] = measure_many([model], threads=cores, seconds_each=1.0, limit_ms=budget.latency_ms)
            if found is None or found.high > HEADROOM * budget.latency_ms:
                continue
        return name
    return None


def chosen_peer(base: str, text: str, output: Path) -> str | None:
    """`widest`, decided once per output folder, so that a resumed benchmark compares with the same networks."""
    path = output / "peers.json"
    chosen = json.loads(path.read_text()) if path.exists() else {}
    if (key := f"{base} for {text}") not in chosen:
        chosen[key] = widest(base, Budget.parse(text))
        output.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(chosen, indent=1))
    return chosen[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds imagenette224/imagenette224.zip")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, help="plain networks to compare with")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    data = str(options.data / "imagenette224" / "imagenette224.zip")
    time = f"{options.minutes:g}m"
    common = origin(f"fit imagenette224 {time}")
    rows, winners = [], {}
    jobs = [(text, subject) for text in BUDGETS for subject in ("fit", options.peers[0])]
    jobs += [(text, subject) for subject in options.peers[1:] for text in BUDGETS]
    for text, subject in jobs:
        if subject == "fit":
            folder = options.output / f"fit-{text.replace('=', '').replace(',', '-')}"
            command = ["fit", data, "--budget", text, "--time", time]
            winners[text] = (folder, run(command, folder))
        else:
            name = chosen_peer(subject, text, options.output)
            if name is None:
                print(f"{subject} cannot be scaled to {text}")
                continue
            folder = options.output / f"train-{name}"
            command = ["train", data, "--model", name, "--img-size", str(SIDE), "--time", time]
        rows.append((text, subject, run(command, folder), folder, command))
    written = [row(common, *found, rows) for found in rows]
    append(options.results, written)
    for found in written:
        print({key: found[key] for key in SHOWN})
    for text, (folder, result) in winners.items():
        print(f"fit to {text} took {worked(folder):.0f} s of {60 * options.minutes:.0f} s")
        for other, (elsewhere, rival) in winners.items():
            measured = {
                "latency_ms": rival.final.latency_ms.high, "size_bytes": rival.final.size_bytes,
                "macs": rival.final.macs, "params": rival.final.params,
            }  # fmt: skip
            if other != text and Budget.parse(text).met(measured):
                beaten = rival.final.top1.val.value > result.final.top1.val.value
                p = mcnemar(right(folder, "val"), right(elsewhere, "val"))
                word = "BEATS" if beaten else "does not beat"
                print(f"the winner of {other} fits {text} and {word} its winner on validation, McNemar p {p:.3g}")


def worked(folder: Path) -> float:
    """Seconds between the first and the last time that a run records, those between its sessions left out."""
    found = RunFolder(folder)
    return spent_before(found, Ledger(found.ledger, clock=SystemClock()))


def row(common, text, subject, result, folder, command, rows) -> dict:
    final = result.final
    note = ""
    if subject == "fit":
        peers = [found for found in rows if found[0] == text and found[1] != "fit"]
        best = max(peers, key=lambda found: found[2].final.top1.test.value, default=None)
        if best is not None:
            p = mcnemar(right(folder, "test"), right(best[3], "test"))
            note = f"better peer {best[2].final.model}: {best[2].final.top1.test.value:.4f}, McNemar p {p:.3g}"
    return common | made(folder) | of_run(result) | {
        "subject": subject, "budget": text, "note": note,
        "model": f"{final.model} r{SIDE if subject != 'fit' else side(folder)}",
        "command": " ".join(["netsmith", *command]).replace(command[1], "imagenette224.zip"),
    }  # fmt: skip


def side(folder: Path) -> int:
    return json.loads((folder / "model" / "config.json").read_text())["preprocess"]["size"]


if __name__ == "__main__":
    main()
