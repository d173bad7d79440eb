"""Chooses the images to calibrate on: a seeded draw, and with labels one in which the rare classes are seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import RequestError

SHARE = 8  # one image in SHARE goes to each class that has so many
ENOUGH = 100  # pixels from which on an image is said to show a class


def chance(seed: int) -> np.random.Generator:
    if seed < 0:
        raise RequestError(f"--seed {seed} is less than 0")
    return np.random.default_rng(seed)


def draw(total: int, count: int, seed: int) -> list[int]:
    """`count` of `total` places, in their own order."""
    if count >= total:
        return list(range(total))
    return sorted(chance(seed).choice(total, count, replace=False).tolist())


def draw_covering(pixels: NDArray[np.int64], count: int, seed: int) -> list[int]:
    """`pixels` images×classes. Each class, from the rarest on, gets its share of the images; chance gives the rest."""
    total, classes = pixels.shape
    order = chance(seed).permutation(total)
    most = pixels.max(axis=0, initial=0)  # of a class that is nowhere large the largest is taken
    shows = (pixels[order] >= np.minimum(ENOUGH, most)) & (most > 0)
    taken = np.zeros(total, bool)
    quota = max(count // SHARE, 1)
    for kind in sorted(range(classes), key=lambda index: int(shows[:, index].sum())):
        wanted = min(quota - int(shows[taken, kind].sum()), count - int(taken.sum()))
        if wanted > 0:
            taken[np.flatnonzero(shows[:, kind] & ~taken)[:wanted]] = True
    taken[np.flatnonzero(~taken)[: count - int(taken.sum())]] = True
    return sorted(order[taken].tolist())
