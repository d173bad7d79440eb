"""Writes the same pipeline as a configuration of NVIDIA's deepstream-app, as far as that app goes."""

from __future__ import annotations

from segdeploy.serve.deepstream.app.request import AppRequest
from segdeploy.serve.deepstream.app.settings import (
    BITRATE,
    LATENCY_MS,
    PICTURE,
    PUSH_TIMEOUT_US,
    RECONNECT_S,
    RTSP_PORT,
    is_live,
    tiles_for,
)
from segdeploy.serve.deepstream.plan import Plan
from segdeploy.version import __version__

CONFIGURATION = "deepstream_app.txt"
URI, RTSP = 2, 4  # types of a source
SINK_TYPES = {"fake": 1, "display": 2, "file": 3, "rtsp": 4}
H264, MATROSKA, TCP = 1, 2, 4

Group = tuple[str, dict[str, str | int]]


def configuration_of(request: AppRequest, plan: Plan) -> str:
    streams = len(request.sources)
    rows, columns = tiles_for(streams)
    live = any(map(is_live, request.sources))
    groups: list[Group] = [
        ("application", {"enable-perf-measurement": 1, "perf-measurement-interval-sec": 5}),
        (
            "tiled-display",
            {
                "enable": 1,
                "rows": rows,
                "columns": columns,
                "width": PICTURE.width,
                "height": PICTURE.height,
                "gpu-id": 0,
            },
        ),
        *((f"source{number}", source_keys(uri)) for number, uri in enumerate(request.sources)),
        ("sink0", sink_keys(request.sink, live)),
        (
            "streammux",
            {
                "gpu-id": 0,
                "live-source": int(live),
                "batch-size": streams,
                "batched-push-timeout": PUSH_TIMEOUT_US,
                "width": request.muxer.width,
                "height": request.muxer.height,
            },
        ),
        (
            "primary-gie",
            {
                "enable": 1,
                "gpu-id": 0,
                "gie-unique-id": 1,
                "batch-size": streams,
                "plugin-type": ("nvinfer", "nvinferserver").index(plan.element),
                "config-file": plan.configuration,
            },
        ),
        ("osd", {"enable": 0}),
    ]
    if request.has_class_maps:  # its deepstream-app has this group as well
        size = plan.graph.signature.size
        groups.append(
            (
                "segvisual",
                {"enable": 1, "gpu-id": 0, "batch-size": streams, "width": size.width, "height": size.height},
            )
        )
    groups.append(("tests", {"file-loop": 0}))
    head = [
        f"# for DeepStream {request.deepstream}",
        f"# deepstream-app -c {CONFIGURATION}, rendered by segdeploy {__version__}",
    ]
    return "\n".join([*head, *map(as_group, groups), ""])


def as_group(group: Group) -> str:
    name, keys = group
    return "\n".join([f"\n[{name}]", *(f"{key}={value}" for key, value in keys.items())])


def source_keys(uri: str) -> dict[str, str | int]:
    keys: dict[str, str | int] = {"enable": 1, "type": RTSP if is_live(uri) else URI, "uri": uri, "gpu-id": 0}
    if is_live(uri):
        keys |= {
            "latency": LATENCY_MS,
            "select-rtp-protocol": TCP,
            "rtsp-reconnect-interval-sec": RECONNECT_S,
            "rtsp-reconnect-attempts": -1,
        }
    return keys


def sink_keys(kind: str, live: bool) -> dict[str, str | int]:
    keys: dict[str, str | int] = {"enable": 1, "type": SINK_TYPES[kind], "sync": int(not live)}
    if kind in ("file", "rtsp"):
        keys |= {"codec": H264, "enc-type": 0, "bitrate": BITRATE, "gpu-id": 0}
    if kind == "file":
        keys |= {"container": MATROSKA, "output-file": "deepstream_app.mkv"}
    if kind == "rtsp":
        keys |= {"rtsp-port": RTSP_PORT, "udp-port": 5400}
    return keys
