"""Makes polygons in metres: x to the right, y up, z ahead."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Shape = npt.NDArray[np.float64]  # n×3 corners

TURN = np.arange(16) * np.pi / 8
CIRCLE: Shape = np.stack([np.cos(TURN), np.sin(TURN), 0 * TURN], -1)


def facing(x0: float, x1: float, y0: float, y1: float, z: float) -> Shape:
    """Make an upright rectangle across the street."""
    return np.array([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)])


def along(x: float, y0: float, y1: float, z0: float, z1: float) -> Shape:
    """Make an upright rectangle along the street."""
    return np.array([(x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)])


def flat(x0: float, x1: float, z0: float, z1: float, y: float = 0.0) -> Shape:
    return np.array([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)])


def disc(x: float, y: float, z: float, radius: float, squeeze: float = 1.0) -> Shape:
    return CIRCLE * (radius * squeeze, radius, 0) + (x, y, z)


def bar(x0: float, y0: float, x1: float, y1: float, z: float, width: float) -> Shape:
    """Make a straight bar in the plane that faces the camera."""
    reach = float(np.hypot(x1 - x0, y1 - y0))
    dx, dy = (y1 - y0) / reach * width / 2, (x0 - x1) / reach * width / 2
    return np.array(
        [(x0 - dx, y0 - dy, z), (x0 + dx, y0 + dy, z), (x1 + dx, y1 + dy, z), (x1 - dx, y1 - dy, z)]
    )


def shrunk(shape: Shape, share: float) -> Shape:
    middle: Shape = shape.mean(0)
    return (shape - middle) * share + middle


def inner_side(x: float, half: float) -> float:
    """Give the x of the side that faces the camera's path, for a thing at `x` of width 2·`half`."""
    return x - half if x > 0 else x + half
