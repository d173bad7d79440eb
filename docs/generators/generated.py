"""Puts what is made from the code into a page, in the place of its mark `<!-- generated: NAME -->`.

Where nothing fills a page in, as on GitHub, the reader sees the words around the mark.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import commands
import error_classes
import known_bad
import lint_findings
import model_cards
import python_names
import schema_tables

GENERATORS: dict[str, Callable[[], str]] = {
    "commands": commands.page,
    "python": python_names.page,
    "errors": error_classes.page,
    "lint": lint_findings.page,
    "known-bad": known_bad.page,
    "cards": model_cards.page,
    "schemas": schema_tables.page,
}
MARK = re.compile(r"<!-- generated: ([a-z-]+) -->")


def generated(text: str) -> str:
    return MARK.sub(lambda found: GENERATORS[found[1]](), text)
