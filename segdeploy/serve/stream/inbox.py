"""Decoded frames of all sources, waiting for the network: files wait for room, live sources lose their oldest frame.

A source whose frames are not taken off at the other end has `room` for so many under way and no more: then the others'
frames go on, and nothing between here and there can be full.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from segdeploy.picture.image import Frame
from segdeploy.picture.video_reading import TimedFrame


@dataclass(frozen=True)
class Waiting:
    lane: int  # which source
    index: int  # of the frame in its source
    time_s: float
    frame: Frame
    decoded_s: float  # time.perf_counter()'s


class Inbox:
    """`limit` frames are taken of each source, or all; `depth` of each may wait, and `room` be under way."""

    def __init__(
        self, live: Sequence[bool], depth: int, limit: int | None = None, room: int = 1_000_000
    ) -> None:
        self._live, self._depth, self._limit = tuple(live), depth, limit
        self._room = [room for _ in live]
        self._lanes: list[deque[Waiting]] = [deque() for _ in live]
        self._ended = [False for _ in live]
        self._taken = [0 for _ in live]
        self._next = 0
        self._stopped = False
        self._changed = threading.Condition()
        self.dropped = [0 for _ in live]

    def put(self, lane: int, index: int, timed: TimedFrame) -> bool:
        """False: no more frames of this source are wanted."""
        waiting = Waiting(lane, index, timed.time_s, timed.frame, time.perf_counter())
        queue = self._lanes[lane]
        with self._changed:
            if self._live[lane]:
                if len(queue) == self._depth and not self._over(lane):
                    queue.popleft()
                    self.dropped[lane] += 1
            else:
                self._changed.wait_for(lambda: len(queue) < self._depth or self._over(lane))
            if self._over(lane):
                return False
            queue.append(waiting)
            self._changed.notify_all()
        return True

    def end(self, lane: int) -> None:
        """Nothing more comes from this source; what waits is still taken."""
        with self._changed:
            self._ended[lane] = True
            self._changed.notify_all()

    def give_up(self, lane: int) -> None:
        """Nothing of this source is wanted any more."""
        with self._changed:
            self._ended[lane] = True
            self._lanes[lane].clear()
            self._changed.notify_all()

    def arrived(self, lane: int) -> None:
        """A frame of this source has left the way, so that there is room for another."""
        with self._changed:
            self._room[lane] += 1
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self, count: int) -> list[Waiting]:
        """Frames in the order of their sources, one of each in turn; none when there is nothing more to come.

        Files are waited for until `count` frames are there; with a live source among them what is there goes at once.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready(count))
            if self._stopped:
                return []
            batch: list[Waiting] = []
            while len(batch) < count and any(self._ready_in(lane) for lane in self._all()):
                lane = self._next
                self._next = (lane + 1) % len(self._lanes)
                if self._ready_in(lane):
                    batch.append(self._lanes[lane].popleft())
                    self._count(lane)
            self._changed.notify_all()
            return batch

    def _count(self, lane: int) -> None:
        self._room[lane] -= 1
        self._taken[lane] += 1
        if self._taken[lane] == self._limit:
            self._ended[lane] = True
            self._lanes[lane].clear()

    def _over(self, lane: int) -> bool:
        return self._stopped or self._ended[lane]

    def _all(self) -> range:
        return range(len(self._lanes))

    def _ready_in(self, lane: int) -> int:
        return min(len(self._lanes[lane]), self._room[lane])

    def _ready(self, count: int) -> bool:
        ready = sum(self._ready_in(lane) for lane in self._all())
        if self._stopped or ready >= count:
            return True
        coming = [
            lane
            for lane in self._all()
            if not self._ended[lane] and len(self._lanes[lane]) < self._room[lane]
        ]
        if ready:
            return not coming or any(self._live[lane] for lane in coming)
        return all(self._ended) and not any(self._lanes)
