"""Queries of a PyTorch network on the GPU, as trtexec runs those of an engine.

Three streams (to the device, computing, from the device), two queries under way, one set of buffers for both: they
hold the same picture, so that it does no harm when one is written while the other is read.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from segdeploy.run.timing import Modes, Query


class Start(NamedTuple):
    """The same moment on both clocks."""

    event: Any
    seconds: float


def start_of_time(cuda: Any) -> Start:
    event = cuda.Event(enable_timing=True)
    event.record()
    event.synchronize()
    return Start(event, time.perf_counter())


class UnderWay(NamedTuple):
    events: list[Any]  # start and end of: to the device, computing, from the device
    start_enqueue_s: float
    end_enqueue_s: float
    answer: Any  # kept until its copy is done


class CudaLane:
    """`forward` takes the tensor `given`, which lies on the GPU; `host_input` and `host_answer` are pinned."""

    depth = 2

    def __init__(
        self,
        cuda: Any,
        forward: Callable[[Any], Any],
        given: Any,
        host_input: Any,
        host_answer: Any,
        modes: Modes,
        start: Start,
    ) -> None:
        self._cuda, self._forward, self._modes, self._start = cuda, forward, modes, start
        self._given, self._host_input, self._host_answer = given, host_input, host_answer
        self._to, self._compute, self._from = cuda.Stream(), cuda.Stream(), cuda.Stream()
        self._queue: deque[UnderWay] = deque()
        self._free = deque(
            [cuda.Event(enable_timing=True, blocking=not modes.spin) for _ in range(6)]
            for _ in range(self.depth)
        )
        self._graph: Any = None
        self._captured: Any = None
        self.without_graph = "" if modes.cuda_graph else "not asked for"
        with cuda.stream(self._compute):
            forward(given)  # memory and kernels are chosen now
        self._compute.synchronize()
        if modes.cuda_graph:
            self._capture()

    def _capture(self) -> None:
        graph = self._cuda.CUDAGraph()
        try:
            with self._cuda.graph(graph, stream=self._compute):
                self._captured = self._forward(self._given)
        except RuntimeError as error:  # an operator that a graph cannot hold
            self.without_graph = str(error).strip().partition("\n")[0] or "the capture failed"
            with suppress(RuntimeError):
                self._compute.synchronize()
            return
        self._graph = graph

    def start(self) -> None:
        events = self._free.popleft()
        if self._modes.transfers:
            with self._cuda.stream(self._to):
                events[0].record(self._to)
                self._given.copy_(self._host_input, non_blocking=True)
                events[1].record(self._to)
            self._compute.wait_event(events[1])
        with self._cuda.stream(self._compute):
            events[2].record(self._compute)
            start_s = time.perf_counter()
            answer = self._ask()
            end_s = time.perf_counter()
            events[3].record(self._compute)
        if self._modes.transfers:
            self._from.wait_event(events[3])
            with self._cuda.stream(self._from):
                events[4].record(self._from)
                self._host_answer.copy_(answer, non_blocking=True)
                events[5].record(self._from)
        self._queue.append(UnderWay(events, start_s, end_s, answer))

    def _ask(self) -> Any:
        if self._graph is None:
            return self._forward(self._given)
        self._graph.replay()
        return self._captured

    def finish(self) -> Query:
        events, start_s, end_s, _ = self._queue.popleft()
        events[5 if self._modes.transfers else 3].synchronize()
        self._free.append(events)
        if not self._modes.transfers:
            events = [events[2], events[2], events[2], events[3], events[3], events[3]]
        enqueued = [(moment - self._start.seconds) * 1e3 for moment in (start_s, end_s)]
        return Query(*enqueued, *(float(self._start.event.elapsed_time(event)) for event in events))
