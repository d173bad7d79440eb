"""Writes label maps as COCO's run lengths, and reads them: what pycocotools calls a compressed RLE.

A mask is read down its columns. Its run lengths, of zeros first, become text of 48 + 6 bits: five bits of the number at
a time, the lowest first, and one that says whether more follow; from the fourth number on it is the difference from the
number two places before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import ImageError
from segdeploy.picture.image import LabelMap


def segments_of(labels: LabelMap) -> dict[int, dict[str, Any]]:
    """Give for each class that is there its mask as `{"size": [height, width], "counts": text}`."""
    height, width = labels.shape
    flat = labels.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    found = {}
    for value in np.unique(values):
        own = values == value
        edges = np.column_stack([starts[own], ends[own]]).ravel()
        if edges[-1] != flat.size:
            edges = np.append(edges, flat.size)
        counts = np.diff(edges, prepend=0)
        found[int(value)] = {"size": [height, width], "counts": text_of_counts(counts)}
    return found


def text_of_counts(counts: NDArray[np.int64]) -> str:
    """Write run lengths as COCO does, all numbers at once."""
    left = counts.astype(np.int64)
    left[3:] -= counts[1:-2]
    parts: list[NDArray[np.uint8]] = []
    follows: list[NDArray[np.bool_]] = []
    open_ = np.ones(left.size, bool)
    while open_.any():
        low = left & 31
        left = left >> 5
        more = open_ & np.where(low & 16, left != -1, left != 0)
        parts.append((low + 32 * more + 48).astype(np.uint8))
        follows.append(open_)
        open_ = more
    return np.stack(parts, 1)[np.stack(follows, 1)].tobytes().decode("ascii")


def mask_of(segment: dict[str, Any]) -> NDArray[np.bool_]:
    """Read one mask, H×W; refuses text that is of another size."""
    height, width = segment["size"]
    counts: list[int] = []
    number = bits = 0
    for letter in segment["counts"].encode("ascii"):
        part = letter - 48
        number |= (part & 31) << bits
        bits += 5
        if part & 32:
            continue
        if part & 16:
            number -= 1 << bits
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = bits = 0
    if sum(counts) != height * width or min(counts) < 0:
        raise ImageError(f"these run lengths are of {sum(counts)} pixels; expected {height}x{width}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(width, height).T
