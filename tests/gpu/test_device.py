"""cuda-python itself, and PyCUDA where it is there: memory, streams, events, graphs and contexts; a kernel doubles."""

import ctypes
import threading

import numpy as np
import pytest

from segdeploy import gpus
from segdeploy.errors import EngineError
from segdeploy.run import cuda
from segdeploy.run.cuda_pycuda import PyCuda
from segdeploy.run.cuda_python import CudaPython

WAYS = (CudaPython, PyCuda) if cuda.is_here("pycuda") else (CudaPython,)

# PTX, which the driver compiles: no CUDA compiler is needed.
TWICE = b"""
.version 6.4
.target sm_75
.address_size 64
.visible .entry twice(.param .u64 twice_data, .param .u32 twice_count)
{
  .reg .pred %p<2>;
  .reg .f32 %f<3>;
  .reg .b32 %r<6>;
  .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [twice_data];
  ld.param.u32 %r1, [twice_count];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.u32 %p1, %r5, %r1;
  @%p1 bra DONE;
  cvta.to.global.u64 %rd2, %rd1;
  mul.wide.u32 %rd3, %r5, 4;
  add.s64 %rd4, %rd2, %rd3;
  ld.global.f32 %f1, [%rd4];
  add.f32 %f2, %f1, %f1;
  st.global.f32 [%rd4], %f2;
DONE:
  ret;
}
\0"""
COUNT = 1 << 20


class Doubling:
    """Numbers on the GPU, and the kernel; made and used with the device active."""

    def __init__(self, device):
        self.device = device
        self.calls = cuda.graph_calls()
        self.module = self.calls.call("cuModuleLoadData", TWICE)
        self.kernel = self.calls.call("cuModuleGetFunction", self.module, b"twice")
        self.stream = device.stream()
        self.memory, self.pinned = device.allocate(4 * COUNT), device.pin(4 * COUNT)
        self.numbers = self.pinned.view((COUNT,), np.dtype(np.float32))

    def upload(self):
        self.numbers[:] = np.arange(COUNT)
        self.stream.upload(self.memory, self.numbers)

    def twice(self):
        blocks = (COUNT + 255) // 256
        given = ((self.memory.address, COUNT), (ctypes.c_void_p, ctypes.c_uint32))
        self.calls.call(
            "cuLaunchKernel", self.kernel, blocks, 1, 1, 256, 1, 1, 0, self.stream.handle, given, 0
        )

    def times(self):
        """By what all numbers were multiplied."""
        self.numbers[:] = -1
        self.stream.download(self.numbers, self.memory)
        self.stream.synchronise()
        assert np.array_equal(self.numbers / self.numbers[1], np.arange(COUNT, dtype=np.float32))
        return float(self.numbers[1])

    def free(self):
        self.memory.free()
        self.pinned.free()
        self.stream.free()
        self.calls.call("cuModuleUnload", self.module)


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def device(request):
    return cuda.Device(request.param())


@pytest.fixture
def doubling(device):
    with device.active():
        made = Doubling(device)
        yield made
        made.free()


def test_memory_there_and_back(device, doubling):
    doubling.upload()
    assert doubling.times() == 1
    other = device.allocate(4 * COUNT)
    doubling.stream.copy(other.address, doubling.memory.address, 4 * COUNT)
    doubling.numbers[:] = -1
    doubling.stream.download(doubling.numbers, other)
    doubling.stream.synchronise()
    assert np.array_equal(doubling.numbers, np.arange(COUNT, dtype=np.float32))
    other.free()


def test_memory_is_counted_and_freed(device):
    with device.active():
        before = device.memory()
        assert 0 < before.free_bytes <= before.total_bytes
        memory = device.allocate(256 << 20)
        assert device.memory().free_bytes <= before.free_bytes - (200 << 20)
        memory.free()
        assert device.memory().free_bytes >= before.free_bytes - (32 << 20)
        with pytest.raises(EngineError, match=r"MiB free, and \d+ MiB more are needed"):
            device.allocate(before.total_bytes * 2)


def test_a_kernel_and_events(doubling, seen):
    doubling.upload()
    start, end = doubling.device.event(False), doubling.device.event(True)
    doubling.stream.record(start)
    for _ in range(10):
        doubling.twice()
    doubling.stream.record(end)
    end.synchronise()
    assert 0 < start.ms_until(end) < 1000
    assert doubling.times() == 1024


def test_a_graph_is_recorded_and_not_run_and_then_replayed(doubling, seen):
    doubling.upload()
    graph = doubling.stream.capture(doubling.twice)
    assert doubling.times() == 1
    for _ in range(3):
        graph.launch(doubling.stream)
    assert doubling.times() == 8
    graph.free()
    seen.setdefault("cuda_graphs", []).append(doubling.device.calls.name)


def test_a_stream_outlives_a_capture_that_failed(doubling):
    def fail():
        doubling.twice()
        raise ValueError("in the middle")

    doubling.upload()
    doubling.stream.synchronise()
    with pytest.raises(ValueError, match="in the middle"):
        doubling.stream.capture(fail)
    with pytest.raises(EngineError, match="CUDA"), doubling.device.active():
        # Waiting for a stream is not allowed while it is recorded.
        doubling.stream.capture(doubling.stream.synchronise)
    doubling.twice()
    assert doubling.times() == 2


def test_waiting_for_another_librarys_stream(doubling):
    for handle in (0, 1, 2):
        doubling.stream.wait_for(handle)
    other = doubling.device.stream()
    doubling.stream.wait_for(other.handle)
    doubling.upload()
    assert doubling.times() == 1
    other.free()


def test_threads_have_the_context_while_they_need_it(device):
    wrong = []

    def work(seed):
        numbers = np.random.default_rng(seed).random(1 << 18, np.float32)
        for _ in range(20):
            with device.active():
                stream, memory, pinned = (
                    device.stream(),
                    device.allocate(numbers.nbytes),
                    device.pin(numbers.nbytes),
                )
                view = pinned.view(numbers.shape, numbers.dtype)
                view[:] = numbers
                stream.upload(memory, view)
                view2 = np.empty_like(numbers)
                stream.download(view2, memory)
                stream.synchronise()
                if not np.array_equal(view2, numbers):
                    wrong.append(seed)
                memory.free()
                pinned.free()
                stream.free()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_was_current_before_is_current_after(device):
    driver = ctypes.CDLL(gpus.DRIVER)

    def current():
        context = ctypes.c_void_p()
        assert driver.cuCtxGetCurrent(ctypes.byref(context)) == 0
        return context.value

    before = current()
    with device.active():
        inside = current()
        with device.active():
            assert current() == inside
        assert current() == inside
    assert inside is not None
    assert current() == before
