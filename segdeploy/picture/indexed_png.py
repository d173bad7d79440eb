"""Writes label maps as PNGs with a palette: the values are the class ids, and any viewer shows the classes' colours.

OpenCV writes none. A grey PNG of eight bits and one with a palette differ in a byte of the header and in the palette.
"""

from __future__ import annotations

import zlib

import cv2
import numpy as np

from segdeploy.errors import OutputError
from segdeploy.model.labels import Labels
from segdeploy.picture.image import LabelMap

SIGNATURE, HEADER = (
    slice(0, 8),
    slice(12, 29),
)  # the header's name and data, between its length and its checksum
REST = slice(33, None)
KIND, PALETTE = 13, 3  # where the header has its colour type


def indexed_png(labels: LabelMap, classes: Labels) -> bytes:
    if len(classes.names) > 255:
        raise OutputError(
            f"a palette has 256 entries, and there are {len(classes.names)} classes; write grey PNGs instead"
        )
    grey = cv2.imencode(".png", labels.astype(np.uint8))[1].tobytes()
    header = bytearray(grey[HEADER])
    header[KIND] = PALETTE
    palette = b"PLTE" + classes.palette().tobytes()
    return grey[SIGNATURE] + chunk(bytes(header)) + chunk(palette) + grey[REST]


def chunk(named: bytes) -> bytes:
    """Put the length before a chunk's name and data, and the checksum after."""
    return (len(named) - 4).to_bytes(4, "big") + named + zlib.crc32(named).to_bytes(4, "big")
