"""Computes the labels of logits that are resized bilinearly by powers of two, without resizing them.

A class that is the largest at all four corners of a cell is the largest inside it: a bilinear mean has no negative
weights. So only cells whose corners differ, which lie along the edges of things, are interpolated, and in them only the
classes that at some corner reach the value that another class has at all four. Labels are those of the arg-max over the
resized logits, the lowest index where several are equal; they can differ only where two classes are closer than float32
rounds, where two runtimes do not agree either.

None of this holds for a logit that is NaN or infinite: then the nodes that were cut off are run as in the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.model.labels import ids_type
from segdeploy.picture.image import LabelMap
from segdeploy.picture.raising import first_largest

FACTORS = (2, 4, 8, 16, 32)  # their shares are exact in binary, so that equal logits stay equal
CHUNK_CELLS = 4096  # their arrays stay in a core's cache; fewer beyond 256 classes


@dataclass(frozen=True)
class LazyLabels:
    """Holds the `factors` of the resize, down and across, and the cut-off `nodes` as a graph of their own."""

    factors: tuple[int, int]
    dtype: str
    keeps_class_axis: bool
    nodes: bytes = field(default=b"", repr=False)

    def fit(self, logits: NDArray[np.float32]) -> bool:
        """Tell whether all logits are finite, which their sum shows."""
        with np.errstate(over="ignore", invalid="ignore"):
            return bool(np.isfinite(logits.sum()))

    def of(self, logits: NDArray[np.float32]) -> NDArray[Any]:  # N×C×h×w -> N×H×W or N×1×H×W
        labels = np.stack([raised_labels(image, self.factors) for image in logits])
        return (labels[:, None] if self.keeps_class_axis else labels).astype(self.dtype, copy=False)


def raised_labels(logits: NDArray[np.float32], factors: tuple[int, int]) -> LabelMap:  # C×h×w -> H×W
    """Label one image by cells, which reach from one logit's centre to the next; the outermost are repeated."""
    classes, height, width = logits.shape
    down, across = factors
    pixels = np.asarray(cv2.transpose(np.ascontiguousarray(logits).reshape(classes, -1)))  # hw×C
    kind = ids_type(classes)
    corners = np.pad(pixels.argmax(1).astype(kind).reshape(height, width), 1, mode="edge")
    first = corners[:-1, :-1]
    mixed = (first != corners[:-1, 1:]) | (first != corners[1:, :-1]) | (first != corners[1:, 1:])
    enlarged = ((width + 1) * across, (height + 1) * down)
    raised = np.asarray(cv2.resize(first, enlarged, interpolation=cv2.INTER_NEAREST), kind)
    cells = raised.reshape(height + 1, down, width + 1, across)
    rows, columns = np.nonzero(mixed)
    chunk = max(1, CHUNK_CELLS * 256 // max(classes, 256))
    for start in range(0, len(rows), chunk):
        row, column = rows[start : start + chunk], columns[start : start + chunk]
        above, below = np.maximum(row - 1, 0) * width, np.minimum(row, height - 1) * width
        left, right = np.maximum(column - 1, 0), np.minimum(column, width - 1)
        at_corners = [pixels[line + place] for line in (above, below) for place in (left, right)]
        cells[row, :, column] = labels_within(at_corners, factors)
    return np.ascontiguousarray(raised[down // 2 : -down // 2, across // 2 : -across // 2])


def labels_within(corners: list[NDArray[np.float32]], factors: tuple[int, int]) -> LabelMap:
    """Make M×down×across labels inside M cells from the logits at their corners, M×C each: both above, both below."""
    kind_of_ids = ids_type(corners[0].shape[1])
    above, below = np.minimum(*corners[:2]), np.minimum(*corners[2:])
    everywhere = np.minimum(above, below).max(1)
    highest = np.maximum(np.maximum(*corners[:2]), np.maximum(*corners[2:]))
    possible = highest >= everywhere[:, None]
    if 4 * np.count_nonzero(possible) > possible.size:  # so many, as in noise: picking them out costs more
        crowd = interpolated([corner.T for corner in corners], factors)
        return first_largest(crowd).transpose(2, 0, 1).astype(kind_of_ids)
    counts = np.count_nonzero(possible, axis=1)
    cell, kind = np.nonzero(possible)  # by cell, and then by class
    labels = np.empty((len(counts), *factors), kind_of_ids)
    for count in np.unique(counts):
        chosen = counts == count
        of_these = chosen[cell]
        where, kinds = cell[of_these].reshape(-1, count).T, kind[of_these].reshape(-1, count).T
        values = interpolated([corner[where, kinds] for corner in corners], factors)
        place = first_largest(values)  # down×across×m
        labels[chosen] = np.take_along_axis(kinds, place.reshape(-1, place.shape[-1]), 0).T.reshape(
            -1, *factors
        )
    return labels


def interpolated(corners: list[NDArray[np.float32]], factors: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate k×m corners to k×down×across×m values."""
    lower, beyond = cell_steps(factors[0])[:, None, None], cell_steps(factors[1])[:, None]
    above_left, above_right, below_left, below_right = (corner[:, None] for corner in corners)
    above = above_left * (1 - beyond) + above_right * beyond  # k×across×m
    below = below_left * (1 - beyond) + below_right * beyond
    return np.asarray(above[:, None] * (1 - lower) + below[:, None] * lower, np.float32)


def cell_steps(factor: int) -> NDArray[np.float32]:
    """Compute each pixel's place inside a cell, as a share of its side."""
    return ((np.arange(factor) + 0.5) / factor).astype(np.float32)
