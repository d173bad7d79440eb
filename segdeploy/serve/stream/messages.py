"""Makes the line of JSON that says what is in one image or frame: a message for a broker, a database, a script.

`schema` grows by one when a key that was there goes or means something else; new keys may come at any time.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from segdeploy.picture.rle import segments_of
from segdeploy.picture.segmentation import Segmentation
from segdeploy.printable import printable_json
from segdeploy.serve.stream.result import Shown

SCHEMA = 1


def line_of_frame(shown: Shown, masks: str | None = None) -> str:
    """Write a frame's line; its `time` is when the frame was read, its `time_s` where it stands in its source."""
    line = {
        **_opening(shown.read_at_s),
        "source": shown.source,
        "index": shown.index,
        "time_s": round(shown.time_s, 6),
        "areas": shown.results[0].areas(),
        "latency_ms": round(shown.latency_ms, 1),
        "dropped": shown.dropped,
        "flicker": shown.flicker,
    }
    if len(shown.results) > 1:
        line["areas_of_other"] = shown.results[1].areas()
    return printable_json(line | _masks(shown.results[0], masks), None)


def line_of_image(path: Path, result: Segmentation, read_at_s: float, masks: str | None = None) -> str:
    line = {**_opening(read_at_s), "image": str(path), "areas": result.areas()}
    return printable_json(line | _masks(result, masks), None)


def _opening(read_at_s: float) -> dict[str, Any]:
    read_at = datetime.fromtimestamp(read_at_s, timezone.utc)
    return {"schema": SCHEMA, "time": read_at.isoformat(timespec="milliseconds")}


def _masks(result: Segmentation, masks: str | None) -> dict[str, Any]:
    """Give each class's mask under its name, as COCO's compressed run lengths; nothing unless asked for."""
    if masks is None:
        return {}
    names = result.classes.names
    found = segments_of(result.labels)
    return {"masks": {names[value]: mask for value, mask in found.items() if value < len(names)}}
