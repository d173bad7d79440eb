"""Shows with which versions, commands and machines the files were made."""

from __future__ import annotations

from collections.abc import Sequence

from segdeploy.assess.report.findings import Findings
from segdeploy.assess.report.markup import code, headline, table


def environment_tables(findings: Findings) -> Sequence[str]:
    parts = []
    for record in findings.records.values():
        rows = [
            ["digest", record.digest],
            ["card", record.card],
            ["interface", f"{record.interface}, {record.size}, opset {record.opset}"],
            ["made from", f"{record.source.checkpoint} ({record.source.licence})"],
            ["segdeploy", record.segdeploy],
            *map(list, record.versions.items()),
        ]
        parts += [
            headline(record.artifact),
            table("What it is", ("fact", "value"), rows),
            *command_shown(record.command),
        ]
    for found in findings.evaluations:
        facts = found.facts
        dataset = facts["dataset"]
        rows = [
            ["data set", f"{dataset['name']} {dataset['split'] or ''}".strip()],
            ["digest of the data set", dataset["digest"]],
            ["segdeploy", facts["segdeploy"]],
            *([f"mode of {model['model']}", str(model.get("mode", "–"))] for model in facts["models"]),
        ]
        parts += [headline(found.path.name), table("How it was scored", ("fact", "value"), rows)]
    for found in findings.benches:
        facts = found.facts
        rows = [["date", facts["date"]], *facts["machine"].items(), *facts["versions"].items()]
        shown = [[name, "–" if value is None else value] for name, value in rows]
        parts += [
            headline(found.path.name),
            table("Where it was measured", ("fact", "value"), shown),
            *command_shown(str(facts.get("command", ""))),
        ]
    return parts


def command_shown(words: str) -> list[str]:
    return [code(words)] if words else []
