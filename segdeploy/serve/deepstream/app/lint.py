"""Checks a configuration of NVIDIA's deepstream-app, and whether it fits the nvinfer configuration that it names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from segdeploy.errors import DeepStreamError
from segdeploy.picture.video_location import as_typed
from segdeploy.serve.deepstream.app import lint_together
from segdeploy.serve.deepstream.app.configuration import RTSP
from segdeploy.serve.deepstream.app.groups import (
    FORMS,
    enabled,
    entry_of,
    is_off,
    is_switched_off,
    line_of_group,
    streams_of,
    whole_number_of,
)
from segdeploy.serve.deepstream.app.keys import group_kind, type_of_key, types_of
from segdeploy.serve.deepstream.app.request import FIRST_WITH_CLASS_MAPS, release_numbers
from segdeploy.serve.deepstream.config import NvinferConfig, read_config
from segdeploy.serve.deepstream.findings import Finding, why_not_played

OWN_GROUPS = re.compile(r"application|source\d+")
PORTS, SIDES = (1, 65535), (1, 16384)
# The enumerations of 9.1, and what else a number may be.
RANGES = {
    "source": {"type": (1, 9), "latency": (0, 2**31 - 1)},
    "sink": {"type": (1, 6), "codec": (1, 3), "enc-type": (0, 1), "rtsp-port": PORTS, "udp-port": PORTS},
    "streammux": {"width": SIDES, "height": SIDES},
    "tiled-display": {"width": SIDES, "height": SIDES},
}  # fmt: skip
URI_TYPES = (2, 3, 4)  # a clip, a clip several times, a camera: they have a `uri`


def is_for_deepstream_app(groups: set[str]) -> bool:
    return any(OWN_GROUPS.fullmatch(group) for group in groups) and "property" not in groups


def check(app: NvinferConfig, version: str) -> Iterator[Finding]:
    for problem in app.document.problems:
        yield Finding(
            "syntax", problem.line, problem.words, "correct the line: deepstream-app does not start with it"
        )
    if app.document.problems:
        return  # as the app reads no further
    yield from unread(app)
    yield from sources(app)
    yield from outputs(app)
    yield from meant(app)
    yield from lint_together.check(app)
    yield from fitting(app, version)


def unread(app: NvinferConfig) -> Iterator[Finding]:
    """Find groups, keys and values that the app does not take."""
    for name, line in app.document.groups:
        if group_kind(name) is None:
            yield Finding(
                "unknown-group", line, f"{name} is a group that deepstream-app does not read",
                "remove it, or correct its name, as in [source0], [sink0], [streammux], [primary-gie]",
            )  # fmt: skip
    for entry in app.document.entries:
        kind = group_kind(entry.group)
        if kind is None or (entry.key != "enable" and is_off(app, entry.group)):
            continue
        said = type_of_key(kind, entry.key)
        if said is None:
            close = difflib.get_close_matches(entry.key, types_of(kind), n=1)
            yield Finding(
                "unknown-key", entry.line, f"{entry.key} is no key of {entry.group}",
                f"{close[0]} was probably meant" if close else "remove it: deepstream-app warns of it",
            )  # fmt: skip
        elif (form := FORMS.get(said)) and not form.fullmatch(entry.value.strip()):
            yield Finding(
                "wrong-type", entry.line, f"{entry.key} is {as_typed(entry.value)!r}; expected {said}",
                "correct it: deepstream-app does not start with it"
                if entry.key != "enable"
                else "write 0 or 1: a source, a sink or an inference is off with it, without a word",
            )  # fmt: skip


def sources(app: NvinferConfig) -> Iterator[Finding]:
    if any(name == "source-list" for name, _ in app.document.groups):
        return  # the app counts these by itself
    if not enabled(app, "source"):
        yield Finding(
            "no-source", 1, "no source is on", "write enable=1 under [source0], and its type and uri"
        )
    for group in enabled(app, "source"):
        entry, kind = entry_of(app, group, "uri"), whole_number_of(app, group, "type")
        if entry is None:
            if kind in URI_TYPES:
                yield Finding(
                    "source-without-uri", line_of_group(app, group), f"{group} has no uri",
                    "add it, as in uri=rtsp://camera/stream",
                )  # fmt: skip
            continue
        shown, scheme = as_typed(entry.value), entry.value.partition("://")
        if not scheme[1]:
            yield Finding(
                "source-without-scheme", entry.line, f"the uri {shown} has no scheme",
                "write it as rtsp://camera/stream or file:///clips/a.mp4",
            )  # fmt: skip
        elif why := why_not_played(entry.value, from_here=True):
            yield Finding("source-form", entry.line, f"the uri {shown} {why}", "write one address a source")
        elif (scheme[0] in ("rtsp", "rtsps")) != (kind == RTSP):
            yield Finding(
                "source-type", entry.line, f"type is {kind} and the uri is {shown}",
                "write type=4 for rtsp://, which alone is opened again when it is lost, and 2 for the others",
            )  # fmt: skip


def meant(app: NvinferConfig) -> Iterator[Finding]:
    """Find numbers that the app does not know, in groups that it reads."""
    for entry in app.document.entries:
        bounds = RANGES.get(group_kind(entry.group) or "", {}).get(entry.key)
        value = whole_number_of(app, entry.group, entry.key)
        if (
            bounds
            and value is not None
            and not is_switched_off(app, entry.group)
            and not bounds[0] <= value <= bounds[1]
        ):
            yield Finding(
                "out-of-range", entry.line,
                f"{entry.key} of {entry.group} is {value}; expected {bounds[0]} to {bounds[1]}",
                "correct it: deepstream-app does not start with it, or stops where it is used",
            )  # fmt: skip


def outputs(app: NvinferConfig) -> Iterator[Finding]:
    if not enabled(app, "sink"):
        yield Finding("no-sink", 1, "no sink is on", "write enable=1 under [sink0], and its type")


def fitting(app: NvinferConfig, version: str) -> Iterator[Finding]:
    """Compare with the nvinfer configuration: batch, and whether anything is drawn."""
    streams = sum(streams_of(app, group) for group in enabled(app, "source"))
    for group in ("streammux", "primary-gie", "segvisual"):
        entry, batch = entry_of(app, group, "batch-size"), whole_number_of(app, group, "batch-size")
        if entry and batch is not None and batch < streams and not is_switched_off(app, group):
            yield Finding(
                "streams-differ", entry.line, f"there are {streams} sources, and the batch-size of {group} is {batch}",
                f"write batch-size={streams}, which the folder has to be rendered for",
            )  # fmt: skip
    entry = entry_of(app, "primary-gie", "config-file")
    if entry is None:
        if whole_number_of(app, "primary-gie", "enable"):
            line = line_of_group(app, "primary-gie")
            yield Finding("missing-file", line, "primary-gie names no config-file", "add it")
        return
    try:
        config = read_config(app.path.parent / entry.value)
    except DeepStreamError as error:
        yield Finding(
            "missing-file", entry.line, str(error), "correct config-file: it is relative to this file"
        )
        return
    yield from lint_together.inference(app, entry, config)
    own = whole_number_of(app, "primary-gie", "batch-size")
    if own is None and config.get("batch-size") < streams:
        yield Finding(
            "streams-differ", entry.line,
            f"there are {streams} sources and nvinfer's batch-size is {config.get('batch-size')}",
            "render the folder for as many sources",
        )  # fmt: skip
    if config.get("network-type") in (2, 100) and release_numbers(version) >= FIRST_WITH_CLASS_MAPS:
        yield from drawing(app, config)


def drawing(app: NvinferConfig, config: NvinferConfig) -> Iterator[Finding]:
    line = line_of_group(app, "segvisual")
    if not whole_number_of(app, "segvisual", "enable"):
        yield Finding(
            "app-draws-nothing", line, "no [segvisual] is on, and without it no class is drawn",
            "write [segvisual] with enable=1, width and height of the network, and batch-size",
        )  # fmt: skip
        return
    if config.get("network-type") == 100:
        yield Finding(
            "app-draws-nothing", line, "nvinfer makes no class map (network-type 100), which [segvisual] would draw",
            "render with --network-type 2",
        )  # fmt: skip
    dims = config.get("infer-dims")
    for side, least in (("width", dims[2]), ("height", dims[1])) if dims else ():
        entry, value = entry_of(app, "segvisual", side), whole_number_of(app, "segvisual", side)
        if value is None or value < least:
            yield Finding(
                "segvisual-too-small", entry.line if entry else line,
                f"segvisual's {side} is {entry.value if entry else 'not set'}, the network's output {least}",
                f"write {side}={least} or more",
            )  # fmt: skip
