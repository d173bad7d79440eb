"""Chooses the images to calibrate on, and the frames to judge the result on, with truth if there is any."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segdeploy.datasets.layouts import find_pictures_to_calibrate_on
from segdeploy.errors import EvaluationError, RequestError
from segdeploy.files import replacing
from segdeploy.model.labels import Labels
from segdeploy.picture.image import WRITTEN, Frame, LabelMap, find_images, read_frame
from segdeploy.prove.choose import draw, draw_covering, spread
from segdeploy.prove.judge import Probe
from segdeploy.untrusted import Unreadable, read_arrays

THREADS = 2
MOST_IMAGES = 500  # more are read only if --count asks for them
FEWEST = 8  # distinct images; a calibration on fewer is refused
FEWEST_PROBES = 4  # below, we judge on the calibration's images instead, which say more than so few


@dataclass(frozen=True)
class LabelledSource:
    """Describes a labelled data set to a calibration."""

    name: str
    images: tuple[Path, ...]
    truths: tuple[Path, ...]  # the label files, in the images' order
    digest: str
    labels: Labels
    translate: LabelMap  # from a model's class to the labels'
    read_truth: Callable[
        [int], LabelMap
    ]  # takes a place; gives classes, and the labels' `ignore` where not scored
    read_pair: Callable[[int], tuple[Frame, LabelMap]]


@dataclass(frozen=True)
class Material:
    images: tuple[Path, ...]
    probes: tuple[Probe, ...]
    held_out: bool  # none of the probes is among `images`
    aside: int = 0  # images that were kept out of the draw
    labels: Labels | None = None  # of the truth
    translate: LabelMap | None = None  # from a model's class to the truth's
    seen: dict[str, int] | None = None  # pixels of each class in `images`


@dataclass(frozen=True)
class Wanted:
    """Says how many images to calibrate and to judge on."""

    count: int | None  # None: all that are not kept to judge on, up to MOST_IMAGES
    probes: int
    seed: int = 0
    aside: int | None = (
        None  # images to keep out of the draw; None: none if `count` is given, else a quarter at most
    )


@dataclass(frozen=True)
class Parted:
    """Holds places of images: those kept to judge on, and those from which `count` are drawn."""

    aside: list[int]
    others: list[int]
    count: int


def unlabelled(folder: Path, wanted: Wanted) -> Material:
    found = images_in(folder)
    parted = part(len(found), wanted, str(folder))
    places = [parted.others[place] for place in draw(len(parted.others), parted.count, wanted.seed)]
    judged, held_out = judged_on(len(found), places, parted.aside, wanted.probes)
    return Material(
        tuple(found[place] for place in places),
        tuple(Probe(read_frame(found[place])) for place in judged),
        held_out,
        len(parted.aside),
    )


def images_in(folder: Path) -> list[Path]:
    """List the images in `folder`; in the root of a known data set only those to calibrate on."""
    return find_pictures_to_calibrate_on(folder) or find_images(folder, but=WRITTEN)


def labelled(
    source: LabelledSource,
    wanted: Wanted,
    *,
    counts: Path,
    progress: Callable[[str], None] = lambda step: None,
) -> Material:
    """Choose from a labelled data set so that each class is shown.

    It reads every label file once to count its classes, and keeps the counts in the file `counts`.
    """
    total = len(source.images)
    parted = part(total, wanted, source.name)
    pixels = seen_in(source, counts, progress)
    drawn = draw_covering(pixels[parted.others], parted.count, wanted.seed)
    places = [parted.others[place] for place in drawn]
    judged, held_out = judged_on(total, places, parted.aside, wanted.probes)
    if not pixels[judged].any():
        raise EvaluationError(
            f"no pixel of the {len(judged)} label files of {source.name} that INT8 would be judged on is of a class"
            " that is scored; label files of a test split are often blank: give --split train, or the images alone"
            " with --images"
        )
    return Material(
        tuple(source.images[place] for place in places),
        tuple(Probe(*source.read_pair(place)) for place in judged),
        held_out,
        len(parted.aside),
        source.labels,
        source.translate,
        dict(zip(source.labels.names, pixels[places].sum(0).tolist(), strict=True)),
    )


def seen_in(
    source: LabelledSource, path: Path, progress: Callable[[str], None]
) -> NDArray[np.int64]:  # images×classes
    """Count the pixels of each class in each image, or read them from `path` if it is of these very label files."""
    key, shape = key_of_truths(source), (len(source.images), len(source.labels.names))
    kept = read_counts(path, key)
    if kept is not None and kept.shape == shape:
        return kept
    pixels = np.zeros(shape, np.int64)

    def count(place: int) -> NDArray[np.int64]:
        found = np.bincount(source.read_truth(place).ravel(), minlength=shape[1])
        return found[: shape[1]].astype(np.int64)

    with ThreadPoolExecutor(THREADS) as pool, closing(results(pool, count, range(shape[0]))) as counted:
        for place, row in enumerate(counted):
            pixels[place] = row
            progress(f"counting classes in label file {place + 1} of {shape[0]}")
    with replacing(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, key=key, pixels=pixels)
    return pixels


def results(
    pool: ThreadPoolExecutor, work: Callable[[int], NDArray[np.int64]], places: Iterable[int]
) -> Generator[NDArray[np.int64], None, None]:
    """Yield the results in order; when the generator is closed, work that has not begun is cancelled."""
    waiting = [pool.submit(work, place) for place in places]
    try:
        for one in waiting:
            yield one.result()
    finally:
        for one in waiting:
            one.cancel()


def key_of_truths(source: LabelledSource) -> str:
    """Make the key of the counts; it includes the label files' mtimes: one of equal size may hold other classes."""
    times = [path.stat().st_mtime_ns for path in source.truths]
    return hashlib.sha256(json.dumps([source.digest, times]).encode()).hexdigest()


def read_counts(path: Path, key: str) -> NDArray[np.int64] | None:
    """Read kept counts; None where they are of other label files or cannot be read, since counting again is cheap."""
    try:
        kept = read_arrays(path, {"key": "U", "pixels": "iu"})
    except Unreadable:
        return None
    return np.asarray(kept["pixels"], np.int64) if str(kept["key"]) == key else None


def part(total: int, wanted: Wanted, name: str) -> Parted:
    kept, count = wanted.aside, wanted.count
    if kept is None:
        kept = set_aside(total, wanted.probes) if count is None else 0
    if count is None:
        count = min(MOST_IMAGES, total - kept)
    if count + kept > total:
        more = f" and {kept} others to judge on" if kept else ""
        raise RequestError(
            f"{count} images{more} were asked for, {name} has {total}; give --count {total} or less"
        )
    aside = spread(total, kept)
    return Parted(aside, sorted(set(range(total)) - set(aside)), count)


def set_aside(total: int, probes: int) -> int:
    """Give how many images to set aside: a quarter at most, never one that calibration needs; 0 if too few remain."""
    kept = min(probes, total // 4, total - FEWEST)
    return kept if kept >= min(probes, FEWEST_PROBES) else 0


def judged_on(total: int, drawn: list[int], aside: list[int], probes: int) -> tuple[list[int], bool]:
    """Choose the images to judge on: those that were not drawn, if enough are left; return whether they were."""
    left = aside or sorted(set(range(total)) - set(drawn))
    held_out = len(left) >= min(probes, FEWEST_PROBES)
    pool = left if held_out else drawn
    return [pool[place] for place in spread(len(pool), probes)], held_out
