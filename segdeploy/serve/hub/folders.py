"""Cuts the sender's own folders out of what is published: of an absolute path its last name stays."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from segdeploy.untrusted import parse_json

# Not what follows a scheme or another folder: an address and a relative path stay as they are, but for `file://`.
ABSOLUTE = re.compile(
    r"(?:(?<![\w:/.~-])(?:~[\w.-]*|[A-Za-z]:)?[/\\]|(?<=\bfile://)/)(?:[^\s/\\'\"]+[/\\])*(?=[^\s/\\'\"])"
)
COMMANDS = ("command", "commands")
# What holds no path, whatever it looks like: nodes like `/head/MatMul`, names of classes, base64 with its slashes.
WITHOUT_PATHS = (
    "classes", "classes_kept", "classes_drawn", "worst_class", "islands", "keep", "methods", "dead", "sensitivities",
    "bindings", "metadata", "frame", "labels",
)  # fmt: skip


def without_folders(facts: Any, key: str = "") -> Any:
    """Give JSON's values with the folders cut out of each text; a command is cut word by word."""
    if key in WITHOUT_PATHS:
        return facts
    if isinstance(facts, dict):
        return {name: without_folders(value, name) for name, value in facts.items()}
    if isinstance(facts, list):
        return [without_folders(value, key) for value in facts]
    if not isinstance(facts, str):
        return facts
    return command_without_folders(facts) if key in COMMANDS else text_without_folders(facts)


def command_without_folders(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError:  # a quote is left open
        return text_without_folders(command)
    short = [text_without_folders(word) for word in words]
    return command if short == words else shlex.join(short)


def text_without_folders(text: str) -> str:
    """A text that begins as an absolute path is one, spaces and all; in other texts a path ends at a space."""
    if ABSOLUTE.match(text):
        return re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    return ABSOLUTE.sub("", text)


def published(text: str) -> str:
    """Give a file's JSON without folders; what has none stays byte for byte."""
    facts = parse_json(text)
    short = without_folders(facts)
    if short == facts:
        return text
    # a byte of a name that is no UTF-8 is an escape, as in a record
    return (json.dumps(short, indent=1, ensure_ascii=False) + "\n").encode(errors="backslashreplace").decode()
