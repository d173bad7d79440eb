"""One confusion matrix over a whole data set: IoU per class is taken of the sums, not averaged over images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Confusion:
    def __init__(self, classes: int, ignore: int = 255) -> None:
        self.counts: NDArray[np.int64] = np.zeros((classes, classes), np.int64)  # truth × predicted
        self.ignore = ignore

    def add(self, truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> None:
        classes = len(self.counts)
        counted = truth != self.ignore
        pairs = truth[counted].astype(np.int64) * classes + predicted[counted]
        self.counts += np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Per class; NaN for a class that is neither there nor predicted."""
        hits = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        with np.errstate(invalid="ignore"):
            return np.asarray(hits / union)

    @property
    def miou(self) -> float:
        return float(np.nanmean(self.iou))

    @property
    def pixel_accuracy(self) -> float:
        return float(np.diag(self.counts).sum() / self.counts.sum())
