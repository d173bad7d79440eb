"""Adapts a PyTorch network on the GPU, and PyTorch's streams and events, to a lane.

`cuda` is torch.cuda everywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from segdeploy.run.device_lane import DeviceLane, MakeEvent, Start
from segdeploy.run.timing import Modes


class TorchEvent:
    def __init__(self, cuda: Any, blocking: bool) -> None:
        self.event = cuda.Event(enable_timing=True, blocking=blocking)

    def synchronise(self) -> None:
        self.event.synchronize()

    def ms_until(self, later: TorchEvent) -> float:
        return float(self.event.elapsed_time(later.event))


class TorchStream:
    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def record(self, event: TorchEvent) -> None:
        event.event.record(self.stream)

    def wait_for_event(self, event: TorchEvent) -> None:
        self.stream.wait_event(event.event)

    def synchronise(self) -> None:
        self.stream.synchronize()

    def free(self) -> None:
        """Do nothing: PyTorch frees the stream with its last reference."""


class TorchWork:
    """Runs `forward` on the tensor `given`, which lies on the GPU; `host_input` and `host_answer` are pinned.

    With `cuda_graph` the call is captured once and replayed from then on; `without_graph` says why it is not.
    """

    def __init__(
        self,
        cuda: Any,
        forward: Callable[[Any], Any],
        given: Any,
        host_input: Any,
        host_answer: Any,
        *,
        cuda_graph: bool,
    ) -> None:
        self._cuda, self._forward = cuda, forward
        self._given, self._host_input, self._host_answer = given, host_input, host_answer
        self.compute = TorchStream(cuda.Stream())
        self._graph: Any = None
        self._captured: Any = None
        self._answers: deque[Any] = deque(maxlen=DeviceLane.depth)  # kept until their copies are done
        self.without_graph = "" if cuda_graph else "not asked for"
        with cuda.stream(self.compute.stream):
            forward(given)  # PyTorch chooses memory and kernels in the first call
        self.compute.synchronise()
        if cuda_graph:
            self._capture()

    def _capture(self) -> None:
        graph = self._cuda.CUDAGraph()
        try:
            with self._cuda.graph(graph, stream=self.compute.stream):
                self._captured = self._forward(self._given)
        except RuntimeError as error:  # an operator that a graph cannot hold
            self.without_graph = str(error).strip().partition("\n")[0] or "the capture failed"
            with suppress(RuntimeError):
                self.compute.synchronise()
            return
        self._graph = graph

    def upload(self, stream: TorchStream) -> None:
        with self._cuda.stream(stream.stream):
            self._given.copy_(self._host_input, non_blocking=True)

    def infer(self) -> None:
        with self._cuda.stream(self.compute.stream):
            if self._graph is None:
                self._answers.append(self._forward(self._given))
            else:
                self._graph.replay()
                self._answers.append(self._captured)

    def download(self, stream: TorchStream) -> None:
        with self._cuda.stream(stream.stream):
            self._host_answer.copy_(self._answers[-1], non_blocking=True)


def event_maker(cuda: Any) -> MakeEvent:
    return lambda blocking: TorchEvent(cuda, blocking)


def torch_lane(cuda: Any, work: TorchWork, modes: Modes, start: Start) -> DeviceLane:
    streams = TorchStream(cuda.Stream()), work.compute, TorchStream(cuda.Stream())
    return DeviceLane(work, streams, event_maker(cuda), modes, start)
