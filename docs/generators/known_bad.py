"""Makes the table of what versions of TensorRT are reported to do wrongly, from what the verbs themselves read."""

from __future__ import annotations

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
    listed: list[dict[str, Any]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return listed


def versions_in_words(one: dict[str, Any]) -> str:
    since, until = one.get("since"), one.get("until")
    if since and until:
        return str(since) if since == until else f"{since} to {until}"
    return f"from {since}" if since else f"up to {until}" if until else "any"


def gpus_in_words(one: dict[str, Any]) -> str:
    return ", ".join(map(str, one.get("gpus") or ())) or "any"
