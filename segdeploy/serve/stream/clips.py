"""Reads sources that wait for us and lose no frame: video files, images as a film, raw frames on standard input."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from segdeploy.errors import ImageError, VideoError
from segdeploy.picture.decoding import MOST_PIXELS
from segdeploy.picture.image import read_frame
from segdeploy.picture.video_reading import TimedFrame, Video
from segdeploy.serve.stream.pipes import PipeReader
from segdeploy.size import Size

IMAGES_PER_S = 5.0


class Clip:
    """Reads a video file, or an address that serves one."""

    live = False

    def __init__(self, video: Video, path: Path | None = None) -> None:
        self.name, self.fps, self.frames = video.name, video.fps, video.frames
        self.path = path
        self._video = video

    def read(self) -> Iterator[TimedFrame]:
        return self._video.read()

    def stop(self) -> None:
        """Do nothing: a file ends by itself."""

    def close(self) -> None:
        self._video.close()


class Slides:
    """Reads images one after the other, each shown for the same time."""

    live = False
    path = None
    fps = IMAGES_PER_S

    def __init__(self, name: str, paths: Sequence[Path], most_pixels: int = MOST_PIXELS) -> None:
        self.name, self.frames = name, len(paths)
        self._paths, self._most_pixels = paths, most_pixels

    def read(self) -> Iterator[TimedFrame]:
        """Yield the images that can be read; raises at the end if some could not."""
        bad: list[str] = []
        for index, path in enumerate(self._paths):
            try:
                yield TimedFrame(read_frame(path, self._most_pixels), (index - len(bad)) / self.fps)
            except ImageError as error:
                bad.append(str(error))
        if bad:
            raise VideoError(f"{len(bad)} of {self.frames} images could not be read; the first: {bad[0]}")

    def stop(self) -> None:
        """Do nothing: images end by themselves."""

    def close(self) -> None:
        """Do nothing: no file is open between two images."""


class RawFrames:
    """Reads rows of RGB bytes from a pipe, frame after frame, with nothing between them."""

    live = False
    path = None
    frames = 0  # unknown

    def __init__(self, descriptor: int, size: Size, fps: float) -> None:
        self.name, self.fps = "-", fps
        self._size = size
        self._stopped = threading.Event()
        self._pipe = PipeReader(descriptor, None, self._stopped)

    def read(self) -> Iterator[TimedFrame]:
        whole, index = self._size.height * self._size.width * 3, 0
        while len(data := self._pipe.read_all(whole)) == whole:
            pixels = np.frombuffer(data, np.uint8).reshape(self._size.height, self._size.width, 3)
            yield TimedFrame(pixels, index / self.fps)
            index += 1
        if self._stopped.is_set():
            return
        if data:
            raise VideoError(
                f"standard input ended within a frame: {len(data)} of the {whole} bytes of {self._size} RGB came"
                f" after {index} whole frames; check --stdin-size"
            )
        if not index:
            raise VideoError("standard input holds no frame")

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        """Do nothing: standard input is not ours to close."""
