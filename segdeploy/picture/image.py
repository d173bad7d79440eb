"""Fits a frame to the network's input, and labels back to the frame: both directions of one geometry.

Two resize kernels, because they differ and the difference is measurable: `linear` is OpenCV's and nvinfer's (four
neighbours, no antialiasing), `pillow` is what Hugging Face's image processors do (a triangle filter as wide as the
reduction, rounded to uint8 after each axis, across before down; Pillow 13 goes down before across where a frame grows
in width and shrinks in height, which moves single values by one).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import ImageError, RequestError
from segdeploy.given import as_path
from segdeploy.picture.decoding import MOST_PIXELS, decode_image, read_image_file
from segdeploy.picture.raising import raised, raised_to_labels
from segdeploy.size import Size
from segdeploy.special_files import is_folder

Frame = NDArray[np.uint8]  # H×W×3 RGB
LabelMap = NDArray[np.uint8 | np.uint16]  # H×W; 16 bits where there are more than 256 classes

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
WRITTEN = (".overlay.png", ".colours.png", ".ids.png")  # what `run` adds to a name: never an input
FITS = ("stretch", "letterbox")
KERNELS = ("linear", "pillow")


@dataclass(frozen=True)
class Geometry:
    """Says where the frame lies in the input: `content` rows and columns at `top`, `left`; the rest is padding."""

    frame: Size
    content: Size
    top: int
    left: int


def find_images(source: Path, but: tuple[str, ...] = ()) -> list[Path]:
    """List the image `source`, or those in and below the folder `source`, without names that end in one of `but`."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise RequestError(f"there is no file or folder {source}")
    found = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.endswith(but) and not is_folder(path)
    )
    if not found:
        raise RequestError(f"the folder {source} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return found


def read_frame(path: str | PathLike[str], most_pixels: int = MOST_PIXELS) -> Frame:
    """Read an image as upright 8-bit RGB: decoding resolves grey, alpha, 16 bits, CMYK and EXIF rotation."""
    path = as_path(path, "path")
    decoded, _ = read_image_file(path, cv2.IMREAD_COLOR, most_pixels)
    return as_rgb(str(path), decoded)


def decode_frame(name: str, data: bytes, most_pixels: int = MOST_PIXELS) -> Frame:
    """Do as `read_frame`, for the bytes of an image that lies in an archive or a bucket, where it is called `name`."""
    return as_rgb(name, decode_image(name, data, cv2.IMREAD_COLOR, most_pixels))


def as_rgb(name: str, decoded: NDArray[Any] | None) -> Frame:
    if decoded is None:
        raise ImageError(
            f"{name} is not an image that can be decoded; expected one of {', '.join(IMAGE_SUFFIXES)}"
        )
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def demand_frame(frame: object) -> None:
    if not isinstance(frame, np.ndarray):
        raise ImageError(f"a frame is a uint8 array H×W×3 RGB, got a {type(frame).__name__}")
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise ImageError(f"a frame is uint8 H×W×3 RGB, got {frame.dtype} {frame.shape}")


def fit(frame: Frame, size: Size, how: str = "stretch", kernel: str = "linear") -> tuple[Frame, Geometry]:
    demand_frame(frame)
    geometry = geometry_of(Size(*frame.shape[:2]), size, how)
    if geometry.content == size:
        return resize(frame, size, kernel), geometry
    canvas = np.zeros((size.height, size.width, 3), np.uint8)
    canvas[content_of(geometry)] = resize(frame, geometry.content, kernel)
    return canvas, geometry


def geometry_of(frame: Size, size: Size, how: str = "stretch") -> Geometry:
    """Say where a frame of its own size lies in an input of `size`."""
    if how == "stretch":
        return Geometry(frame, size, 0, 0)
    if how != "letterbox":
        raise RequestError(f"{how!r} is not a way to fit a frame; known: {', '.join(FITS)}")
    shrink = min(size.height / frame.height, size.width / frame.width)
    content = Size(max(1, round(frame.height * shrink)), max(1, round(frame.width * shrink)))
    return Geometry(frame, content, (size.height - content.height) // 2, (size.width - content.width) // 2)


def unfit(labels: LabelMap, geometry: Geometry) -> LabelMap:
    """Bring the input's labels back to the frame's own size: nearest neighbour, pixel centres aligned."""
    inner = labels[content_of(geometry)]
    if inner.shape == (geometry.frame.height, geometry.frame.width):
        return inner
    rows = nearest_lines(geometry.frame.height, geometry.content.height)
    columns = nearest_lines(geometry.frame.width, geometry.content.width)
    return inner[rows].take(columns, axis=1)


def unfit_logits(
    logits: NDArray[np.float32], size: Size, geometry: Geometry, align_corners: bool
) -> LabelMap:
    """Make labels at the frame's size from logits C×h×w of an input of `size`: bilinear first, then arg-max."""
    logits = inner_logits(logits, size, geometry, align_corners)
    return raised_to_labels(logits, geometry.frame, align_corners)


def inner_logits(
    logits: NDArray[np.float32], size: Size, geometry: Geometry, align_corners: bool
) -> NDArray[np.float32]:
    """Cut the part of logits C×h×w that the frame fills; without borders they are returned as they are."""
    if geometry.content == size:
        return logits
    whole = np.stack([raised(plane, size, align_corners) for plane in logits])
    return whole[(slice(None), *content_of(geometry))]


def probabilities_of(
    logits: NDArray[np.float32], size: Size, geometry: Geometry, align_corners: bool
) -> NDArray[np.float32]:
    """Make probabilities C×H×W at the frame's size: logits C×h×w are resized to it before the soft-max."""
    logits = inner_logits(logits, size, geometry, align_corners)
    large = np.stack([raised(plane, geometry.frame, align_corners) for plane in logits])
    large -= large.max(axis=0)
    np.exp(large, out=large)
    large /= large.sum(axis=0)
    return large


def normalise(
    frames: NDArray[np.uint8], mean: tuple[float, ...], scale: tuple[float, ...]
) -> NDArray[np.float32]:  # N×H×W×3 -> N×3×H×W
    """Compute scale·(rgb − mean), straight into the one float array that the graph will read."""
    batch, height, width, _ = frames.shape
    pixels = np.empty((batch, 3, height, width), np.float32)
    for channel in range(3):
        plane = pixels[:, channel]
        np.subtract(frames[..., channel], np.float32(mean[channel]), out=plane)
        plane *= np.float32(scale[channel])
    return pixels


def resize(frame: Frame, size: Size, kernel: str = "linear") -> Frame:
    if frame.shape[:2] == (size.height, size.width):
        return frame
    if kernel == "linear":
        resized = cv2.resize(frame, (size.width, size.height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, np.uint8)
    if kernel != "pillow":
        raise RequestError(f"{kernel!r} is not a resize kernel; known: {', '.join(KERNELS)}")
    columns = triangle_taps(frame.shape[1], size.width)
    rows = triangle_taps(frame.shape[0], size.height)
    across = cv2.transpose(_weigh(np.asarray(cv2.transpose(frame), np.uint8), *columns))
    return _weigh(np.asarray(across, np.uint8), *rows)


_FIXED_POINT_BITS = 22  # Pillow's precision for 8-bit images: 32 − 8 − 2
_LINES_AT_ONCE = 32  # their sums stay in a core's cache: five times as fast as all lines at once


@lru_cache(maxsize=16)
def triangle_taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Make the taps and fixed-point weights, target×taps, of Pillow's bilinear filter along one axis."""
    ratio = source / target
    reach = max(ratio, 1.0)
    centres = (np.arange(target) + 0.5) * ratio
    first = np.maximum((centres - reach + 0.5).astype(np.intp), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.intp), source)
    taps = first[:, None] + np.arange((last - first).max())
    weights = np.maximum(1 - np.abs((taps + 0.5 - centres[:, None]) / reach), 0)
    weights[taps >= last[:, None]] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    fixed = np.floor(weights * (1 << _FIXED_POINT_BITS) + 0.5).astype(np.int32)
    return np.minimum(taps, source - 1), fixed


def _weigh(lines: NDArray[np.uint8], taps: NDArray[np.intp], weights: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Compute each new line as the weighted sum of its taps; lines are indexed by the first axis."""
    flat = lines.reshape(len(lines), -1)
    made = np.empty((len(taps), flat.shape[1]), np.uint8)
    sums, products = (np.empty((_LINES_AT_ONCE, flat.shape[1]), np.int32) for _ in range(2))
    for start in range(0, len(taps), _LINES_AT_ONCE):
        some = slice(start, min(start + _LINES_AT_ONCE, len(taps)))
        total, product = (array[: some.stop - start] for array in (sums, products))
        # 255·2²² and the rounding stay below 2³¹: no weight is negative and they sum to one.
        total.fill(1 << (_FIXED_POINT_BITS - 1))
        for tap in range(taps.shape[1]):
            np.multiply(flat[taps[some, tap]], weights[some, tap, None], out=product)
            total += product
        total >>= _FIXED_POINT_BITS
        made[some] = total
    return made.reshape(len(taps), *lines.shape[1:])


def content_of(geometry: Geometry) -> tuple[slice, slice]:
    return (
        slice(geometry.top, geometry.top + geometry.content.height),
        slice(geometry.left, geometry.left + geometry.content.width),
    )


@lru_cache(maxsize=64)
def nearest_lines(target: int, source: int) -> NDArray[np.intp]:
    return ((np.arange(target) * 2 + 1) * source // (target * 2)).astype(np.intp)
