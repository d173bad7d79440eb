"""Calls CUDA through PyCUDA, whose handles are objects that free themselves with their last reference."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: it does not wait for the default stream, which others use
# No stream named, and the driver's numbers for the legacy and the per-thread default stream.
DEFAULT_STREAMS = (0, 1, 2)


class PyCuda:
    name = "PyCUDA"

    def __init__(self) -> None:
        self._driver: Any = importlib.import_module("pycuda.driver")
        self.Error: type[Exception] = self._driver.Error
        self.OutOfMemory: type[Exception] = self._driver.MemoryError
        self._context: Any = None

    def open(self) -> tuple[str, str]:
        self._driver.init()
        device = self._driver.Device(0)
        self._context = device.retain_primary_context()
        return str(device.name()), "{}.{}".format(*device.compute_capability())

    def push(self) -> None:
        self._context.push()

    def pop(self) -> None:
        self._context.pop()

    def memory(self) -> tuple[int, int]:
        free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def allocate(self, size: int) -> Any:
        return self._driver.mem_alloc(size)

    def free(self, allocation: Any) -> None:
        allocation.free()

    def pin(self, size: int) -> NDArray[np.uint8]:
        array: NDArray[np.uint8] = self._driver.pagelocked_empty(size, np.uint8)
        return array

    def unpin(self, array: NDArray[np.uint8]) -> None:
        allocation: Any = array.base
        allocation.free()

    def stream(self) -> Any:
        return self._driver.Stream(NON_BLOCKING)

    def handle_of(self, stream: Any) -> int:
        return int(stream.handle)

    def free_stream(self, stream: Any) -> None:
        """Do nothing: the stream is freed with its last reference."""

    def synchronise(self, stream: Any) -> None:
        stream.synchronize()

    def upload(self, target: int, source: NDArray[Any], stream: Any) -> None:
        self._driver.memcpy_htod_async(target, source, stream)

    def download(self, target: NDArray[Any], source: int, stream: Any) -> None:
        self._driver.memcpy_dtoh_async(target, source, stream)

    def copy(self, target: int, source: int, size: int, stream: Any) -> None:
        self._driver.memcpy_dtod_async(target, source, size, stream)

    def wait_for_stream(self, stream: Any, handle: int) -> None:
        if handle in DEFAULT_STREAMS:
            stream.wait_for_event(self._driver.Event().record(None))
        else:  # PyCUDA takes no other library's stream, so we wait for all streams
            self._driver.Context.synchronize()

    def event(self, blocking: bool) -> Any:
        flags = self._driver.event_flags
        return self._driver.Event(flags.BLOCKING_SYNC if blocking else flags.DEFAULT)

    def free_event(self, event: Any) -> None:
        """Do nothing: the event is freed with its last reference."""

    def record(self, event: Any, stream: Any) -> None:
        event.record(stream)

    def wait_for_event(self, stream: Any, event: Any) -> None:
        stream.wait_for_event(event)

    def synchronise_event(self, event: Any) -> None:
        event.synchronize()

    def ms_between(self, start: Any, end: Any) -> float:
        return float(start.time_till(end))
