"""Makes street scenes with exact labels of Cityscapes' 19 classes, to try everything without a data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from segdeploy.errors import OutputError
from segdeploy.files import write_bytes
from segdeploy.scenes.classes import (
    BICYCLE,
    BUILDING,
    BUS,
    CAR,
    FENCE,
    LABEL_IDS,
    LIGHT,
    MOTORCYCLE,
    PERSON,
    POLE,
    RIDER,
    ROAD,
    SIDEWALK,
    SIGN,
    SKY,
    TERRAIN,
    TRAIN,
    TRUCK,
    VEGETATION,
    VOID,
    WALL,
)
from segdeploy.scenes.street import Street
from segdeploy.scenes.view import Scene, view

__all__ = [
    "BICYCLE",
    "BUILDING",
    "BUS",
    "CAR",
    "FENCE",
    "LABEL_IDS",
    "LIGHT",
    "MOTORCYCLE",
    "PERSON",
    "POLE",
    "RIDER",
    "ROAD",
    "SIDEWALK",
    "SIGN",
    "SKY",
    "TERRAIN",
    "TRAIN",
    "TRUCK",
    "VEGETATION",
    "VOID",
    "WALL",
    "Scene",
    "make_clip",
    "make_scene",
    "write_cityscapes",
]


def make_scene(seed: int, height: int = 256, width: int = 512) -> Scene:
    """Draw the scene of `seed`; its layout is the same at any size."""
    return view(Street(seed), 0, height, width)


def make_clip(seed: int, frames: int, height: int = 256, width: int = 512) -> Iterator[Scene]:
    """Yield frames of a drive along the street of `make_scene(seed)`, which is the first frame."""
    street = Street(seed)
    return (view(street, frame, height, width) for frame in range(frames))


def write_cityscapes(
    root: Path, count: int, seed: int, split: str = "val", height: int = 256, width: int = 512
) -> list[Path]:
    """Write `count` scenes in Cityscapes' folders and file names; returns the images' paths."""
    images, truths = root / "leftImg8bit" / split / "madeup", root / "gtFine" / split / "madeup"
    ids = np.zeros(256, np.uint8)
    ids[: len(LABEL_IDS)] = LABEL_IDS
    paths = []
    for i in range(count):
        scene = make_scene(seed + i, height, width)
        stem = f"madeup_{i:06d}_000019"
        paths.append(images / f"{stem}_leftImg8bit.png")
        for path, pixels in (
            (paths[-1], cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)),
            (truths / f"{stem}_gtFine_labelIds.png", ids[scene.labels]),
            (truths / f"{stem}_gtFine_labelTrainIds.png", scene.labels),
        ):
            encoded, png = cv2.imencode(".png", pixels)
            if not encoded:
                raise OutputError(f"{path} could not be encoded")
            write_bytes(path, png.tobytes())
    return paths
