"""Where segmented frames go: a clip, an RTSP server, a JSON line each."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, TextIO

from segdeploy.errors import OutputError
from segdeploy.files import replacing
from segdeploy.picture.image import Frame
from segdeploy.picture.video_writing import ClipWriter, Publisher
from segdeploy.serve.stream.flicker import Flicker
from segdeploy.serve.stream.result import Shown
from segdeploy.serve.stream.sources import RTSP, Stream
from segdeploy.size import Size

Draw = Callable[[Shown], Frame]


class Sink(Protocol):
    """`take` may come from one thread, `close` from another, never both at once."""

    def take(self, shown: Shown) -> None: ...

    def close(self) -> None: ...


class Pictures:
    """Drawn frames to `place`, which is opened with the first: a source without frames leaves no clip."""

    def __init__(self, place: str, stream: Stream, draw: Draw, timeout_s: float) -> None:
        self._place, self._stream, self._draw, self._timeout_s = place, stream, draw, timeout_s
        self._writer: ClipWriter | Publisher | None = None

    def take(self, shown: Shown) -> None:
        picture = self._draw(shown)
        if self._writer is None:
            size = Size(*picture.shape[:2])
            if self._place.startswith(RTSP):
                self._writer = Publisher(self._place, size, self._stream.fps, self._timeout_s)
            else:
                self._writer = ClipWriter(Path(self._place), size, self._stream.fps, self._stream.path)
        self._writer.write(picture, shown.time_s)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class JsonLines:
    """A line a frame, to a file or an open one; the last line's flicker is that of the whole run."""

    def __init__(self, place: Path | TextIO, flicker: Flicker) -> None:
        self._flicker = flicker  # which takes each frame first
        self._stack = ExitStack()
        if isinstance(place, Path):
            part = self._stack.enter_context(replacing(place))
            try:
                self._file: TextIO = self._stack.enter_context(part.open("w"))
            except OSError as error:
                raise OutputError(f"{place} cannot be written: {error.strerror}") from error
        else:
            self._file = place

    def take(self, shown: Shown) -> None:
        line = {
            "source": shown.source,
            "index": shown.index,
            "time_s": round(shown.time_s, 6),
            "areas": shown.results[0].areas(),
            "latency_ms": round(shown.latency_ms, 1),
            "dropped": shown.dropped,
            "flicker": self._flicker.share(),
        }
        if len(shown.results) > 1:
            line["areas_of_other"] = shown.results[1].areas()
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()  # whoever reads along sees each frame when it comes
        except BrokenPipeError:  # the reader of our output has gone (| head)
            raise
        except OSError as error:
            self._stack.__exit__(type(error), error, None)
            raise OutputError(f"the lines of --json cannot be written: {error.strerror}") from error

    def close(self) -> None:
        self._stack.close()
