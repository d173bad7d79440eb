"""The GPU: memory, streams and events through PyCUDA, CUDA graphs through cuda-python on the same streams.

Everything lives in the device's primary context, the one that TensorRT, ONNX Runtime and PyTorch use in this process
too, so that addresses can be handed to and fro. A context is current in a thread, not in a process: whoever calls
anything here does it inside `with device.active()`, in whichever thread, which puts back what was current before.
Both packages are imported when a device is opened: a machine without a GPU can tell why it has none.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import EngineError, MissingExtra

DRIVER = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
NO_PYCUDA = "no PyCUDA: pip install 'segdeploy[cuda]'"
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: it does not wait for the default stream, which others use
DEFAULT_STREAMS = (
    0,
    1,
    2,
)  # none named, and DLPack's numbers for the legacy and the per-thread default stream


class Memory(NamedTuple):
    free_bytes: int
    total_bytes: int


def why_no_gpu() -> str | None:
    """None where engines can run; else why not, in words."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return f"no GPU (the NVIDIA driver's {DRIVER} is not here)"
    status = driver.cuInit(0)
    count = ctypes.c_int(0)
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        return f"no GPU (the NVIDIA driver finds none: CUDA error {status})"
    if importlib.util.find_spec("pycuda") is None:
        return NO_PYCUDA
    return None


@cache
def open_device() -> Device:
    """The first GPU (CUDA_VISIBLE_DEVICES says which that is), opened once and kept, as its primary context is."""
    return Device()


class Device:
    def __init__(self) -> None:
        reason = why_no_gpu()
        if reason == NO_PYCUDA:
            raise MissingExtra("PyCUDA", "cuda", "running an engine")
        if reason:
            raise EngineError(
                f"an engine runs on an NVIDIA GPU, and there is {reason}; the .onnx it was built from runs anywhere"
            )
        try:
            self._driver: Any = importlib.import_module("pycuda.driver")
        except ImportError as error:
            raise EngineError(
                f"PyCUDA is installed and cannot be loaded ({error}); it is built for one CUDA: install it again with"
                " pip install --force-reinstall --no-cache-dir --no-binary pycuda pycuda"
            ) from error
        self._driver.init()
        device = self._driver.Device(0)
        self._context: Any = device.retain_primary_context()
        self.name = str(device.name())
        self.compute_capability = "{}.{}".format(*device.compute_capability())

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the GPU current in this thread."""
        self._context.push()
        try:
            yield
        except self._driver.Error as error:
            raise EngineError(f"CUDA failed on {self.name}: {' '.join(str(error).split())}") from error
        finally:
            self._context.pop()

    def memory(self) -> Memory:
        return Memory(*self._driver.mem_get_info())

    def allocate(self, size: int) -> DeviceMemory:
        try:
            return DeviceMemory(self._driver.mem_alloc(size), size)
        except self._driver.MemoryError as error:
            free, total = self.memory()
            raise EngineError(
                f"{self.name} has {free >> 20} of its {total >> 20} MiB free, and {max(size >> 20, 1)} MiB more are"
                " needed; end what else runs on it, or build the engine for a smaller batch with --batch"
            ) from error

    def pin(self, size: int) -> PinnedMemory:
        return PinnedMemory(self._driver.pagelocked_empty(size, np.uint8))

    def event(self, blocking: bool) -> Event:
        """One that can be recorded again and again; to wait for a `blocking` one costs no processor."""
        flags = self._driver.event_flags
        return Event(self._driver.Event(flags.BLOCKING_SYNC if blocking else flags.DEFAULT))

    def stream(self) -> Stream:
        return Stream(self._driver, self._driver.Stream(NON_BLOCKING))


class DeviceMemory:
    def __init__(self, allocation: Any, size: int) -> None:
        self._allocation = allocation
        self.address = int(allocation)
        self.size = size

    def free(self) -> None:
        """Waits for what still reads it: that is cuMemFree's own rule."""
        self._allocation.free()


class Owned:
    """Memory that is freed with the last array that was made of it, in whichever thread that happens."""

    def __init__(self, device: Device, memory: DeviceMemory) -> None:
        self._device, self._memory = device, memory

    def __del__(self) -> None:
        with self._device.active():
            self._memory.free()


class PinnedMemory:
    """Host memory that the GPU copies from and to while the processor does something else."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self._array = array

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Its beginning, as an array."""
        size = int(np.prod(shape)) * dtype.itemsize
        return self._array[:size].view(dtype).reshape(shape)

    def free(self) -> None:
        """No view may be used after this."""
        allocation: Any = self._array.base
        allocation.free()


class Event:
    def __init__(self, event: Any) -> None:
        self._event = event

    def synchronise(self) -> None:
        self._event.synchronize()

    def ms_until(self, later: Event) -> float:
        return float(self._event.time_till(later._event))


class Stream:
    def __init__(self, driver: Any, stream: Any) -> None:
        self._driver = driver
        self._stream = stream
        self.handle = int(stream.handle)

    def free(self) -> None:
        self._stream = None

    def upload(self, target: DeviceMemory, source: NDArray[Any]) -> None:
        self._driver.memcpy_htod_async(target.address, source, self._stream)

    def download(self, target: NDArray[Any], source: DeviceMemory) -> None:
        self._driver.memcpy_dtoh_async(target, source.address, self._stream)

    def copy(self, target: int, source: int, size: int) -> None:
        """Between two addresses on the GPU."""
        self._driver.memcpy_dtod_async(target, source, size, self._stream)

    def mark(self) -> Event:
        return Event(self._driver.Event().record(self._stream))

    def record(self, event: Event) -> None:
        event._event.record(self._stream)

    def wait_for_event(self, event: Event) -> None:
        self._stream.wait_for_event(event._event)

    def wait_for(self, handle: int) -> None:
        """What is queued here from now on comes after what is queued on another library's stream by now."""
        if handle in DEFAULT_STREAMS:
            self._stream.wait_for_event(self._driver.Event().record(None))
        else:  # PyCUDA cannot be given another's stream, so all of them are waited for
            self._driver.Context.synchronize()

    def synchronise(self) -> None:
        self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> CudaGraph:
        """What `work` queues on this stream, recorded instead of run."""
        driver = graph_driver()
        stream = driver.CUstream(self.handle)
        # In other threads memory may be allocated meanwhile.
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        demand(driver, driver.cuStreamBeginCapture(stream, mode))
        try:
            work()
        except BaseException:
            _, begun = driver.cuStreamEndCapture(stream)  # or the stream stays unusable
            if begun is not None and int(begun):
                driver.cuGraphDestroy(begun)
            raise
        graph = demand(driver, driver.cuStreamEndCapture(stream))
        try:
            return CudaGraph(driver, demand(driver, driver.cuGraphInstantiate(graph, 0)))
        finally:
            driver.cuGraphDestroy(graph)


class CudaGraph:
    """Recorded work, sent to the GPU in one call."""

    def __init__(self, driver: Any, instance: Any) -> None:
        self._driver = driver
        self._instance = instance

    def launch(self, stream: Stream) -> None:
        demand(self._driver, self._driver.cuGraphLaunch(self._instance, self._driver.CUstream(stream.handle)))

    def free(self) -> None:
        demand(self._driver, self._driver.cuGraphExecDestroy(self._instance))


@cache
def graph_driver() -> Any:
    """cuda-python's driver interface: `cuda.bindings.driver`, which was `cuda.cuda` before 12.6."""
    for name in ("cuda.bindings.driver", "cuda.cuda"):
        with suppress(ImportError):
            return importlib.import_module(name)
    raise MissingExtra("cuda-python", "cuda", "a CUDA graph")


def demand(driver: Any, answer: tuple[Any, ...]) -> Any:
    """cuda-python answers with the status first and the result after it."""
    status, *results = answer
    if int(status):
        raise EngineError(f"CUDA refused a graph: {status.name}")
    return results[0] if results else None
