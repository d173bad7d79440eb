"""The configuration of ds-tao-segmentation itself, and whether it fits the nvinfer configuration that it names."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from segdeploy.errors import DeepStreamError
from segdeploy.releases import rendered_release
from segdeploy.serve.deepstream.config import NvinferConfig, read_config
from segdeploy.serve.deepstream.findings import Finding
from segdeploy.size import is_number
from segdeploy.special_files import is_file

KEYS = {
    "source-list": ("list",),
    "streammux": ("batch-size", "width", "height", "batched-push-timeout", "live-source", "gpu-id", "nvbuf-memory-type",
                  "enable-padding"),
    "primary-gie": ("plugin-type", "config-file-path", "model-engine-file", "batch-size", "interval", "unique-id"),
    "segvisual": ("gpu-id", "width", "height", "orig_background", "alpha"),
    "eglsink": ("enable",),
    "filesink": ("enable", "enc-type"),
    "fakesink": ("enable",),
    "tests": ("file-loop",),
}  # fmt: skip
SINKS = ("eglsink", "filesink", "fakesink")


def check(app: NvinferConfig, version: str) -> Iterator[Finding]:
    document = app.document
    for problem in document.problems:
        yield Finding(
            "syntax", problem.line, problem.words, "correct the line: the app does not start with it"
        )
    lines = dict(document.groups)
    for name, line in document.groups:
        if name not in KEYS:
            yield Finding(
                "unknown-group", line, f"{name} is a group that the app does not read",
                f"the groups are {', '.join(KEYS)}",
            )  # fmt: skip
    for entry in document.entries:
        known = KEYS.get(entry.group, (entry.key,))
        if entry.key not in known:
            close = difflib.get_close_matches(entry.key, known, n=1)
            yield Finding(
                "unknown-key", entry.line, f"{entry.key} is no key of {entry.group}",
                f"{close[0]} was probably meant" if close else f"its keys are {', '.join(known)}",
            )  # fmt: skip
    if not any(said(app, sink, "enable") == "1" for sink in SINKS):
        yield Finding(
            "no-sink",
            lines.get("filesink", 1),
            "no sink is on",
            f"write enable: 1 under one of {', '.join(SINKS)}",
        )
    yield from encoder(app)
    if said(app, "primary-gie", "plugin-type") == "0":
        yield from network(app, version)


def said(app: NvinferConfig, group: str, key: str) -> str:
    entry = app.document.find(group, key)
    return entry.value if entry else ""


def encoder(app: NvinferConfig) -> Iterator[Finding]:
    inside = [entry for entry in app.document.entries if entry.group == "filesink"]
    chosen = next((entry for entry in inside if entry.key == "enc-type" and entry.value != "0"), None)
    if chosen and inside[-1] != chosen:
        yield Finding(
            "encoder-ignored",
            chosen.line,
            "enc-type is set back to 0 by each key behind it",
            "write it as the last key",
        )


def network(app: NvinferConfig, version: str) -> Iterator[Finding]:
    entry = app.document.find("primary-gie", "config-file-path")
    if entry is None:
        line = dict(app.document.groups)["primary-gie"]
        yield Finding("missing-file", line, "primary-gie names no config-file-path", "add it")
        return
    path = app.path.parent / entry.value
    try:
        config = read_config(path)
    except DeepStreamError as error:
        yield Finding(
            "missing-file", entry.line, str(error), "correct config-file-path: it is relative to this file"
        )
        return
    elsewhere = "configs" + entry.value[2:]
    if not any(is_file(folder / elsewhere) for folder in (app.path.parent, *app.path.resolve().parents)):
        yield Finding(
            "app-looks-elsewhere", entry.line,
            f"the app also opens {elsewhere}, relative to where it is started, and ends if it is not there",
            "copy the nvinfer configuration there, or start it with -c and -i instead of this file",
        )  # fmt: skip
    yield from check_fit(app, config, version)


def check_fit(app: NvinferConfig, config: NvinferConfig, version: str) -> Iterator[Finding]:
    dims = config.get("infer-dims")
    for side, least in (("width", dims[2]), ("height", dims[1])) if dims else ():
        entry = app.document.find("segvisual", side)
        if entry is None or not is_number(entry.value) or int(entry.value) < least:
            yield Finding(
                "segvisual-too-small", entry.line if entry else dict(app.document.groups).get("segvisual", 1),
                f"segvisual's {side} is {entry.value if entry else 'not set'}, the network's output {least}",
                f"write {side}: {least} or more",
            )  # fmt: skip
    sources = app.document.find("source-list", "list")
    streams = len([one for one in sources.value.split(";") if one]) if sources else 0
    if sources and streams != config.get("batch-size"):
        yield Finding(
            "streams-differ", sources.line,
            f"there are {streams} sources and nvinfer's batch-size is {config.get('batch-size')}: the app changes it,"
            " and nvinfer builds another engine", "render the folder with --streams",
        )  # fmt: skip
    if config.get("network-type") == 100 and not rendered_release(version).app.draws_tensors:
        entry = app.document.find("primary-gie", "config-file-path")
        yield Finding(
            "app-draws-nothing", entry.line if entry else 1,
            f"ds-tao-segmentation of DeepStream {version} draws network-type 2 only, and this is 100",
            "render with --network-type 2",
        )  # fmt: skip
