"""Made scenes as a labelled data set: in Cityscapes' own folders, for as long as they are needed."""

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
from segdeploy.size import Size

OTHERS = 48  # to judge on what was not calibrated on


@contextmanager
def made_scenes(count: int, seed: int, size: Size) -> Iterator[Dataset]:
    """The scenes of the seeds from `seed` on: `count` and always OTHERS more, or a draw would differ."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        scenes.write_cityscapes(root, count + OTHERS, seed, "train", size.height, size.width)
        yield replace(open_dataset("cityscapes", root, "train"), name=SCENES)
