"""Which images to calibrate on: a seeded draw, and with labels one in which the rare classes are seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHARE = 8  # one image in SHARE goes to each class that has so many
ENOUGH = 100  # pixels from which on an image is said to show a class


def draw(total: int, count: int, seed: int) -> list[int]:
    """`count` of `total` places, in their own order."""
    if count >= total:
        return list(range(total))
    return sorted(np.random.default_rng(seed).choice(total, count, replace=False).tolist())


def draw_covering(pixels: NDArray[np.int64], count: int, seed: int) -> list[int]:
    """`pixels` images×classes. Each class, from the rarest on, gets its share of the images; chance gives the rest."""
    total, classes = pixels.shape
    order = np.random.default_rng(seed).permutation(total)
    shows = pixels[order] >= ENOUGH
    taken = np.zeros(total, bool)
    quota = max(count // SHARE, 1)
    for kind in sorted(range(classes), key=lambda index: int(shows[:, index].sum())):
        wanted = min(quota - int(shows[taken, kind].sum()), count - int(taken.sum()))
        if wanted > 0:
            taken[np.flatnonzero(shows[:, kind] & ~taken)[:wanted]] = True
    taken[np.flatnonzero(~taken)[: count - int(taken.sum())]] = True
    return sorted(order[taken].tolist())
