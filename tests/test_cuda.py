"""The calls that reach PyCUDA and cuda-python, on stand-ins that keep a context stack per thread as those do."""

import ctypes
import importlib.util
import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from segdeploy.errors import EngineError, MissingExtra
from segdeploy.run import cuda


class Error(Exception):
    pass


class OutOfMemory(Error):
    pass


class Driver(ModuleType):
    """pycuda.driver: names and behaviour as in its sources (2026.1)."""

    def __init__(self):
        super().__init__("pycuda.driver")
        self.Error, self.MemoryError = Error, OutOfMemory
        self.calls, self.room, self.stacks = [], 1 << 20, {}
        self.Context = SimpleNamespace(synchronize=lambda: self.call("Context.synchronize"))

    def call(self, *what):
        assert self.stacks.get(threading.get_ident()), f"{what}: no context is current in this thread"
        self.calls.append(what if len(what) > 1 else what[0])

    def init(self):
        self.calls.append("init")

    def Device(self, ordinal):  # noqa: N802 # PyCUDA's name
        stacks = self.stacks
        context = SimpleNamespace(
            push=lambda: stacks.setdefault(threading.get_ident(), []).append(context),
            pop=lambda: stacks[threading.get_ident()].pop(),
        )
        return SimpleNamespace(
            name=lambda: "NVIDIA Test",
            compute_capability=lambda: (8, 6),
            retain_primary_context=lambda: context,
        )

    def mem_get_info(self):
        return self.room, 8 << 20

    def mem_alloc(self, size):
        if size > self.room:
            raise OutOfMemory("cuMemAlloc failed: out of memory")
        self.call("mem_alloc", size)

        class Allocation:
            def __int__(self):
                return 0x7000

            def free(inner):  # noqa: N805 # `self` is the driver
                self.call("free")

        return Allocation()

    def pagelocked_empty(self, shape, dtype):
        self.call("pagelocked_empty", shape)
        driver = self

        class Allocation:
            def __init__(self):
                self.memory = (ctypes.c_ubyte * shape)()
                self.__array_interface__ = {
                    "version": 3, "shape": (shape,), "typestr": "|u1", "data": (ctypes.addressof(self.memory), False),
                }  # fmt: skip

            def free(self):
                driver.call("pinned free")

        return np.asarray(Allocation())

    def Stream(self, flags):  # noqa: N802
        self.call("Stream", flags)
        return SimpleNamespace(
            handle=0xABC,
            synchronize=lambda: self.call("synchronize"),
            wait_for_event=lambda event: self.call("wait_for_event", event),
        )

    def Event(self):  # noqa: N802
        event = SimpleNamespace(
            synchronize=lambda: self.call("event synchronize"), time_till=lambda later: 2.5
        )
        event.record = lambda stream: (self.call("record", stream is None), event)[1]
        return event

    def memcpy_htod_async(self, dest, src, stream):
        self.call("htod", dest, src.nbytes)

    def memcpy_dtoh_async(self, dest, src, stream):
        self.call("dtoh", dest.nbytes, src)

    def memcpy_dtod_async(self, dest, src, size, stream):
        self.call("dtod", dest, src, size)


class Graphs:
    """cuda.bindings.driver: each call answers (status, results…)."""

    def __init__(self):
        self.calls, self.fail = [], None
        self.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="thread-local")

    def __getattr__(self, name):
        results = {"cuStreamEndCapture": (11,), "cuGraphInstantiate": (22,)}

        def call(*arguments):
            self.calls.append((name, *arguments))
            if self.fail == name:
                return (
                    Status(900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
                    *((None,) if name in results else ()),
                )
            return (Status(0, "CUDA_SUCCESS"), *results.get(name, ()))

        return call

    def CUstream(self, handle):  # noqa: N802
        return handle


class Status:
    def __init__(self, code, name):
        self.code, self.name = code, name

    def __int__(self):
        return self.code


@pytest.fixture
def driver(monkeypatch):
    made = Driver()
    monkeypatch.setattr(cuda, "why_no_gpu", lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    package = ModuleType("pycuda")
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", made)
    return made


@pytest.fixture
def graphs(monkeypatch):
    made = Graphs()
    monkeypatch.setattr(cuda, "graph_driver", lambda: made)
    return made


def test_a_device_and_its_memory(driver):
    device = cuda.Device()
    assert (device.name, device.compute_capability) == ("NVIDIA Test", "8.6")
    with device.active():
        assert device.memory() == (1 << 20, 8 << 20)
        memory, pinned, stream = device.allocate(24), device.pin(24), device.stream()
        view = pinned.view((2, 3), np.dtype("float32"))
        view[:] = 1
        stream.upload(memory, view)
        stream.download(view, memory)
        stream.copy(0x8000, memory.address, 24)
        stream.synchronise()
        memory.free()
        pinned.free()
    assert driver.calls == [
        "init", ("mem_alloc", 24), ("pagelocked_empty", 24), ("Stream", 1), ("htod", 0x7000, 24), ("dtoh", 24, 0x7000),
        ("dtod", 0x8000, 0x7000, 24), "synchronize", "free", "pinned free",
    ]  # fmt: skip


def test_the_context_is_current_in_each_thread_while_it_is_needed_and_no_longer(driver):
    device = cuda.Device()
    failures = []

    def work():
        try:
            with device.active(), device.active():
                device.allocate(1).free()
        except Exception as error:  # noqa: BLE001 # it would end with the thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with (
        pytest.raises(EngineError, match="CUDA failed on NVIDIA Test: cuMemcpy failed: invalid argument"),
        device.active(),
    ):
        raise Error("cuMemcpy failed:\n invalid argument")
    assert [stack for stack in driver.stacks.values() if stack] == []


def test_no_room_says_how_much_there_is(driver):
    device = cuda.Device()
    with (
        device.active(),
        pytest.raises(EngineError, match="NVIDIA Test has 1 of its 8 MiB free, and 3 MiB more"),
    ):
        device.allocate(3 << 20)


def test_events(driver):
    device = cuda.Device()
    with device.active():
        stream = device.stream()
        start = stream.mark()
        end = stream.mark()
        end.synchronise()
        assert start.ms_until(end) == 2.5


def test_other_librarys_streams_are_waited_for(driver):
    device = cuda.Device()
    with device.active():
        stream = device.stream()
        driver.calls.clear()
        stream.wait_for(1)
        assert [call if isinstance(call, str) else call[:2][0] for call in driver.calls] == [
            "record",
            "wait_for_event",
        ]
        assert driver.calls[0] == ("record", True)
        driver.calls.clear()
        stream.wait_for(0x7F00)
        assert driver.calls == ["Context.synchronize"]


def test_a_graph(driver, graphs):
    device, done = cuda.Device(), []
    with device.active():
        stream = device.stream()
        graph = stream.capture(lambda: done.append("work"))
        graph.launch(stream)
        graph.free()
    assert done == ["work"]
    assert graphs.calls == [
        ("cuStreamBeginCapture", 0xABC, "thread-local"), ("cuStreamEndCapture", 0xABC), ("cuGraphInstantiate", 11, 0),
        ("cuGraphDestroy", 11), ("cuGraphLaunch", 22, 0xABC), ("cuGraphExecDestroy", 22),
    ]  # fmt: skip


def test_a_capture_is_ended_when_the_work_fails(driver, graphs):
    def fail():
        raise ValueError("no")

    device = cuda.Device()
    with device.active(), pytest.raises(ValueError, match="no"):
        device.stream().capture(fail)
    assert [call[0] for call in graphs.calls] == [
        "cuStreamBeginCapture",
        "cuStreamEndCapture",
        "cuGraphDestroy",
    ]


@pytest.mark.parametrize(
    ("fail", "calls"),
    [("cuStreamBeginCapture", 1), ("cuStreamEndCapture", 2), ("cuGraphInstantiate", 4)],
)
def test_what_cuda_refuses_of_a_graph(fail, calls, driver, graphs):
    graphs.fail = fail
    device = cuda.Device()
    with (
        device.active(),
        pytest.raises(EngineError, match="CUDA refused a graph: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
    ):
        device.stream().capture(lambda: None)
    assert len(graphs.calls) == calls


def test_cuda_python_of_both_layouts(monkeypatch):
    cuda.graph_driver.cache_clear()
    older = ModuleType("cuda.cuda")
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    monkeypatch.setitem(sys.modules, "cuda.cuda", None)
    with pytest.raises(MissingExtra, match=r"pip install 'segdeploy\[cuda\]'"):
        cuda.graph_driver()
    monkeypatch.setitem(sys.modules, "cuda.cuda", older)
    assert cuda.graph_driver() is older
    cuda.graph_driver.cache_clear()
    newer = ModuleType("cuda.bindings.driver")
    monkeypatch.setitem(sys.modules, "cuda.bindings", ModuleType("cuda.bindings"))
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", newer)
    assert cuda.graph_driver() is newer
    cuda.graph_driver.cache_clear()


# ---- why there is no GPU ---------------------------------------------------------------------------------------


def library(monkeypatch, status=0, count=1):
    def count_into(pointer):
        pointer._obj.value = count
        return 0

    found = SimpleNamespace(cuInit=lambda flags: status, cuDeviceGetCount=count_into)
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: found)


def test_no_driver(monkeypatch):
    monkeypatch.setattr(cuda, "DRIVER", "libnosuchdriver.so.1")
    assert cuda.why_no_gpu() == "no GPU (the NVIDIA driver's libnosuchdriver.so.1 is not here)"


@pytest.mark.parametrize(("status", "count"), [(100, 0), (0, 0), (35, 1)])
def test_a_driver_without_a_gpu(status, count, monkeypatch):
    library(monkeypatch, status, count)
    assert cuda.why_no_gpu() == f"no GPU (the NVIDIA driver finds none: CUDA error {status})"


def test_a_gpu_without_pycuda(monkeypatch):
    library(monkeypatch)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cuda.why_no_gpu() == "no PyCUDA: pip install 'segdeploy[cuda]'"
    with pytest.raises(MissingExtra):
        cuda.Device()


def test_a_gpu(monkeypatch):
    library(monkeypatch)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert cuda.why_no_gpu() is None


def test_a_device_where_there_is_none(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(cuda, "DRIVER", "libnosuchdriver.so.1")
    with pytest.raises(
        EngineError, match=r"an engine runs on an NVIDIA GPU, and there is no GPU \(.*runs anywhere"
    ):
        cuda.Device()


def test_a_pycuda_for_another_cuda(driver, monkeypatch):
    def fail(name):
        raise ImportError("libcudart.so.11.0: cannot open shared object file")

    monkeypatch.setattr(cuda.importlib, "import_module", fail)
    with pytest.raises(EngineError, match=r"PyCUDA is installed and cannot be loaded \(libcudart\.so\.11\.0"):
        cuda.Device()
