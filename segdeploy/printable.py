"""Makes text safe to print that anybody may have written: names of files, classes and tensors, fields of records.

A terminal obeys some characters instead of showing them: they set its title, forge a second message, or turn a line
around. Such a character is spelled as Python spells it (`\\x1b`, `\\n`, `\\u202e`), and so is half of a character.
"""

from __future__ import annotations

import json

MOST = 2000  # characters of a message, of which the first say what was found and the last what to do
BEGINNING, END = 1200, 600


def printable(text: str) -> str:
    """Spell what is not shown as it is; what comes out is one line, and is left alone the second time."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def in_brief(text: str) -> str:
    """Take the middle out of a text that is too long to be read, as one is that quotes a whole file."""
    if len(text) <= MOST:
        return text
    return f"{text[:BEGINNING]} […{len(text) - BEGINNING - END:,} characters…] {text[-END:]}"


def printable_json(facts: object, indent: int | None = 1) -> str:
    """Give JSON whose every character is shown on any terminal, whatever the names in it are."""
    text = json.dumps(facts, indent=indent)
    return text.replace("\x7f", "\\u007f")
