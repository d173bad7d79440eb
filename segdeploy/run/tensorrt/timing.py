"""Queries of an engine, as trtexec runs them: a stream for each part, two under way, one set of buffers for both.

The buffers hold the same picture for all queries, so that it does no harm when one is written while it is read.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from segdeploy.run.cuda import Device, Event
from segdeploy.run.tensorrt.execution import Slot
from segdeploy.run.timing import Modes, Query


class Start(NamedTuple):
    """The same moment on both clocks."""

    event: Event
    seconds: float


class UnderWay(NamedTuple):
    events: list[Event]  # start and end of: to the device, computing, from the device
    start_enqueue_s: float
    end_enqueue_s: float


class EngineLane:
    """A slot that is loaded already, and held by whoever made the lane."""

    depth = 2

    def __init__(self, device: Device, slot: Slot, modes: Modes, start: Start) -> None:
        self._slot, self._modes, self._start = slot, modes, start
        self._to, self._from = device.stream(), device.stream()
        self._queue: deque[UnderWay] = deque()
        self._idle = deque([device.event(not modes.spin) for _ in range(6)] for _ in range(self.depth))

    def start(self) -> None:
        events, slot = self._idle.popleft(), self._slot
        if self._modes.transfers:
            self._to.record(events[0])
            slot.upload(self._to)
            self._to.record(events[1])
            slot.stream.wait_for_event(events[1])
        slot.stream.record(events[2])
        start_s = time.perf_counter()
        slot.infer()
        end_s = time.perf_counter()
        slot.stream.record(events[3])
        if self._modes.transfers:
            self._from.wait_for_event(events[3])
            self._from.record(events[4])
            slot.download(self._from)
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


def query_of(start: Start, start_enqueue_s: float, end_enqueue_s: float, events: list[Event]) -> Query:
    """From six events."""
    enqueued = [(moment - start.seconds) * 1e3 for moment in (start_enqueue_s, end_enqueue_s)]
    return Query(*enqueued, *(start.event.ms_until(event) for event in events))


def start_of_time(device: Device, slot: Slot) -> Start:
    event = device.event(blocking=False)
    slot.stream.record(event)
    event.synchronise()
    return Start(event, time.perf_counter())


def timed_once(device: Device, slot: Slot) -> Query:
    """One query of a loaded slot, on one stream."""
    start = start_of_time(device, slot)
    events = [device.event(blocking=False) for _ in range(4)]
    slot.stream.record(events[0])
    slot.upload(slot.stream)
    slot.stream.record(events[1])
    start_s = time.perf_counter()
    slot.infer()
    end_s = time.perf_counter()
    slot.stream.record(events[2])
    slot.download(slot.stream)
    slot.stream.record(events[3])
    events[3].synchronise()
    first, second, third, last = events
    return query_of(start, start_s, end_s, [first, second, second, third, third, last])
