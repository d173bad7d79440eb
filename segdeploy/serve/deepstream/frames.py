"""Frames of a clip or a folder, all of one size as nvstreammux makes them: what a replay is fed with.

ds-tao-segmentation has its muxer scale every stream to 1280x720, whatever its configuration says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segdeploy.errors import RequestError, VideoError
from segdeploy.picture.image import WRITTEN, Frame, find_images, read_frame, resize
from segdeploy.picture.video_reading import TimedFrame, Video
from segdeploy.size import Size

FPS_OF_A_FOLDER = 5.0


@dataclass(frozen=True)
class Source:
    path: Path
    frames: int  # as its container says
    size: Size  # of the first frame; nvstreammux brings the others to one size as well
    fps: float
    muxer: Size | None = None  # what nvstreammux scales to; None: the first frame's size

    def read(self) -> Iterator[TimedFrame]:
        for timed in self._images() if self.path.is_dir() else self._video():
            yield TimedFrame(resize(timed.frame, self.size), timed.time_s)

    def muxed(self, frame: Frame) -> Frame:
        """Give the frame as nvstreammux hands it on; its scaling is bilinear unless it is told otherwise."""
        return resize(frame, self.muxer or self.size)

    @property
    def muxed_size(self) -> Size:
        return self.muxer or self.size

    def _images(self) -> Iterator[TimedFrame]:
        for index, image in enumerate(find_images(self.path, but=WRITTEN)):
            yield TimedFrame(read_frame(image), index / self.fps)

    def _video(self) -> Iterator[TimedFrame]:
        # Of one cut short the replay says what is missing.
        with Video(self.path) as video, suppress(VideoError):
            yield from video.read()


def open_source(path: Path, muxer: Size | None = None) -> Source:
    if path.is_dir():
        images = find_images(path, but=WRITTEN)
        height, width = read_frame(images[0]).shape[:2]
        return Source(path, len(images), Size(height, width), FPS_OF_A_FOLDER, muxer)
    if not path.is_file():
        raise RequestError(f"there is no file or folder {path}")
    with Video(path) as video:
        height, width = next(video.read()).frame.shape[:2]
        return Source(path, max(video.frames, 1), Size(height, width), video.fps, muxer)
