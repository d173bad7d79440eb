"""Tells how far a figure over some images may lie from that over others like them, by drawing the images again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEVEL, DRAWS, SEED = 0.95, 1000, 0


def drawn_weights(images: int, draws: int = DRAWS, seed: int = SEED) -> NDArray[np.float64]:  # draws × images
    """Draw `draws` sets of as many images from these, with replacement; count how often each image is in each set.

    In float64: counts below 2⁵³ are exact in it, and its matrix product is much the faster.
    """
    chances = np.full(images, 1 / images)
    return np.random.default_rng(seed).multinomial(images, chances, draws).astype(np.float64)


def middle(drawn: NDArray[np.float64]) -> tuple[float, float]:
    """Give the bounds of the middle 95 %; NaN where nothing is known."""
    tail = 100 * (1 - LEVEL) / 2
    known = drawn[np.isfinite(drawn)]
    low, high = np.percentile(known, [tail, 100 - tail]) if known.size else (np.nan, np.nan)
    return float(low), float(high)
