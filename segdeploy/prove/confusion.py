"""Counts one confusion matrix over a whole data set: IoU per class comes from the sums, not from averages of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import RequestError
from segdeploy.model.labels import ignore_of

if TYPE_CHECKING:
    from segdeploy.picture.image import LabelMap


class Confusion:
    """Counts pixels by truth × predicted class; the last column counts predictions outside the classes."""

    def __init__(self, classes: int, ignore: int | None = None) -> None:
        self.counts: NDArray[np.int64] = np.zeros((classes, classes + 1), np.int64)
        self.ignore = ignore_of(classes) if ignore is None else ignore

    def add(self, truth: LabelMap, predicted: LabelMap) -> None:
        self.counts += count_pairs(truth, predicted, len(self.counts), self.ignore)

    @property
    def sums(self) -> NDArray[np.int64]:  # 3 × classes
        """Keeps what an IoU needs: hits, pixels that are there, and pixels predicted."""
        return np.stack([np.diag(self.counts), self.counts.sum(1), self.counts[:, :-1].sum(0)])

    @property
    def iou(self) -> NDArray[np.float64]:
        """Give the IoU per class; NaN for a class that is neither in the truth nor predicted."""
        return iou_of(*self.sums)

    @property
    def miou(self) -> float:
        return mean(self.iou)

    @property
    def pixel_accuracy(self) -> float:
        return float(share(np.diag(self.counts).sum(), self.counts.sum()))


def iou_of(hits: Any, there: Any, predicted: Any) -> NDArray[np.float64]:
    return share(hits, there + predicted - hits)


def share(part: Any, whole: Any) -> NDArray[np.float64]:
    """Divide `part` by `whole`; 0 / 0 gives NaN."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.true_divide(part, whole))


def mean(values: NDArray[np.float64]) -> float:
    """Average the values that are known; NaN if none is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def count_pairs(
    truth: LabelMap, predicted: LabelMap, classes: int, ignore: int
) -> NDArray[np.int64]:  # classes × classes + 1
    """Count how often each pair of truth and predicted class occurs.

    For bytes it counts all 256 × 256 pairs, which is faster than removing the ignored pixels first. With 16 bits there
    would be 2³² pairs, so it removes the ignored pixels, and predictions beyond the classes share one column.
    """
    if truth.shape != predicted.shape:
        raise RequestError(
            f"the truth is {truth.shape}, the prediction {predicted.shape}; expected one shape"
        )
    if max(truth.itemsize, predicted.itemsize) > 1 or classes > 256:
        return count_wide_pairs(truth, predicted, classes, ignore)
    pairs = truth.astype(np.uint16) << 8 | predicted.astype(np.uint16)
    every = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256).astype(np.int64)
    outside = [label for label in np.flatnonzero(every.any(axis=1)) if label >= classes and label != ignore]
    demand_none_outside(outside, classes, ignore)
    return np.hstack([every[:classes, :classes], every[:classes, classes:].sum(axis=1, keepdims=True)])


def count_wide_pairs(
    truth: LabelMap, predicted: LabelMap, classes: int, ignore: int
) -> NDArray[np.int64]:  # classes × classes + 1
    counted = truth != ignore
    rows = truth[counted].astype(np.int64)
    demand_none_outside(np.unique(rows[rows >= classes]).tolist(), classes, ignore)
    cells = rows * (classes + 1) + np.minimum(predicted[counted], classes)
    counts = np.bincount(cells, minlength=classes * (classes + 1))
    return counts.reshape(classes, classes + 1).astype(np.int64)


def demand_none_outside(labels: Sequence[Any], classes: int, ignore: int) -> None:
    if labels:
        raise RequestError(
            f"the truth holds the label {labels[-1]}; expected 0 to {classes - 1}, or {ignore} to ignore"
        )
