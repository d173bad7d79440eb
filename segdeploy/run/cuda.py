"""Uses the GPU: memory, streams, events and CUDA graphs, through PyCUDA where it is installed, else cuda-python.

PyCUDA is compiled at installation; cuda-python has wheels, for a Jetson too. Both do the same here, except that CUDA
graphs are always cuda-python's, which takes PyCUDA's streams.

Everything lives in the device's primary context, which TensorRT, ONNX Runtime and PyTorch use in this process too, so
that they can share addresses. A context is current in a thread, not in a process: so every call here, in any thread, is
made inside `with device.active()`, which restores the previous context at its end. Both packages are imported when a
device is opened, so that a machine without a GPU can say why it has none.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import EngineError, MissingExtra
from segdeploy.gpus import DRIVER, ask_driver
from segdeploy.run.cuda_pycuda import PyCuda
from segdeploy.run.cuda_python import CudaPython
from segdeploy.size import Size

BLOCK = 32, 8  # threads of a kernel's block, across and down
NO_PACKAGE = "no cuda-python: pip install 'segdeploy[cuda]'"


class CudaCalls(Protocol):
    """Lists the calls that the classes below make. Handles are the package's own; int(allocation) is its address."""

    @property
    def name(self) -> str: ...

    @property
    def Error(self) -> type[Exception]: ...  # noqa: N802 # a class

    @property
    def OutOfMemory(self) -> type[Exception]: ...  # noqa: N802 # a class

    def open(self) -> tuple[str, str]:
        """Take the primary context of the first GPU; return its name and compute capability."""

    def push(self) -> None: ...

    def pop(self) -> None: ...

    def memory(self) -> tuple[int, int]: ...

    def allocate(self, size: int) -> Any: ...

    def free(self, allocation: Any) -> None: ...

    def pin(self, size: int) -> NDArray[np.uint8]: ...

    def unpin(self, array: NDArray[np.uint8]) -> None: ...

    def stream(self) -> Any: ...

    def handle_of(self, stream: Any) -> int: ...

    def free_stream(self, stream: Any) -> None: ...

    def synchronise(self, stream: Any) -> None: ...

    def upload(self, target: int, source: NDArray[Any], stream: Any) -> None: ...

    def download(self, target: NDArray[Any], source: int, stream: Any) -> None: ...

    def copy(self, target: int, source: int, size: int, stream: Any) -> None: ...

    def wait_for_stream(self, stream: Any, handle: int) -> None: ...

    def event(self, blocking: bool) -> Any: ...

    def free_event(self, event: Any) -> None: ...

    def record(self, event: Any, stream: Any) -> None: ...

    def wait_for_event(self, stream: Any, event: Any) -> None: ...

    def synchronise_event(self, event: Any) -> None: ...

    def ms_between(self, start: Any, end: Any) -> float: ...


class Memory(NamedTuple):
    free_bytes: int
    total_bytes: int


def why_no_gpu() -> str | None:
    """Return None where engines can run, else why not, in words."""
    found = ask_driver()
    if not found:
        return f"no GPU (the NVIDIA driver's {DRIVER} is not here)"
    if not found.get("gpus"):
        return f"no GPU (the NVIDIA driver finds none: {found.get('error', 'it counts 0')})"
    return None if is_here("pycuda") or is_here("cuda.bindings") else NO_PACKAGE


@cache
def open_device() -> Device:
    """Open the first GPU (CUDA_VISIBLE_DEVICES says which that is) once, and keep it for the whole process."""
    reason = why_no_gpu()
    if reason == NO_PACKAGE:
        raise MissingExtra("cuda-python", "cuda", "running an engine")
    if reason:
        raise EngineError(
            f"an engine runs on an NVIDIA GPU, and there is {reason}; the .onnx it was built from runs anywhere"
        )
    calls = load_calls()
    try:
        return Device(calls)
    except calls.Error as error:
        raise EngineError(f"the GPU cannot be opened through {calls.name}: {error}") from error


def load_calls() -> CudaCalls:
    """Choose PyCUDA if it is installed and can be loaded, else cuda-python."""
    if is_here("pycuda"):
        try:
            return PyCuda()
        except ImportError as error:
            if not is_here("cuda.bindings"):
                raise EngineError(
                    f"PyCUDA is installed and cannot be loaded ({error}): it is compiled for one CUDA. Take cuda-python"
                    " in its place: pip install 'segdeploy[cuda]'"
                ) from error
    return CudaPython()


@cache
def graph_calls() -> CudaPython:
    if not is_here("cuda.bindings"):
        raise MissingExtra("cuda-python", "cuda", "a CUDA graph")
    return CudaPython()


def is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that holds it is missing
        return False


class Device:
    def __init__(self, calls: CudaCalls) -> None:
        self.calls = calls
        self.name, self.compute_capability = calls.open()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the GPU current in this thread."""
        self.calls.push()
        try:
            yield
        except self.calls.Error as error:
            raise EngineError(f"CUDA failed on {self.name}: {' '.join(str(error).split())}") from error
        finally:
            self.calls.pop()

    def memory(self) -> Memory:
        return Memory(*self.calls.memory())

    def allocate(self, size: int) -> DeviceMemory:
        try:
            return DeviceMemory(self.calls, size)
        except self.calls.OutOfMemory as error:
            free, total = self.memory()
            raise EngineError(
                f"{self.name} has {free >> 20} of its {total >> 20} MiB free, and {max(size >> 20, 1)} MiB more are"
                " needed; end what else runs on it, or build the engine for a smaller batch with --batch"
            ) from error

    def pin(self, size: int) -> PinnedMemory:
        return PinnedMemory(self.calls, self.calls.pin(size))

    def event(self, blocking: bool) -> Event:
        """Make a reusable event; waiting for a `blocking` one costs no processor time."""
        return Event(self, self.calls.event(blocking))

    def stream(self) -> CudaStream:
        return CudaStream(self.calls)


class DeviceMemory:
    def __init__(self, calls: CudaCalls, size: int) -> None:
        self._calls = calls
        self._allocation = calls.allocate(size)
        self.address = int(self._allocation)
        self.size = size

    def free(self) -> None:
        """Free the memory; cuMemFree waits for work that still reads it."""
        self._calls.free(self._allocation)


class Owned:
    """Owns memory, and frees it with the last array that uses it, in whichever thread that happens."""

    def __init__(self, device: Device, memory: DeviceMemory) -> None:
        self._device, self._memory = device, memory

    def __del__(self) -> None:
        with self._device.active():
            self._memory.free()


class PinnedMemory:
    """Holds host memory that the GPU copies from and to while the processor works on."""

    def __init__(self, calls: CudaCalls, array: NDArray[np.uint8]) -> None:
        self._calls = calls
        self._array = array
        self.size = array.nbytes

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return its beginning as an array."""
        size = int(np.prod(shape)) * dtype.itemsize
        return self._array[:size].view(dtype).reshape(shape)

    def free(self) -> None:
        """Free the memory; no view may be used afterwards."""
        self._calls.unpin(self._array)


class Event:
    """Marks a moment on a stream; it is freed with its last reference, in whichever thread that happens."""

    def __init__(self, device: Device, event: Any) -> None:
        self._device, self._event = device, event

    def synchronise(self) -> None:
        self._device.calls.synchronise_event(self._event)

    def ms_until(self, later: Event) -> float:
        return self._device.calls.ms_between(self._event, later._event)

    def __del__(self) -> None:
        with suppress(EngineError), self._device.active():
            self._device.calls.free_event(self._event)
            self._event = None  # while the device is active, since PyCUDA's event frees itself


class CudaStream:
    def __init__(self, calls: CudaCalls) -> None:
        self._calls = calls
        self._stream = calls.stream()
        self.handle = calls.handle_of(self._stream)

    def free(self) -> None:
        self._calls.free_stream(self._stream)
        self._stream = None

    def upload(self, target: DeviceMemory, source: NDArray[Any]) -> None:
        self._calls.upload(target.address, source, self._stream)

    def download(self, target: NDArray[Any], source: DeviceMemory) -> None:
        self._calls.download(target, source.address, self._stream)

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy between two addresses on the GPU."""
        self._calls.copy(target, source, size, self._stream)

    def record(self, event: Event) -> None:
        self._calls.record(event._event, self._stream)

    def wait_for_event(self, event: Event) -> None:
        self._calls.wait_for_event(self._stream, event._event)

    def wait_for(self, handle: int) -> None:
        """Let work queued here from now on wait for the work queued on another library's stream so far."""
        self._calls.wait_for_stream(self._stream, handle)

    def synchronise(self) -> None:
        self._calls.synchronise(self._stream)

    def launch(self, kernel: Any, size: Size, arguments: Sequence[Any]) -> None:
        """Queue a kernel with a thread for each pixel of `size`; an argument is a pointer, an int or a float."""
        across, down = BLOCK
        blocks = -(-size.width // across), -(-size.height // down)
        values = tuple(getattr(one, "value", one) or 0 for one in arguments)  # ctypes' null pointer is None
        given = values, tuple(map(c_type_of, arguments))
        graph_calls().launch_kernel(kernel, blocks, BLOCK, self.handle, given)

    def capture(self, work: Callable[[], None]) -> CudaGraph:
        """Record what `work` queues on this stream, instead of running it."""
        calls = graph_calls()
        calls.begin_capture(self.handle)
        try:
            work()
        except BaseException:
            calls.drop_capture(self.handle)
            raise
        return CudaGraph(calls, calls.end_capture(self.handle))


def c_type_of(argument: Any) -> type[Any]:
    """Give the type in C of a kernel's argument."""
    return {int: ctypes.c_int, float: ctypes.c_float}.get(type(argument), ctypes.c_void_p)


class CudaGraph:
    """Holds recorded work that is sent to the GPU in one call."""

    def __init__(self, calls: CudaPython, graph: Any) -> None:
        self._calls = calls
        self._graph = graph

    def launch(self, stream: CudaStream) -> None:
        self._calls.launch(self._graph, stream.handle)

    def free(self) -> None:
        self._calls.free_graph(self._graph)
