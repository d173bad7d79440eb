"""Writes segmented frames into a clip, to an RTSP server, or as one JSON line each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from segdeploy.growing import Lines
from segdeploy.picture.image import Frame
from segdeploy.picture.video_location import without_credentials
from segdeploy.picture.video_publishing import Publisher
from segdeploy.picture.video_writing import ClipWriter
from segdeploy.serve.stream.messages import line_of_frame
from segdeploy.serve.stream.result import Shown
from segdeploy.serve.stream.sources import RTSP, Stream
from segdeploy.size import Size

Draw = Callable[[Shown], Frame]
MOST_IN_A_CLIP = (
    250_000  # pictures of a live source: nearly 3 h at 25 FPS, and 21 MB for the index of an .mp4
)


class Sink(Protocol):
    """Takes segmented frames. One thread calls `take` and `close`; any may call `give_up`, which ends a hanging one."""

    name: str  # as messages call it

    def take(self, shown: Shown) -> None: ...

    def close(self) -> None: ...

    def give_up(self) -> None: ...


class Pictures:
    """Writes drawn frames to `place`: a clip, which is made with the first frame, or an RTSP server.

    A live source, which may have no end, goes on in a further clip before the index of one takes much memory.
    """

    def __init__(self, place: str, stream: Stream, draw: Draw, timeout_s: float) -> None:
        self.name = without_credentials(place)
        self._place, self._stream, self._draw = place, stream, draw
        self._written, self._begin_s = 0, 0.0  # pictures; when this clip begins
        self._writer: ClipWriter | Publisher | None = None
        if place.startswith(RTSP):
            self._writer = Publisher(place, stream.fps, timeout_s)

    def take(self, shown: Shown) -> None:
        picture = self._draw(shown)
        clip, before = divmod(self._written, MOST_IN_A_CLIP if self._stream.live else sys.maxsize)
        if clip and not before and isinstance(self._writer, ClipWriter):
            self._writer.close()
            self._writer, self._begin_s = None, shown.time_s
        if self._writer is None:
            size = Size(*picture.shape[:2])
            self._writer = ClipWriter(self._clip(clip), size, self._stream.fps, self._stream.path)
        self._writer.write(picture, shown.time_s - self._begin_s)
        self._written += 1

    def _clip(self, number: int) -> Path:
        """Name the first clip as asked for, and those after it `….2.mp4`, `….3.mp4`."""
        place = Path(self._place)
        return place.with_stem(f"{place.stem}.{number + 1}") if number else place

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def give_up(self) -> None:
        if isinstance(self._writer, Publisher):
            self._writer.kill()


class JsonLines:
    """Writes one line per frame; the last line's flicker is that of the whole run."""

    name = "--json"

    def __init__(self, lines: Lines, masks: str | None = None) -> None:
        self._lines, self._masks = lines, masks

    def take(self, shown: Shown) -> None:
        self._lines.write(line_of_frame(shown, self._masks))

    def close(self) -> None:
        self._lines.close()

    def give_up(self) -> None:
        """Do nothing: a file or a pipe that hangs cannot be ended."""
