"""A GPU made of numpy, and a TensorRT runtime on it that has what each version really has, and nothing else.

Work that is queued on a stream is done when the stream is waited for, not before: what reads a buffer too early, or
writes into it too soon, gets wrong numbers here as it would there.
"""

from __future__ import annotations

import ctypes
import inspect
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import fake_tensorrt
import numpy as np
import numpy.typing as npt

from segdeploy.errors import EngineError
from segdeploy.run import cuda
from segdeploy.size import Size

Array = npt.NDArray[Any]
Work = Callable[[], object]
Network = Callable[[Array], Array | tuple[Array, ...]]
TYPES = {"float32": "FLOAT", "float16": "HALF", "int32": "INT32", "int64": "INT64", "uint8": "UINT8"}


def at(address: int, shape: int | Sequence[int], dtype: npt.DTypeLike) -> Array:
    """The array that lies at an address."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(memoryview((ctypes.c_ubyte * size).from_address(address)), dtype).reshape(shape)


class FakeDevice:
    def __init__(self, name: str = "Test GPU", compute_capability: str = "8.6", room: int = 1 << 30) -> None:
        self.name, self.compute_capability, self.room = name, compute_capability, room
        self.live: set[FakeMemory | FakeGraph] = set()  # buffers and graphs that were not freed
        self.streams: dict[int, FakeStream] = {}
        self.most_under_way = 0
        self.refuse_capture = False
        self.captures = self.launches = self.clock_ms = 0
        self._here = threading.local()

    @contextmanager
    def active(self) -> Iterator[None]:
        self._here.depth = getattr(self._here, "depth", 0) + 1
        try:
            yield
        finally:
            self._here.depth -= 1

    def demand_active(self) -> None:
        assert getattr(self._here, "depth", 0) > 0, "the device is not current in this thread"

    def memory(self) -> cuda.Memory:
        return cuda.Memory(self.room - sum(one.size for one in set(self.live)), self.room)

    def allocate(self, size: int) -> FakeMemory:
        self.demand_room(size)
        return FakeMemory(self, size)

    def pin(self, size: int) -> FakePinned:
        self.demand_room(size)
        return FakePinned(self, size)

    def demand_room(self, size: int) -> None:
        self.demand_active()
        if size > self.memory().free_bytes:
            raise EngineError("out of memory")

    def event(self, blocking: bool) -> FakeEvent:
        self.demand_active()
        return FakeEvent(self, blocking)

    def stream(self) -> FakeStream:
        self.demand_active()
        return FakeStream(self)


class FakeMemory:
    def __init__(self, device: FakeDevice, size: int) -> None:
        self.device, self.size = device, size
        self.array = np.full(size, 0xA5, np.uint8)
        self.address = self.array.ctypes.data
        device.live.add(self)

    def free(self) -> None:
        self.device.demand_active()
        self.device.live.remove(self)  # twice would raise
        self.array[:] = 0x5A


class FakePinned(FakeMemory):
    def view(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        size = int(np.prod(shape)) * dtype.itemsize
        return self.array[:size].view(dtype).reshape(shape)


class FakeEvent:
    """Happens when its stream comes to it. Each piece of work takes a millisecond, and events take none."""

    stream: FakeStream  # that it was recorded in, and the device's time when it happened
    at_ms: int

    def __init__(self, device: FakeDevice, blocking: bool = False) -> None:
        self.device, self.blocking = device, blocking

    def happen(self) -> None:
        self.at_ms = self.device.clock_ms

    def wait(self) -> None:
        self.stream.synchronise()

    def synchronise(self) -> None:
        self.stream.synchronise()

    def ms_until(self, later: FakeEvent) -> float:
        return float(later.at_ms - self.at_ms)


class FakeStream:
    handles = itertools.count(1000)

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.handle = next(self.handles)
        self.queue: list[Work] = []
        self.recorded: list[Work] | None = None
        self.waited_for: list[int] = []
        device.streams[self.handle] = self

    def free(self) -> None:
        del self.device.streams[self.handle]

    def do(self, work: Work) -> None:
        self.device.demand_active()
        (self.queue if self.recorded is None else self.recorded).append(work)
        under_way = sum(bool(one.queue) for one in list(self.device.streams.values()))
        self.device.most_under_way = max(self.device.most_under_way, under_way)

    def upload(self, target: FakeMemory, source: Array) -> None:
        assert target.size >= source.nbytes
        self.do(lambda: np.copyto(at(target.address, source.shape, source.dtype), source))

    def download(self, target: Array, source: FakeMemory) -> None:
        assert source.size >= target.nbytes
        self.do(lambda: np.copyto(target, at(source.address, target.shape, target.dtype)))

    def copy(self, target: int, source: int, size: int) -> None:
        self.do(lambda: np.copyto(at(target, size, np.uint8), at(source, size, np.uint8)))

    def launch(self, kernel: Any, size: Size, arguments: Sequence[Any]) -> None:
        self.do(lambda: kernel(size, arguments))

    def record(self, event: FakeEvent) -> None:
        event.stream = self
        self.do(event.happen)

    def wait_for_event(self, event: FakeEvent) -> None:
        self.do(event.wait)

    def wait_for(self, handle: int) -> None:
        self.waited_for.append(handle)

    def synchronise(self) -> None:
        self.device.demand_active()
        queue, self.queue = self.queue, []
        for work in queue:
            work()
            if not isinstance(getattr(work, "__self__", None), FakeEvent):
                self.device.clock_ms += 1

    def capture(self, work: Work) -> FakeGraph:
        self.device.demand_active()
        self.recorded = []
        try:
            work()
            if self.device.refuse_capture:
                raise EngineError("CUDA refused a graph: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
            self.device.captures += 1
            return FakeGraph(self.device, self.recorded)
        finally:
            self.recorded = None


class FakeGraph:
    size = 0

    def __init__(self, device: FakeDevice, recorded: list[Work]) -> None:
        self.device, self.recorded = device, recorded
        device.live.add(self)

    def launch(self, stream: FakeStream) -> None:
        self.device.launches += 1
        for work in self.recorded:
            stream.do(work)

    def free(self) -> None:
        self.device.demand_active()
        self.device.live.remove(self)


PAIRS = (
    (cuda.Device, FakeDevice), (cuda.DeviceMemory, FakeMemory), (cuda.PinnedMemory, FakePinned),
    (cuda.Event, FakeEvent), (cuda.CudaStream, FakeStream), (cuda.CudaGraph, FakeGraph),
)  # fmt: skip


def methods_of(kind: type) -> dict[str, list[str]]:
    return {
        name: list(inspect.signature(value).parameters)
        for name, value in inspect.getmembers(kind, callable)
        if not name.startswith("_")
    }


# ---- TensorRT --------------------------------------------------------------------------------------------------


class FakeRuntime(ModuleType):
    """The module: its classes and enumerations are set by `fake_module`, as its version has them."""

    __version__: str
    ICudaEngine: Any
    IExecutionContext: Any
    IRuntimeConfig: Any
    IRuntimeCache: Any
    TensorIOMode: Any
    DataType: Any
    EngineValidity: Any

    def __init__(self, name: str, device: FakeDevice, networks: Mapping[str, Network]) -> None:
        super().__init__(name)
        self.device, self.networks = device, networks
        self.loaded: list[Runtime] = []
        self.contexts: list[Any] = []
        self.failures: list[str] = []  # what the next runs fail with
        self.most_contexts = 9
        self.compiled_again = 0
        self.validity: Any = None
        self.ILogger = Logger
        self.init_libnvinfer_plugins = lambda logger, namespace: True


class Value:
    def __init__(self, name: str, value: int) -> None:
        self.name, self.value = name, value

    def __int__(self) -> int:
        return self.value


def enumeration(names: Sequence[str]) -> type:
    flags = names[0] == "VERSION_MISMATCH"
    members = {name: Value(name, 1 << place if flags else place) for place, name in enumerate(names)}
    return type("Enumeration", (), members | {"__members__": members})


class Logger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = (
        f"Severity.{name}" for name in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
    )


def plan(
    network: str,
    bindings: Sequence[Sequence[Any]],
    profile: tuple[int, int, int] = (1, 1, 1),
    sides: Sequence[tuple[int, ...]] = ((),),
) -> bytes:
    """The bytes of an engine. `bindings`: [name, mode, dtype, shape with None]; `sides`: of the input, per profile."""
    facts = {"network": network, "bindings": bindings, "profile": list(profile), "sides": list(sides)}
    return json.dumps(facts).encode()


class Runtime:
    module: FakeRuntime

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        self.module.loaded.append(self)
        try:
            facts = json.loads(bytes(serialized_engine))
        except ValueError:
            self._logger.log(Logger.ERROR, "Serialization assertion magicTag failed")
            return None
        engine: ICudaEngine = self.module.ICudaEngine(facts, self._logger)
        return engine

    def get_engine_validity(self, buffer: Any) -> Any:
        return self.module.validity


class ICudaEngine:
    module: FakeRuntime

    def __init__(self, facts: dict[str, Any], logger: Any) -> None:
        self._facts, self._logger = facts, logger
        self._bindings: dict[str, tuple[str, str, list[int | None]]] = {
            name: (mode, dtype, shape) for name, mode, dtype, shape in facts["bindings"]
        }
        self.num_io_tensors = len(self._bindings)
        self.num_optimization_profiles = len(facts["sides"])
        self._contexts = 0

    def get_tensor_name(self, index: int) -> str:
        return list(self._bindings)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return getattr(self.module.TensorIOMode, self._bindings[name][0])

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self.module.DataType, TYPES[self._bindings[name][1]])

    def get_tensor_shape(self, name: str) -> list[int]:
        return [-1 if side is None else side for side in self._bindings[name][2]]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[list[int | None]]:
        sides = self._facts["sides"][profile_index] or self._bindings[name][2][1:]
        return [[batch, *sides] for batch in self._facts["profile"]]

    def create_runtime_config(self) -> Any:
        return self.module.IRuntimeConfig()

    def create_execution_context(self, config: Any = None) -> Any:
        self._contexts += 1
        if self._contexts > self.module.most_contexts:
            self._logger.log(Logger.ERROR, "Requested amount of GPU memory could not be allocated")
            return None
        context = self.module.IExecutionContext(self, config, 0 if self._contexts == 1 else -1)
        self.module.contexts.append(context)
        return context


class IExecutionContext:
    module: FakeRuntime

    def __init__(self, engine: ICudaEngine, config: Any, profile: int) -> None:
        self._engine, self._config = engine, config
        self.active_optimization_profile = profile
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] = ()

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.active_optimization_profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        self._shape = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> list[int]:
        sides = self._engine._bindings[name][2]
        return [self._shape[place] if side is None else side for place, side in enumerate(sides)]

    def set_tensor_address(self, name: str, memory: Any) -> bool:
        self._addresses[name] = int(memory)
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        module, engine = self.module, self._engine
        sides = engine._facts["sides"][self.active_optimization_profile]
        assert not sides or tuple(sides) == self._shape[1:], "the profile is another size's"
        assert set(self._addresses) == set(engine._bindings)
        if module.failures:
            engine._logger.log(Logger.ERROR, module.failures.pop(0))
            return False
        shape = self._shape

        def work() -> None:
            assert shape == self._shape, "the context's shape was changed under a captured graph"
            (eaten,) = (name for name, (mode, *_) in engine._bindings.items() if mode == "INPUT")
            outputs = [name for name, (mode, *_) in engine._bindings.items() if mode == "OUTPUT"]
            given = at(self._addresses[eaten], shape, engine._bindings[eaten][1]).copy()
            answers = module.networks[engine._facts["network"]](given)
            answers = answers if isinstance(answers, tuple) else (answers,)
            for name, answer in zip(outputs, answers, strict=True):
                np.copyto(at(self._addresses[name], answer.shape, answer.dtype), answer)

        module.device.streams[stream_handle].do(work)
        return True


class IRuntimeConfig:
    module: FakeRuntime
    cuda_graph_strategy: Any = None
    dynamic_shapes_kernel_specialization_strategy: Any = None

    def create_runtime_cache(self) -> Any:
        return self.module.IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True


class IRuntimeCache:
    module: FakeRuntime
    _loaded: bytes | None = None

    def deserialize(self, blob: bytes) -> bool:
        self._loaded = bytes(blob) if blob.startswith(b"compiled here") else None
        return self._loaded is not None

    def serialize(self) -> bytes:
        return b"compiled here" + b" again" * self.module.compiled_again


CLASSES = (Runtime, ICudaEngine, IExecutionContext, IRuntimeConfig, IRuntimeCache)
ENUMERATIONS = {
    "TensorIOMode": ("NONE", "INPUT", "OUTPUT"),
    "DataType": ("FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "INT64", "BF16"),
    "ComputeCapability": ("SM75", "SM80", "SM86", "SM89", "SM120"),
    "CudaGraphStrategy": ("DISABLED", "WHOLE_GRAPH_CAPTURE"),
    "DynamicShapesKernelSpecializationStrategy": ("LAZY", "EAGER", "NONE"),
    "EngineValidity": ("VALID", "SUBOPTIMAL", "INVALID"),
    "EngineInvalidityDiagnostics": (
        "VERSION_MISMATCH", "UNSUPPORTED_CC", "OLD_CUDA_DRIVER", "OLD_CUDA_RUNTIME", "INSUFFICIENT_GPU_MEMORY",
        "MALFORMED_ENGINE", "CUDA_ERROR",
    ),
}  # fmt: skip


def symbols(version: str) -> Set[str]:
    """What the bindings of this version hold: of TensorRT by the table, of RTX by the package itself."""
    if version == "rtx":
        import tensorrt_rtx as rtx

        return {*dir(rtx), *(f"{kind}.{name}" for kind in dir(rtx) for name in dir(getattr(rtx, kind)))}
    return fake_tensorrt.symbols(version)


def fake_module(version: str, device: FakeDevice, networks: Mapping[str, Network]) -> FakeRuntime:
    """A TensorRT runtime of this version ("rtx": TensorRT-RTX 1.7.1) that computes with `networks`."""
    known = symbols(version)
    module = FakeRuntime("tensorrt_rtx" if version == "rtx" else "tensorrt", device, networks)
    module.__version__ = "1.7.1.116" if version == "rtx" else f"{version}.7"
    for name, members in ENUMERATIONS.items():
        if name in known:
            setattr(module, name, enumeration([one for one in members if f"{name}.{one}" in known]))
    for kind in CLASSES:
        if kind.__name__ in known or (version == "rtx" and kind is IRuntimeCache):
            held = {
                name: value
                for name, value in vars(kind).items()
                if name.startswith("_") or f"{kind.__name__}.{name}" in known
            }
            for name in ("__dict__", "__weakref__"):
                held.pop(name, None)
            setattr(module, kind.__name__, type(kind.__name__, (), held | {"module": module}))
    if version == "rtx":
        module.validity = (module.EngineValidity.VALID, 0)
    return module
