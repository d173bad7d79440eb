"""Calls CUDA through cuda-python, NVIDIA's own binding: memory, streams, events and graphs.

Its functions are the driver's, and its handles are numbers. It has wheels for x86-64 and aarch64, so nothing is
compiled on a Jetson.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import EngineError

OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: it does not wait for the default stream, which others use
BLOCKING_SYNC, DISABLE_TIMING = 1, 2  # CU_EVENT_…


class CudaError(EngineError):
    """Is raised when the driver refuses a call."""


class CudaOutOfMemory(CudaError):
    pass


class CudaPython:
    name = "cuda-python"
    Error, OutOfMemory = CudaError, CudaOutOfMemory

    def __init__(self) -> None:
        self._driver: Any = importlib.import_module("cuda.bindings.driver")
        self._context: Any = None

    def call(self, function: str, *arguments: Any) -> Any:
        """Call the driver, whose functions return their status first and then their results."""
        try:
            status, *results = getattr(self._driver, function)(*arguments)
        except RuntimeError as error:  # the driver is older than this function
            raise CudaError(f"{function} failed: {error}") from error
        if int(status):
            kind = CudaOutOfMemory if int(status) == OUT_OF_MEMORY else CudaError
            raise kind(f"{function} failed: {status.name}")
        return results[0] if len(results) == 1 else results

    def open(self) -> tuple[str, str]:
        self.call("cuInit", 0)
        device = self.call("cuDeviceGet", 0)
        self._context = self.call("cuDevicePrimaryCtxRetain", device)
        attributes = self._driver.CUdevice_attribute
        major, minor = (
            self.call("cuDeviceGetAttribute", attribute, device)
            for attribute in (
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        name: bytes = self.call("cuDeviceGetName", 96, device)
        return name.partition(b"\0")[0].decode(), f"{major}.{minor}"

    def push(self) -> None:
        self.call("cuCtxPushCurrent", self._context)

    def pop(self) -> None:
        self.call("cuCtxPopCurrent")

    # ---- memory ----------------------------------------------------------------------------------------------------

    def memory(self) -> tuple[int, int]:
        free, total = self.call("cuMemGetInfo")
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        return int(self.call("cuMemAlloc", size))

    def free(self, allocation: int) -> None:
        self.call("cuMemFree", allocation)

    def pin(self, size: int) -> NDArray[np.uint8]:
        address = int(self.call("cuMemHostAlloc", size, 0))
        return np.frombuffer(memoryview((ctypes.c_ubyte * size).from_address(address)), np.uint8)

    def unpin(self, array: NDArray[np.uint8]) -> None:
        self.call("cuMemFreeHost", array.ctypes.data)

    # ---- streams ---------------------------------------------------------------------------------------------------

    def stream(self) -> int:
        return int(self.call("cuStreamCreate", NON_BLOCKING))

    def handle_of(self, stream: int) -> int:
        return stream

    def free_stream(self, stream: int) -> None:
        self.call("cuStreamDestroy", stream)

    def synchronise(self, stream: int) -> None:
        self.call("cuStreamSynchronize", stream)

    def upload(self, target: int, source: NDArray[Any], stream: int) -> None:
        self.call("cuMemcpyHtoDAsync", target, start_of(source), source.nbytes, stream)

    def download(self, target: NDArray[Any], source: int, stream: int) -> None:
        self.call("cuMemcpyDtoHAsync", start_of(target), source, target.nbytes, stream)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        self.call("cuMemcpyDtoDAsync", target, source, size, stream)

    def wait_for_stream(self, stream: int, handle: int) -> None:
        event = self.call("cuEventCreate", DISABLE_TIMING)
        self.call("cuEventRecord", event, handle)
        self.call("cuStreamWaitEvent", stream, event, 0)
        self.call("cuEventDestroy", event)  # the driver delays it until the event has happened

    # ---- events ----------------------------------------------------------------------------------------------------

    def event(self, blocking: bool) -> int:
        return int(self.call("cuEventCreate", BLOCKING_SYNC if blocking else 0))

    def free_event(self, event: int) -> None:
        self.call("cuEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        self.call("cuEventRecord", event, stream)

    def wait_for_event(self, stream: int, event: int) -> None:
        self.call("cuStreamWaitEvent", stream, event, 0)

    def synchronise_event(self, event: int) -> None:
        self.call("cuEventSynchronize", event)

    def ms_between(self, start: int, end: int) -> float:
        return float(self.call("cuEventElapsedTime", start, end))

    # ---- kernels, also on PyCUDA's streams, by their handles ---------------------------------------------------------

    def load_module(self, image: bytes) -> Any:
        return self.call("cuModuleLoadData", image)

    def function_of(self, module: Any, name: str) -> Any:
        return self.call("cuModuleGetFunction", module, name.encode())

    def unload_module(self, module: Any) -> None:
        self.call("cuModuleUnload", module)

    def launch_kernel(
        self, function: Any, blocks: tuple[int, int], threads: tuple[int, int], handle: int, arguments: Any
    ) -> None:
        """Queue a kernel; `arguments` are its values and their types of ctypes."""
        self.call("cuLaunchKernel", function, *blocks, 1, *threads, 1, 0, handle, arguments, 0)

    # ---- graphs, also of PyCUDA's streams, by their handles ---------------------------------------------------------

    def begin_capture(self, handle: int) -> None:
        # Thread-local, so that other threads may allocate memory meanwhile.
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self.call("cuStreamBeginCapture", handle, mode)

    def end_capture(self, handle: int) -> Any:
        """Return what was recorded, ready to be launched."""
        graph = self.call("cuStreamEndCapture", handle)
        try:
            return self.call("cuGraphInstantiate", graph, 0)
        finally:
            self.call("cuGraphDestroy", graph)

    def drop_capture(self, handle: int) -> None:
        """End a failed capture; otherwise the stream would stay unusable."""
        _, graph = self._driver.cuStreamEndCapture(handle)
        if graph is not None and int(graph):
            self.call("cuGraphDestroy", graph)

    def launch(self, graph: Any, handle: int) -> None:
        self.call("cuGraphLaunch", graph, handle)

    def free_graph(self, graph: Any) -> None:
        self.call("cuGraphExecDestroy", graph)


def start_of(array: NDArray[Any]) -> int:
    """Return the address of a contiguous array; any other raises, since copies ignore strides."""
    if not array.flags.c_contiguous:
        raise ValueError(f"an array of strides {array.strides} is not contiguous")
    return array.ctypes.data
