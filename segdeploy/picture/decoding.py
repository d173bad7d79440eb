"""Decodes image files that are not too large; the size is read from the header before anything is decoded.

A file of fifty bytes can claim 40000x40000 pixels, and one of 50 KB can hold 20000x20000 pixels of one colour, which
take 6 GB. Only the formats below are read, whatever a file is called.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import ImageError
from segdeploy.special_files import why_no_file

Sides = tuple[int, int]  # height, width

PALETTE = 3
PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by kind
PNG = b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 100_000_000  # 300 MB as RGB, and a few times that on the way
_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # JPEG's frame headers
_ALONE = {0x00, 0x01, *range(0xD0, 0xDA), 0xFF}  # JPEG's markers without a length, and non-markers
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")
_PAM = re.compile(rb"(?s)P7\n(?=.*?WIDTH (\d{1,9})\n)(?=.*?HEIGHT (\d{1,9})\n)")
_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # by the type of a field
_WIDTH_TAG, _HEIGHT_TAG = 256, 257
_MOST_TAGS = 4096


def read_image_file(
    path: Path, flags: int, most_pixels: int = MOST_PIXELS
) -> tuple[NDArray[Any] | None, bytes]:
    """Return the pixels as OpenCV decodes them with `flags`, None for a file that is no image, and its bytes."""
    try:
        if (why := why_no_file(path)) is not None:
            raise ImageError(f"{path} cannot be read: {why}")
        data = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise ImageError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'no memory'}"
        ) from error
    return decode_image(str(path), data, flags, most_pixels), data


def decode_image(name: str, data: bytes, flags: int, most_pixels: int = MOST_PIXELS) -> NDArray[Any] | None:
    """Decode the bytes of an image, which messages call `name`; None for what is no image."""
    sides = sides_in_header(data)
    if sides is None:
        return None
    demand_few_pixels(name, sides, most_pixels)
    if data.startswith(PNG):
        demand_whole_png(name, data)
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise ImageError(f"{name} cannot be decoded: {getattr(error, 'err', None) or 'no memory'}") from error


def demand_few_pixels(name: str, sides: Sides, most_pixels: int) -> None:
    height, width = sides
    if height * width > most_pixels:
        raise ImageError(
            f"{name} is {height}x{width}, {height * width:,} pixels; at most {most_pixels:,} are read, or as many as"
            " --max-pixels of `run` says"
        )


def demand_whole_png(name: str, data: bytes) -> None:
    """Refuse a PNG that ends early, or with a wrong header, or with a wrong checksum in a part of the picture.

    For some of these OpenCV gives half a picture, depending on its version, and libpng prints messages.
    """
    at = len(PNG)
    names: set[bytes] = set()
    while len(data) >= at + 12:
        length, part = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        critical = not part[0] & 0x20  # it begins with a capital letter
        if critical and data[end - 4 : end] != struct.pack(">I", zlib.crc32(data[at + 4 : end - 4])):
            break
        names.add(part)
        depth, kind = data[24:26].ljust(2)
        if 0 in png_sides(data) or depth not in PNG_DEPTHS.get(kind, ()):
            break
        if part == b"IDAT" and kind == PALETTE and b"PLTE" not in names:
            break
        if part == b"IEND":
            return
        at = end
    raise ImageError(
        f"{name} is a damaged PNG, from byte {at} of {len(data)} on; copy it again, or write it again"
    )


def sides_in_header(data: bytes) -> Sides | None:
    """Read height and width from the header; None for a file that is no image, or is cut before them."""
    for start, read in READERS:
        if re.match(start, data, re.DOTALL):
            try:
                return read(data)
            except (struct.error, IndexError, KeyError, ValueError, OverflowError):
                return None
    return None


def png_sides(data: bytes) -> Sides:
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def jpeg_sides(data: bytes) -> Sides:
    """Find the first frame header by the same steps as libjpeg, and read its size."""
    at = 2
    while True:
        at = data.index(b"\xff", at) + 1
        marker = data[at]
        if marker in _SOF:
            height, width = struct.unpack_from(">HH", data, at + 4)
            return height, width
        if marker not in _ALONE:
            at += struct.unpack_from(">H", data, at + 1)[0]


def bmp_sides(data: bytes) -> Sides:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # OS/2's header
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)  # a negative height: the first row is on top
    return abs(height), abs(width)


def webp_sides(data: bytes) -> Sides:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    if kind == b"VP8L":
        packed = struct.unpack_from("<I", data, 21)[0]
        return (packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1
    low, lows, high, highs = struct.unpack_from("<HBHB", data, 24)  # VP8X: two numbers of 24 bits
    return (high | highs << 16) + 1, (low | lows << 16) + 1


def pnm_sides(data: bytes) -> Sides:
    found = _PNM.match(data) or _PAM.match(data)
    if found is None:
        raise ValueError
    return int(found[2]), int(found[1])


def tiff_sides(data: bytes) -> Sides:
    """Read the first page's size; BigTIFF (43) has longer counts and offsets."""
    order = "<" if data[:1] == b"I" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    at = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)[0]
    count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, at)[0]
    begin, length, value = (at + 8, 20, 12) if big else (at + 2, 12, 8)
    found = {}
    for place in range(begin, begin + length * min(count, _MOST_TAGS), length):
        tag, kind = struct.unpack_from(f"{order}HH", data, place)
        if tag in (_WIDTH_TAG, _HEIGHT_TAG):
            found[tag] = struct.unpack_from(f"{order}{_TIFF_NUMBERS[kind]}", data, place + value)[0]
    return found[_HEIGHT_TAG], found[_WIDTH_TAG]


READERS: tuple[tuple[bytes, Callable[[bytes], Sides]], ...] = (
    (PNG, png_sides),
    (rb"\xff\xd8\xff", jpeg_sides),
    (rb"BM", bmp_sides),
    (rb"RIFF....WEBP", webp_sides),
    (rb"P[1-7]\s", pnm_sides),
    (rb"(?:II[*+]\x00|MM\x00[*+])", tiff_sides),
)
