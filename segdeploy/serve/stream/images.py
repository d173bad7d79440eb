"""Runs image files through a session; reports a bad file and goes on with the others."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segdeploy.errors import ImageError
from segdeploy.files import make_folder, write_bytes
from segdeploy.picture.decoding import MOST_PIXELS
from segdeploy.picture.image import WRITTEN, Frame, find_images, read_frame
from segdeploy.picture.indexed_png import indexed_png
from segdeploy.picture.segmentation import Segmentation
from segdeploy.run.session import Session, segment_batch

LONGEST_NAME = 255  # bytes, on all usual file systems


@dataclass(frozen=True)
class Done:
    """Holds one image's segmentation and the files written for it, or the error that it raised."""

    path: Path
    segmentation: Segmentation | None
    written: tuple[Path, ...] = ()
    error: ImageError | None = None


def segment_files(
    session: Session,
    sources: Sequence[Path],
    output: Path,
    *,
    alpha: float = 0.55,
    legend: bool = True,
    how: str = "stretch",
    kernel: str | None = None,
    most_pixels: int = MOST_PIXELS,
    indexed: bool = False,
) -> Iterator[Done]:
    """Segment each image of `sources` into `<name>.overlay.png`, `.colours.png` and `.ids.png` under `output`.

    <name> is the image's path below the folder that all sources share, without its suffix, unless two images of a
    folder differ only in that. The ids are grey, or `indexed`: they have the classes' colours as their palette.
    """
    make_folder(output)
    batch: list[tuple[Path, Path, Frame]] = []
    stems = stems_for(sources, output)
    for number, (path, stem) in enumerate(stems, start=1):
        try:
            demand_short(path, stem)
            batch.append((path, stem, read_frame(path, most_pixels)))
        except ImageError as error:
            yield Done(path, None, error=error)
        if batch and (len(batch) == session.batches[1] or number == len(stems)):
            results = segment_batch(session, [frame for _, _, frame in batch], how, kernel)
            for (done, place, frame), result in zip(batch, results, strict=True):
                yield Done(done, result, write_frame(result, frame, place, alpha, legend, indexed))
            batch = []


def stems_for(sources: Sequence[Path], output: Path) -> list[tuple[Path, Path]]:
    """Pair each image with the path that the names of its results begin with."""
    root = Path(os.path.commonpath([plain(path if path.is_dir() else path.parent) for path in sources]))
    paths = [path for source in sources for path in find_images(source, but=WRITTEN)]
    alike = Counter(path.with_suffix("") for path in paths)
    names = [path.name if alike[path.with_suffix("")] > 1 else path.stem for path in paths]
    return [
        (path, output / plain(path).relative_to(root).with_name(name))
        for path, name in zip(paths, names, strict=True)
    ]


def plain(path: Path) -> Path:
    """Make a path absolute, without the `..` in it that would lead out of the output's folder."""
    return Path(os.path.abspath(path))  # noqa: PTH100 # Path.resolve would follow links too


def demand_short(path: Path, stem: Path) -> None:
    longest = max(len(ending) for ending in WRITTEN)
    if len(os.fsencode(stem.name)) + longest > LONGEST_NAME:
        raise ImageError(
            f"{path} has too long a name: its results' names are up to {longest} letters longer; rename it"
        )


def write_frame(
    result: Segmentation, frame: Frame, stem: Path, alpha: float, legend: bool, indexed: bool = False
) -> tuple[Path, ...]:
    overlay, colours, ids = (stem.with_name(stem.name + ending) for ending in WRITTEN)
    result.write_overlay(overlay, frame, alpha, legend)
    result.write_colours(colours)
    if indexed:
        write_bytes(ids, indexed_png(result.labels, result.classes))
    else:
        result.write_ids(ids)
    return overlay, colours, ids
