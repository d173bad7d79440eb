"""Makes the table of what versions of TensorRT are reported to do wrongly, from what the verbs themselves read."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).parents[2] / "segdeploy/model/known-bad.yaml"


def page() -> str:
    rows = [
        f"| {one['what']} | {versions_in_words(one)} | {gpus_in_words(one)} | {one['effect']} | {one['issue']}"
        f" | {one['cure']} |"
        for one in reports()
    ]
    heading = ["| graph | TensorRT | GPUs | what happens | report | cure |", "|---|---|---|---|---|---|"]
    return "\n".join([*heading, *rows, ""])


def reports() -> list[dict[str, Any]]:
    if TABLE.is_file():
        listed: list[dict[str, Any]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
        return listed
    bugs: Any = import_module("segdeploy.graph.known_bugs")
    return [
        report(bugs.WRONG_BATCHES, "SegFormer with a batch above 1", "4853", "build it with --batch 1"),
        report(bugs.WRONG_DEFORMABLE, "GridSample in deformable attention", "4813", bugs.OTHER_FORM),
        report(bugs.WRONG_GRID_SAMPLE_20, "GridSample of opset 20", "4646", "export it at opset 17 to 19"),
    ]


def report(versions: Any, what: str, number: str, cure: str) -> dict[str, Any]:
    since, until = (".".join(map(str, end)) for end in (versions.first, versions.last))
    issue = f"NVIDIA/TensorRT#{number}"
    return {"what": what, "since": since, "until": until, "effect": "wrong", "issue": issue, "cure": cure}


def versions_in_words(one: dict[str, Any]) -> str:
    since, until = one.get("since"), one.get("until")
    if since and until:
        return str(since) if since == until else f"{since} to {until}"
    return f"from {since}" if since else f"up to {until}" if until else "any"


def gpus_in_words(one: dict[str, Any]) -> str:
    return ", ".join(map(str, one.get("gpus") or ())) or "any"
