"""One confusion matrix over a whole data set: IoU per class is taken of the sums, not averaged over images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import RequestError


class Confusion:
    """`counts` is truth × predicted; its last column counts predictions that are none of the classes."""

    def __init__(self, classes: int, ignore: int = 255) -> None:
        self.counts: NDArray[np.int64] = np.zeros((classes, classes + 1), np.int64)
        self.ignore = ignore

    def add(self, truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> None:
        classes, columns = self.counts.shape
        counted = truth != self.ignore
        rows = truth[counted].astype(np.int64)
        if rows.size and rows.max() >= classes:
            raise RequestError(
                f"the truth holds the label {rows.max()}; expected 0 to {classes - 1}, or {self.ignore} to ignore"
            )
        pairs = rows * columns + np.minimum(predicted[counted], classes)
        self.counts += np.bincount(pairs, minlength=self.counts.size).reshape(self.counts.shape)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Per class; NaN for a class that is neither there nor predicted."""
        hits = np.diag(self.counts).astype(np.float64)
        union = self.counts[:, :-1].sum(0) + self.counts.sum(1) - hits
        with np.errstate(invalid="ignore"):
            return np.asarray(hits / union)

    @property
    def miou(self) -> float:
        return float(np.nanmean(self.iou))

    @property
    def pixel_accuracy(self) -> float:
        return float(np.diag(self.counts).sum() / self.counts.sum())
