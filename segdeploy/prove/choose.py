"""Chooses images: evenly, or by a seeded draw that, where there are labels, shows the rare classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import RequestError

SHARE = 8  # each class gets one image in SHARE, if that many show it
ENOUGH = 100  # pixels that an image needs to show a class


def chance(seed: int) -> np.random.Generator:
    if seed < 0:
        raise RequestError(f"--seed {seed} is less than 0")
    return np.random.default_rng(seed)


def draw(total: int, count: int, seed: int) -> list[int]:
    """Draw `count` of `total` places, and return them in ascending order."""
    if count >= total:
        return list(range(total))
    return sorted(chance(seed).choice(total, count, replace=False).tolist())


def draw_covering(pixels: NDArray[np.int64], count: int, seed: int) -> list[int]:
    """Draw `count` images so that each class is shown; `pixels` is images×classes.

    Each class, the rarest first, gets its share of the images; chance gives the rest.
    """
    total, classes = pixels.shape
    order = chance(seed).permutation(total)
    most = pixels.max(axis=0, initial=0)  # where no image has ENOUGH pixels of a class, this counts
    shows = (pixels[order] >= np.minimum(ENOUGH, most)) & (most > 0)
    taken = np.zeros(total, bool)
    quota = max(count // SHARE, 1)
    for kind in sorted(range(classes), key=lambda index: int(shows[:, index].sum())):
        wanted = min(quota - int(shows[taken, kind].sum()), count - int(taken.sum()))
        if wanted > 0:
            taken[np.flatnonzero(shows[:, kind] & ~taken)[:wanted]] = True
    taken[np.flatnonzero(~taken)[: count - int(taken.sum())]] = True
    return sorted(order[taken].tolist())


def spread(total: int, count: int) -> list[int]:
    """Choose `count` places, evenly over `total`."""
    count = min(count, total)
    return [place * total // count for place in range(count)]
