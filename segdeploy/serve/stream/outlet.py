"""Gives a sink its own thread, so that one that hangs holds up only itself."""

from __future__ import annotations

import threading
import time
from collections import deque

from segdeploy.errors import OutputError
from segdeploy.serve.stream.result import Shown
from segdeploy.serve.stream.sinks import Sink

DRAWN_LATER = 4  # segmented frames that may wait for an encoder
HICCUP_S = 0.25  # a live source waits so long for a sink, before its frames are left out
SLOWED = 0.02  # and for so much of its time at most, so that a sink that is always slow does not slow it
GRACE_S = 0.5  # extra time, in which a sink with its own timeout can say better what is wrong


class Outlet:
    """Hands frames to `sink`, and gives it up if it takes longer than `timeout_s` for one of them or for closing.

    A thread that cannot be stopped is left behind: FFmpeg and the kernel may wait for a disk or a server for ever.
    """

    def __init__(self, sink: Sink, timeout_s: float) -> None:
        self.sink, self._timeout_s = sink, timeout_s
        self.error: BaseException | None = None
        self.left_behind = False
        self.left_out = 0  # frames of live sources
        self._frames: deque[Shown] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._since_s: float | None = None  # when the sink was last given something to do
        self._patience_s, self._asked_s = HICCUP_S, time.monotonic()  # what is left, and since when it grows
        self._thread = threading.Thread(target=self._work, name=f"segdeploy: {sink.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, shown: Shown, patient: bool) -> None:
        """Hand on a frame: a patient caller waits for room, however long; else the frame is left out after a moment."""
        with self._changed:
            if patient:
                self._changed.wait_for(self._has_room)
            else:
                self._wait_a_moment()
            if self.error is not None:
                return
            if not self._has_room():
                self.left_out += 1
                return
            self._frames.append(shown)
            self._changed.notify_all()

    def end(self) -> None:
        """Note that no more frames come; those that wait are still written."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def over(self) -> bool:
        return self.left_behind or not self._thread.is_alive()

    def overdue(self) -> bool:
        since_s = self._since_s
        return since_s is not None and time.monotonic() - since_s > self._timeout_s + GRACE_S

    def give_up(self, why: str) -> None:
        self.left_behind = True
        self._lose(OutputError(f"{self.sink.name} is given up: {why}"))
        self.sink.give_up()

    def _has_room(self) -> bool:
        return len(self._frames) < DRAWN_LATER or self.error is not None

    def _wait_a_moment(self) -> None:
        begin_s = time.monotonic()
        left_s = min(self._patience_s + SLOWED * (begin_s - self._asked_s), HICCUP_S)
        self._changed.wait_for(self._has_room, left_s)
        self._asked_s = time.monotonic()
        self._patience_s = left_s - (self._asked_s - begin_s)

    def _work(self) -> None:
        try:
            while (shown := self._next()) is not None:
                self.sink.take(shown)
        except BaseException as error:  # noqa: BLE001 # the pipeline reports it, or raises it
            self._lose(error)
        self._since_s = time.monotonic()
        try:
            self.sink.close()
        except BaseException as error:  # noqa: BLE001
            self._lose(error)
        self._since_s = None

    def _next(self) -> Shown | None:
        self._since_s = None
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._ended or self.error)
            if self.error is not None or not self._frames:
                return None
            shown = self._frames.popleft()
            self._since_s = time.monotonic()
            self._changed.notify_all()
            return shown

    def _lose(self, error: BaseException) -> None:
        with self._changed:
            self.error = self.error or error
            self._frames.clear()
            self._changed.notify_all()
