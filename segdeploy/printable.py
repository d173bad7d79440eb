"""Makes untrusted text safe to print: names of files, classes and tensors, fields of records.

A terminal obeys some characters instead of showing them: they set its title, forge a second message, or reverse a line.
Such a character, and a lone half of one, is written as Python writes it (`\\x1b`, `\\n`, `\\u202e`).
"""

from __future__ import annotations

import json

MOST = 2000  # characters of a message, of which the first say what was found and the last what to do
BEGINNING, END = 1200, 600


def printable(text: str) -> str:
    """Escape characters that a terminal does not show as they are; gives one line, and is idempotent."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def in_brief(text: str) -> str:
    """Remove the middle of a text that is too long to read, such as one that quotes a whole file."""
    if len(text) <= MOST:
        return text
    return f"{text[:BEGINNING]} […{len(text) - BEGINNING - END:,} characters…] {text[-END:]}"


def printable_json(facts: object, indent: int | None = 1) -> str:
    """Write JSON in which every character is safe on any terminal, whatever names it holds."""
    text = json.dumps(facts, indent=indent)
    return text.replace("\x7f", "\\u007f")
