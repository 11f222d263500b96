"""What the run was made from and with: the data, the machine, the versions, the commands, the recipe and the plan."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from netsmith.artifact.bundle import Config
from netsmith.report.evidence import Evidence
from netsmith.report.markup import Content, Markup, code, folded, join, name, number, numbers, sentence, table, tag
from netsmith.report.wording import SPLIT_NAMES, brief, figures, memory, plural

SHOWN_CLASSES = 30
SHOWN_SKIPPED = 200


def data(evidence: Evidence) -> Markup:
    """Where the pictures came from, how many there are of what, and what was left out."""
    audit = next((row.after for row in reversed(evidence.rows("audit"))), {})
    split = next((row.after for row in reversed(evidence.rows("split"))), {})
    return join(
        [
            sentence(evidence.gaps.get("data.json")) if evidence.data is None else None,
            _facts(_data_facts(evidence, audit)),
            _notes(split.get("notes")),
            _balance(evidence),
            _skipped(audit.get("skipped")),
        ]
    )


def _data_facts(evidence: Evidence, audit: Mapping[str, Any]) -> Iterable[tuple[str, Content]]:
    record = evidence.data
    if record is not None:
        splits = Counter(item.split for item in record.items.values())
        parts = [f"{splits[split]:,} {SPLIT_NAMES[split]}" for split in ("train", "val", "test") if splits[split]]
        yield "Source", name(record.source)
        yield "Pictures", f"{len(record.items):,} different: {', '.join(parts)}"
        yield ("Labels" if record.task == "tag" else "Classes"), f"{len(record.classes):,}"
        if record.task == "tag":
            empty = sum(not item.labels for item in record.items.values())
            each = sum(len(item.labels) for item in record.items.values()) / len(record.items)
            yield "Labels of a picture", f"{each:.2f} on average; {plural(empty, 'picture')} without any"
    if isinstance(audit.get("pictures"), int):
        yield "Read in the audit", plural(audit["pictures"], "picture")
    if isinstance(copies := audit.get("duplicates"), int) and copies:
        yield "Duplicates", f"{copies:,}, each in the split of its original"
    sides = audit.get("shorter_side")
    if isinstance(sides, dict):
        known = [key for key in ("min", "median", "max") if isinstance(sides.get(key), int | float)]
        yield "Shorter side, pixels", ", ".join(f"{key} {figures(sides[key])}" for key in known)
    yield from _without_labels(evidence)
    if record is not None:
        yield "Seed of the split", str(record.seed)
        yield "Fingerprint", code(record.fingerprint)


def _without_labels(evidence: Evidence) -> Iterable[tuple[str, Content]]:
    """What was distilled with pictures that only teachers answered, in this run, in a step of it or before."""
    for row in evidence.rows("distill"):
        match row.after.get("unlabelled"):
            case {"folder": str(folder), "pictures": int(pictures), "left_out": int(left_out)}:
                step = row.after.get("step")
                where = "" if step is None else f", {brief(step)}"
                told = f" of {brief(folder)} trained on, which only teachers answered; {left_out:,} left out"
                yield f"Without a label{where}", f"{plural(pictures, 'picture')}{told}"
            case _:
                pass


def _notes(notes: Any) -> Markup | None:
    if not isinstance(notes, list) or not notes:
        return None
    points = (tag("li", brief(note, longest=1000)) for note in notes)
    return join([tag("h3", "Decided on your behalf"), tag("ul", *points)])


def _balance(evidence: Evidence) -> Markup | None:
    record = evidence.data
    if record is None:
        return None
    noun = "label" if record.task == "tag" else "class"
    counts = Counter((label, item.split) for item in record.items.values() for label in item.labels)
    totals = [sum(counts[label, split] for split in SPLIT_NAMES) for label in range(len(record.classes))]
    order = sorted(range(len(totals)), key=lambda label: (-totals[label], label))
    rows = (
        [name(record.classes[label]), *(number(f"{counts[label, split]:,}") for split in ("train", "val", "test")),
         number(f"{totals[label]:,}")]
        for label in order
    )  # fmt: skip
    shown = table(
        [noun.capitalize(), numbers("training"), numbers("validation"), numbers("test"), numbers("all")], rows
    )
    most, least = order[0], order[-1]
    if totals[most] == totals[least]:
        summary = sentence(f"Every {noun} has {plural(totals[most], 'picture')}.")
    else:
        summary = tag(
            "p", f"The largest {noun}, ", name(record.classes[most]), f", has {plural(totals[most], 'picture')}; "
            "the smallest, ", name(record.classes[least]), f", has {totals[least]:,}.",
        )  # fmt: skip
    if len(order) > SHOWN_CLASSES:
        shown = folded(f"Pictures of all {len(order):,} {'labels' if noun == 'label' else 'classes'}", shown)
    return join([tag("h3", f"Pictures by {noun}"), summary, shown])


def _skipped(skipped: Any) -> Markup | None:
    if not isinstance(skipped, list):
        return None
    if not skipped:
        return sentence("No file was skipped.")
    pairs = [(brief(row.get("name")), brief(row.get("reason"))) if isinstance(row, dict) else (brief(row), "")
             for row in skipped]  # fmt: skip
    reasons = Counter(reason for _, reason in pairs)
    more = len(pairs) - SHOWN_SKIPPED
    return join(
        [
            tag("h3", "Skipped files"),
            table(
                ["Reason", numbers("files")],
                ([reason, number(f"{files:,}")] for reason, files in reasons.most_common(20)),
            ),
            folded(
                f"{plural(len(pairs), 'skipped file')} by name",
                table(["File", "reason"], ([name(file), reason] for file, reason in pairs[:SHOWN_SKIPPED])),
                sentence(f"{plural(more, 'more')} in ledger.jsonl.") if more > 0 else None,
            ),
        ]
    )


def repeat(evidence: Evidence) -> Markup:
    """The machine, the versions, and what to type to do it again."""
    folder = str(evidence.path)
    use = f"{shlex.join(['netsmith', 'predict', f'{folder}/model'])} PICTURE"
    return join(
        [
            tag("h3", "Commands"),
            *_command("Made by", *evidence.commands),
            *_command("Hold it to its word, in a fresh process", shlex.join(["netsmith", "verify", folder])),
            *(_command("Use it", use) if evidence.model is not None else ()),
            *_command("Write this report again", shlex.join(["netsmith", "report", folder])),
            _machine(evidence),
            _model(evidence),
            _recipe(evidence),
            _plan(evidence),
        ]
    )


def _command(title: str, *lines: str) -> tuple[Markup, Markup]:
    return tag("p", title), tag("pre", *(piece for line in lines for piece in (line, tag("br"))))


def _machine(evidence: Evidence) -> Markup | None:
    if evidence.result is None:
        return sentence("The machine is recorded with the result.")
    machine, versions = evidence.result.machine, evidence.result.versions
    seen = f"{machine.cores_logical} logical, {machine.cores_physical} physical"
    facts: list[tuple[str, Content]] = [
        ("Processor", f"{machine.cpu} ({machine.arch})"),
        ("Cores", f"{plural(machine.cores_usable, 'core')} usable ({seen})"),
        ("Memory", memory(machine.memory_bytes)),
        ("System", machine.os),
        ("Instructions", " ".join(machine.flags) or "none of those that matter"),
        ("Versions", ", ".join(f"{package} {version}" for package, version in versions.items())),
        ("Artifact", code(evidence.result.artifact)),
    ]
    return join([tag("h3", "Machine and versions"), _facts(facts)])


def _model(evidence: Evidence) -> Markup | None:
    model = evidence.model
    if model is None:
        return sentence(evidence.gaps.get("model/config.json"))
    rules = model.preprocess
    how = (
        f"shorter side to {round(rules.size / rules.crop)}, centre {rules.size} × {rules.size}"
        if rules.resize == "shorter"
        else f"both sides to {rules.size}"
    )
    facts: list[tuple[str, Content]] = [
        ("Input", f"{rules.size} × {rules.size} pixels; {how}; {rules.interpolation}"),
        ("Runs in", f"{model.preferred.runtime}, {plural(model.preferred.threads, 'thread')}, {model.precision}"),
        *_rounded(model),
        ("Temperature", figures(model.temperature)),
        ("Starting weights", model.provenance.weights or "none: trained from scratch"),
    ]
    if model.provenance.licence:
        facts.append(("Licence of the weights", model.provenance.licence))
    if model.provenance.doubtful:
        facts.append(("Trained before on", "pictures that are not known: some that validate may be among them"))
    return join([tag("h3", "The artifact"), _facts(facts)])


def _rounded(model: Config) -> Iterable[tuple[str, Content]]:
    """How a graph of integers was made."""
    made = model.quantization
    if made is not None:
        yield "Rounded", f"{made.rung}; ranges from {plural(made.pictures, 'training picture')}"
        if made.excluded:
            yield "Left in float", brief(", ".join(made.excluded), longest=1000)


def _recipe(evidence: Evidence) -> Markup | None:
    if evidence.recipe is None:
        return sentence(evidence.gaps.get("recipe.yaml"))
    facts = ((key, brief(value)) for key, value in evidence.recipe.model_dump(mode="json").items())
    return folded("The recipe", _facts(facts))


def _plan(evidence: Evidence) -> Markup | None:
    if not evidence.plan:
        return sentence(evidence.gaps.get("plan.jsonl"))
    rows = ([number(f"{row.at:,}"), row.kind, brief(row.value, longest=300), row.why] for row in evidence.plan)
    title = f"The plan: {plural(len(evidence.plan), 'choice')} that this machine and its clock made"
    return folded(title, table([numbers("from step"), "choice", "value", "why"], rows))


def _facts(facts: Iterable[tuple[str, Content]]) -> Markup:
    return tag("dl", *(part for term, fact in facts for part in (tag("dt", term), tag("dd", fact))))
