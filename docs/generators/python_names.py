"""Makes the reference of the Python names from their signatures and docstrings: what `import segdeploy` offers."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import segdeploy
from segdeploy import api

LONG = 88  # characters, beyond which a signature has an argument a line


def page() -> str:
    functions = [name for name in segdeploy.__all__ if inspect.isfunction(getattr(segdeploy, name))]
    classes = [name for name in segdeploy.__all__ if inspect.isclass(getattr(segdeploy, name))]
    return "\n".join(
        [
            "## Functions\n",
            *(line for name in functions for line in of_function(name)),
            "## Classes\n",
            *(line for name in classes for line in of_class(name)),
            "## Arguments that several functions share\n",
            *(line for words in (api.CalibrationWords, api.TrainingWords) for line in of_words(words)),
        ]
    )


def of_function(name: str) -> Iterator[str]:
    function = getattr(segdeploy, name)
    yield f"### {name}\n"
    yield f"```text\n{signature_of(name, function)}\n```\n"
    yield prose(function)


def of_class(name: str) -> Iterator[str]:
    kind = getattr(segdeploy, name)
    yield f"### {name}\n"
    yield prose(kind)
    if dataclasses.is_dataclass(kind):
        rows = [f"| `{one.name}` | `{type_in_words(one.type)}` |" for one in dataclasses.fields(kind)]
        yield "\n".join(["| field | type |", "|---|---|", *rows, ""])
    for member, value in sorted(vars(kind).items()):
        what = value.fget if isinstance(value, property) else value
        what = what.__func__ if isinstance(what, classmethod | staticmethod) else what
        if member.startswith("_") or not inspect.isfunction(what):
            continue
        called = member if isinstance(value, property) else signature_of(member, what)
        lines = prose(what).strip().splitlines()
        yield f"`{chr(32).join(called.split())}`\n" + (f":   {lines[0]}" if lines else "")
        yield "\n".join([*(f"    {line}" if line else "" for line in lines[1:]), ""])


def of_words(words: Any) -> Iterator[str]:
    yield f"### {words.__name__}\n"
    yield prose(words)
    rows = [f"| `{key}` | `{type_in_words(kind)}` |" for key, kind in words.__annotations__.items()]
    yield "\n".join(["| argument | type |", "|---|---|", *rows, ""])


def signature_of(name: str, function: Any) -> str:
    """Spell a signature as its author wrote it: types as text, a default by its value."""
    parts, marked = [], False
    for one in inspect.signature(function).parameters.values():
        if one.name in ("self", "cls"):
            continue
        if one.kind is one.KEYWORD_ONLY and not marked:
            parts.append("*")
            marked = True
        stars = "*" * (1 if one.kind is one.VAR_POSITIONAL else 2 if one.kind is one.VAR_KEYWORD else 0)
        typed = "" if one.annotation is one.empty else f": {type_in_words(one.annotation)}"
        default = "" if one.default is one.empty else f" = {in_words(one.default)}"
        parts.append(f"{stars}{one.name}{typed}{default}")
    answer = inspect.signature(function).return_annotation
    ending = "" if answer is inspect.Signature.empty else f" -> {type_in_words(answer)}"
    line = f"{name}({', '.join(parts)}){ending}"
    return line if len(line) <= LONG else f"{name}(\n    " + ",\n    ".join(parts) + f",\n){ending}"


def in_words(default: Any) -> str:
    return default.__name__ if inspect.isfunction(default) else repr(default)


def type_in_words(kind: Any) -> str:
    words = (
        kind
        if isinstance(kind, str)
        else getattr(kind, "__forward_arg__", "") or inspect.formatannotation(kind)
    )
    return re.sub(r"\b(?:segdeploy|typing|numpy|pathlib)(?:\.\w+)*\.(\w+)", r"\1", words)


def prose(thing: Any) -> str:
    """Give a docstring as Markdown; a dataclass without one has only what Python writes for it."""
    text = inspect.getdoc(thing) or ""
    if inspect.isclass(thing) and (dataclasses.is_dataclass(thing) and text.startswith(f"{thing.__name__}(")):
        return ""
    return re.sub(r"(?<![`\w])([<*_])", r"\\\1", text) + "\n"
