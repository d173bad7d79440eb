"""Reads a source that does not wait and can be lost: connects again, at growing intervals, and gives up in the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from segdeploy.errors import VideoError
from segdeploy.picture.video_reading import TimedFrame, Video

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 15.0


class Live:
    """Calls `connect` at once, so that a wrong address is refused, and again whenever the source is lost.

    A frame's time is that of its arrival: a camera's own clock starts again with each connection.
    """

    live = True
    path = None
    frames = 0

    def __init__(
        self,
        name: str,
        connect: Callable[[threading.Event], Video],
        patience_s: float,
        say: Callable[[str], None],
    ) -> None:
        self.name = name
        self._connect, self._patience_s, self._say = connect, patience_s, say
        self.reconnections = 0
        self._stopped = threading.Event()
        self._video: Video | None = connect(self._stopped)
        self.fps = self._video.fps

    def read(self) -> Iterator[TimedFrame]:
        begin_s = time.monotonic()
        lost_s: float | None = None
        wait_s = FIRST_WAIT_S
        while True:
            try:
                self._video = self._video or self._connect(self._stopped)
                for timed in self._video.read():
                    now_s = time.monotonic()
                    if lost_s is not None:
                        self._say(f"{self.name} is back after {now_s - lost_s:.1f} s")
                        lost_s, wait_s = None, FIRST_WAIT_S
                        self.reconnections += 1
                    yield TimedFrame(timed.frame, now_s - begin_s)
                if self._video.finished():
                    return
                why = f"{self.name} ended"
            except VideoError as error:
                why = str(error)
            self.close()
            if self._stopped.is_set():
                return
            if lost_s is None:
                lost_s = time.monotonic()
                self._say(f"{why}; connecting again for up to {self._patience_s:g} s")
            left_s = lost_s + self._patience_s - time.monotonic()
            if left_s <= 0:
                raise VideoError(
                    f"{self.name} was lost and did not come back in {self._patience_s:g} s: {why}"
                )
            if self._stopped.wait(min(wait_s, left_s)):
                return
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    def stop(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None
