"""Checks that nvinfer reads what is written: groups, keys, types, ranges, versions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from segdeploy.serve.deepstream.config import Fault, NvinferConfig
from segdeploy.serve.deepstream.document import Entry
from segdeploy.serve.deepstream.findings import Finding
from segdeploy.serve.deepstream.keys import CLASS_ATTRS, PATH, PROPERTY, TEXT, keys_of

_KEPT_BEHIND = re.compile(r"\s#.*|\s+$")


def check(config: NvinferConfig, version: str) -> Iterator[Finding]:
    document = config.document
    for problem in document.problems:
        yield Finding(
            "syntax", problem.line, problem.words, "correct the line: nvinfer does not start with it"
        )
    for problem in document.unread:
        yield Finding(
            "group-unread", problem.line, f"{problem.words}: nvinfer starts, and reads nothing of it",
            "indent its keys below it, and write each group once",
        )  # fmt: skip
    if not document.problems and "property" not in (name for name, _ in document.groups):
        groups = ", ".join(dict(document.groups)) or "none"
        yield Finding(
            "no-property-group", 1, f"it has no group property, without which nvinfer does not start; it has {groups}",
            "put the keys under [property], in a .yml under property:",
        )  # fmt: skip
        return
    for name, line in document.groups:
        if keys_of(name) is None:
            yield Finding(
                "unknown-group", line, f"{name} is a group that nvinfer does not read",
                "the groups are property, class-attrs-all and class-attrs-<class>",
            )  # fmt: skip
    for fault in config.faults:
        yield of_fault(fault)
    seen: dict[tuple[str, str], int] = {}
    for entry in document.entries:
        earlier = seen.get((entry.group, entry.key))
        if earlier:
            yield Finding(
                "duplicate-key", entry.line, f"{entry.key} stands in line {earlier} already, and the last one counts",
                "leave one of them",
            )  # fmt: skip
        seen[entry.group, entry.key] = entry.line
        yield from of_known_key(entry, config.document.form, version)


def of_fault(fault: Fault) -> Finding:
    entry, kind, expected = fault
    if kind == "unknown-key":
        elsewhere = (
            "class-attrs-all" if entry.key in CLASS_ATTRS else "property" if entry.key in PROPERTY else ""
        )
        if elsewhere:
            remedy = f"it belongs in the group {elsewhere}"
        else:
            remedy = f"{expected} was probably meant" if expected else "remove it, or correct its name"
        return Finding(
            kind,
            entry.line,
            f"{entry.key} is no key of {entry.group}: nvinfer prints a line and goes on",
            remedy,
        )
    return Finding(
        kind,
        entry.line,
        f"{entry.key} is {entry.value!r}, which nvinfer refuses or misreads",
        f"write {expected}",
    )


def of_known_key(entry: Entry, form: str, version: str) -> Iterator[Finding]:
    key = (keys_of(entry.group) or {}).get(entry.key)
    if key is None:
        return
    if key.instead:
        effect = "is not read from a .yml" if form == "yml" else "is deprecated"
        yield Finding("deprecated-key", entry.line, f"{entry.key} {effect}", f"write {key.instead}")
    elif not key.exists_in(version):
        when = f"came with DeepStream {key.since}" if key.until is None else f"does nothing after {key.until}"
        yield Finding(
            "other-version", entry.line, f"{entry.key} {when}, and this is for {version}",
            "remove it, or check against another version with --deepstream",
        )  # fmt: skip
    if form == "txt" and key.kind in (TEXT, PATH) and _KEPT_BEHIND.search(entry.value):
        yield Finding(
            "trailing-text", entry.line,
            f"the value of {entry.key} is {entry.value!r}: what stands behind it is part of it",
            "put comments on lines of their own, and no space at the end",
        )  # fmt: skip
