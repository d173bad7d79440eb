"""One segmented frame and what a person or a script wants of it: overlay, legend, areas, PNGs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import OutputError
from segdeploy.files import write_bytes
from segdeploy.image import Frame, LabelMap
from segdeploy.labels import Labels


@dataclass(frozen=True)
class Segmentation:
    labels: LabelMap  # H×W class ids, at the frame's own size
    classes: Labels

    def areas(self) -> dict[str, float]:
        """Share of the pixels per class that is there, largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=256)
        names = self.classes.names
        present = [
            index for index in np.argsort(-counts, kind="stable") if counts[index] and index < len(names)
        ]
        return {names[index]: float(counts[index] / self.labels.size) for index in present}

    def colours(self) -> Frame:
        return self.classes.palette()[self.labels]

    def overlay(self, frame: Frame, alpha: float = 0.55, legend: bool = True) -> Frame:
        """`frame` with the classes' colours laid over it; classes under 0.2 % are left out of the legend."""
        blended = np.asarray(cv2.addWeighted(frame, 1 - alpha, self.colours(), alpha, 0), np.uint8)
        if legend:
            shown = [(name, share) for name, share in self.areas().items() if share >= 0.002]
            draw_legend(blended, shown, self.classes)
        return blended

    def write_overlay(self, path: Path, frame: Frame, alpha: float = 0.55, legend: bool = True) -> None:
        write_image(path, self.overlay(frame, alpha, legend))

    def write_colours(self, path: Path) -> None:
        write_image(path, self.colours())

    def write_ids(self, path: Path) -> None:
        """A grey PNG whose values are the class ids (Cityscapes: train ids)."""
        write_image(path, self.labels)


def draw_legend(canvas: Frame, rows: list[tuple[str, float]], classes: Labels) -> None:
    """Class names with their share on the left, drawn into `canvas`; as many rows as fit."""
    scale = max(canvas.shape[0] / 720, 0.36)
    line = round(26 * scale)
    rows = rows[: max((canvas.shape[0] - line) // line, 0)]
    if not rows:
        return
    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, max(round(1.4 * scale), 1)
    texts = [f"{name} {share:.1%}" for name, share in rows]
    widest = max(cv2.getTextSize(text, font, 0.6 * scale, thickness)[0][0] for text in texts)
    box = canvas[: line * len(rows) + line // 2, : widest + 2 * line]
    box[:] = (box * 0.35).astype(np.uint8)
    for row, ((name, _), text) in enumerate(zip(rows, texts, strict=True)):
        bottom = line * (row + 1)
        colour = classes.colours[classes.names.index(name)]
        top_left, bottom_right = (line // 3, bottom - line // 2), (line, bottom + line // 8)
        cv2.rectangle(canvas, top_left, bottom_right, colour, cv2.FILLED)
        where = (line + line // 2, bottom)
        cv2.putText(canvas, text, where, font, 0.6 * scale, (255, 255, 255), thickness, cv2.LINE_AA)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """RGB or grey, in the format of the suffix, whole or not at all."""
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
