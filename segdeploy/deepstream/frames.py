"""Frames of a clip or a folder in, a clip out: all that a replay needs of video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from segdeploy.errors import ImageError, OutputError, RequestError
from segdeploy.files import replacing
from segdeploy.image import WRITTEN, Frame, find_images, read_frame, resize
from segdeploy.size import Size

FPS_OF_A_FOLDER = 5.0


@dataclass(frozen=True)
class Source:
    path: Path
    frames: int  # as its container says
    size: Size  # of the first frame; nvstreammux brings the others to one size as well
    fps: float

    def read(self) -> Iterator[Frame]:
        return self._images() if self.path.is_dir() else self._video()

    def _images(self) -> Iterator[Frame]:
        for image in find_images(self.path, but=WRITTEN):
            yield resize(read_frame(image), self.size)

    def _video(self) -> Iterator[Frame]:
        capture = cv2.VideoCapture(str(self.path))
        try:
            while True:
                ok, frame = capture.read()
                if not ok:
                    return
                yield resize(np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8), self.size)
        finally:
            capture.release()


def open_source(path: Path) -> Source:
    if path.is_dir():
        images = find_images(path, but=WRITTEN)
        height, width = read_frame(images[0]).shape[:2]
        return Source(path, len(images), Size(height, width), FPS_OF_A_FOLDER)
    if not path.is_file():
        raise RequestError(f"there is no file or folder {path}")
    capture = cv2.VideoCapture(str(path))
    try:
        ok, frame = capture.read() if capture.isOpened() else (False, None)
        if not ok or frame is None:
            raise ImageError(
                f"{path} holds no video that can be decoded; expected a clip or a folder of images"
            )
        count, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    finally:
        capture.release()
    height, width = frame.shape[:2]
    return Source(path, max(count, 1), Size(height, width), fps if 1 <= fps <= 1000 else 25.0)


class ClipWriter:
    def __init__(self, path: Path, fps: float, size: Size) -> None:
        self._path = path
        self.frames = 0
        self._writer = cv2.VideoWriter(
            str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (size.width, size.height)
        )
        if not self._writer.isOpened():
            raise OutputError(
                f"{path.parent} cannot take an mp4: this OpenCV has no encoder for it, or the disk is full"
            )

    def write(self, frame: Frame) -> None:
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.frames += 1

    def close(self) -> None:
        """Refuse a clip with fewer frames than were written: the encoder does not say that a disk was full."""
        self._writer.release()
        capture = cv2.VideoCapture(str(self._path))
        kept = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if kept != self.frames:
            raise OutputError(f"only {max(kept, 0)} of {self.frames} frames were written; is the disk full?")


@contextmanager
def writing(path: Path, fps: float, size: Size) -> Iterator[ClipWriter]:
    with replacing(path) as part:
        named = part.with_suffix(".mp4")  # the container is chosen by the suffix
        try:
            writer = ClipWriter(named, fps, size)
            yield writer
            writer.close()
            named.replace(part)
        finally:
            named.unlink(missing_ok=True)
