"""Says what a name may be that comes out of a file: it is data, and never a path, a command or an escape."""

from __future__ import annotations

import re
from typing import Annotated

LONGEST_CARD = 100  # so that file names that begin with it stay within what a folder takes

# A card's name is the start of file names and the name of a model in Triton: no path, no flag, nothing for a shell.
CardName = Annotated[str, re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,250}")]
FileName = Annotated[str, re.compile(r"(?!\.{1,2}$)[^/\0]{1,250}")]  # and never a path that leads elsewhere
# Control characters, line breaks, characters that turn a text around, halves of characters.
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def name_for(text: str) -> str:
    """Make the name of a card of `text`."""
    return re.sub(r"[^a-z0-9._-]", "-", text.lower()).lstrip(".-")[:LONGEST_CARD] or "unnamed"
