"""The configuration of ds-tao-segmentation itself, and whether it fits the nvinfer configuration that it names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from segdeploy.errors import DeepStreamError, GraphError
from segdeploy.graph.load import Graph, read_graph
from segdeploy.picture.video_location import as_typed
from segdeploy.releases import rendered_release
from segdeploy.serve.deepstream.config import NvinferConfig, read_config
from segdeploy.serve.deepstream.document import Entry
from segdeploy.serve.deepstream.findings import Finding, why_not_played
from segdeploy.size import is_number
from segdeploy.special_files import is_file

# What the app and NVIDIA's nvds_yml_parser read: the properties of the elements, mostly.
KEYS = {
    "source-list": ("list",),
    "streammux": ("batch-size", "width", "height", "batched-push-timeout", "live-source", "gpu-id", "nvbuf-memory-type",
                  "enable-padding", "buffer-pool-size", "num-surfaces-per-frame", "interpolation-method", "compute-hw",
                  "sync-inputs", "max-latency", "frame-num-reset-on-eos", "frame-num-reset-on-stream-reset",
                  "frame-duration", "attach-sys-ts", "drop-pipeline-eos", "config-file-path"),
    "primary-gie": ("plugin-type", "config-file-path", "model-engine-file", "batch-size", "interval", "unique-id",
                    "enable", "gpu-id", "process-mode", "infer-on-gie-id", "operate-on-class-ids",
                    "filter-out-class-ids", "output-tensor-meta", "output-instance-mask", "input-tensor-meta",
                    "raw-output-file-write", "crop-objects-to-roi-boundary", "nvbuf-memory-type", "labelfile-path"),
    "segvisual": ("gpu-id", "width", "height", "orig_background", "alpha"),
    "eglsink": ("enable", "sync", "async", "qos", "gpu-id", "display-id", "window-x", "window-y", "window-width",
                "window-height", "rows", "columns", "force-aspect-ratio", "create-window", "nvbuf-memory-type"),
    "filesink": ("enable", "enc-type"),
    "fakesink": ("enable",),
    "tests": ("file-loop",),
}  # fmt: skip
SINKS = ("eglsink", "filesink", "fakesink")
# How yaml-cpp reads a value, and which of them mean anything.
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
VALUES: dict[tuple[str, str], tuple[float, float]] = {
    ("streammux", "batch-size"): (1, 1024),
    ("streammux", "width"): (1, 16384),
    ("streammux", "height"): (1, 16384),
    ("streammux", "batched-push-timeout"): (-1, 2**31 - 1),
    ("primary-gie", "plugin-type"): (0, 1),
    ("segvisual", "alpha"): (0, 1),
    ("segvisual", "orig_background"): (0, 1),
    ("tests", "file-loop"): (0, 1),
    **{(sink, "enable"): (0, 1) for sink in SINKS},
    ("filesink", "enc-type"): (0, 1),
}
MUXER = {"width": "1280", "height": "720"}  # what the app sets, whatever its file says


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
    on = [sink for sink in SINKS if said(app, sink, "enable") == "1"]
    if len(on) > 1:
        yield Finding(
            "two-sinks", lines[on[1]], f"{' and '.join(on)} are on, and the app takes {on[0]} alone",
            "write enable: 0 under the others",
        )  # fmt: skip
    if not on:
        yield Finding(
            "no-sink",
            lines.get("filesink", 1),
            "no sink is on",
            f"write enable: 1 under one of {', '.join(SINKS)}",
        )
    yield from unreadable_values(app)
    yield from encoder(app)
    yield from settings(app)
    yield from listed_sources(app)
    if said(app, "primary-gie", "plugin-type") == "0":
        yield from network(app, version)
    elif said(app, "primary-gie", "plugin-type") == "1":
        yield from server(app)


def said(app: NvinferConfig, group: str, key: str) -> str:
    entry = app.document.find(group, key)
    return entry.value if entry else ""


def unreadable_values(app: NvinferConfig) -> Iterator[Finding]:
    """Find what yaml-cpp cannot read as the number that the app asks for, and numbers that mean nothing to it."""
    for entry in app.document.entries:
        least, most = VALUES.get((entry.group, entry.key), (None, None))
        if least is None or most is None:
            continue
        whole = entry.key != "alpha"
        if not NUMBER.fullmatch(entry.value) or (whole and not entry.value.lstrip("+-").isdecimal()):
            yield Finding(
                "wrong-type", entry.line,
                f"{entry.key} is {entry.value!r}; expected {'a whole number' if whole else 'a number'}",
                "correct it: the app does not start with it",
            )  # fmt: skip
        elif not least <= float(entry.value) <= most:
            yield Finding(
                "out-of-range", entry.line, f"{entry.key} is {entry.value}; expected {least:g} to {most:g}",
                "correct it",
            )  # fmt: skip


def settings(app: NvinferConfig) -> Iterator[Finding]:
    """Find what the app leaves unset, and what it sets itself."""
    lines = dict(app.document.groups)
    for group, key, default in (("tests", "file-loop", "0"), ("segvisual", "alpha", "0.5")):
        if not said(app, group, key):
            yield Finding(
                "app-unset", lines.get(group, 1), f"{group} has no {key}, and the app takes what lies in memory for it",
                f"write {key}: {default} under {group}:",
            )  # fmt: skip
    for key, own in MUXER.items():
        entry = app.document.find("streammux", key)
        if entry is not None and entry.value != own:
            yield Finding(
                "muxer-ignored", entry.line, f"streammux's {key} is {entry.value}, and the app sets {own}",
                f"write {key}: {own}",
            )  # fmt: skip
    background = app.document.find("segvisual", "orig_background")
    if background is not None and background.value == "1":
        yield Finding(
            "app-leaves-class-0", background.line,
            "orig_background draws the picture below the classes, and class 0 not at all",
            "write orig_background: 0 to see class 0, without the picture",
        )  # fmt: skip


def listed_sources(app: NvinferConfig) -> Iterator[Finding]:
    entry = app.document.find("source-list", "list")
    lines = dict(app.document.groups)
    if entry is None and "segvisual" in lines:
        yield Finding(
            "no-source", lines.get("source-list", 1), "source-list has no list: there is nothing to play",
            "write list: file:///clip.mp4 under source-list:, indented",
        )  # fmt: skip
    for one in entry.value.split(";") if entry else ():
        if entry and (why := why_not_played(one)):
            yield Finding(
                "source-form", entry.line, f"the source {as_typed(one)} {why}",
                "write file:///the/whole/path, and a semicolon between two sources",
            )  # fmt: skip
        if one and "://" not in one:
            yield Finding(
                "source-without-scheme", entry.line if entry else 1,
                f"the source {one} is no URI: the app plays file:///…, rtsp://… and http://…",
                f"write file://{one}" if one.startswith("/") else "write file:// and the whole path",
            )  # fmt: skip


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


def server(app: NvinferConfig) -> Iterator[Finding]:
    """Find an nvinfer configuration where nvinferserver reads one of its own kind."""
    entry = app.document.find("primary-gie", "config-file-path")
    path = app.path.parent / entry.value if entry else None
    if entry and path and is_file(path) and dict(read_config(path).document.groups).get("property"):
        yield Finding(
            "plugin-type", entry.line, f"plugin-type 1 is nvinferserver, and {path.name} is a configuration of nvinfer",
            "write plugin-type: 0",
        )  # fmt: skip


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
    yield from looked_up(app, app.path.parent / elsewhere, config, entry)
    if not any(is_file(folder / elsewhere) for folder in (app.path.parent, *app.path.resolve().parents)):
        yield Finding(
            "app-looks-elsewhere", entry.line,
            f"the app also opens {elsewhere}, relative to where it is started, and ends if it is not there",
            "copy the nvinfer configuration there, or start it with -c and -i instead of this file",
        )  # fmt: skip
    yield from check_fit(app, config, version)


def looked_up(app: NvinferConfig, copy: Path, config: NvinferConfig, entry: Entry) -> Iterator[Finding]:
    """Find a copy from which the app reads another network-type than nvinfer reads from its own file."""
    if not is_file(copy):
        return
    own, other, place = config.get("network-type"), read_config(copy).get("network-type"), copy.parent.name
    if own != other:
        yield Finding(
            "app-reads-another", entry.line,
            f"network-type is {own} in {config.path.name}, and {other} in {place}/{copy.name}, where the app"
            " looks how to draw", f"write network-type: {own} there too",
        )  # fmt: skip


def graph_beside(config: NvinferConfig) -> Graph | None:
    path = config.file("onnx-file")
    with suppress(GraphError, DeepStreamError):
        return read_graph(path, weights=False) if path is not None and is_file(path) else None
    return None


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
    graph = graph_beside(config)
    if config.get("network-type") == 100 and graph is not None and graph.signature.interface == "logits":
        entry = app.document.find("primary-gie", "config-file-path")
        yield Finding(
            "app-draws-nothing", entry.line if entry else 1,
            "ds-tao-segmentation draws class ids behind network-type 100, and the graph gives logits",
            "export it with --interface nvinfer",
        )  # fmt: skip
    elif config.get("network-type") == 100 and not rendered_release(version).app.draws_tensors:
        entry = app.document.find("primary-gie", "config-file-path")
        yield Finding(
            "app-draws-nothing", entry.line if entry else 1,
            f"ds-tao-segmentation of DeepStream {version} draws network-type 2 only, and this is 100",
            "render with --network-type 2",
        )  # fmt: skip
