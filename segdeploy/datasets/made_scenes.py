"""Makes scenes into a labelled data set, in Cityscapes' own folders: a temporary one, or one that stays."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from segdeploy import scenes
from segdeploy.datasets.dataset import Dataset
from segdeploy.datasets.known import SCENES
from segdeploy.datasets.layouts import open_dataset
from segdeploy.errors import OutputError
from segdeploy.files import cannot_be_written, make_folder
from segdeploy.size import Size

SPLITS = {"train": (128, 0), "val": (32, 500_000)}  # how many scenes, and the first seed
OTHERS = 48  # extra scenes, to judge on frames that calibration did not see


@contextmanager
def made_scenes(count: int, seed: int, size: Size) -> Iterator[Dataset]:
    """Make the scenes of the seeds from `seed` on: `count`, and always OTHERS more, so that draws are repeatable."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        scenes.write_cityscapes(root, count + OTHERS, seed, "train", size.height, size.width)
        yield replace(open_dataset("cityscapes", root, "train"), name=SCENES)


def make_scenes_in(root: Path) -> None:
    """Make the scenes of both splits into the folder `root`, all or none; where they are already, do nothing."""
    if all((root / "gtFine" / split).is_dir() for split in SPLITS):
        return
    if root.is_dir() and any(root.iterdir()):
        raise OutputError(
            f"{root} holds other files than made scenes; name a new folder for them with --root"
        )
    make_folder(root.parent)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as name:
        made = Path(name) / root.name
        for split, (count, seed) in SPLITS.items():
            scenes.write_cityscapes(made, count, seed, split)
        with cannot_be_written(root):
            made.replace(root)
