"""Writes protobuf's text format, in which Triton's configurations are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Word(str):
    """Is the name of an enumeration's value, which stands without quotes."""


def as_pbtxt(facts: Mapping[str, Any], indent: str = "") -> str:
    """Write fields in their order; a mapping is a message, a sequence a repeated field, None one that is left out."""
    return "".join(field_lines(name, value, indent) for name, value in facts.items() if value is not None)


def field_lines(name: str, value: Any, indent: str) -> str:
    if isinstance(value, Mapping):
        return f"{indent}{name} {{\n{as_pbtxt(value, indent + '  ')}{indent}}}\n"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(one, Mapping) for one in value):
            return "".join(field_lines(name, one, indent) for one in value)
        return f"{indent}{name}: [{', '.join(map(scalar, value))}]\n" if value else ""
    return f"{indent}{name}: {scalar(value)}\n"


def scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return in_quotes(value) if isinstance(value, str) and not isinstance(value, Word) else str(value)


def in_quotes(text: str) -> str:
    """Quote a text, so that no name in it ends the string: what is not plain ASCII becomes octal bytes."""
    data = text.encode(errors="backslashreplace")
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in data)
    return f'"{"".join(plain)}"'
