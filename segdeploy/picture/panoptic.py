"""Writes label maps as COCO's panoptic files have them: a PNG of segment ids, and what each segment is.

Each class that is there is one segment, whose id is its place plus 1, because 0 is no segment; `category_id` is the
data set's own id of the class.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from segdeploy.model.labels import Labels
from segdeploy.picture.image import Frame, LabelMap


def panoptic_png(labels: LabelMap) -> bytes:
    """Encode ids as red + 256 green + 65536 blue, as COCO does."""
    ids = labels.astype(np.uint32) + 1
    return bytes(
        cv2.imencode(".png", np.dstack([ids >> 16, ids >> 8 & 255, ids & 255]).astype(np.uint8))[1].tobytes()
    )


def labels_in(pixels: Frame) -> LabelMap:
    """Read the classes' places from such a PNG, as OpenCV decodes it: blue first."""
    blue, green, red = (pixels[..., channel].astype(np.uint32) for channel in range(3))
    return np.asarray((red + 256 * green + 65536 * blue - 1).astype(np.uint16))


def segments_info(labels: LabelMap, classes: Labels) -> list[dict[str, Any]]:
    own = classes.ids or range(len(classes.names))
    found = []
    for value in np.unique(labels):
        mask = labels == value
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        left, top = int(columns[0]), int(rows[0])
        found.append(
            {
                "id": int(value) + 1,
                "category_id": own[value],
                "area": int(mask.sum()),
                "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
                "iscrowd": 0,
            }
        )
    return found


def categories(classes: Labels) -> list[dict[str, Any]]:
    own = classes.ids or range(len(classes.names))
    return [
        {"id": number, "name": name, "supercategory": name, "isthing": 0, "color": [*colour]}
        for number, name, colour in zip(own, classes.names, classes.colours, strict=True)
    ]
