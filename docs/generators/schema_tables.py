"""Makes the table of the JSON Schemas that are shipped."""

from __future__ import annotations

import json
from pathlib import Path

SCHEMAS = Path(__file__).parents[2] / "models/schemas"


def page() -> str:
    rows = []
    for path in sorted(SCHEMAS.glob("*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        rows.append(f"| [{path.stem}](../../models/schemas/{path.name}) | {schema['description']} |")
    return "\n".join(["| schema | of |", "|---|---|", *rows, ""])
