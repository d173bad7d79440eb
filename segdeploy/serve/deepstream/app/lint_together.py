"""Checks what groups of a deepstream-app configuration need of each other, and of the file that primary-gie names."""

from __future__ import annotations

from collections.abc import Iterator

from segdeploy.picture.video_location import as_typed
from segdeploy.serve.deepstream.app.configuration import RTSP
from segdeploy.serve.deepstream.app.groups import (
    enabled,
    entry_of,
    is_off,
    is_on,
    line_of_group,
    whole_number_of,
)
from segdeploy.serve.deepstream.config import NvinferConfig
from segdeploy.serve.deepstream.document import Entry
from segdeploy.serve.deepstream.findings import Finding, leads_outside
from segdeploy.special_files import is_file

FILE, BROKER = 3, 6  # types of sinks
SHORTEST_US = 1000  # a push timeout below a thousandth of a second was meant in another unit
LEAST_BITRATE = 10_000  # bits a second; what is below was meant in others
RTP_PROTOCOLS = (0, 4, 7)  # what is handed on to rtspsrc; 0 is its own default
WITH_GPU = ("primary-gie", "segvisual", "tiled-display")


def check(app: NvinferConfig) -> Iterator[Finding]:
    yield from twice(app)
    yield from muxer(app)
    yield from cameras(app)
    yield from sinks(app)
    yield from unfed(app)
    yield from gpus(app)


def twice(app: NvinferConfig) -> Iterator[Finding]:
    """Find keys that stand twice in a group, or in two groups of one name, which GLib makes one of."""
    seen: dict[tuple[str, str], int] = {}
    for entry in app.document.entries:
        earlier = seen.setdefault((entry.group, entry.key), entry.line)
        if earlier != entry.line:
            yield Finding(
                "duplicate-key", entry.line,
                f"{entry.key} of {entry.group} stands in line {earlier} already, and the last one counts",
                "leave one of them, or give the second group a number of its own",
            )  # fmt: skip


def muxer(app: NvinferConfig) -> Iterator[Finding]:
    sides = [entry_of(app, "streammux", side) for side in ("width", "height")]
    if sum(side is not None for side in sides) == 1:
        yield Finding(
            "muxer-without-size", line_of_group(app, "streammux"),
            "streammux has a width or a height alone, and the app sets neither: the muxer refuses the first frame",
            "write both, as in width=1280 and height=720",
        )  # fmt: skip
    entry, timeout = (
        entry_of(app, "streammux", "batched-push-timeout"),
        whole_number_of(app, "streammux", "batched-push-timeout"),
    )
    if entry and timeout is not None and 0 < timeout < SHORTEST_US:
        yield Finding(
            "push-timeout-short", entry.line,
            f"batched-push-timeout is {timeout} microseconds: a batch goes on before a second source has its frame",
            f"write batched-push-timeout={timeout * 1000 if timeout > 9 else 40000}",
        )  # fmt: skip


def cameras(app: NvinferConfig) -> Iterator[Finding]:
    live = [group for group in enabled(app, "source") if whole_number_of(app, group, "type") == RTSP]
    entry = entry_of(app, "streammux", "live-source")
    if live and entry and whole_number_of(app, "streammux", "live-source") == 0:
        yield Finding(
            "muxer-not-live",
            entry.line,
            f"live-source is 0, and {live[0]} is a camera",
            "write live-source=1",
        )
    for group in live:
        entry, chosen = (
            entry_of(app, group, "select-rtp-protocol"),
            whole_number_of(app, group, "select-rtp-protocol"),
        )
        if entry and chosen is not None and chosen not in RTP_PROTOCOLS:
            yield Finding(
                "protocol-ignored", entry.line, f"select-rtp-protocol is {chosen}, which the app hands on to nothing",
                "write 4 for TCP, or 7 for what the camera offers",
            )  # fmt: skip


def sinks(app: NvinferConfig) -> Iterator[Finding]:
    for group in enabled(app, "sink"):
        kind = whole_number_of(app, group, "type")
        needed = {FILE: "output-file", BROKER: "msg-broker-proto-lib"}.get(kind or 0)
        if needed and entry_of(app, group, needed) is None:
            yield Finding(
                "sink-unset", line_of_group(app, group), f"{group} is of type {kind} and has no {needed}",
                f"add {needed}: the pipeline does not start without it",
            )  # fmt: skip
        entry, bits = entry_of(app, group, "bitrate"), whole_number_of(app, group, "bitrate")
        if entry and bits is not None and 0 < bits < LEAST_BITRATE:
            yield Finding(
                "bitrate-low", entry.line, f"bitrate of {group} is {bits} bits a second: there is no picture in them",
                "write it in bits a second, as in bitrate=4000000",
            )  # fmt: skip


def unfed(app: NvinferConfig) -> Iterator[Finding]:
    """Find classes that are to be drawn where nothing infers, and an inference that waits for another's tensors."""
    if is_on(app, "segvisual") and not is_on(app, "primary-gie"):
        yield Finding(
            "no-inference", line_of_group(app, "segvisual"),
            "segvisual is on and no primary-gie is: there is no class to draw",
            "write [primary-gie] with enable=1 and config-file",
        )  # fmt: skip
    entry = entry_of(app, "primary-gie", "input-tensor-meta")
    if entry and entry.value.strip() in ("1", "true") and not is_on(app, "pre-process"):
        yield Finding(
            "tensors-awaited", entry.line, "input-tensor-meta is 1, and no pre-process is on: nothing is inferred",
            "write input-tensor-meta=0",
        )  # fmt: skip


def gpus(app: NvinferConfig) -> Iterator[Finding]:
    """Find elements on another GPU than the muxer's, whose frames they refuse."""
    if entry_of(app, "application", "global-gpu-id"):
        return
    own = whole_number_of(app, "streammux", "gpu-id") or 0
    for group in (*enabled(app, "source"), *(group for group in WITH_GPU if is_on(app, group))):
        entry, gpu = entry_of(app, group, "gpu-id"), whole_number_of(app, group, "gpu-id")
        if entry and gpu is not None and gpu != own:
            yield Finding(
                "gpu-differs", entry.line, f"gpu-id of {group} is {gpu}, and streammux's is {own}: frames of another"
                " GPU are refused", f"write gpu-id={own}, or the same in every group",
            )  # fmt: skip


def inference(app: NvinferConfig, entry: Entry, config: NvinferConfig) -> Iterator[Finding]:
    """Hold primary-gie against the file that it names."""
    if is_off(app, "primary-gie"):
        return
    is_nvinfer = "property" in dict(config.document.groups)
    kind = whole_number_of(app, "primary-gie", "plugin-type") or 0
    if is_nvinfer != (kind == 0):
        yield Finding(
            "plugin-type", entry.line,
            f"plugin-type {kind} is nvinfer{'server' * bool(kind)}, and config-file {as_typed(entry.value)} is "
            + ("a configuration of nvinfer" if is_nvinfer else "none of nvinfer: it has no group property"),
            "name nvinfer_config.txt with plugin-type=0, nvinferserver_config.txt with plugin-type=1",
        )  # fmt: skip
    elif is_nvinfer:
        yield from engine_of_app(app, entry, config)


def engine_of_app(app: NvinferConfig, named_by: Entry, config: NvinferConfig) -> Iterator[Finding]:
    """Find an engine that nvinfer builds at every start, because its name is another than the one it writes."""
    own = entry_of(app, "primary-gie", "model-engine-file")
    batch = whole_number_of(app, "primary-gie", "batch-size") or config.get("batch-size")
    named = own.value if own else config.get("model-engine-file")
    written = config.engine_name
    if not named or not written or leads_outside(app.path.parent, named) or config.get("enable-dla"):
        return
    wanted = written.replace(f"_b{config.get('batch-size')}_", f"_b{batch}_")
    if (
        named != wanted
        and not is_file(app.path.parent / named)
        and (own or batch != config.get("batch-size"))
    ):
        yield Finding(
            "engine-rebuilt", (own or named_by).line,
            f"model-engine-file is {named}, and nvinfer writes the engine of primary-gie's batch-size {batch} to"
            f" {wanted}: it builds at every start", f"write model-engine-file={wanted} under [primary-gie]",
        )  # fmt: skip
