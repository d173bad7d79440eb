"""Computes the scores of a confusion matrix, their interval over the choice of images, and differences between models.

A class that is neither in the truth nor predicted has no IoU (NaN) and is left out of the mean. A class that is only
predicted has the IoU 0, and lowers the mean. This is the rule of Cityscapes' own evaluation, with which the tests
compare. Pixels of unscored classes count nowhere; no prediction there is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from segdeploy.model.labels import Labels, read_labels
from segdeploy.prove.bootstrap import DRAWS, LEVEL, SEED, drawn_weights, middle
from segdeploy.prove.confusion import iou_of, mean, share

CITYSCAPES_CATEGORIES = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}


@dataclass(frozen=True)
class Scores:
    """Computes scores as shares of 1; arrays are per class, NaN where the divisor is 0."""

    counts: NDArray[np.int64]  # truth × predicted, the last column none of the classes
    labels: Labels

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        return iou_of(self._hits, self._there, self._predicted)

    @cached_property
    def precision(self) -> NDArray[np.float64]:
        """Give the precision of each class; NaN for one that is never predicted."""
        return share(self._hits, self._predicted)

    @cached_property
    def recall(self) -> NDArray[np.float64]:
        """Give the recall of each class; NaN for one that is not in the truth."""
        return share(self._hits, self._there)

    @cached_property
    def frequency(self) -> NDArray[np.float64]:
        """Give each class's share of the counted pixels."""
        return share(self._there, self._there.sum())

    @cached_property
    def miou(self) -> float:
        return mean(self.iou)

    @cached_property
    def pixel_accuracy(self) -> float:
        return float(share(self._hits.sum(), self.counts.sum()))

    @cached_property
    def frequency_weighted_iou(self) -> float:
        return float(np.nansum(self.frequency * self.iou)) if self.counts.any() else float("nan")

    @cached_property
    def category_iou(self) -> dict[str, float]:
        """Give the IoU of Cityscapes' seven categories if the classes are Cityscapes', else nothing."""
        if self.labels.names != read_labels("cityscapes").names:
            return {}
        ious = {}
        for category, names in CITYSCAPES_CATEGORIES.items():
            members = [self.labels.names.index(name) for name in names]
            hits = self.counts[np.ix_(members, members)].sum()
            there, predicted = self._there[members].sum(), self._predicted[members].sum()
            ious[category] = float(iou_of(hits, there, predicted))
        return ious

    @property
    def category_miou(self) -> float | None:
        return mean(np.array(list(self.category_iou.values()))) if self.category_iou else None

    @property
    def _hits(self) -> NDArray[np.int64]:
        return np.asarray(np.diag(self.counts))

    @property
    def _there(self) -> NDArray[np.int64]:
        return np.asarray(self.counts.sum(axis=1))

    @property
    def _predicted(self) -> NDArray[np.int64]:
        return np.asarray(self.counts[:, :-1].sum(axis=0))


@dataclass(frozen=True)
class ImageSums:
    """Keeps the three sums of each image's confusion matrix that an IoU needs, each images × classes."""

    hits: NDArray[np.int64]
    there: NDArray[np.int64]
    predicted: NDArray[np.int64]

    @classmethod
    def empty(cls, images: int, classes: int) -> ImageSums:
        return cls(*(np.zeros((images, classes), np.int64) for _ in range(3)))

    def put(self, image: int, counts: NDArray[np.int64]) -> None:
        self.hits[image] = np.diag(counts)
        self.there[image] = counts.sum(axis=1)
        self.predicted[image] = counts[:, :-1].sum(axis=0)

    @property
    def mious(self) -> NDArray[np.float64]:
        """Score each image by itself, to rank images; NaN where no pixel is counted."""
        per_class = iou_of(self.hits, self.there, self.predicted)
        return np.array([mean(row) for row in per_class])

    def worst(self, most: int) -> list[int]:
        """List the images with the lowest mIoU, worst first."""
        order = np.argsort(self.mious, kind="stable")
        return [int(image) for image in order[:most] if self.there[image].any()]


@dataclass(frozen=True)
class Interval:
    low: float
    high: float
    level: float = LEVEL
    draws: int = DRAWS
    seed: int = SEED


def bootstrap_mious(sums: ImageSums, draws: int = DRAWS, seed: int = SEED) -> NDArray[np.float64]:
    """Compute the mIoU of `draws` data sets of the same size, drawn from the images with replacement."""
    drawn = drawn_weights(len(sums.hits), draws, seed)
    ious = iou_of(*(drawn @ sums_of for sums_of in (sums.hits, sums.there, sums.predicted)))
    return np.array([mean(row) for row in ious])


def interval_of(drawn: NDArray[np.float64], seed: int = SEED) -> Interval:
    """Give the middle 95 % of the drawn values."""
    return Interval(*middle(drawn), LEVEL, len(drawn), seed)


@dataclass(frozen=True)
class Delta:
    """Holds a model's scores minus the first one's; both use the same draws, so an easy draw cancels out."""

    miou: float
    interval: Interval
    pixel_accuracy: float
    iou: NDArray[np.float64]  # per class; NaN where either has none


def delta(first: tuple[Scores, ImageSums], other: tuple[Scores, ImageSums], seed: int = SEED) -> Delta:
    drawn = bootstrap_mious(other[1], seed=seed) - bootstrap_mious(first[1], seed=seed)
    return Delta(
        other[0].miou - first[0].miou,
        interval_of(drawn, seed),
        other[0].pixel_accuracy - first[0].pixel_accuracy,
        other[0].iou - first[0].iou,
    )
