"""PyCUDA and cuda-python themselves: memory, streams, events, graphs and contexts, with a kernel that doubles."""

import ctypes
import threading

import numpy as np
import pytest

from segdeploy.errors import EngineError
from segdeploy.run import cuda

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
        import pycuda.driver as driver

        self.device = device
        self.module = driver.module_from_buffer(TWICE)
        self.kernel = self.module.get_function("twice")
        self.stream = device.stream()
        self.memory, self.pinned = device.allocate(4 * COUNT), device.pin(4 * COUNT)
        self.numbers = self.pinned.view((COUNT,), np.dtype(np.float32))

    def upload(self):
        self.numbers[:] = np.arange(COUNT)
        self.stream.upload(self.memory, self.numbers)

    def twice(self):
        grid = ((COUNT + 255) // 256, 1)
        self.kernel(
            np.uint64(self.memory.address),
            np.uint32(COUNT),
            block=(256, 1, 1),
            grid=grid,
            stream=self.stream._stream,
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
        del self.kernel, self.module


@pytest.fixture
def doubling(gpu):
    with gpu.active():
        made = Doubling(gpu)
        yield made
        made.free()


def test_memory_there_and_back(gpu, doubling):
    doubling.upload()
    assert doubling.times() == 1
    other = gpu.allocate(4 * COUNT)
    doubling.stream.copy(other.address, doubling.memory.address, 4 * COUNT)
    doubling.numbers[:] = -1
    doubling.stream.download(doubling.numbers, other)
    doubling.stream.synchronise()
    assert np.array_equal(doubling.numbers, np.arange(COUNT, dtype=np.float32))
    other.free()


def test_memory_is_counted_and_freed(gpu):
    with gpu.active():
        before = gpu.memory()
        assert 0 < before.free_bytes <= before.total_bytes
        memory = gpu.allocate(256 << 20)
        assert gpu.memory().free_bytes <= before.free_bytes - (200 << 20)
        memory.free()
        assert gpu.memory().free_bytes >= before.free_bytes - (32 << 20)
        with pytest.raises(EngineError, match=r"MiB free, and \d+ MiB more are needed"):
            gpu.allocate(before.total_bytes * 2)


def test_a_kernel_and_events(doubling, seen):
    doubling.upload()
    start = doubling.stream.mark()
    for _ in range(10):
        doubling.twice()
    end = doubling.stream.mark()
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
    seen["cuda_graph"] = cuda.graph_driver().__name__


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


def test_threads_have_the_context_while_they_need_it(gpu):
    wrong = []

    def work(seed):
        numbers = np.random.default_rng(seed).random(1 << 18, np.float32)
        for _ in range(20):
            with gpu.active():
                stream, memory, pinned = gpu.stream(), gpu.allocate(numbers.nbytes), gpu.pin(numbers.nbytes)
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


def test_what_was_current_before_is_current_after(gpu):
    driver = ctypes.CDLL(cuda.DRIVER)

    def current():
        context = ctypes.c_void_p()
        assert driver.cuCtxGetCurrent(ctypes.byref(context)) == 0
        return context.value

    before = current()
    with gpu.active():
        inside = current()
        with gpu.active():
            assert current() == inside
        assert current() == inside
    assert inside is not None
    assert current() == before
