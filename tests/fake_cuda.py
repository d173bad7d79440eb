"""PyCUDA and cuda-python on a driver without a GPU: fake_libcuda.c, compiled where the tests run.

The stand-in for cuda-python has the functions of NVIDIA's packages with their parameters (data/cuda_symbols.tsv), the
one for PyCUDA the names of its sources (2026.1). Both hand out objects, as theirs do, and call the driver as theirs do.
"""

from __future__ import annotations

import ctypes
import enum
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

HERE = Path(__file__).parent
COMPILER = shutil.which("cc")
SYMBOLS = HERE / "data" / "cuda_symbols.tsv"


def compile_driver(folder: Path, name: str = "driver.so") -> Path:
    path = folder / name
    command = [
        str(COMPILER),
        "-Wall",
        "-shared",
        "-fPIC",
        "-o",
        str(path),
        str(HERE / "fake_libcuda.c"),
        "-ldl",
    ]
    subprocess.run(command, check=True)
    return path


class Driver:
    """What the fake driver tells of itself."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.fake_log.restype = ctypes.c_char_p

    def calls(self) -> list[str]:
        """What was called since this was last asked."""
        lines = self.library.fake_log().decode().splitlines()
        self.library.fake_forget()
        return [line.rstrip() for line in lines]

    def live(self) -> int:
        return int(self.library.fake_live())

    def depth(self) -> int:
        """How many contexts are current in this thread."""
        return int(self.library.fake_depth())

    def fail(self, function: str, code: int) -> None:
        self.library.fake_fail(function.encode(), code)


def add_module(monkeypatch: pytest.MonkeyPatch, name: str, module: ModuleType | None) -> None:
    """None: as if it were not installed."""
    if module is not None:
        module.__spec__ = ModuleSpec(name, None)
    monkeypatch.setitem(sys.modules, name, module)


# ---- cuda-python -----------------------------------------------------------------------------------------------


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_NO_BINARY_FOR_GPU = 209
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_NOT_FOUND = 500
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class Handle:
    """A CUstream, a CUdeviceptr, …: no number, but it has one."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __int__(self) -> int:
        return self._value


POINTER = ctypes.c_uint64
# The driver's own name where it differs, and its results: their types, and where they stand among its arguments.
RESULTS: dict[str, dict[int, Any]] = {
    "cuInit": {}, "cuDeviceGet": {0: ctypes.c_int}, "cuDeviceGetAttribute": {0: ctypes.c_int},
    "cuDevicePrimaryCtxRetain": {0: POINTER}, "cuCtxPushCurrent_v2": {}, "cuCtxPopCurrent_v2": {0: POINTER},
    "cuMemGetInfo_v2": {0: ctypes.c_size_t, 1: ctypes.c_size_t}, "cuMemAlloc_v2": {0: POINTER}, "cuMemFree_v2": {},
    "cuMemHostAlloc": {0: POINTER}, "cuMemFreeHost": {}, "cuStreamCreate": {0: POINTER}, "cuStreamDestroy_v2": {},
    "cuStreamSynchronize": {}, "cuMemcpyHtoDAsync_v2": {}, "cuMemcpyDtoHAsync_v2": {}, "cuMemcpyDtoDAsync_v2": {},
    "cuEventCreate": {0: POINTER}, "cuEventDestroy_v2": {}, "cuEventRecord": {}, "cuStreamWaitEvent": {},
    "cuEventSynchronize": {}, "cuEventElapsedTime": {0: ctypes.c_float}, "cuStreamBeginCapture_v2": {},
    "cuStreamEndCapture": {1: POINTER}, "cuGraphInstantiateWithFlags": {0: POINTER}, "cuGraphDestroy": {},
    "cuGraphExecDestroy": {}, "cuGraphLaunch": {}, "cuModuleLoadData": {0: POINTER}, "cuModuleUnload": {},
    "cuModuleGetFunction": {0: POINTER}, "cuLaunchKernel": {},
}  # fmt: skip
ENTRIES = {entry.partition("_v2")[0].removesuffix("WithFlags"): entry for entry in RESULTS}


def parameters() -> dict[str, list[str]]:
    """Function to its parameters, of those that each version has."""
    _, *rows = (line.split("\t") for line in SYMBOLS.read_text().splitlines())
    return {name: found[0].split() for name, *found in rows if found and set(found) == {found[0]}}


def in_memory(argument: Any) -> Any:
    """A number as it is; bytes, and the values and types of a kernel's arguments, as what C gets the address of."""
    if isinstance(argument, bytes):
        return ctypes.create_string_buffer(argument)
    if not isinstance(argument, tuple):
        return int(argument)
    held = [kind(value) for value, kind in zip(*argument, strict=True)]
    places = (ctypes.c_void_p * len(held))(*(ctypes.addressof(one) for one in held))
    places.held = held  # type: ignore[attr-defined]
    return places


class Bindings(ModuleType):
    """cuda.bindings.driver."""

    def __init__(self, driver: Driver) -> None:
        super().__init__("cuda.bindings.driver")
        self._library, self._parameters = driver.library, parameters()
        self.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)
        self.CUdevice_attribute = SimpleNamespace(
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=75, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=76
        )

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        if name not in self._parameters:
            raise AttributeError(f"cuda-python has no {name} in each of its versions")
        wanted = self._parameters[name]

        def call(*arguments: Any) -> tuple[Any, ...]:
            assert len(arguments) == len(wanted), f"{name} takes {wanted}"
            held = [in_memory(one) for one in arguments]
            return self._call(name, *(one if isinstance(one, int) else ctypes.addressof(one) for one in held))

        return call

    def _call(self, name: str, *arguments: int) -> tuple[Any, ...]:
        if name == "cuDeviceGetName":
            text = ctypes.create_string_buffer(arguments[0])
            return CUresult(self._library[name](text, *arguments)), text.raw
        entry = ENTRIES[name]
        given: list[Any] = [POINTER(value) for value in arguments]
        results = {place: kind() for place, kind in RESULTS[entry].items()}
        for place, result in results.items():
            given.insert(place, ctypes.byref(result))
        status = CUresult(self._library[entry](*given))
        values = (Handle(one.value) if isinstance(one, POINTER) else one.value for one in results.values())
        return (status, *(None if status else value for value in values))


# ---- PyCUDA ----------------------------------------------------------------------------------------------------


class Error(Exception):
    pass


class PyCudaMemoryError(Error):
    pass


class PyCudaLogicError(Error):
    pass


class PyCudaDriver(ModuleType):
    """pycuda.driver."""

    def __init__(self, driver: Driver) -> None:
        super().__init__("pycuda.driver")
        self.Error, self.MemoryError, self.LogicError = Error, PyCudaMemoryError, PyCudaLogicError
        self._bindings = Bindings(driver)
        self._library = driver.library
        self.event_flags = SimpleNamespace(DEFAULT=0, BLOCKING_SYNC=1)
        self.Context = SimpleNamespace(synchronize=lambda: self._library.cuCtxSynchronize())

    def _do(self, name: str, *arguments: int) -> Any:
        status, *results = self._bindings._call(name, *arguments)
        if status:
            kind = PyCudaMemoryError if status == 2 else PyCudaLogicError
            words = status.name.removeprefix("CUDA_ERROR_").replace("_", " ").lower()
            raise kind(f"{name} failed: {words}")
        return int(results[0]) if len(results) == 1 and isinstance(results[0], Handle) else results

    def init(self) -> None:
        self._do("cuInit", 0)

    def Device(self, ordinal: int) -> SimpleNamespace:  # noqa: N802 # PyCUDA's name
        (device,) = self._do("cuDeviceGet", ordinal)
        context = self._do("cuDevicePrimaryCtxRetain", device)
        return SimpleNamespace(
            name=lambda: "NVIDIA Fake",
            compute_capability=lambda: (8, 6),
            retain_primary_context=lambda: SimpleNamespace(
                push=lambda: self._do("cuCtxPushCurrent", context), pop=lambda: self._do("cuCtxPopCurrent")
            ),
        )

    def mem_get_info(self) -> tuple[int, int]:
        free, total = self._do("cuMemGetInfo")
        return free, total

    def mem_alloc(self, size: int) -> Any:
        driver = self
        address: int = self._do("cuMemAlloc", size)

        class DeviceAllocation:
            def __int__(self) -> int:
                return address

            def free(self) -> None:
                driver._do("cuMemFree", address)

        return DeviceAllocation()

    def pagelocked_empty(self, shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> NDArray[Any]:
        driver, size = self, int(shape) * np.dtype(dtype).itemsize
        address = self._do("cuMemHostAlloc", size, mem_flags)

        class PagelockedHostAllocation:
            def __init__(self) -> None:
                self.__array_interface__ = {
                    "version": 3, "shape": (shape,), "typestr": np.dtype(dtype).str, "data": (address, False),
                }  # fmt: skip

            def free(self) -> None:
                driver._do("cuMemFreeHost", address)

        return np.asarray(PagelockedHostAllocation())

    def Stream(self, flags: int = 0) -> PyCudaStream:  # noqa: N802
        return PyCudaStream(self, self._do("cuStreamCreate", flags))

    def Event(self, flags: int = 0) -> PyCudaEvent:  # noqa: N802
        return PyCudaEvent(self, self._do("cuEventCreate", flags))

    def memcpy_htod_async(self, dest: int, src: NDArray[Any], stream: PyCudaStream) -> None:
        self._do("cuMemcpyHtoDAsync", int(dest), src.ctypes.data, src.nbytes, stream.handle)

    def memcpy_dtoh_async(self, dest: NDArray[Any], src: int, stream: PyCudaStream) -> None:
        self._do("cuMemcpyDtoHAsync", dest.ctypes.data, int(src), dest.nbytes, stream.handle)

    def memcpy_dtod_async(self, dest: int, src: int, size: int, stream: PyCudaStream) -> None:
        self._do("cuMemcpyDtoDAsync", int(dest), int(src), size, stream.handle)


class Freed:
    """Frees itself with its last reference, where the context is current: elsewhere PyCUDA warns, and leaks."""

    destroy = ""

    def __init__(self, driver: PyCudaDriver, handle: int) -> None:
        self._driver, self.handle = driver, handle

    def __del__(self) -> None:
        self._driver._do(self.destroy, self.handle)


class PyCudaStream(Freed):
    destroy = "cuStreamDestroy"

    def synchronize(self) -> None:
        self._driver._do("cuStreamSynchronize", self.handle)

    def wait_for_event(self, event: PyCudaEvent) -> None:
        self._driver._do("cuStreamWaitEvent", self.handle, event.handle, 0)


class PyCudaEvent(Freed):
    destroy = "cuEventDestroy"

    def record(self, stream: PyCudaStream | None = None) -> PyCudaEvent:
        self._driver._do("cuEventRecord", self.handle, 0 if stream is None else stream.handle)
        return self

    def synchronize(self) -> PyCudaEvent:
        self._driver._do("cuEventSynchronize", self.handle)
        return self

    def time_till(self, event: PyCudaEvent) -> float:
        (ms,) = self._driver._do("cuEventElapsedTime", self.handle, event.handle)
        return float(ms)
