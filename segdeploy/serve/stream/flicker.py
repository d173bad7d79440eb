"""Measures flicker: the share of pixels that change class while the image does not change.

A pixel stands still from one segmented frame to the next where each of its colours, averaged over 5×5 pixels, changes
by at most 4 of 255 levels. Averaging 25 pixels divides a camera's noise by five: a bad noise of 6 levels moves the
difference of two averages by 1.7 levels and stays under the bound, while a visible edge that moves by a pixel does not.
A still pixel whose class changes is flicker, since the scene gave no reason for it. All pairs of frames of a stream are
summed before dividing, so a pair with few still pixels weighs little. A moving camera adds edges between things of one
colour: the true labels of made scenes reach 0.1 %.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from segdeploy.picture.image import Frame, LabelMap
from segdeploy.serve.stream.result import Shown

WINDOW = (5, 5)
NO_CHANGE, MOST_CHANGE = np.zeros(3), np.full(3, 4.0)  # levels of 255


@dataclass
class Flicker:
    """Compares each source's last two frames, and sums over all sources."""

    models: int
    pixels: int = 0  # compared, over all pairs of frames
    still: int = 0  # of these
    changed: list[int] = field(init=False)  # of the still ones, per model
    _before: dict[str, tuple[Frame, tuple[LabelMap, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.changed = [0] * self.models

    def take(self, shown: Shown) -> None:
        smooth = np.asarray(cv2.blur(shown.frame, WINDOW), np.uint8)
        labels = tuple(result.labels for result in shown.results)
        before = self._before.get(shown.source)
        self._before[shown.source] = smooth, labels
        if before is None or before[0].shape != smooth.shape:
            return
        still = cv2.inRange(cv2.absdiff(smooth, before[0]), NO_CHANGE, MOST_CHANGE)
        self.pixels += still.size
        self.still += cv2.countNonZero(still)
        for model, (now, then) in enumerate(zip(labels, before[1], strict=True)):
            other = cv2.compare(now, then, cv2.CMP_NE)
            self.changed[model] += cv2.countNonZero(cv2.bitwise_and(other, still, dst=other))

    def share(self) -> tuple[float | None, ...]:
        """Give the flicker of each model; None if no pixel ever stood still."""
        return tuple(count / self.still if self.still else None for count in self.changed)

    def still_share(self) -> float | None:
        return self.still / self.pixels if self.pixels else None
