"""Quotes names for a command that a person copies into a shell, since a name may hold characters a shell obeys."""

from __future__ import annotations

import shlex
from pathlib import PurePath


def command_line(*words: object) -> str:
    return " ".join(map(shell_word, words))


def shell_word(word: object) -> str:
    """Quote one word so that bash and zsh read it as it is; a path that looks like a flag gets `./` in front."""
    text = str(word)
    if isinstance(word, PurePath) and text.startswith("-"):
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(in_ansi_quotes, text))}'"


def in_ansi_quotes(one: str) -> str:
    if one.isprintable() and one not in "\\'":
        return one
    lone = (
        "surrogateescape" if "\udc80" <= one <= "\udcff" else "surrogatepass"
    )  # a byte of a file's name, or neither
    return "".join(f"\\x{byte:02x}" for byte in one.encode("utf-8", lone))
