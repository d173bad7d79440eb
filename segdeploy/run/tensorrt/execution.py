"""Runs one batch: an execution context with its own stream, buffers and CUDA graph.

A graph is bound to its context's shape at the capture, so a slot has one graph and captures it again when the shape
changes. Buffers are made once, for the largest shape of the profile, and their addresses never change.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from math import prod
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import EngineError, RequestError, SegdeployError
from segdeploy.model.signature import Signature, TensorFacts
from segdeploy.run.cuda import CudaGraph, CudaStream, Device, DeviceMemory
from segdeploy.run.device_array import Lent
from segdeploy.run.frames import FrameLabels

Shape = tuple[int, ...]


class Ticket:
    """Stands for a batch under way until its answer is taken."""

    def __init__(self) -> None:
        self.slot: Slot | None = None
        self.answer: NDArray[Any] | None = None
        self.error: SegdeployError | None = None

    def take(self) -> NDArray[Any]:
        if self.error is not None:
            raise self.error
        if self.answer is None:
            raise RequestError("the answer to this batch was taken already, or its session was closed before")
        answer, self.answer = self.answer, None
        return answer


class Slot:
    """Runs batches for one thread at a time, which holds `lock` and has the device active."""

    def __init__(
        self,
        device: Device,
        context: Any,
        signature: Signature,
        largest: list[Shape],
        outputs: list[TensorFacts],
        captures: bool,
        said: Callable[[], str],
    ) -> None:
        self.lock = Lock()
        self.taken = False  # by a batch under way; only a hint for choosing a slot, as `lock` makes it safe
        self.turn = 0
        self.has_run = False  # with its current shape
        self.without_graph: str | None = None
        self._ticket: Ticket | None = None
        self._context = context
        self._input_name, self._output_name = signature.input.name, signature.output.name
        self._input_dtype = np.dtype(signature.input.dtype)
        self._output_dtype = np.dtype(signature.output.dtype)
        self._largest = largest  # the largest batch of each profile
        self._captures = captures
        self._said = said
        self._shape: Shape | None = None
        self._graph: CudaGraph | None = None
        self._outputs: dict[str, DeviceMemory] = {}
        self._made = ExitStack()
        self.frames: FrameLabels | None = None  # made with the first frames that it labels
        try:
            self.stream = device.stream()
            self._made.callback(self.stream.free)
            most = max(largest, key=prod)
            self._input = device.allocate(array_bytes(most, self._input_dtype))
            self._made.callback(self._input.free)
            self._set_shape(most)
            self._point(self._input_name, self._input)
            for output in outputs:  # TensorRT needs an address for each, even for unused ones
                size = array_bytes(self._shape_of(output.name), np.dtype(output.dtype))
                self._outputs[output.name] = memory = device.allocate(size)
                self._made.callback(memory.free)
                self._point(output.name, memory)
            self._host_input = device.pin(self._input.size)
            self._made.callback(self._host_input.free)
            self._host_output = device.pin(self._outputs[self._output_name].size)
            self._made.callback(self._host_output.free)
        except BaseException:
            self.free()
            raise

    # ---- one batch -------------------------------------------------------------------------------------------------

    def start(self, inputs: NDArray[Any], ticket: Ticket) -> None:
        self.taken = True
        self._set_shape(inputs.shape)
        np.copyto(self._waiting(), inputs)
        self.upload(self.stream)
        self.infer()
        self.download(self.stream)
        self._ticket, ticket.slot = ticket, self

    def collect(self) -> None:
        """Wait for the batch under way, if any, and put its answer or its error into its ticket."""
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            return
        try:
            self.stream.synchronise()
            ticket.answer = self.answer()
        except Exception as error:  # noqa: BLE001 # `Ticket.take` raises it, maybe in another thread
            ticket.error = EngineError(f"a batch failed on the GPU: {' '.join(str(error).split())}")
        finally:
            ticket.slot = None
            self.taken = False

    def run_on_device(self, inputs: Lent, target: int) -> None:
        """Run an array on the GPU, write the answer to the address `target`, and wait."""
        self.taken = True
        if inputs.stream is not None:
            self.stream.wait_for(inputs.stream)
        self._set_shape(inputs.shape)
        self.stream.copy(self._input.address, inputs.address, inputs.nbytes)
        self.infer()
        size = array_bytes(self._shape_of(self._output_name), self._output_dtype)
        self.stream.copy(target, self._outputs[self._output_name].address, size)
        self.stream.synchronise()
        self.taken = False

    def run_between(
        self, shape: Shape, fill: Callable[[int, Shape], None], read: Callable[[int], None]
    ) -> None:
        """Run a batch of this shape between what queues the filling of its input and the reading of its answer; wait.

        They get the addresses, and `fill` the answer's shape too.
        """
        self.taken = True
        self._set_shape(shape)
        fill(self._input.address, self._shape_of(self._output_name))
        self.infer()
        read(self._outputs[self._output_name].address)
        self.stream.synchronise()
        self.taken = False

    # ---- one batch, part by part, to be timed ----------------------------------------------------------------------

    def load(self, inputs: NDArray[Any]) -> None:
        """Take the input for the following queries."""
        self.taken = True
        self._set_shape(inputs.shape)
        np.copyto(self._waiting(), inputs)

    def warm(self) -> None:
        """Run twice: first kernel by kernel, then as it will be replayed."""
        self.upload(self.stream)
        for _ in range(2):
            self.infer()
        self.stream.synchronise()

    def upload(self, stream: CudaStream) -> None:
        stream.upload(self._input, self._waiting())

    def download(self, stream: CudaStream) -> None:
        stream.download(self._answer(), self._outputs[self._output_name])

    def answer(self) -> NDArray[Any]:
        """Copy the answer that was downloaded last."""
        return self._answer().copy()

    def _waiting(self) -> NDArray[Any]:
        assert self._shape is not None  # noqa: S101 # it is set first, here and in `start`
        return self._host_input.view(self._shape, self._input_dtype)

    def _answer(self) -> NDArray[Any]:
        return self._host_output.view(self._shape_of(self._output_name), self._output_dtype)

    def answers(self, shape: Shape) -> Shape:
        """Return the shape of the answer to a batch of this shape."""
        self._set_shape(shape)
        return self._shape_of(self._output_name)

    def abandon(self) -> None:
        """Give up a failed batch, and wait until nothing reads the buffers any more."""
        with suppress(Exception):
            self.stream.synchronise()
        self._ticket = None
        self.taken = False

    # ---- the context -----------------------------------------------------------------------------------------------

    def _set_shape(self, shape: Shape) -> None:
        if shape == self._shape:
            return
        self._drop_graph()
        self._shape, self.has_run = None, False
        self._choose_profile(shape)
        if not self._context.set_input_shape(self._input_name, shape):
            raise EngineError(
                f"TensorRT refuses the shape {'×'.join(map(str, shape))} of {self._input_name!r}: {self._said()}"
            )
        self._shape = shape

    def _shape_of(self, name: str) -> Shape:
        shape = tuple(int(side) for side in self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise EngineError(
                f"the size of the output {name!r} is {shape} and known only after computing, and a segmentation has the"
                " size of its image; export the graph at a fixed size"
            )
        return shape

    def _choose_profile(self, shape: Shape) -> None:
        """Choose the profile of this size; TensorRT does so by itself for the first context and profile only."""
        fitting = (place for place, largest in enumerate(self._largest) if largest[1:] == shape[1:])
        place = next(fitting, 0)  # a shape that no profile has is refused by TensorRT itself
        if self._context.active_optimization_profile == place:
            return
        if not self._context.set_optimization_profile_async(place, self.stream.handle):
            raise EngineError(f"TensorRT refuses the engine's profile {place}: {self._said()}")
        self.stream.synchronise()

    def _point(self, name: str, memory: DeviceMemory) -> None:
        if not self._context.set_tensor_address(name, memory.address):
            raise EngineError(f"TensorRT refuses the memory for {name!r}: {self._said()}")

    def infer(self) -> None:
        """Run the first batch of a shape kernel by kernel, as TensorRT needs before a capture; then as a graph.

        So a shape that comes once, such as the last batch of a folder, costs no capture.
        """
        if self._graph is None and self.has_run and self._captures and self.without_graph is None:
            try:
                self._graph = self.stream.capture(self._enqueue)
            except Exception as error:  # noqa: BLE001 # any library's: the engine runs without a graph too
                self.without_graph = f"{error} ({self._said()})"
        if self._graph is None:
            self._enqueue()
        else:
            self._graph.launch(self.stream)
        self.has_run = True

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self.stream.handle):
            raise EngineError(f"TensorRT did not run the engine: {self._said()}")

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            self.stream.synchronise()
            graph.free()

    def free(self) -> None:
        self.collect()
        with self._made:
            if self.frames is not None:
                self._made.callback(self.frames.free)
            self._drop_graph()
            self._context = None


def array_bytes(shape: Shape, dtype: np.dtype[Any]) -> int:
    return int(np.prod(shape)) * dtype.itemsize
