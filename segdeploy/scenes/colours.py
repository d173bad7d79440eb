"""Holds RGB colours, and the palettes that a random number picks from."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Colour = npt.NDArray[np.float64]
Palette = npt.NDArray[np.float64]  # n×3


@cache
def palette(*codes: str) -> Palette:
    return np.array([[int(text[i : i + 2], 16) for i in (0, 2, 4)] for text in codes], float)


def rgb(code: str) -> Colour:
    colour: Colour = palette(code)[0]
    return colour


def pick(colours: Palette, chance: float) -> Colour:
    """Pick a colour by `chance`, a number in [0, 1)."""
    chosen: Colour = colours[int(chance * len(colours))]
    return chosen


FACADES = palette("e3cfa4", "d9a98b", "c9c4b8", "a9b7c4", "e6dcc8", "cdb98a", "d7b5b0", "b7c2a8", "8d97a3")
LEAVES = palette("47702f", "55803a", "3d6a3a", "6a8a34")
CARS = palette("b3202a", "1f4f96", "e8e8ea", "2a2d33", "8f969c", "2d7a6a", "d8b23c", "6e2d55")
STRONG_CARS = CARS[:3]
PAINTS = palette("ff2d2d", "22a7ff", "ff5fd2", "23d18b")
GLASS = rgb("33475c")
INK = rgb("1d1f24")
WHITE = rgb("f4f3ee")
STEEL = rgb("6a7178")
HEADLIGHT = rgb("fff6d0")
