"""What int8 is worth, network by network: `python benchmarks/quantize.py --data DIR -o WORK`.

- `resnet20_cifar`, `resnet56_cifar`: published CIFAR-10 weights, selected on a fixed half of the test batch, reported
  on the other (`cifar_weights.py`). Aimed at: at most 0.5 points lost; the speed is measured, refused where slower.
- `resnet18`: trained here on imagenette224 at 224 pixels. Aimed at: 2.5 times its float32 artifact at batch 1, on a CPU
  with VNNI.
- `efficientnet_b0`, `efficientnet_lite0`: trained here the same way; the ladder's decision, whatever it is.

Each row says what was kept or refused, after which rung, and both sides' numbers: accuracy by the artifacts after
reload, latencies taken in turns. What is there already in WORK is not made again, and its row says at which commit it
was made; what was made by another command (`--smoke`, another `--time`) is refused. Nothing else may run on the
machine.
`--smoke` shows that all of it works, in minutes, with numbers that mean nothing.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from cifar_weights import FILES, halves_npz, published
from results import RESULTS, Row, append, begun, made, origin, run, wording

from netsmith.run.clock import SystemClock
from netsmith.run.ledger import Ledger, LedgerRow

HERE = Path(__file__).resolve()
TRAINED = ("resnet18", "efficientnet_b0", "efficientnet_lite0")
MAX_DROP = 0.5


def main() -> int:
    """Measure what was asked for; rows go to the file of results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"any of {', '.join([*FILES, *TRAINED])}")
    parser.add_argument(
        "--data", type=Path, default=HERE.parent.parent.parent / "shared" / "data", help="the data folder"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--time", default="20m", help="of training each network that has no published weights here")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file that the rows go to")
    parser.add_argument("--smoke", action="store_true", help="tiny: shows that it works")
    options = parser.parse_args()
    models: list[str] = options.models or [*FILES, *TRAINED]
    if unknown := set(models) - {*FILES, *TRAINED}:
        parser.error(f"no such model: {', '.join(sorted(unknown))} (there are {', '.join([*FILES, *TRAINED])})")
    for model in models:
        row = of_published(model, options) if model in FILES else of_trained(model, options)
        append(options.results, [row])
        print(row["subject"], row["note"], sep=": ", flush=True)
    return 0


def of_published(model: str, options: argparse.Namespace) -> Row:
    """A network with published CIFAR-10 weights."""
    pictures = halves_npz(options.data, options.output, train=500 if options.smoke else None)
    source = published(model, options.data, options.output)
    return measured(model, source, pictures, options)


def of_trained(model: str, options: argparse.Namespace) -> Row:
    """A network trained on imagenette224, for as long as was asked."""
    pictures = options.data / "imagenette224" / "imagenette224.zip"
    length = ["--epochs", "0.1", "--img-size", "32"] if options.smoke else ["--time", options.time, "--img-size", "224"]
    folder = options.output / f"{model}-float"
    run(["train", str(pictures), "--model", model, *length], folder)
    return measured(model, folder, pictures, options)


def measured(model: str, source: Path, pictures: Path, options: argparse.Namespace) -> Row:
    """Quantize, and say what came out."""
    out = options.output / f"{model}-int8"
    more = ["--calibration-size", "32"] if options.smoke else []
    command = ["quantize", str(source), "--data", str(pictures), "--max-drop", str(MAX_DROP), "--precision", "int8"]
    command += ["-o", str(out), *more]
    outcome = settled(command, out)
    before, after = outcome.before, outcome.after
    length = " --smoke" if options.smoke else f" --time {options.time}" if model in TRAINED else ""
    row: Row = {
        **origin("quantize"),
        **made(out, *([source] if (source / "results.json").exists() else [])),
        "subject": f"{model} int8, {'kept' if outcome.verdict == 'kept' else 'refused, float stays'}",
        "budget": f"max-drop={MAX_DROP}, faster",
        "model": model,
        "val_top1": after["top1"]["value"],
        "n": after["top1"]["n"],
        "latency_p50_ms": after["latency_ms"]["p50"],
        "latency_p90_high_ms": after["latency_ms"]["high"],
        "size_bytes": after["size_bytes"],
        "command": f"python benchmarks/quantize.py {model}{length}",
    }
    told = [f"{before['latency_ms']['p50'] / after['latency_ms']['p50']:.2f}x", outcome.reason]
    if outcome.verdict == "kept":
        ours, theirs = (reported(each, pictures) for each in (out, source))
        row |= {"test_top1": ours["value"], "test_low": ours["low"], "test_high": ours["high"], "n": ours["n"]}
        told.append(f"test {theirs['value']:.4f} -> {ours['value']:.4f}")
    return row | {"note": "; ".join(told)}


def settled(command: list[str], out: Path) -> LedgerRow:
    """The outcome of a quantization, made or gone on with where it is not there yet."""

    def row() -> LedgerRow | None:
        return Ledger(out / "ledger.jsonl", clock=SystemClock()).newest("quantize")

    known = row()
    finished = known is not None and (known.verdict != "kept" or (out / "results.json").exists())
    begun(out, finished=finished, asked={"command": wording(command)})
    if not finished:
        print("$ netsmith", *command, flush=True)
        done = subprocess.run([sys.executable, "-m", "netsmith", *command, "--resume", "--quiet"], check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(done.returncode)
    found = row()
    assert found is not None, "it ended with a verdict"
    return found


def reported(path: Path, pictures: Path) -> Row:
    """Top-1 on the test pictures with its interval, of a run or an artifact."""
    command = [sys.executable, "-m", "netsmith", "val", str(path), "--data", str(pictures), "--split", "test", "--json"]
    return json.loads(subprocess.run([*command, "--quiet"], check=True, capture_output=True, text=True).stdout)["top1"]


if __name__ == "__main__":
    sys.exit(main())
