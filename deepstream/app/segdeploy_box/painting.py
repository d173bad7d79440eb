"""Draws every class in its own colour over a frame, with a legend of what is seen."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy_box.settings import Drawing, SegmentedClass

Picture = NDArray[np.uint8]
LabelsOfFrame = NDArray[np.integer]
LEAST_SHARE = 0.002  # the legend names classes from this share on
DARKENED = (np.arange(256) * 0.35).astype(np.uint8)
FONT = cv2.FONT_HERSHEY_SIMPLEX


class Painter:
    def __init__(self, classes: Sequence[SegmentedClass], drawing: Drawing) -> None:
        self._names = [one.name for one in classes]
        self._palette = np.array([[*one.colour, 255] for one in classes], np.uint8)  # of RGBA frames
        self._drawing = drawing

    def paint(self, frame: Picture, labels: LabelsOfFrame, areas: dict[str, float]) -> None:
        """Draw into `frame`, which is RGBA; where no class was found it stays as it is."""
        height, width = frame.shape[:2]
        known = (labels >= 0) & (labels < len(self._palette))
        colours = self._palette[np.where(known, labels, 0)]
        drawn = cv2.resize(colours, (width, height), interpolation=cv2.INTER_NEAREST)
        blended = cv2.addWeighted(frame, 1 - self._drawing.alpha, drawn, self._drawing.alpha, 0)
        if known.all():
            frame[:] = blended
        else:
            seen = cv2.resize(known.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
            np.copyto(frame, blended, where=seen.astype(bool)[..., None])
        if self._drawing.legend:
            self._legend(frame, [(name, share) for name, share in areas.items() if share >= LEAST_SHARE])

    def _legend(self, frame: Picture, rows: list[tuple[str, float]]) -> None:
        scale = max(frame.shape[0] / 720, 0.36)
        line, size, thickness = round(26 * scale), 0.6 * scale, max(round(1.4 * scale), 1)
        rows = rows[: max((frame.shape[0] - line) // line, 0)]
        if not rows:
            return
        texts = [f"{name} {share:.1%}" for name, share in rows]
        width = max(cv2.getTextSize(text, FONT, size, thickness)[0][0] for text in texts) + 2 * line
        box = cv2.LUT(np.ascontiguousarray(frame[: line * len(rows) + line // 2, :width]), DARKENED)
        for row, (text, (name, _)) in enumerate(zip(texts, rows, strict=True)):
            bottom = line * (row + 1)
            colour = [int(part) for part in self._palette[self._names.index(name)]]
            corners = (line // 3, bottom - line // 2), (line, bottom + line // 8)
            cv2.rectangle(box, *corners, colour, cv2.FILLED)
            place = (line + line // 2, bottom)
            cv2.putText(box, text, place, FONT, size, (255, 255, 255, 255), thickness, cv2.LINE_AA)
        frame[: box.shape[0], : box.shape[1], :3] = box[..., :3]
