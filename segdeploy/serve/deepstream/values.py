"""The value of a key, read as nvinfer reads it: by GLib's rules from a .txt, by yaml-cpp's from a .yml.

The two differ, and a configuration that means one thing in both is what we write. In a .txt an integer may have a
comment behind it, a number or a path may not; a list may end with a `;`. In a .yml a list is one text, a `;` at its end
is an empty last value that ends the process, and so is `true`, because booleans are read as integers.
"""

from __future__ import annotations

import re

from segdeploy.serve.deepstream.keys import BOOLEAN, INT32, INTEGER, LISTS, NUMBER, WORDS, Key, Value

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LEADING_INTEGER = re.compile(r"\s*([+-]?\d+)(\s.*)?")
_YAML_INTEGER = re.compile(r"([+-]?(?:0|[1-9]\d*))")  # 010 would be 8
_ESCAPES = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def read_value(key: Key, raw: str, form: str) -> Value:
    """Raises ValueError with what was expected."""
    if form == "yml" and key.kind == INTEGER and (key.low or 0) >= 0 and raw.startswith("-"):
        raise ValueError(f"{WORDS[INTEGER]}, without a sign")  # yaml-cpp reads these as unsigned, -0 too
    if key.kind in LISTS:
        kind = LISTS[key.kind]
        return tuple(read_one(kind, part.replace(r"\;", ";"), form) for part in split_value(raw, form))  # type: ignore[return-value]
    return read_one(key.kind, raw, form)


def read_one(kind: str, raw: str, form: str) -> int | bool | float | str:
    if kind == INTEGER:
        found = _LEADING_INTEGER.fullmatch(raw) if form == "txt" else _YAML_INTEGER.fullmatch(raw)
        if not found or abs(int(found[1])) > INT32:
            raise ValueError(WORDS[kind])
        return int(found[1])
    if kind == BOOLEAN:
        word = raw.rstrip() if form == "txt" else raw
        if word not in (("0", "1", "true", "false") if form == "txt" else ("0", "1")):
            raise ValueError(WORDS[kind])
        return word in ("1", "true")
    if kind == NUMBER:
        if not _NUMBER.fullmatch(raw.lstrip() if form == "txt" else raw):
            raise ValueError(WORDS[kind])
        return float(raw)
    return unescaped(raw) if form == "txt" else raw


def split_value(raw: str, form: str) -> list[str]:
    if form == "yml":
        return raw.split(";")
    parts = re.split(r"(?<!\\);", raw)
    return parts[:-1] if parts[-1] == "" else parts


def unescaped(raw: str) -> str:
    def replacement(found: re.Match[str]) -> str:
        if found[1] not in _ESCAPES:  # a \; is one of lists, and taken back before
            raise ValueError(r"text in which a \ stands before s, n, t, r or another \ ")
        return _ESCAPES[found[1]]

    return re.sub(r"\\(.?)", replacement, raw, flags=re.DOTALL)


def write_value(value: Value, form: str) -> str:
    """`value` as both parsers read it back."""
    if isinstance(value, tuple):
        return ";".join(write_value(one, form) for one in value)
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    text = str(value)
    if form == "yml" or not isinstance(value, str):
        return text
    return (
        text.replace("\\", "\\\\")
        .replace("\n", "\\n")
        .replace("\t", "\\t")
        .replace("\r", "\\r")
        .replace(" ", "\\s", 1 if text.startswith(" ") else 0)
    )
