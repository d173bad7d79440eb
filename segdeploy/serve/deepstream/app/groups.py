"""Reads the groups of a configuration of deepstream-app as that app does: which are on, and what numbers they hold."""

from __future__ import annotations

import re

from segdeploy.serve.deepstream.app.keys import BOOLEAN, COLOUR, INTEGER, NUMBER, group_kind
from segdeploy.serve.deepstream.config import NvinferConfig
from segdeploy.serve.deepstream.document import Entry

FORMS = {
    INTEGER: re.compile(r"([-+]?\d{1,10})(?:\s.*)?"),  # GLib reads no further than to a space
    BOOLEAN: re.compile(r"true|false|0|1"),
    COLOUR: re.compile(r"(?:\d*\.?\d+;){3}\d*\.?\d+;?"),
    NUMBER: re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"),
}
NEVER_OFF = ("source-attr-all",)
READ_WHEN_ON = ("source", "sink", "primary-gie")


def entry_of(app: NvinferConfig, group: str, key: str) -> Entry | None:
    return app.document.find(group, key)


def whole_number_of(app: NvinferConfig, group: str, key: str) -> int | None:
    entry = entry_of(app, group, key)
    found = FORMS[INTEGER].fullmatch(entry.value.strip()) if entry else None
    return int(found[1]) if found else None


def enabled(app: NvinferConfig, name: str) -> list[str]:
    """List the groups `name` with a number that are on."""
    groups = dict.fromkeys(group for group, _ in app.document.groups)
    return [
        group
        for group in groups
        if re.fullmatch(rf"{name}\d+", group) and whole_number_of(app, group, "enable")
    ]


def is_off(app: NvinferConfig, group: str) -> bool:
    """Tell whether the app reads no further into a group, because it is not on."""
    return (
        group_kind(group) in READ_WHEN_ON
        and group not in NEVER_OFF
        and not whole_number_of(app, group, "enable")
    )


def line_of_group(app: NvinferConfig, group: str) -> int:
    return next((line for name, line in app.document.groups if name == group), 1)


def streams_of(app: NvinferConfig, group: str) -> int:
    """Count what a group plays: type 3 plays a clip as often as it says."""
    return (
        max(whole_number_of(app, group, "num-sources") or 1, 1)
        if whole_number_of(app, group, "type") == 3
        else 1
    )


def is_on(app: NvinferConfig, group: str) -> bool:
    return bool(whole_number_of(app, group, "enable"))


def is_switched_off(app: NvinferConfig, group: str) -> bool:
    """Tell whether a group says enable=0, or is one that is off unless it says otherwise."""
    return is_off(app, group) or whole_number_of(app, group, "enable") == 0
