"""Scores of one confusion matrix, the interval that the choice of images leaves them, and what differs between models.

A class that is neither in the truth nor predicted has no IoU (NaN) and is left out of the mean. One that is predicted
but not there has the IoU 0, and lowers the mean. This is the rule of Cityscapes' own evaluation, which the tests hold
us to. Pixels of classes that are not evaluated count nowhere; what is predicted there is not wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from segdeploy.model.labels import Labels, read_labels
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
LEVEL, DRAWS, SEED = 0.95, 1000, 0


@dataclass(frozen=True)
class Scores:
    """All are shares of 1; arrays are per class, NaN where there is nothing to divide by."""

    counts: NDArray[np.int64]  # truth × predicted, the last column none of the classes
    labels: Labels

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        return iou_of(self._hits, self._there, self._predicted)

    @cached_property
    def precision(self) -> NDArray[np.float64]:
        """NaN for a class that is never predicted."""
        return share(self._hits, self._predicted)

    @cached_property
    def recall(self) -> NDArray[np.float64]:
        """NaN for a class that is not there."""
        return share(self._hits, self._there)

    @cached_property
    def frequency(self) -> NDArray[np.float64]:
        """Give the share that each class has of the counted pixels."""
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
        """Score Cityscapes' seven categories where the classes are Cityscapes'; otherwise give none."""
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
    """Keeps of each image's confusion matrix what an IoU needs: three sums per class, images × classes each."""

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
        """Images of the lowest mIoU of their own, worst first."""
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
    """mIoU of `draws` data sets of as many images, drawn from these with replacement."""
    images = len(sums.hits)
    weights = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), draws)
    # Counts below 2⁵³ are exact in float64, and its matrix product is much the faster.
    drawn = weights.astype(np.float64)
    ious = iou_of(*(drawn @ sums_of for sums_of in (sums.hits, sums.there, sums.predicted)))
    return np.array([mean(row) for row in ious])


def interval_of(drawn: NDArray[np.float64], seed: int = SEED) -> Interval:
    """The middle 95 %."""
    tail = 100 * (1 - LEVEL) / 2
    known = drawn[np.isfinite(drawn)]
    low, high = np.percentile(known, [tail, 100 - tail]) if known.size else (np.nan, np.nan)
    return Interval(float(low), float(high), LEVEL, len(drawn), seed)


@dataclass(frozen=True)
class Delta:
    """A model minus the first one. The interval draws the same images for both, so an easy draw moves neither."""

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
