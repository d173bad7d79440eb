"""Writes the labels of one file, whole or not at all: an image's beside its name, a video's or a tar's into one file.

PNGs are those that `run` writes (`.ids.png`, grey, 16 bits where the classes need them). Run lengths are COCO's, with
the fields of its results, a line of JSON for each frame.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segdeploy.errors import ImageError
from segdeploy.files import cannot_be_written, replacing_together, write_bytes
from segdeploy.model.labels import truth_type
from segdeploy.picture.rle import segments_of
from segdeploy.picture.segmentation import Segmentation
from segdeploy.serve.archive.items import Item

CHOICES = ("png", "rle", "none")
ENDINGS = {
    ("png", True): ".ids.png",
    ("png", False): ".ids.tar",
    ("rle", True): ".rle.json",
    ("rle", False): ".rle.jsonl",
}
LONGEST_NAME = 255  # bytes, on all usual file systems
Add = Callable[[str, Segmentation], object]


def labels_path(folder: Path, item: Item, how: str) -> Path | None:
    """Say where the labels of a file go; None where none are written."""
    if how == "none":
        return None
    path = folder / "labels" / (item.name + ENDINGS[how, item.kind == "image"])
    longest = max(len(os.fsencode(part)) for part in path.relative_to(folder).parts)
    if longest > LONGEST_NAME:
        raise ImageError(
            f"{item.place} has too long a name: the name of its labels has {longest} bytes, and at most"
            f" {LONGEST_NAME} are taken; rename it"
        )
    return path


@contextmanager
def labels_into(path: Path | None, item: Item, how: str) -> Iterator[Add]:
    """Give a function that takes each frame's key and segmentation; the file appears when the block succeeds."""
    if path is None:
        yield lambda key, segmentation: None
    elif item.kind == "image":
        yield lambda key, segmentation: write_bytes(path, encoded_labels(item.name, segmentation, how))
    else:
        with replacing_together(path, durable=False) as (part,), cannot_be_written(path):
            opener = tar_of if how == "png" else lines_into
            with opener(part, how) as add:
                yield add


@contextmanager
def tar_of(part: Path, how: str) -> Iterator[Add]:
    with tarfile.open(part, "w") as tar:

        def add(key: str, segmentation: Segmentation) -> None:
            data = encoded_labels(key, segmentation, how)
            member = tarfile.TarInfo(f"{key}.ids.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        yield add


@contextmanager
def lines_into(part: Path, how: str) -> Iterator[Add]:
    with part.open("wb") as file:
        yield lambda key, segmentation: file.write(encoded_labels(key, segmentation, how))


def encoded_labels(name: str, segmentation: Segmentation, how: str) -> bytes:
    if how == "rle":
        return (json.dumps(in_coco_words(name, segmentation)) + "\n").encode()
    ids = segmentation.labels.astype(truth_type(len(segmentation.classes.names)), casting="safe")
    return bytes(cv2.imencode(".png", ids)[1].tobytes())


def in_coco_words(name: str, segmentation: Segmentation) -> dict[str, Any]:
    height, width = segmentation.labels.shape
    names = segmentation.classes.names
    areas = np.bincount(segmentation.labels.ravel())
    segments = [
        {"category_id": value, "category": names[value], "area": int(areas[value]), "segmentation": one}
        for value, one in segments_of(segmentation.labels).items()
    ]
    return {"image": name, "height": height, "width": width, "segments": segments}
