"""Embeds pictures in the page: separates the panels that `evaluate -o` drew side by side, and makes them small."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.assess.evaluate.report import PANELS, TITLE_HEIGHT
from segdeploy.errors import ImageError
from segdeploy.picture.image import read_frame

MOST_WIDTH = 720  # of a panel
PHOTO, FLAT = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 88]), (".png", [cv2.IMWRITE_PNG_COMPRESSION, 9])
MIME = {".jpg": "image/jpeg", ".png": "image/png"}


def panels_of(picture: Path) -> dict[str, NDArray[np.uint8]]:
    """Split a picture into its panels by title, without the strips with the titles."""
    drawn = read_frame(picture)
    height, width = drawn.shape[:2]
    if width % len(PANELS) or height <= TITLE_HEIGHT:
        raise ImageError(
            f"{picture} is {height}x{width}, which is not {len(PANELS)} panels side by side under their titles;"
            " let segdeploy evaluate -o draw it again"
        )
    parts = np.split(drawn[TITLE_HEIGHT:], len(PANELS), axis=1)
    return dict(zip(PANELS, parts, strict=True))


def embedded(picture: NDArray[np.uint8], flat: bool = False) -> str:
    """Make a data URI of a picture; `flat` keeps colours exact."""
    height, width = picture.shape[:2]
    if width > MOST_WIDTH:
        kernel = cv2.INTER_NEAREST if flat else cv2.INTER_AREA
        picture = np.asarray(
            cv2.resize(picture, (MOST_WIDTH, round(height * MOST_WIDTH / width)), interpolation=kernel),
            np.uint8,
        )
    suffix, options = FLAT if flat else PHOTO
    _, data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    return f"data:{MIME[suffix]};base64,{base64.b64encode(data.tobytes()).decode()}"
