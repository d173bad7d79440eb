"""Holds one segmented frame, and makes overlay, legend, areas and PNGs from it."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import OutputError
from segdeploy.files import write_bytes
from segdeploy.given import as_path
from segdeploy.model.labels import Labels, truth_type
from segdeploy.picture.image import Frame, LabelMap
from segdeploy.printable import printable


@dataclass(frozen=True)
class Segmentation:
    labels: LabelMap  # H×W class ids, at the frame's own size
    classes: Labels

    def __str__(self) -> str:
        height, width = self.labels.shape
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.areas().items())
        return f"{height}x{width}: {shares}"

    def areas(self) -> dict[str, float]:
        """Give each present class's share of the pixels, largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=256)
        names = self.classes.names
        present = [
            index for index in np.argsort(-counts, kind="stable") if counts[index] and index < len(names)
        ]
        return {names[index]: float(counts[index] / self.labels.size) for index in present}

    def colours(self) -> Frame:
        return self.colours_into(np.empty((*self.labels.shape, 3), np.uint8))

    def colours_into(self, canvas: Frame) -> Frame:
        """Colour the labels into `canvas`, which may be a part of a larger picture.

        One pass of OpenCV is ten times as fast as indexing the palette, but its palettes have 256 colours; with more
        classes the palette is indexed.
        """
        palette = self.classes.palette()
        if self.labels.dtype != np.uint8:
            return np.take(palette, self.labels, axis=0, out=canvas)
        return np.asarray(cv2.applyColorMap(self.labels, palette[:256, None], dst=canvas), np.uint8)

    def overlay(self, frame: Frame, alpha: float = 0.55, legend: bool = True) -> Frame:
        """Lay the classes' colours over `frame`; the legend leaves out classes under 0.2 %."""
        blended = self.overlay_into(np.empty_like(frame), frame, alpha)
        if legend:
            draw_legend(blended, legend_rows(self.areas()), self.classes)
        return blended

    def overlay_into(self, canvas: Frame, frame: Frame, alpha: float) -> Frame:
        self.colours_into(canvas)
        return np.asarray(cv2.addWeighted(frame, 1 - alpha, canvas, alpha, 0, dst=canvas), np.uint8)

    def write_overlay(
        self, path: str | PathLike[str], frame: Frame, alpha: float = 0.55, legend: bool = True
    ) -> None:
        write_image(path, self.overlay(frame, alpha, legend))

    def write_colours(self, path: str | PathLike[str]) -> None:
        write_image(path, self.colours())

    def write_ids(self, path: str | PathLike[str]) -> None:
        """Write a grey PNG whose values are the class ids (Cityscapes: train ids).

        With more than 255 classes it has 16 bits: in one of 8 bits 255 is no class.
        """
        write_image(path, self.labels.astype(truth_type(len(self.classes.names)), casting="safe"))


LEAST_SHARE = 0.002  # the legend names classes from this share on
DARKENED = (np.arange(256) * 0.35).astype(np.uint8)
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Lettering:
    """Holds the sizes of letters, which grow with the picture."""

    line: int  # pixels from one line to the next
    size: float
    thickness: int

    def width(self, text: str) -> int:
        return cv2.getTextSize(printable(text), FONT, self.size, self.thickness)[0][0]

    def write(self, canvas: Frame, text: str, left: int, bottom: int) -> None:
        white = (255, 255, 255)
        cv2.putText(
            canvas, printable(text), (left, bottom), FONT, self.size, white, self.thickness, cv2.LINE_AA
        )


def lettering_for(canvas: Frame) -> Lettering:
    scale = max(canvas.shape[0] / 720, 0.36)
    return Lettering(round(26 * scale), 0.6 * scale, max(round(1.4 * scale), 1))


def legend_rows(areas: dict[str, float]) -> list[tuple[str, float]]:
    return [(name, share) for name, share in areas.items() if share >= LEAST_SHARE]


def legend_width(canvas: Frame, rows: list[tuple[str, float]], steady: bool = False) -> int:
    """Give the legend's width in pixels; with `steady` it is wide enough for any shares of these classes."""
    letters = lettering_for(canvas)
    texts = (legend_text(name, 1.0 if steady else share) for name, share in rows)
    return 2 * letters.line + max(map(letters.width, texts), default=0)


def legend_text(name: str, share: float) -> str:
    return f"{name} {share:.1%}"


def draw_legend(canvas: Frame, rows: list[tuple[str, float]], classes: Labels, steady: bool = False) -> None:
    """Draw class names with their shares at the left of `canvas`, as many rows as fit."""
    letters = lettering_for(canvas)
    line = letters.line
    rows = rows[: max((canvas.shape[0] - line) // line, 0)]
    if not rows:
        return
    darken(canvas[: line * len(rows) + line // 2, : legend_width(canvas, rows, steady)])
    for row, (name, share) in enumerate(rows):
        bottom = line * (row + 1)
        colour = classes.colours[classes.names.index(name)]
        top_left, bottom_right = (line // 3, bottom - line // 2), (line, bottom + line // 8)
        cv2.rectangle(canvas, top_left, bottom_right, colour, cv2.FILLED)
        letters.write(canvas, legend_text(name, share), line + line // 2, bottom)


def darken(box: Frame) -> None:
    """Darken a part of a picture, so that white letters can be read on it."""
    if box.size:
        cv2.LUT(box, DARKENED, dst=box)


def write_image(path: str | PathLike[str], image: NDArray[np.uint8 | np.uint16]) -> None:
    """Write an RGB or grey image in the format of the suffix, whole or not at all."""
    path = as_path(path, "path")
    stored = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    try:
        encoded, data = cv2.imencode(path.suffix, stored)
    except cv2.error as error:
        raise OutputError(
            f"{path.name}: {path.suffix!r} is not an image format that can be written"
        ) from error
    if not encoded:
        raise OutputError(f"{path} could not be encoded")
    write_bytes(path, data.tobytes())
