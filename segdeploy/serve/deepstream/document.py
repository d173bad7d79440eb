"""A configuration file as it is written: every line kept, every value with its place, in .txt or .yml.

Reading and writing gives the same bytes; a changed value changes nothing around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import yaml

FORMS = ("txt", "yml")
_PLAIN_IN_YAML = re.compile(r"[-+]?[\w./][\w./;+:-]*(?<!:)")
# As in %YAML:1.0 before anything but comments, which yaml-cpp passes over and PyYAML refuses.
_DIRECTIVE = re.compile(r"\A((?:[ \t]*(?:#[^\n]*)?\n)*)%")
_GROUP = re.compile(r"\[([^\[\]\x00-\x1f]*)\][ \t]*")


class Entry(NamedTuple):
    group: str
    key: str
    value: str  # as written, in a .yml without its quotes
    line: int  # from 1
    start: int  # of the value in the text, quotes included
    stop: int


class Problem(NamedTuple):
    line: int
    words: str


@dataclass(frozen=True)
class Document:
    text: str
    form: str
    groups: tuple[tuple[str, int], ...]  # name and line
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]  # what nvinfer refuses to read at all
    unread: tuple[Problem, ...] = ()  # what it starts with, and reads nothing of

    def find(self, group: str, key: str) -> Entry | None:
        """The last one counts, as for GLib and for nvinfer's loop over a YAML map."""
        return next(
            (entry for entry in reversed(self.entries) if (entry.group, entry.key) == (group, key)), None
        )

    def with_value(self, group: str, key: str, value: str) -> Document:
        """`value` in the place of the old one, or on a line of its own at the end of its group."""
        entry = self.find(group, key)
        if self.form == "yml":
            value = quoted(value)
        if entry:
            changed = self.text[: entry.start] + value + self.text[entry.stop :]
            return read_document(changed, self.form)
        inside = [entry for entry in self.entries if entry.group == group]
        lines = self.text.splitlines(keepends=True)
        written = f"{key}={value}\n" if self.form == "txt" else f"  {key}: {value}\n"
        header = next((line for name, line in self.groups if name == group), None)
        if inside:
            lines.insert(inside[-1].line, written)
        elif header is not None:
            lines.insert(header, written)
        else:
            lines += [f"[{group}]\n" if self.form == "txt" else f"{group}:\n", written]
        return read_document("".join(lines), self.form)


def read_document(text: str, form: str) -> Document:
    return read_txt(text) if form == "txt" else read_yml(text)


def read_txt(text: str) -> Document:
    """GLib's key file: `[group]`, `key=value`, lines that start with #, and nothing else."""
    groups: list[tuple[str, int]] = []
    entries: list[Entry] = []
    problems: list[Problem] = []
    for number, start, line in lines_of(text):
        bare = line.lstrip(" \t")
        if not bare or bare.startswith("#"):
            continue
        if bare.startswith("["):
            header = _GROUP.fullmatch(bare)
            if header and header[1]:
                groups.append((header[1], number))
            else:
                problems.append(Problem(number, f"{shown(bare)} is not a group, as in [property]"))
            continue
        key, equals, rest = line.partition("=")
        if not equals or not key.strip():
            problems.append(
                Problem(number, f"{shown(bare)} is neither key=value, nor [group], nor a # comment")
            )
        elif not groups:
            problems.append(Problem(number, f"{shown(bare)} stands before the first group, [property]"))
        else:
            value = rest.lstrip(" \t")
            stop = start + len(line)
            entries.append(Entry(groups[-1][0], key.strip(), value, number, stop - len(value), stop))
    return Document(text, "txt", tuple(groups), tuple(entries), tuple(problems))


def lines_of(text: str) -> Iterator[tuple[int, int, str]]:
    """Number, start and content of each line; \\r\\n counts as an end, as in GLib."""
    start = 0
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, start, line.removesuffix("\r")
        start += len(line) + 1


def read_yml(text: str) -> Document:
    """A map of groups, each a map of scalars: what nvinfer walks through."""
    try:
        root = yaml.compose(_DIRECTIVE.sub(r"\1#", text), Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        words = f"it is not YAML: {getattr(error, 'problem', None) or 'a character that YAML does not allow'}"
        return Document(text, "yml", (), (), (Problem(mark.line + 1 if mark else 1, words),))
    except RecursionError:
        return Document(text, "yml", (), (), (Problem(1, "it is nested too deeply to be read"),))
    groups: list[tuple[str, int]] = []
    entries: list[Entry] = []
    problems: list[Problem] = []
    unread: list[Problem] = []
    if not isinstance(root, yaml.MappingNode):
        return Document(text, "yml", (), (), (Problem(1, "it has no groups, as in `property:`"),))
    for name, inner in root.value:
        line = name.start_mark.line + 1
        earlier = dict(groups).get(str(name.value))
        if earlier or not isinstance(inner, yaml.MappingNode):
            why = (
                f"stands in line {earlier} already, and the first one counts" if earlier else "holds no keys"
            )
            unread.append(Problem(line, f"{shown(str(name.value))} {why}"))
            continue
        groups.append((str(name.value), line))
        for key, value in inner.value:
            at = value.start_mark.line + 1
            if not isinstance(value, yaml.ScalarNode):
                problems.append(
                    Problem(
                        at,
                        f"the value of {shown(str(key.value))} is not one text; write a list as 3;512;1024",
                    )
                )
                continue
            place = value.start_mark.index, value.end_mark.index
            entries.append(
                Entry(str(name.value), str(key.value), value.value, key.start_mark.line + 1, *place)
            )
    return Document(text, "yml", tuple(groups), tuple(entries), tuple(problems), tuple(unread))


def as_yml(document: Document) -> Document:
    """A .txt as a .yml: the same groups, keys, values and comments in the same order."""
    by_line = {entry.line: entry for entry in document.entries}
    headers = {line: name for name, line in document.groups}
    lines, inside = [], False
    for number, _, line in lines_of(document.text):
        if number in headers:
            inside = True
            lines.append(f"{headers[number]}:")
        elif number in by_line:
            lines.append(f"  {by_line[number].key}: {quoted(by_line[number].value)}")
        else:
            lines.append("  " + line.lstrip() if inside and line.strip() else line.strip())
    return read_document("\n".join(lines), "yml")


def quoted(value: str) -> str:
    """`value` as a YAML scalar that is read back as the same text."""
    return value if _PLAIN_IN_YAML.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
