"""Draws a stream's frame: overlay, legend, frame rate, and two models side by side or with a wipe between them.

Legends are in the order of the classes, and a class keeps its row for two seconds after it was last seen, so that
rows do not jump from frame to frame. Each picture is a new array, which its receiver may keep.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from segdeploy.picture.image import Frame
from segdeploy.picture.segmentation import (
    LEAST_SHARE,
    Segmentation,
    darken,
    draw_legend,
    legend_width,
    lettering_for,
)
from segdeploy.serve.stream.result import Shown

LAYOUTS = ("side", "wipe")
LEGEND_MEMORY_S = 2.0
WIPE_PERIOD_S = 8.0
LINES_AT_FOOT = 2


@dataclass(frozen=True)
class Style:
    names: tuple[str, ...]  # of the models, in the order of the results
    alpha: float = 0.55  # of the overlay
    legend: bool = True
    layout: str = "side"  # of two results


@dataclass
class Drawing:
    style: Style
    _seen: dict[tuple[str, int], dict[str, float]] = field(default_factory=dict)  # class: when

    def draw(self, shown: Shown) -> Frame:
        style, frame = self.style, shown.frame
        height, width = frame.shape[:2]
        sides = len(shown.results) if style.layout == "side" else 1
        canvas = np.empty((height, width * sides, 3), np.uint8)
        parts = [canvas[:, width * side : width * (side + 1)] for side in range(sides)]
        if sides == len(shown.results):
            for part, result in zip(parts, shown.results, strict=True):
                result.overlay_into(part, frame, style.alpha)
        else:
            self._wipe(canvas, shown)
        if style.legend:
            self._annotate(canvas, parts, shown)
        return canvas

    def _wipe(self, canvas: Frame, shown: Shown) -> None:
        """Draw the first model left of a line and the second right of it; the line moves with the stream's time."""
        width = canvas.shape[1]
        cut = min(max(round(width * wipe_at(shown.time_s)), 1), width - 1) if width > 1 else width
        for result, columns in zip(shown.results, (slice(0, cut), slice(cut, width)), strict=True):
            if columns.start < columns.stop:
                part = Segmentation(result.labels[:, columns], result.classes)
                part.overlay_into(canvas[:, columns], shown.frame[:, columns], self.style.alpha)
        cv2.line(canvas, (cut, 0), (cut, canvas.shape[0]), (255, 255, 255), lettering_for(canvas).thickness)

    def _annotate(self, canvas: Frame, parts: list[Frame], shown: Shown) -> None:
        for index, result in enumerate(shown.results):
            part, rows = parts[min(index, len(parts) - 1)], self._rows(shown, index, result)
            if index >= len(parts):  # a wipe's second legend stands at the right
                part = part[:, max(part.shape[1] - legend_width(part, rows, steady=True), 0) :]
            draw_legend(part, rows, result.classes, steady=True)
        if len(shown.results) > 1:
            at_left = len(parts) > 1
            for index, name in enumerate(self.style.names):
                part = parts[min(index, len(parts) - 1)]
                write_line(part, name, line=1, at_right=not at_left and index > 0)
        write_line(canvas, statistics(shown), line=0)

    def _rows(self, shown: Shown, index: int, result: Segmentation) -> list[tuple[str, float]]:
        areas = result.areas()
        seen = self._seen.setdefault((shown.source, index), {})
        seen |= {name: shown.time_s for name, share in areas.items() if share >= LEAST_SHARE}
        # A source that starts again starts its times again as well.
        kept = {name for name, when in seen.items() if abs(shown.time_s - when) <= LEGEND_MEMORY_S}
        room = max(shown.frame.shape[0] // lettering_for(shown.frame).line - LINES_AT_FOOT - 1, 0)
        largest = sorted(kept, key=lambda name: -areas.get(name, 0.0))[:room]
        return [(name, areas.get(name, 0.0)) for name in result.classes.names if name in largest]


def wipe_at(time_s: float) -> float:
    """Give the wipe's place at a time of the stream: from 0 to 1 and back."""
    phase = time_s % WIPE_PERIOD_S / WIPE_PERIOD_S
    return 2 * min(phase, 1 - phase)


def statistics(shown: Shown) -> str:
    words = f"{shown.fps:.1f} FPS  {shown.latency_ms:.0f} ms"
    return f"{words}  {shown.dropped} dropped" if shown.dropped else words


def write_line(canvas: Frame, text: str, line: int, at_right: bool = False) -> None:
    """Write at the foot of the picture, `line` lines above the last one; leaves out text that does not fit."""
    letters = lettering_for(canvas)
    height, width = canvas.shape[:2]
    wide = letters.width(text) + letters.line
    bottom = height - letters.line * line
    top = bottom - letters.line
    if top < 0 or wide > width:
        return
    left = width - wide if at_right else 0
    darken(canvas[top:bottom, left : left + wide])
    letters.write(canvas, text, left + letters.line // 2, bottom - letters.line // 3)
