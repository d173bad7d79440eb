"""Writes the labels of one file, whole or not at all: an image's beside its name, a video's or a tar's into one file.

PNGs are those that `run` writes (`.ids.png`, grey, 16 bits where the classes need them), or have a palette, or are what
Cityscapes' server and COCO's panoptic tools take. Run lengths are COCO's, with the fields of its results, a line of
JSON for each frame.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segdeploy.errors import ImageError
from segdeploy.files import cannot_be_written, replacing_together, write_bytes
from segdeploy.model.labels import truth_type
from segdeploy.picture.indexed_png import indexed_png
from segdeploy.picture.panoptic import panoptic_png
from segdeploy.picture.rle import segments_of
from segdeploy.picture.segmentation import Segmentation
from segdeploy.serve.archive.items import Item

LONGEST_NAME = 255  # bytes, on all usual file systems
FRAME_OF_CITYSCAPES = "_leftImg8bit.png"
Add = Callable[[str, Segmentation], object]


@dataclass(frozen=True)
class LabelKind:
    """Says how labels are written: the end of an image's file, and of a video's or a tar's, and a frame's bytes."""

    ending: str
    of_many: str  # empty: only images have such files
    encode: Callable[[str, Segmentation], bytes]
    instead_of: str = ""  # the end of an image's name that `ending` takes the place of


def grey_png(name: str, segmentation: Segmentation) -> bytes:
    ids = segmentation.labels.astype(truth_type(len(segmentation.classes.names)), casting="safe")
    return bytes(cv2.imencode(".png", ids)[1].tobytes())


def png_of_own_ids(name: str, segmentation: Segmentation) -> bytes:
    """Write the ids that the data set's own label files have: Cityscapes' label ids, not its train ids."""
    classes = segmentation.classes
    own = np.array(classes.ids or range(len(classes.names)))
    return bytes(
        cv2.imencode(".png", own.astype(np.min_scalar_type(own.max()))[segmentation.labels])[1].tobytes()
    )


def line_of_json(name: str, segmentation: Segmentation) -> bytes:
    return (json.dumps(in_coco_words(name, segmentation)) + "\n").encode()


KINDS = {
    "png": LabelKind(".ids.png", ".ids.tar", grey_png),
    "palette": LabelKind(".ids.png", ".ids.tar", lambda name, one: indexed_png(one.labels, one.classes)),
    "cityscapes": LabelKind("_pred_labelIds.png", "", png_of_own_ids, FRAME_OF_CITYSCAPES),
    "panoptic": LabelKind(".panoptic.png", "", lambda name, one: panoptic_png(one.labels)),
    "rle": LabelKind(".rle.json", ".rle.jsonl", line_of_json),
}
CHOICES = (*KINDS, "none")


def labels_path(folder: Path, item: Item, how: str) -> Path | None:
    """Say where the labels of a file go; None where none are written."""
    if how == "none":
        return None
    kind = KINDS[how]
    is_image = item.kind == "image"
    if not (kind.of_many or is_image) or not (item.name.endswith(kind.instead_of)):
        expected = f"…{kind.instead_of}" if kind.instead_of else "an image"
        raise ImageError(
            f"{item.place} has no labels in the form {how}, which is for images; expected {expected}"
        )
    name = item.name.removesuffix(kind.instead_of) if kind.instead_of else item.name
    path = folder / "labels" / (name + (kind.ending if is_image else kind.of_many))
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
        yield lambda key, segmentation: write_bytes(path, KINDS[how].encode(item.name, segmentation))
    else:
        with replacing_together(path, durable=False) as (part,), cannot_be_written(path):
            opener = tar_of if KINDS[how].of_many.endswith(".tar") else lines_into
            with opener(part, KINDS[how]) as add:
                yield add


@contextmanager
def tar_of(part: Path, kind: LabelKind) -> Iterator[Add]:
    with tarfile.open(part, "w") as tar:

        def add(key: str, segmentation: Segmentation) -> None:
            data = kind.encode(key, segmentation)
            member = tarfile.TarInfo(f"{key}{kind.ending}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        yield add


@contextmanager
def lines_into(part: Path, kind: LabelKind) -> Iterator[Add]:
    with part.open("wb") as file:
        yield lambda key, segmentation: file.write(kind.encode(key, segmentation))


def in_coco_words(name: str, segmentation: Segmentation) -> dict[str, Any]:
    height, width = segmentation.labels.shape
    names = segmentation.classes.names
    areas = np.bincount(segmentation.labels.ravel())
    segments = [
        {"category_id": value, "category": names[value], "area": int(areas[value]), "segmentation": one}
        for value, one in segments_of(segmentation.labels).items()
    ]
    return {"image": name, "height": height, "width": width, "segments": segments}
