"""Projects shapes through one pinhole camera into the image and the labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from segdeploy.scenes.classes import SKY
from segdeploy.scenes.colours import Colour, rgb
from segdeploy.scenes.shapes import Shape, along, facing, flat

Bytes = npt.NDArray[np.uint8]
Point = tuple[float, float, float]

NEAR = 1.2  # metres ahead of the camera; nearer corners are drawn at this distance
EYE = 1.9  # metres of the camera above the road
DETAIL_SIGHT = 60.0  # metres beyond which shapes without a label are too small to be seen
CLEAR_AIR = 220  # metres over which haze leaves 1/e of a colour
FOCAL = 1.25  # of the image's height
FRACTION_BITS = 4  # OpenCV takes corners in sixteenths of a pixel
SUBPIXELS = 1 << FRACTION_BITS

# The sky's zenith, the haze, and the gain of red, green and blue.
WEATHER = (
    (rgb("5f9be0"), rgb("dbe8f2"), (1.02, 1.0, 0.97)),
    (rgb("a9b4c0"), rgb("dcdfe2"), (0.93, 0.95, 0.99)),
    (rgb("6f86bd"), rgb("f4d3ae"), (1.07, 0.97, 0.86)),
    (rgb("86b6e6"), rgb("e9ecec"), (1.06, 1.05, 1.03)),
)


@dataclass(frozen=True)
class Mood:
    zenith: Colour
    haze: Colour
    gain: Colour
    sun: float  # -1 lights the left side, 1 the right
    grain: float
    blur: float
    horizon: float  # share of the height
    aside: float  # metres the camera is off the middle of its lane


def mood_of(rng: np.random.Generator) -> Mood:
    zenith, haze, gain = WEATHER[int(rng.integers(len(WEATHER)))]
    tint = np.array(gain) * rng.uniform(0.85, 1.1) * rng.uniform(0.97, 1.03, 3)
    sun, grain, blur, horizon, aside = rng.uniform((-1, 1, 0, 0.38, -0.5), (1, 4, 1, 0.46, 0.5)).tolist()
    return Mood(zenith, haze, tint, sun, grain, blur, horizon, aside)


class Canvas:
    def __init__(self, height: int, width: int, position: float, mood: Mood) -> None:
        self.image: Bytes = np.empty((height, width, 3), np.uint8)
        self.labels: Bytes = np.full((height, width), SKY, np.uint8)
        self.focal, self.horizon, self.centre = FOCAL * height, mood.horizon * height, width / 2
        self.position, self.aside, self.haze = position, mood.aside, mood.haze

    def paint(self, shapes: Shape | list[Shape], colour: Colour | None, label: int | None = None) -> None:
        """Fill shapes that do not overlap; without a colour only their labels are set, as for a fence's gaps."""
        if not len(shapes):
            return
        corners = np.asarray(shapes)
        if corners.ndim == 2:
            corners = corners[None]
        if label is None and corners[0, 0, 2] > self.position + DETAIL_SIGHT:
            return
        depth = np.maximum(corners[..., 2] - self.position, NEAR)
        scale = SUBPIXELS * self.focal / depth
        pixels = np.empty((*depth.shape, 2), np.int32)
        pixels[..., 0] = (corners[..., 0] - self.aside) * scale + (SUBPIXELS * self.centre - SUBPIXELS // 2)
        pixels[..., 1] = (EYE - corners[..., 1]) * scale + (SUBPIXELS * self.horizon - SUBPIXELS // 2)
        if colour is not None:
            clear = math.exp(-float(depth.min()) / CLEAR_AIR)
            mixed = (colour * clear + self.haze * (1 - clear)).tolist()
            cv2.fillPoly(self.image, list(pixels), mixed, cv2.LINE_AA, FRACTION_BITS)
        if label is not None:
            cv2.fillPoly(self.labels, list(pixels), label, cv2.LINE_8, FRACTION_BITS)

    def box(self, low: Point, high: Point, colour: Colour, label: int) -> None:
        """Paint the three faces of a box that a camera between the kerbs can see: top, inner side and near end."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        if y1 < EYE:
            self.paint(flat(x0, x1, z0, z1, y1), colour * 1.12 + 8, label)
        if x0 > 0 or x1 < 0:
            self.paint(along(x0 if x0 > 0 else x1, y0, y1, z0, z1), colour * 0.78, label)
        self.paint(facing(x0, x1, y0, y1, z0), colour, label)
