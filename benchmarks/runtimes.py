"""Runtimes beside each other on several networks: `python benchmarks/runtimes.py`, an hour of a quiet machine.

PyTorch eager and compiled, ONNX Runtime, OpenVINO in float32 and in bfloat16, with 1 to the physical cores of threads
and batches of 1, 8 and 32, as `netsmith bench --runtimes all` measures one artifact: each in a fresh process, in turns.
Networks have random weights of which no map vanishes (`netsmith.export.probe`), because speed does not depend on them;
`--artifact` adds folders that are there, such as quantized ones. Every entry is a row of results.csv: times, images/s,
memory, noise of the machine, how far its probabilities are from ONNX Runtime's, and how many times as fast as eager
PyTorch with the same threads and batch. One network's rows are written as soon as it is done.

Nothing else may run on the machine.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import results
import torch

from netsmith.arch.names import find_layout
from netsmith.artifact.bundle import Bundle, load_bundle
from netsmith.artifact.comparison import BATCHES, Comparison, Entry, compare, own_contenders
from netsmith.artifact.measure import thread_counts
from netsmith.export.network import export_network
from netsmith.export.probe import probe_weights
from netsmith.export.torch_session import TORCH, in_torch
from netsmith.models.build import build
from netsmith.run.machine import machine
from netsmith.run.preprocess import Preprocess

BENCHMARK = "runtimes"
NETWORKS = {
    "resnet18": 224, "resnet50": 224, "efficientnet_b0": 224, "efficientnet_lite0": 224, "mobilenet_v2": 224,
    "inception_v3": 299, "resnet20_cifar": 32,
}  # fmt: skip


def artifact_of(name: str, size: int, folder: Path) -> Bundle:
    """An artifact of a network with random weights."""
    layout = find_layout(name, img_size=size)
    network = build(layout).eval()
    random = {key: torch.from_numpy(values.copy()) for key, values in probe_weights(layout).items()}
    network.load_state_dict(network.state_dict() | random)
    labels = [str(index) for index in range(layout.num_classes)]
    return export_network(network, folder, labels=labels, preprocess=Preprocess(size=size))


def rows_of(bundle: Bundle, found: Comparison) -> Iterator[results.Row]:
    """What the columns of results.csv say of a comparison."""
    config = bundle.config
    eager = {
        (each.threads, each.batch): each.measurement.p50_ms
        for each in found.entries
        if each.runtime == TORCH and each.measurement is not None
    }
    for each in found.entries:
        row: results.Row = {
            "subject": _subject(each),
            "model": f"{bundle.layout.name} r{config.preprocess.size} {config.precision}",
            "size_bytes": bundle.size_bytes,
        }
        measured = each.measurement
        if measured is None:
            yield row | {"note": each.reason}
            continue
        parts = [f"{each.images_per_s:.1f} images/s"]
        if (against := eager.get((each.threads, each.batch))) is not None:
            parts.append(f"{against / measured.p50_ms:.2f} times {TORCH}")
        if measured.peak_memory_bytes is not None:
            parts.append(f"{measured.peak_memory_bytes / 1e6:.0f} MB of memory")
        parts.append(f"noise {measured.noise:.2f}, {measured.runs} calls")
        parts.append(f"probabilities within {each.probability_difference:.1e}" + ("" if found.agrees(each) else " (!)"))
        times = {"latency_p50_ms": measured.p50_ms, "latency_p90_high_ms": measured.high}
        yield row | times | {"note": "; ".join(parts)}


def _subject(entry: Entry) -> str:
    if entry.threads is None:
        return entry.runtime
    return f"{entry.runtime}, {entry.threads} thread{'s' if entry.threads > 1 else ''}, batch {entry.batch}"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS), metavar="NAME")
    parser.add_argument("--artifact", nargs="*", default=[], type=Path, help="folders of artifacts to measure as well")
    parser.add_argument("--runtimes", nargs="*", help="only these")
    parser.add_argument("--threads", nargs="*", type=int, help="1 to the physical cores if not given")
    parser.add_argument("--batches", nargs="*", type=int, default=list(BATCHES))
    parser.add_argument("--seconds", type=float, default=6.0, help="of timed calls of every row")
    parser.add_argument("--visits", type=int, default=3, help="turns among which they are divided")
    parser.add_argument("--results", type=Path, default=results.RESULTS)
    options = parser.parse_args(arguments)
    here = machine()
    threads = options.threads or thread_counts(min(here.cores_physical, here.cores_usable))
    typed = [Path(each).name if Path(each).is_absolute() else each for each in arguments]
    shared = results.origin(BENCHMARK) | {"command": shlex.join(["python", "benchmarks/runtimes.py", *typed])}
    with tempfile.TemporaryDirectory() as work:
        sources = [*options.networks, *options.artifact]
        for place, source in enumerate(sources):
            named = isinstance(source, str)
            bundle = artifact_of(source, NETWORKS[source], Path(work, source)) if named else load_bundle(source)
            print(f"{place + 1} of {len(sources)}: {source}", flush=True)
            contenders = [*own_contenders(bundle), *in_torch(bundle)]
            found = compare(
                bundle,
                [each for each in contenders if options.runtimes is None or each.runtime in options.runtimes],
                threads=threads,
                batches=options.batches,
                seconds=options.seconds,
                visits=options.visits,
                progress=lambda title, done, total, note="", *, left=None: print(
                    f"  {done:.1f} of {total}, {note}", end="\r", flush=True
                ),
            )
            rows = [shared | row for row in rows_of(bundle, found)]
            results.append(options.results, rows)
            for row in rows:
                print(
                    f"{row['subject']:<40} {row.get('latency_p50_ms', float('nan')):9.3f} ms  {row['note']}", flush=True
                )


if __name__ == "__main__":
    main(sys.argv[1:])
