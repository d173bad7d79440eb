"""Reads the raw values of a label file; `dataset` says what they mean.

OpenCV paints a palette's indices in their colours, and stretches grey of fewer than eight bits to 0 to 255. Both are
undone here: the files of Pascal VOC, Mapillary Vistas and many labelling tools need it.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import EvaluationError, ImageError
from segdeploy.picture.decoding import decode_image, read_image_file

GREY, PALETTE = 0, 3  # PNG's colour types


def read_label_file(path: Path, coloured: bool = False) -> NDArray[Any]:
    """Read H×W ids of uint8 or uint16, or H×W×3 RGB; with `coloured` a palette gives its colours, not its indices."""
    decoded, data = read_image_file(path, cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path} is not a label image that can be decoded; expected a PNG of 8 or 16 bits")
    bits, kind = struct.unpack("BB", data[24:26]) if data[1:4] == b"PNG" else (8, GREY)
    if decoded.ndim == 2:
        return decoded // (255 // (2**bits - 1)) if kind == GREY and bits < 8 else decoded
    pixels = np.ascontiguousarray(decoded[..., 2::-1])
    if coloured:
        return pixels
    if kind == PALETTE:
        return np.asarray(decode_image(str(path), numbered(data), cv2.IMREAD_COLOR))[..., 0]
    if (pixels == pixels[..., :1]).all():  # the same ids in all three channels
        return pixels[..., 0]
    raise EvaluationError(f"{path} is coloured; expected ids in one grey channel, or in a palette")


def png_size(path: Path) -> tuple[int, int] | None:
    """Read height and width from a PNG's first bytes; None for any other file."""
    try:
        with path.open("rb") as file:
            start = file.read(24)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(start) < 24 or not start.startswith(b"\x89PNG"):
        return None
    width, height = struct.unpack(">II", start[16:])
    return height, width


def numbered(data: bytes) -> bytes:
    """Give a PNG's palette the grey n as its entry n, so that it decodes to indices, whatever colours entries share."""
    place = 8
    while data[place + 4 : place + 8] != b"PLTE":  # a decoded file of this kind has one
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    length = int.from_bytes(data[place : place + 4], "big")
    chunk = b"PLTE" + np.arange(length // 3, dtype=np.uint8).repeat(3).tobytes()
    return data[: place + 4] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + data[place + 12 + length :]


def pack(pixels: NDArray[Any]) -> NDArray[np.int32]:
    """Pack RGB into one number."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue
