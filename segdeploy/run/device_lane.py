"""Runs queries on a GPU as trtexec does: a stream for each part, two queries under way, one set of buffers for both.

The buffers hold the same picture for all queries, so one may be written while it is read. Protocols here say what a
lane needs of events and streams, so that an engine and a PyTorch network are timed alike.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from segdeploy.run.timing import Modes, Query


class TimedEvent(Protocol):
    def synchronise(self) -> None: ...

    def ms_until(self, later: Any) -> float: ...


class TimedStream(Protocol):
    def record(self, event: Any) -> None: ...

    def wait_for_event(self, event: Any) -> None: ...

    def synchronise(self) -> None: ...

    def free(self) -> None: ...


class TimedWork(Protocol):
    """Queues the parts of a query without waiting for them; `infer` knows its own stream."""

    def upload(self, stream: Any) -> None: ...

    def infer(self) -> None: ...

    def download(self, stream: Any) -> None: ...


MakeEvent = Callable[[bool], TimedEvent]  # True: waiting for it costs no processor time


class Start(NamedTuple):
    """Holds one moment on both clocks."""

    event: TimedEvent
    seconds: float


class UnderWay(NamedTuple):
    events: list[TimedEvent]  # start and end of each part: to the device, computing, from the device
    start_enqueue_s: float
    end_enqueue_s: float


class DeviceLane:
    """Runs loaded work; the lane's maker owns the work and the second of the three streams."""

    depth = 2

    def __init__(
        self,
        work: TimedWork,
        streams: tuple[TimedStream, TimedStream, TimedStream],
        make_event: MakeEvent,
        modes: Modes,
        start: Start,
    ) -> None:
        self._work, self._modes, self._start = work, modes, start
        self._to, self._compute, self._from = streams
        self._queue: deque[UnderWay] = deque()
        self._idle = deque([make_event(not modes.spin) for _ in range(6)] for _ in range(self.depth))

    def start(self) -> None:
        events = self._idle.popleft()
        if self._modes.transfers:
            self._to.record(events[0])
            self._work.upload(self._to)
            self._to.record(events[1])
            self._compute.wait_for_event(events[1])
        self._compute.record(events[2])
        start_s = time.perf_counter()
        self._work.infer()
        end_s = time.perf_counter()
        self._compute.record(events[3])
        if self._modes.transfers:
            self._from.wait_for_event(events[3])
            self._from.record(events[4])
            self._work.download(self._from)
            self._from.record(events[5])
        self._queue.append(UnderWay(events, start_s, end_s))

    def finish(self) -> Query:
        events, start_s, end_s = self._queue.popleft()
        events[5 if self._modes.transfers else 3].synchronise()
        self._idle.append(events)
        if not self._modes.transfers:
            events = [events[2], events[2], events[2], events[3], events[3], events[3]]
        return query_of(self._start, start_s, end_s, events)

    def free(self) -> None:
        for stream in (self._to, self._from):
            stream.synchronise()
            stream.free()


def query_of(start: Start, start_enqueue_s: float, end_enqueue_s: float, events: list[TimedEvent]) -> Query:
    """Turn six events into times from `start` on."""
    enqueued = [(moment - start.seconds) * 1e3 for moment in (start_enqueue_s, end_enqueue_s)]
    return Query(*enqueued, *(start.event.ms_until(event) for event in events))


def start_of_time(make_event: MakeEvent, stream: TimedStream) -> Start:
    event = make_event(False)
    stream.record(event)
    event.synchronise()
    return Start(event, time.perf_counter())


def timed_once(work: TimedWork, stream: TimedStream, make_event: MakeEvent) -> Query:
    """Run one query on the stream that `work` computes on, and wait for it."""
    start = start_of_time(make_event, stream)
    first, second, third, last = (make_event(False) for _ in range(4))
    stream.record(first)
    work.upload(stream)
    stream.record(second)
    start_s = time.perf_counter()
    work.infer()
    end_s = time.perf_counter()
    stream.record(third)
    work.download(stream)
    stream.record(last)
    last.synchronise()
    return query_of(start, start_s, end_s, [first, second, second, third, third, last])
