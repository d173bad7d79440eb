"""Reads the frames of one video track with their times, as upright RGB, from a file, an address, a device or a pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

from segdeploy.errors import ImageError, RequestError, VideoError
from segdeploy.picture.decoding import MOST_PIXELS, demand_few_pixels
from segdeploy.picture.image import Frame
from segdeploy.picture.video_location import without_credentials

USUAL_FPS = 25.0
TEXT = (
    "tty",
    "bin",
    "idf",
    "xbin",
    "adf",
)  # FFmpeg takes any text for one of these formats, and draws its letters
DECODER_THREADS = 2  # enough for 4K; the other cores are for the network


@dataclass(frozen=True)
class TimedFrame:
    frame: Frame
    time_s: float  # since the beginning of the video


class Video:
    """Opens `place`: a path, a URI, or an object with `read`; `timeout_s` limits a wait for the next bytes."""

    def __init__(
        self,
        place: Any,
        *,
        name: str | None = None,
        container: str | None = None,
        options: dict[str, str] | None = None,
        timeout_s: float | None = None,
        most_pixels: int = MOST_PIXELS,
    ) -> None:
        self.name = name or (str(place) if isinstance(place, Path) else without_credentials(place))
        self._timeout_s = timeout_s
        self._since_s = time.monotonic()  # the last sign of life
        if isinstance(place, Path) and not place.is_file():
            raise RequestError(f"there is no file {place}")
        try:
            self._container = av.open(
                url_of(place) if isinstance(place, Path) else place,
                format=container,
                options=options or {},
                timeout=timeout_s,
            )
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self.name} cannot be opened: {self._why(error)}") from error
        if self._container.format.name in TEXT:
            self._container.close()
            raise VideoError(f"{self.name} is a text file, whose letters FFmpeg would draw; expected a video")
        if not self._container.streams.video:
            kinds = sorted({stream.type for stream in self._container.streams})
            self._container.close()
            raise VideoError(f"{self.name} has no video track, only {' and '.join(kinds) or 'an empty file'}")
        self._track = self._container.streams.video[0]
        self._demand_room(most_pixels)
        self._track.codec_context.thread_count = DECODER_THREADS
        self._track.codec_context.options = {"max_pixels": str(most_pixels)}  # the video may grow later
        rate = self._track.average_rate or self._track.guessed_rate
        self.fps = float(rate) if rate and 1 <= rate <= 1000 else USUAL_FPS
        self.frames = self._track.frames  # as the container says; 0 where it does not
        self.duration_s = self._container.duration / av.time_base if self._container.duration else None
        self._zero_s = (self._container.start_time or 0) / av.time_base

    def read(self) -> Iterator[TimedFrame]:
        """Yield all frames that can be decoded; damaged ones are left out, as players do."""
        seen, last_s = 0, 0.0
        for decoded in self._decoded():
            at = decoded.time
            last_s = seen / self.fps if at is None else float(at) - self._zero_s
            yield TimedFrame(upright(decoded), last_s)
            seen += 1
        if not seen:
            raise VideoError(f"{self.name} holds no frame that can be decoded")
        usual_s = max(1 / self.fps, last_s / max(seen - 1, 1))
        ends_early = self.duration_s is not None and last_s + 2 * usual_s < self.duration_s
        if seen < self.frames and ends_early:  # an edit list also makes fewer frames, without an early end
            raise VideoError(
                f"{self.name} is cut short or damaged: only {seen} of {self.frames} frames could be decoded"
            )

    def _decoded(self) -> Iterator[av.VideoFrame]:
        packets = self._container.demux(self._track)
        while True:
            try:
                packet = next(packets)
                self._since_s = time.monotonic()
            except StopIteration:
                return
            except (av.FFmpegError, OSError) as error:
                if isinstance(error, av.error.InvalidDataError) and self._timeout_s is None:
                    return  # the file ends within a packet
                raise VideoError(f"{self.name} cannot be read further: {self._why(error)}") from error
            try:
                yield from self._track.codec_context.decode(packet)
            except (av.error.InvalidDataError, av.error.EOFError):  # joined midway, or one bad packet
                continue
            except av.FFmpegError as error:
                raise VideoError(f"{self.name} cannot be decoded: {self._why(error)}") from error

    def _demand_room(self, most_pixels: int) -> None:
        try:
            demand_few_pixels(self.name, (self._track.height, self._track.width), most_pixels)
        except ImageError as error:
            self._container.close()
            raise VideoError(str(error)) from error

    def finished(self) -> bool:
        """Tell whether the source ended by itself, so that connecting again would only repeat it."""
        return False

    def _why(self, error: Exception) -> str:
        """Give the cause in words, without the address, which may hold a password."""
        if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
            return "the server refuses this user or password"
        silent_s = time.monotonic() - self._since_s
        # Each protocol reports a silence in its own way.
        if self._timeout_s is not None and silent_s >= self._timeout_s:
            return f"nothing came for {self._timeout_s:g} s"
        if isinstance(error, av.error.InvalidDataError):
            return "it holds no video that can be decoded; it may be cut short"
        return str(getattr(error, "strerror", None) or type(error).__name__)

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def url_of(path: Path) -> str:
    """Make a URL of a file's path, since FFmpeg would not take `concat:a|b.mp4` or `http:x.mp4` for a file."""
    return f"file:{path.absolute()}"


def upright(decoded: av.VideoFrame) -> Frame:
    pixels = np.asarray(decoded.to_ndarray(format="rgb24"), np.uint8)
    quarters = round(decoded.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels
