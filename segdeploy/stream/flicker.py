"""How much a model flickers: the share of pixels that change class while the image does not.

A pixel stands still from one segmented frame to the next where its grey, averaged over 5×5 pixels, changes by at most
4 of 255 levels. Averaging 25 pixels divides a camera's noise by five, so a noise of 6 levels, which is a bad one, moves
the difference of two averages by 1.7 levels and stays under the bound; an edge that moves by a pixel does not. Of the
pixels that stand still, those whose class changes are flicker: the scene gave no reason for it. All pairs of frames of
a stream are summed before dividing, so a pair in which little stands still weighs little.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.image import Frame, LabelMap
from segdeploy.stream.shown import Shown

WINDOW = (5, 5)
MOST_CHANGE = 4  # levels of 255
Plane = NDArray[np.uint8]  # H×W


@dataclass
class Flicker:
    """A sink: two frames of each source are held, and of several sources one share is told."""

    models: int
    pixels: int = 0  # compared, over all pairs of frames
    still: int = 0  # of these
    changed: list[int] = field(init=False)  # of the still ones, per model
    _before: dict[str, tuple[Plane, tuple[LabelMap, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.changed = [0] * self.models

    def take(self, shown: Shown) -> None:
        smooth = smoothed(shown.frame)
        labels = tuple(result.labels for result in shown.results)
        before = self._before.get(shown.source)
        self._before[shown.source] = smooth, labels
        if before is None or before[0].shape != smooth.shape:
            return
        change = cv2.absdiff(smooth, before[0])
        _, still = cv2.threshold(change, MOST_CHANGE, 255, cv2.THRESH_BINARY_INV)
        self.pixels += smooth.size
        self.still += cv2.countNonZero(still)
        for model, (now, then) in enumerate(zip(labels, before[1], strict=True)):
            other = cv2.compare(now, then, cv2.CMP_NE)
            self.changed[model] += cv2.countNonZero(cv2.bitwise_and(other, still, dst=other))

    def share(self) -> tuple[float | None, ...]:
        """Per model; None where no pixel ever stood still."""
        return tuple(count / self.still if self.still else None for count in self.changed)

    def still_share(self) -> float | None:
        return self.still / self.pixels if self.pixels else None

    def close(self) -> None:
        self._before.clear()


def smoothed(frame: Frame) -> Plane:
    return np.asarray(cv2.blur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), WINDOW), np.uint8)
