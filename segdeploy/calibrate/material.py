"""The images that a calibration runs over, and the frames that its result is judged on, with truth if there is any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segdeploy.calibrate.choose import draw, draw_covering
from segdeploy.calibrate.judge import Probe
from segdeploy.errors import RequestError
from segdeploy.image import WRITTEN, Frame, LabelMap, find_images, read_frame
from segdeploy.labels import Labels

# the image at this place and its classes, 255 where not counted
ReadPair = Callable[[int], tuple[Frame, LabelMap]]


@dataclass(frozen=True)
class Material:
    images: tuple[Path, ...]
    probes: tuple[Probe, ...]
    labels: Labels | None = None  # of the truth
    translate: NDArray[np.uint8] | None = None  # from a model's class to the truth's
    seen: dict[str, int] | None = None  # pixels of each class in `images`


def unlabelled(folder: Path, count: int, seed: int, probes: int) -> Material:
    found = images_in(folder)
    places = draw(demanded(len(found), count, str(folder)), count, seed)
    judged = held_out(len(found), places, probes)
    return Material(
        tuple(found[place] for place in places), tuple(Probe(read_frame(found[place])) for place in judged)
    )


def images_in(folder: Path) -> list[Path]:
    """Of a Cityscapes root the training images: label files are images too."""
    pictures = folder / "leftImg8bit"
    inside = next((path for path in (pictures / "train", pictures) if path.is_dir()), folder)
    return find_images(inside, but=WRITTEN)


def labelled(
    paths: Sequence[Path],
    read_pair: ReadPair,
    labels: Labels,
    translate: NDArray[np.uint8],
    count: int,
    seed: int,
    probes: int,
    name: str,
) -> Material:
    """Every pair is read once, to see which classes an image shows."""
    demanded(len(paths), count, name)
    classes = len(labels.names)
    pixels = np.stack(
        [np.bincount(read_pair(place)[1].ravel(), minlength=256)[:classes] for place in range(len(paths))]
    )
    places = draw_covering(pixels, count, seed)
    judged = held_out(len(paths), places, probes)
    return Material(
        tuple(paths[place] for place in places),
        tuple(Probe(*read_pair(place)) for place in judged),
        labels,
        translate,
        dict(zip(labels.names, pixels[places].sum(0).tolist(), strict=True)),
    )


def demanded(there: int, count: int, name: str) -> int:
    if count > there:
        raise RequestError(f"{count} images were asked for, {name} has {there}; give --count {there} or less")
    return there


def held_out(total: int, places: list[int], count: int) -> list[int]:
    """Where to judge: on images that were not drawn, if there are enough of them."""
    taken = set(places)
    others = [place for place in range(total) if place not in taken]
    pool = others if len(others) >= count else places
    return [pool[place] for place in spread(len(pool), count)]


def spread(total: int, count: int) -> list[int]:
    """`count` places, evenly over `total`."""
    count = min(count, total)
    return [place * total // count for place in range(count)]
