"""Makes scenes into a temporary labelled data set, in Cityscapes' own folders."""

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

OTHERS = 48  # extra scenes, to judge on frames that calibration did not see


@contextmanager
def made_scenes(count: int, seed: int, size: Size) -> Iterator[Dataset]:
    """Make the scenes of the seeds from `seed` on: `count`, and always OTHERS more, so that draws are repeatable."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        scenes.write_cityscapes(root, count + OTHERS, seed, "train", size.height, size.width)
        yield replace(open_dataset("cityscapes", root, "train"), name=SCENES)
