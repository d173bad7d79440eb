"""Writes what COCO's panoptic tools read beside an archive's PNGs of segments: which segment is of which class."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import cv2

from segdeploy.errors import OutputError
from segdeploy.files import write_text
from segdeploy.model.labels import Labels
from segdeploy.picture.decoding import read_image_file
from segdeploy.picture.panoptic import categories, labels_in, segments_info
from segdeploy.serve.archive.areas import finished_files
from segdeploy.serve.archive.items import Item
from segdeploy.serve.archive.labels import labels_path

NAME = "panoptic.json"


def write_panoptic(folder: Path, shards: int, classes: Labels) -> Path:
    """Write `panoptic.json` of all frames that are done, in all shards; the last one to end writes it whole."""
    items = (one.item for shard in range(1, shards + 1) for one in finished_files(folder, shard, shards))
    write_text(folder / NAME, json.dumps(in_panoptic_words(folder, items, classes)) + "\n")
    return folder / NAME


def in_panoptic_words(folder: Path, items: Iterable[Item], classes: Labels) -> dict[str, Any]:
    images, annotations = [], []
    for item in items:
        path = labels_path(folder, item, "panoptic")
        pixels = None if path is None else read_image_file(path, cv2.IMREAD_COLOR)[0]
        if path is None or pixels is None:
            raise OutputError(
                f"the labels of {item.name} are not there; delete the journal, to have all done again"
            )
        height, width = pixels.shape[:2]
        number = image_id(item.name)
        images.append({"id": number, "file_name": item.name, "width": width, "height": height})
        file_name = path.relative_to(folder / "labels").as_posix()
        segments = segments_info(labels_in(pixels), classes)
        annotations.append({"image_id": number, "file_name": file_name, "segments_info": segments})
    return {"images": images, "annotations": annotations, "categories": categories(classes)}


def image_id(name: str) -> int | str:
    """Give the number that COCO's images are called by, else the name without its suffix."""
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isdecimal() and stem.isascii() else str(PurePosixPath(name).with_suffix(""))
