"""Counts how often each |x| was seen in one tensor, in constant memory and one pass, whatever the images' order.

Bins are a power of two wide. When a larger value comes, neighbours are merged and the range doubles, so that the
counts are exactly those that a first pass over all images, made to find the range, would have led to.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import CalibrationError

BINS = 2048  # what the threshold search is defined on
FINE = 8 * BINS
FEWEST_DOUBLINGS = -100  # of 1, for the range that a histogram begins with
LIMIT = 2.0**127  # from here on bins would end beyond float32
MOST = 1 << 24  # values at a time: calcHist counts in float32


class Histogram:
    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(FINE, np.int64)  # of |x| in [0, 2**exponent)
        self.exponent = FEWEST_DOUBLINGS
        self.largest = 0.0
        self.seen = 0

    @classmethod
    def of(cls, counts: NDArray[np.int64], exponent: int, largest: float, seen: int) -> Histogram:
        """Take up what was counted before; a ValueError says what cannot have been."""
        holds = FEWEST_DOUBLINGS <= exponent <= 128 and 0 <= largest <= 2.0**exponent
        if not holds or counts.min() < 0 or counts.sum() != seen:
            raise ValueError("it counts what no tensor can have held")
        one = cls()
        one.counts, one.exponent, one.largest, one.seen = counts, exponent, largest, seen
        return one

    def add(self, values: NDArray[np.float32]) -> None:
        magnitudes = np.abs(values).reshape(-1)
        largest = float(magnitudes.max(initial=0))
        if not largest < LIMIT:
            raise CalibrationError("holds NaN or infinity")
        if largest:
            self.reach(
                math.frexp(largest)[1]
            )  # 2**exponent is above every value: calcHist leaves out its limit
        for part in np.array_split(magnitudes, range(MOST, magnitudes.size, MOST)):
            counts = cv2.calcHist([part], [0], None, [FINE], [0, 2.0**self.exponent])
            self.counts += counts.reshape(-1).astype(np.int64)
        self.largest = max(self.largest, largest)
        self.seen += magnitudes.size

    def merge(self, other: Histogram) -> None:
        """Add what another one counted: the sum is the histogram of all values of both."""
        finer = Histogram()
        finer.counts, finer.exponent = other.counts, other.exponent
        finer.reach(self.exponent)
        self.reach(finer.exponent)
        self.counts += finer.counts
        self.largest = max(self.largest, other.largest)
        self.seen += other.seen

    def reach(self, exponent: int) -> None:
        doublings = exponent - self.exponent
        if doublings <= 0:
            return
        merged = np.zeros(FINE, np.int64)
        kept = max(FINE >> doublings, 1)
        merged[:kept] = self.counts.reshape(kept, -1).sum(1)
        self.counts, self.exponent = merged, exponent

    def share_above(self, threshold: float) -> float:
        """Give the share of the values whose |x| is above `threshold`, as near as the fine bins tell."""
        first = int(np.ceil(threshold / (2.0**self.exponent / FINE)))
        return float(self.counts[min(first, FINE) :].sum() / max(self.seen, 1))

    def over_range(self) -> NDArray[np.float64]:
        """2048 equal bins over [0, largest]; a fine bin that lies across an edge is split by width."""
        width = 2.0**self.exponent / FINE
        last = int(self.largest / width)  # the fine bin of the largest value, within the last of the 2048
        edges, below = np.arange(last + 1) * width, np.cumsum(np.append(0, self.counts[:last]))
        wanted = np.arange(BINS) * (self.largest / BINS)
        return np.diff(np.interp(wanted, edges, below), append=self.seen)
