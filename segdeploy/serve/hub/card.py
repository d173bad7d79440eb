"""Writes the model card of a folder: its licence, what it was made from, and what each step cost."""

from __future__ import annotations

from collections.abc import Iterator

from segdeploy.model.licence import licence_on_the_hub
from segdeploy.model.record import ArtifactRecord, LedgerStep
from segdeploy.printable import printable
from segdeploy.serve.hub.contents import Contents
from segdeploy.untrusted import Unreadable, read_json
from segdeploy.version import __version__

HOME = "https://github.com/segdeploy/segdeploy"


def card_text(contents: Contents, repository: str) -> str:
    records = contents.records
    licences = dict.fromkeys(record.source.licence for record in records.values())
    checkpoints = dict.fromkeys(record.source.checkpoint for record in records.values())
    return "\n".join(
        [
            *front_matter(list(licences), list(checkpoints)),
            f"# {repository.partition('/')[2]}",
            "",
            "Semantic segmentation. Each file has a record beside it (`.json`), which says what it was made from and",
            f"how well it agrees with the step before. Made with [segdeploy]({HOME}) {__version__}.",
            "",
            *(line for path, record in records.items() for line in of_model(str(path), record)),
            *of_training(contents),
        ]
    )


def front_matter(licences: list[str], checkpoints: list[str]) -> list[str]:
    lines = ["---", "library_name: segdeploy", "pipeline_tag: image-segmentation"]
    lines += ["tags: [semantic-segmentation, onnx, tensorrt, deepstream]"]
    named = licence_on_the_hub("; ".join(licences)) if licences else {}
    lines += [f"{key}: {in_yaml_quotes(value)}" for key, value in named.items()]
    hub_ids = [
        one for one in checkpoints if one.count("/") == 1 and not one.startswith((".", "/", "models/"))
    ]
    if hub_ids:
        lines += [f"base_model: [{', '.join(map(in_yaml_quotes, hub_ids))}]"]
    return [*lines, "---", ""]


def of_model(name: str, record: ArtifactRecord) -> Iterator[str]:
    batch = "any batch" if record.batch is None else f"batch {record.batch}"
    yield f"## {in_cell(name)}"
    yield ""
    yield (
        f"{record.precision}, {record.size}, interface `{record.interface}`, {batch}, {len(record.classes)} classes;"
        f" made from {in_cell(record.source.checkpoint)} ({in_cell(record.source.licence)})."
    )
    if record.verdict:
        yield f"{in_cell(record.verdict)}"
    yield ""
    yield "| step | compared with | agreement | mIoU | of 95 % |"
    yield "|---|---|--:|--:|--:|"
    for step in (*record.source.steps, *record.ledger):
        yield ledger_row(step)
    yield ""
    commands = [*record.commands, record.command]
    if any(commands):
        yield "```sh"
        yield from (printable(one) for one in commands if one)
        yield "```"
        yield ""


def ledger_row(step: LedgerStep) -> str:
    agreement = "" if step.pixel_agreement is None else f"{step.pixel_agreement:.4%}"
    miou = "" if step.miou is None else f"{100 * step.miou:.2f}"
    between = step.miou_interval or step.drop_interval
    interval = "" if between is None else f"{between[0]:.2f} to {between[1]:.2f}"
    interval += " lost" if interval and step.miou_interval is None else ""
    return f"| {step.name} | {in_cell(step.compared_with or '')} | {agreement} | {miou} | {interval} |"


def of_training(contents: Contents) -> Iterator[str]:
    """Tell what `finetune` and `distil` write of a training, where the folder is a checkpoint."""
    path = contents.folder / "segdeploy.training.json"
    if not path.is_file():
        return
    try:
        facts = read_json(path)
    except Unreadable:
        return
    if isinstance(facts, dict):
        yield "## The checkpoint"
        yield ""
        yield "segdeploy trained it; `segdeploy.training.json` has the recipe and the scores. To have its graph:"
        yield ""
        yield "```sh"
        yield "segdeploy export THIS_REPOSITORY -o out"
        yield "```"
        yield ""


def in_cell(text: str) -> str:
    """Keep what Markdown would take for its own, of names that others chose."""
    return "".join(f"\\{one}" if one in "\\`*_[]<>|" else one for one in printable(text))


def in_yaml_quotes(text: str) -> str:
    return '"' + printable(text).replace("\\", "\\\\").replace('"', '\\"') + '"'
