"""Reads a source at its own frame rate, for a server that wants each picture when it is to be seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from segdeploy.picture.video_reading import TimedFrame
from segdeploy.serve.stream.sources import RTSP, Stream


def paced(stream: Stream, place: str | None) -> Stream:
    """Pace `stream` if it waits for us and goes to a server; any other is returned as it is."""
    return Paced(stream) if place is not None and place.startswith(RTSP) and not stream.live else stream


class Paced:
    """Yields the frames of `stream`, none before its time."""

    live = False

    def __init__(self, stream: Stream) -> None:
        self.name, self.fps, self.frames, self.path = stream.name, stream.fps, stream.frames, stream.path
        self._stream = stream
        self._stopped = threading.Event()

    def read(self) -> Iterator[TimedFrame]:
        begin_s = None
        for timed in self._stream.read():
            now_s = time.monotonic()
            begin_s = now_s - timed.time_s if begin_s is None else begin_s
            if self._stopped.wait(max(begin_s + timed.time_s - now_s, 0)):
                return
            yield timed

    def stop(self) -> None:
        self._stopped.set()
        self._stream.stop()

    def close(self) -> None:
        self._stream.close()
