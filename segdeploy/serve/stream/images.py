"""Image files through a session: a bad file among good ones is reported and the rest is done."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segdeploy.errors import ImageError
from segdeploy.files import make_folder
from segdeploy.picture.image import WRITTEN, Frame, find_images, read_frame
from segdeploy.picture.segmentation import Segmentation
from segdeploy.run.session import Session, segment_batch


@dataclass(frozen=True)
class Done:
    """One image: either its segmentation and what was written, or what was wrong with it."""

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
) -> Iterator[Done]:
    """Each image of `sources` to `<name>.overlay.png`, `.colours.png` and `.ids.png` under `output`.

    <name> is without its suffix, unless a folder has images that differ only in it, and below the folder that all
    sources share.
    """
    root = Path(os.path.commonpath([(path if path.is_dir() else path.parent).absolute() for path in sources]))
    make_folder(output)
    batch: list[tuple[Path, Frame]] = []
    paths = [path for source in sources for path in find_images(source, but=WRITTEN)]
    alike = Counter(path.with_suffix("") for path in paths)
    for path in paths:
        try:
            batch.append((path, read_frame(path)))
        except ImageError as error:
            yield Done(path, None, error=error)
        if batch and (len(batch) == session.batches[1] or path == paths[-1]):
            frames = [frame for _, frame in batch]
            results = segment_batch(session, frames, how, kernel)
            for (done, frame), result in zip(batch, results, strict=True):
                name = done.name if alike[done.with_suffix("")] > 1 else done.stem
                stem = output / done.absolute().relative_to(root).with_name(name)
                yield Done(done, result, write_results(result, frame, stem, alpha, legend))
            batch = []


def write_results(
    result: Segmentation, frame: Frame, stem: Path, alpha: float, legend: bool
) -> tuple[Path, ...]:
    overlay, colours, ids = (stem.with_name(stem.name + ending) for ending in WRITTEN)
    result.write_overlay(overlay, frame, alpha, legend)
    result.write_colours(colours)
    result.write_ids(ids)
    return overlay, colours, ids
