"""Raises small logits to a larger size, and labels them there.

The arithmetic is written out (across, then down, each product and sum rounded to float32), because OpenCV's differs
from one processor to the next: so the same logits have the same labels everywhere, on a GPU too (`run/frames.cu`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segdeploy.model.labels import ids_type
from segdeploy.size import Size

CLEAR = 2.0**-18  # a lead, as a share of the largest logit, that no rounding takes away
SMALLEST = np.finfo(np.float32).tiny
LEAST_ALONE = 0.85  # of the cells have one class
VALUES_AT_ONCE = 1 << 16  # stay in a core's cache


class LineSteps(NamedTuple):
    """Says for each new line which two lines it lies between, and how far from the first, along one axis."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    share: NDArray[np.float32]


def steps_along(source: int, target: int, align_corners: bool) -> LineSteps:
    """Place `target` lines among `source` lines; `align_corners` means the same as in PyTorch."""
    at = np.arange(target, dtype=np.float64)
    at = at * ((source - 1) / max(target - 1, 1)) if align_corners else (at + 0.5) * (source / target) - 0.5
    at = np.clip(at, 0, source - 1)
    first = at.astype(np.intp)
    return LineSteps(first, np.minimum(first + 1, source - 1), (at - first).astype(np.float32))


def mixed(
    first: NDArray[np.float32], second: NDArray[np.float32], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Interpolate in place, and return the first array."""
    first *= 1 - share
    second *= share
    first += second
    return first


def across(plane: NDArray[np.float32], columns: LineSteps) -> NDArray[np.float32]:
    return mixed(plane.take(columns.first, -1), plane.take(columns.second, -1), columns.share)


def down(lines: NDArray[np.float32], rows: LineSteps) -> NDArray[np.float32]:
    return mixed(lines.take(rows.first, 0), lines.take(rows.second, 0), rows.share[:, None])


def raised(plane: NDArray[np.float32], size: Size, align_corners: bool) -> NDArray[np.float32]:
    """Resize one plane of logits h×w bilinearly to `size`."""
    if plane.shape == (size.height, size.width):
        return plane
    rows, columns = (
        steps_along(source, target, align_corners)
        for source, target in zip(plane.shape, (size.height, size.width), strict=True)
    )
    return down(across(plane, columns), rows)


def raised_to_labels(
    logits: NDArray[np.float32], size: Size, align_corners: bool
) -> NDArray[np.uint8 | np.uint16]:  # C×h×w -> H×W
    """Label logits at `size`: bilinear first, then arg-max, the first class where several are equal.

    A class that leads clearly at the four corners of a cell leads inside it, so only the other cells are interpolated,
    unless they are so many, as in noise, that picking them out costs more.
    """
    if logits.shape[1:] == (size.height, size.width):
        return first_largest(logits).astype(ids_type(len(logits)))
    rows = steps_along(logits.shape[1], size.height, align_corners)
    columns = steps_along(logits.shape[2], size.width, align_corners)
    leading = leaders(logits)
    below, right = (np.minimum(np.arange(side) + 1, side - 1) for side in leading.shape)
    others = leading[below], leading[:, right], leading[below][:, right]
    alone = (leading >= 0) & np.logical_and.reduce([leading == other for other in others])
    if np.count_nonzero(alone) < LEAST_ALONE * alone.size:
        return wholly_raised_to_labels(logits, rows, columns)
    labels = leading.astype(ids_type(len(logits))).take(rows.first, 0).take(columns.first, 1)
    y, x = np.nonzero(~alone.take(rows.first, 0).take(columns.first, 1))
    pixels, width = np.ascontiguousarray(logits.reshape(len(logits), -1).T), logits.shape[2]
    at_once = max(1, VALUES_AT_ONCE // len(logits))
    for start in range(0, len(y), at_once):
        row, column = y[start : start + at_once], x[start : start + at_once]
        left, right = columns.first[column], columns.second[column]
        above, under = (
            mixed(pixels[line * width + left], pixels[line * width + right], columns.share[column, None])
            for line in (rows.first[row], rows.second[row])
        )
        labels[row, column] = first_largest(mixed(above, under, rows.share[row, None]).T)
    return labels


def leaders(logits: NDArray[np.float32]) -> NDArray[np.int32]:
    """Find the largest class of each logit's place; -1 where it leads too little to be sure of its cell, or not at all.

    Of classes that are equal by rounding the first is taken, so the lead counts over the classes before.
    """
    best, before = logits[0].copy(), np.full(logits.shape[1:], -np.inf, np.float32)
    leading = np.zeros(best.shape, np.int32)
    for index, plane in enumerate(logits[1:], start=1):
        leads = plane > best
        before[leads] = best[leads]
        leading[leads] = index
        np.maximum(best, plane, out=best)
    with np.errstate(invalid="ignore", over="ignore"):
        clear = best - before > np.abs(best) * np.float32(CLEAR) + SMALLEST
        clear &= np.isfinite(logits.sum(axis=0))
    leading[~clear] = -1
    return leading


def wholly_raised_to_labels(
    logits: NDArray[np.float32], rows: LineSteps, columns: LineSteps
) -> NDArray[np.uint8 | np.uint16]:
    """Label by interpolating all, some lines at a time: never C×H×W floats."""
    lines = [across(plane, columns) for plane in logits]
    height, width = len(rows.first), len(columns.first)
    labels = np.empty((height, width), ids_type(len(logits)))
    at_once = max(1, VALUES_AT_ONCE // width)
    for start in range(0, height, at_once):
        some = slice(start, start + at_once)
        part = LineSteps(rows.first[some], rows.second[some], rows.share[some])
        labels[some] = first_largest(down(line, part) for line in lines)
    return labels


def first_largest(planes: Iterable[NDArray[np.float32]]) -> NDArray[np.uint16]:
    """Do np.argmax over the planes one by one, which is several times as fast for few."""
    planes = iter(planes)
    best = next(planes).copy()
    places = np.zeros(best.shape, np.uint16)
    for index, plane in enumerate(planes, start=1):
        places[plane > best] = index
        np.maximum(best, plane, out=best)
    return places
