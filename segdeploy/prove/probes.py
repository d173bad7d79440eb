"""Chooses the frames that results are compared on: the user's images, or made scenes, equal on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segdeploy import scenes
from segdeploy.picture.image import Frame, fit, read_frame
from segdeploy.prove.choose import spread
from segdeploy.size import Size

SEED_OF_SMALL = 990_000_000
PIXELS = 1 << 14  # of a small frame


def probe_frames(count: int, size: Size, images: Sequence[Path] = ()) -> list[Frame]:
    """Take up to `count` of the user's images, spread over all of them.

    Without images it makes street scenes and, as the last frame, noise, which reaches every part of a network.
    """
    if images:
        return [read_frame(images[place]) for place in spread(len(images), count)]
    made = [scenes.make_scene(seed, size.height, size.width).image for seed in range(count - 1)]
    noise = np.random.default_rng(0).integers(0, 256, (size.height, size.width, 3), np.uint8)
    return [*made, noise]


# ---- small ones, which a record can hold -----------------------------------------------------------------------


def small_frames(
    count: int, size: Size, kernel: str, images: Sequence[Path] = ()
) -> list[tuple[str, NDArray[np.uint8]]]:
    """Make `count` frames with their names: of the user's images as far as there are any, then of made scenes.

    They are the model's input at a fraction of its size: `enlarged` repeats each pixel `times_smaller` times both ways.
    """
    chosen = [images[place] for place in spread(len(images), count)]
    made = range(SEED_OF_SMALL, SEED_OF_SMALL + count - len(chosen))
    return [(path.name, small_image(path, size, kernel)) for path in chosen] + [
        ("a made scene", small_scene(seed, size)) for seed in made
    ]


def times_smaller(size: Size) -> int:
    return max(round(sqrt(size.height * size.width / PIXELS)), 1)


def small_scene(seed: int, size: Size) -> NDArray[np.uint8]:
    times = times_smaller(size)
    return scenes.make_scene(seed, ceil(size.height / times), ceil(size.width / times)).image


def small_image(path: Path, size: Size, kernel: str) -> NDArray[np.uint8]:
    """Fit the image to `size`, and average each square of pixels."""
    fitted, _ = fit(read_frame(path), size, kernel=kernel)
    times = times_smaller(size)
    rows, columns = (-side % times for side in fitted.shape[:2])
    whole = np.pad(fitted, ((0, rows), (0, columns), (0, 0)), "edge")
    squares = whole.reshape(whole.shape[0] // times, times, whole.shape[1] // times, times, 3)
    return np.asarray(np.rint(squares.mean(axis=(1, 3))), np.uint8)


def enlarged(small: NDArray[np.uint8], times: int, size: Size) -> NDArray[np.uint8]:
    """Repeat each pixel `times` times both ways, and cut the frame to `size`.

    It refuses a frame of another size before it takes memory: a record can say anything.
    """
    height, width = small.shape[0] * times, small.shape[1] * times
    if not (size.height <= height < size.height + times and size.width <= width < size.width + times):
        raise ValueError(f"a frame of {height}x{width} does not fit {size}")
    whole = small.repeat(times, axis=0).repeat(times, axis=1)
    return whole[: size.height, : size.width]
