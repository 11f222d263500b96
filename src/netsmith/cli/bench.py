"""`netsmith bench`: how fast an artifact is on this machine, in which runtime, and how far that can be trusted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from netsmith.cli.console import PLAIN, Console, Output
from netsmith.errors import CheckError, InputError, near

if TYPE_CHECKING:
    from netsmith.artifact.bundle import Bundle
    from netsmith.artifact.comparison import Choice, Comparison, Contender, Entry
    from netsmith.artifact.latency import Measurement

EXAMPLES = """\
Examples:

  netsmith bench runs/pets/model             latency, memory, best number of threads
  netsmith bench runs/pets --threads 2       with two threads only
  netsmith bench model --seconds 10 --json   a longer measurement, as JSON
  netsmith bench model --runtimes all        every runtime, thread count and batch
  netsmith bench model --runtimes onnxruntime,openvino -b 1,16
  netsmith bench runs/pets --write           and prefer the fastest from now on
"""
ALL = "all"


def bench(
    artifact: Path,
    /,
    *,
    threads: int | None = None,
    runtime: str | None = None,
    runtimes: str | None = None,
    batch_size: Annotated[str | None, Parameter(name=["--batch-size", "-b"])] = None,
    write: Annotated[bool, Parameter(negative=())] = False,
    seconds: float = 2.0,
    output: Output = PLAIN,
) -> None:
    """Measure how fast an artifact is here, in one runtime or all.

    One prepared picture per call; the time to prepare it is shown apart.
    Noise is how uneven the machine was while measuring: 0.05 is quiet, above
    0.5 the numbers hold little.

    With --runtimes every runtime is measured with 1 to the physical cores of
    threads and several sizes of batch, each in a fresh process and in turns,
    and its answers on the golden pictures are held against ONNX Runtime's.
    PyTorch (torch, torch-compiled) takes part for comparison and cannot be
    preferred.

    --write makes the artifact prefer the runtime and threads that answer a
    single picture fastest, verifies it again, and enters it in the ledger of
    its run. Refused (exit 1) where the answers differ beyond what the runtime's
    arithmetic explains, or the gain is within the noise.

    Args:
        artifact: Folder of a model, or of a run.
        threads: Measure this number only; without it the preferred one, then 1 to the physical cores.
        runtime: What runs the model: onnxruntime, openvino, openvino-bf16; what it prefers if not given.
        runtimes: Compare these: all, or names with commas between.
        batch_size: Pictures per call when comparing, with commas between; 1,8,32 if not given.
        write: Prefer the winner from now on; compares what can be preferred if --runtimes is not given.
        seconds: Time of the measurement, warm-up excluded; when comparing of each row.
    """
    if runtimes is None and not write:
        if batch_size is not None:
            raise InputError("--batch-size is for comparing; give --runtimes too")
        _one(artifact, threads=threads, runtime=runtime, seconds=seconds, output=output)
        return
    if runtime is not None:
        raise InputError("--runtime measures one and --runtimes compares; give one of them")
    sizes = _sizes(batch_size)
    _compare(artifact, runtimes, threads=threads, sizes=sizes, write=write, seconds=seconds, output=output)


def _one(artifact: Path, *, threads: int | None, runtime: str | None, seconds: float, output: Output) -> None:
    from dataclasses import asdict

    from netsmith.artifact.bundle import load_bundle
    from netsmith.artifact.measure import measure, preferred_threads
    from netsmith.run.machine import machine

    with Console(output) as console:
        bundle = load_bundle(artifact)
        found = measure(
            artifact,
            threads=threads,
            runtime=runtime,
            seconds=seconds,
            warn=console.warn,
            progress=console.progress,
        )
        choice = None
        if threads is None:
            choice = preferred_threads(
                bundle.model_path, seconds_each=seconds / 2, runtime=found.runtime, progress=console.progress
            )
        document: dict[str, Any] = {
            "artifact": str(bundle.folder),
            "size_bytes": bundle.size_bytes,
            "measurement": asdict(found),
            "threads": [asdict(row) for row in choice.measurements] if choice else [],
            "best_threads": choice.threads if choice else None,
            "machine": machine().model_dump(mode="json"),
        }
        lines = [
            f"{bundle.folder}: {bundle.size_bytes / 1e6:.2f} MB, {found.runtime}, {_threads(found.threads)}",
            f"latency  p50 {found.p50_ms:.3f} ms  p90 {found.p90_ms:.3f} ms  (95 %: {found.low:.3f}-{found.high:.3f})",
            f"resize   {found.resize_ms:.3f} ms per picture, not in the latency",
            f"memory   {found.peak_memory_bytes / 1e6:.0f} MB at most" if found.peak_memory_bytes else "",
            f"runs     {found.runs} after {found.warmup} to warm up; noise of the machine {found.noise:.2f}",
        ]
        if choice is not None:
            best = f"; {_threads(choice.threads)} is fastest, or the fewest that cannot be told from it"
            lines += ["", f"threads  {'p50 ms':>9} {'p90 ms':>9} {'low':>9} {'high':>9}"]
            lines += [_row(row) for row in choice.measurements]
            lines.append(f"noise {choice.measurements[0].noise:.2f}{best}")
        console.result(document, "\n".join(line for line in lines))


def _compare(
    artifact: Path,
    names: str | None,
    *,
    threads: int | None,
    sizes: list[int],
    write: bool,
    seconds: float,
    output: Output,
) -> None:
    from dataclasses import asdict

    from netsmith.artifact.bundle import Preferred, load_bundle
    from netsmith.artifact.comparison import compare
    from netsmith.artifact.measure import thread_counts
    from netsmith.artifact.runtimes import choose_runtime
    from netsmith.fit.preferring import open_to_prefer, prefer
    from netsmith.run.machine import machine, versions

    with Console(output) as console:
        bundle = (
            open_to_prefer(artifact, seconds=seconds, progress=console.progress) if write else load_bundle(artifact)
        )
        runtime, count = choose_runtime(bundle, warn=console.warn)
        present = Preferred(runtime=runtime, threads=count)
        contenders = _contenders(bundle, names, present=runtime if write else None)
        here = machine()
        counts = set(thread_counts(min(here.cores_physical, here.cores_usable)))
        if threads is not None:
            choose_runtime(bundle, runtime=runtime, threads=threads)  # refuses a number out of range
            counts = {threads}
        if write:
            counts.add(count)
        found = compare(
            bundle,
            contenders,
            threads=sorted(counts),
            batches=[1, *sizes] if write else sizes,
            seconds=seconds,
            progress=console.progress,
        )
        asked = [(each.runtime, each.threads, each.batch) for each in found.entries]
        recorded = bundle.config.preferred
        choice = found.choose(present, recorded=recorded) if write or (runtime, count, 1) in asked else None
        document: dict[str, Any] = {
            "artifact": str(bundle.folder),
            "size_bytes": bundle.size_bytes,
            "golden_pictures": found.pictures,
            "entries": [asdict(each) for each in found.entries],
            "preferred": recorded.model_dump(),
            "choice": None if choice is None else asdict(choice) | {"preferred": choice.preferred.model_dump()},
            "written": False,
            "machine": here.model_dump(mode="json"),
            "versions": versions(),
        }
        instead = "" if recorded == present else f", runs in {present} here"
        lines = [f"{bundle.folder}: {bundle.size_bytes / 1e6:.2f} MB, prefers {recorded}{instead}", "", _table(found)]
        lines += [f"{each.runtime} {each.reason}" for each in found.entries if each.threads is None]
        lines += [
            f"{each.runtime}, {_threads(each.threads)}, batch {each.batch}: {each.reason}"
            for each in found.entries
            if each.threads is not None and each.measurement is None
        ]
        if choice is None or not write:
            console.result(document, "\n".join([*lines, *_advice(choice, bundle)]))
            return
        typed = ["bench", str(artifact), "--write", "--seconds", f"{seconds:g}"]
        typed += [] if names is None else ["--runtimes", names]
        typed += [] if threads is None else ["--threads", str(threads)]
        try:
            prefer(bundle, choice, command=typed, seconds=seconds, progress=console.progress)
        except (CheckError, InputError):
            console.result(document, "\n".join(lines))
            raise
        document["written"] = choice.verdict == "kept"
        outcome = "now prefers" if choice.verdict == "kept" else "keeps preferring"
        lines += ["", f"{bundle.folder} {outcome} {choice.preferred}: {choice.reason}"]
        console.result(document, "\n".join(lines))


def _contenders(bundle: "Bundle", names: str | None, *, present: str | None) -> "list[Contender]":
    """Those that are asked for, or all that can be preferred; and `present`."""
    from netsmith.artifact.comparison import own_contenders
    from netsmith.export.torch_session import in_torch

    own = own_contenders(bundle)
    if names is None:
        return own
    known = {each.runtime: each for each in [*own, *in_torch(bundle)]}
    asked = list(known) if names.strip() == ALL else [name.strip() for name in names.split(",")]
    for name in asked:
        if name not in known:
            raise InputError(f"--runtimes {names}: there is no runtime {name!r}; {near(name, [ALL, *known])}")
    return [each for name, each in known.items() if name in asked or name == present]


def _sizes(text: str | None) -> list[int]:
    from netsmith.artifact.comparison import BATCHES

    if text is None:
        return list(BATCHES)
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= 4096 for part in parts):
        raise InputError(f"--batch-size {text} is no list of numbers from 1 to 4096; write it like 1,8,32")
    return [int(part) for part in parts]


def _table(found: "Comparison") -> str:
    from netsmith.cli.tables import table

    header = ["runtime", "threads", "batch", "p50 ms", "p90 ms", "images/s", "MB", "noise", "differs", "same"]
    return table(header, [_cells(each, found) for each in found.entries if each.measurement is not None])


def _cells(entry: "Entry", found: "Comparison") -> list[str]:
    measured = entry.measurement
    assert measured is not None
    differs = f"{entry.probability_difference:.1e}{'' if found.agrees(entry) else ' !'}"
    memory = "" if measured.peak_memory_bytes is None else f"{measured.peak_memory_bytes / 1e6:.0f}"
    return [
        *(entry.runtime, str(entry.threads), str(entry.batch)),
        *(f"{measured.p50_ms:.3f}", f"{measured.p90_ms:.3f}", f"{entry.images_per_s:,.1f}"),
        *(memory, f"{measured.noise:.2f}", differs, f"{entry.same_answers}/{found.pictures}"),
    ]


def _advice(choice: "Choice | None", bundle: "Bundle") -> list[str]:
    """What the numbers say about the runtime to prefer."""
    if choice is None:
        return []
    mend = f"; netsmith bench {bundle.folder} --write prefers it" if choice.verdict == "kept" else ""
    return ["", f"single pictures: {choice.reason}{mend}"]


def _threads(count: int | None) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"


def _row(row: "Measurement") -> str:
    return f"{row.threads:>7}  {row.p50_ms:9.3f} {row.p90_ms:9.3f} {row.low:9.3f} {row.high:9.3f}"
