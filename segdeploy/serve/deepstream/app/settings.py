"""Writes segdeploy_app.json, which deepstream/app/segdeploy_box/settings.py reads on the box."""

from __future__ import annotations

import json
from math import ceil, sqrt
from typing import Any

from segdeploy.serve.deepstream.app.request import LIVE, Address, AppRequest, names_of
from segdeploy.serve.deepstream.plan import Plan
from segdeploy.size import Size

ADAPTERS = "/opt/nvidia/deepstream/deepstream/lib/libnvds_{}_proto.so"
PICTURE = Size(720, 1280)  # of all tiles together
RTSP_PORT, METRICS_PORT = 8554, 9400
BITRATE = 4_000_000
PUSH_TIMEOUT_US = 40_000
RECONNECT_S = 10
LATENCY_MS = 200


def tiles_for(streams: int) -> tuple[int, int]:
    """Give rows and columns of a picture in which each stream has a tile."""
    columns = ceil(sqrt(streams))
    return ceil(streams / columns), columns


def is_live(source: str) -> bool:
    return source.partition("://")[0] in LIVE


def settings_of(request: AppRequest, plan: Plan, broker: Address | None) -> dict[str, Any]:
    signature = plan.graph.signature
    labels = signature.labels
    rows, columns = tiles_for(len(request.sources))
    publishing = broker and {
        "protocol": request.publish,
        "host": broker.host,
        "port": broker.port,
        "topic": request.topic,
        "library": ADAPTERS.format(request.publish),
        "config": None,
    }
    return {
        "deepstream": request.deepstream,
        "inference": {"element": plan.element, "config": plan.configuration},
        "network_type": request.folder.network_type,
        "output": signature.output.name,
        "width": signature.size.width,
        "height": signature.size.height,
        "classes": [
            {"name": name, "colour": list(map(int, colour))}
            for name, colour in zip(labels.names, labels.colours, strict=True)
        ],
        "sources": [
            {"name": name, "uri": uri}
            for name, uri in zip(names_of(request.sources), request.sources, strict=True)
        ],
        "muxer": {
            "width": request.muxer.width,
            "height": request.muxer.height,
            "push_timeout_us": PUSH_TIMEOUT_US,
        },
        "reconnection": {"interval_s": RECONNECT_S, "latency_ms": LATENCY_MS, "tcp": True},
        "drawing": {"by": "segdeploy", "alpha": 0.55, "legend": True},
        "tiler": {"rows": rows, "columns": columns, "width": PICTURE.width, "height": PICTURE.height},
        "sink": {
            "kind": request.sink,
            "port": RTSP_PORT,
            "file": "segdeploy_app.mkv",
            "bitrate": BITRATE,
            "encoder": "hardware",
        },
        "messages": {"file": None if broker else "-", "every": 1, "mask_step": 4},
        "publishing": publishing,
        "metrics": {"address": "127.0.0.1", "port": METRICS_PORT},
        "patience": {"first_frame_s": 1800.0, "frame_s": 60.0, "lost_s": 5.0, "stop_s": 10.0},
    }


def settings_text(settings: dict[str, Any]) -> str:
    return json.dumps(settings, indent=1, ensure_ascii=False) + "\n"
