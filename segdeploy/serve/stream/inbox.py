"""Queues the decoded frames of all sources for the network: files wait for room, live sources lose their oldest frame.

At most `room` frames of a source are under way between inbox and outlets. So a source with a slow output holds up only
itself, and no queue in between can be full.
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
    """Holds up to `depth` waiting frames per source; takes up to `limit` of each, and lets `room` be under way."""

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
        """Add a frame; returns False if no more frames of this source are wanted."""
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
        """Note that no more frames come from this source; those that wait are still taken."""
        with self._changed:
            self._ended[lane] = True
            self._changed.notify_all()

    def give_up(self, lane: int) -> None:
        """Drop this source's waiting frames, and take no more of it."""
        with self._changed:
            self._ended[lane] = True
            self._lanes[lane].clear()
            self._changed.notify_all()

    def arrived(self, lane: int) -> None:
        """Note that a frame of this source reached its outlets, which makes room for another."""
        with self._changed:
            self._room[lane] += 1
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self, count: int) -> list[Waiting]:
        """Take up to `count` frames, one of each source in turn; none when all sources have ended.

        It waits until `count` frames are there, unless a live source is still to come: then it takes what is there.
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
