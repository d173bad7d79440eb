"""The GPU through PyCUDA and through cuda-python: the same behaviour, on a driver without a GPU (fake_libcuda.c).

`test_cuda_python_itself` runs this file again in a process where that driver is the system's, with the real package.
"""

import ctypes
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from emulated_kernels import COMPILER as CXX
from emulated_kernels import HEADER, NumpyBatch, compile_kernels, signature_of
from fake_cuda import (
    COMPILER,
    ENTRIES,
    Bindings,
    Driver,
    PyCudaDriver,
    add_module,
    compile_driver,
    parameters,
)

from segdeploy import gpus
from segdeploy.errors import EngineError, MissingExtra
from segdeploy.picture import image
from segdeploy.run import cuda, cuda_python, frames
from segdeploy.run.io import to_input
from segdeploy.size import Size

REAL = "SEGDEPLOY_TEST_LIBCUDA"  # the path of the driver, in the process that has it as its system's
WAYS = ("cuda-python",) if REAL in os.environ else ("PyCUDA", "cuda-python")
needs_compiler = pytest.mark.skipif(CXX is None, reason="there is no g++ here to compile a kernel with")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return Path(os.environ.get(REAL) or compile_driver(tmp_path_factory.mktemp("driver")))


@pytest.fixture
def driver(library, monkeypatch):
    """A machine with the driver, and neither package."""
    monkeypatch.setattr(gpus, "DRIVER", str(library))
    for name in ("pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.driver"):
        if REAL not in os.environ:
            add_module(monkeypatch, name, None)
    found = Driver(library)
    found.calls()
    cuda.graph_calls.cache_clear()
    yield found
    cuda.graph_calls.cache_clear()


def install(name, driver, monkeypatch):
    if name == "PyCUDA":
        add_module(monkeypatch, "pycuda", ModuleType("pycuda"))
        add_module(monkeypatch, "pycuda.driver", PyCudaDriver(driver))
    elif REAL not in os.environ:
        for module in (ModuleType("cuda"), ModuleType("cuda.bindings"), Bindings(driver)):
            add_module(monkeypatch, module.__name__, module)


@pytest.fixture(params=WAYS)
def device(request, driver, monkeypatch):
    """A device through one of the packages. Graphs are cuda-python's, so that is there too."""
    install("cuda-python", driver, monkeypatch)
    install(request.param, driver, monkeypatch)
    before = driver.live()
    made = cuda.open_device.__wrapped__()
    assert made.calls.name == request.param
    yield made
    assert (driver.live() - before, driver.depth()) == (0, 0)


FLOATS = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.slow
def test_memory_there_and_back(device, driver):
    assert (device.name, device.compute_capability) == ("NVIDIA Fake", "8.6")
    with device.active():
        assert device.memory() == (1 << 20, 8 << 20)
        memory, other, pinned, stream = (
            device.allocate(24),
            device.allocate(24),
            device.pin(24),
            device.stream(),
        )
        assert device.memory() == ((1 << 20) - 3 * 24, 8 << 20)
        view = pinned.view((2, 3), np.dtype("float32"))
        view[:] = FLOATS
        stream.upload(memory, view)
        stream.copy(other.address, memory.address, 24)
        view[:] = -1
        stream.download(view, other)
        stream.synchronise()
        assert np.array_equal(view, FLOATS)
        for one in (memory, other, pinned, stream):
            one.free()
    assert driver.calls() == [
        "cuMemGetInfo", "cuMemAlloc 24", "cuMemAlloc 24", "cuMemHostAlloc 24 0", "cuStreamCreate 1", "cuMemGetInfo",
        "cuMemcpyHtoDAsync 24", "cuMemcpyDtoDAsync 24", "cuMemcpyDtoHAsync 24", "cuStreamSynchronize", "cuMemFree",
        "cuMemFree", "cuMemFreeHost", "cuStreamDestroy",
    ]  # fmt: skip


def test_a_view_is_the_beginning_of_pinned_memory(device):
    with device.active():
        pinned = device.pin(24)
        whole, part = pinned.view((24,), np.dtype("uint8")), pinned.view((2, 1), np.dtype("int32"))
        whole[:] = range(24)
        assert part.tolist() == [[0x03020100], [0x07060504]]
        del whole, part
        pinned.free()


def test_the_context_is_current_in_each_thread_while_it_is_needed_and_no_longer(device, driver):
    failures = []

    def work():
        try:
            with device.active(), device.active():
                device.allocate(1).free()
            assert driver.depth() == 0
        except Exception as error:  # noqa: BLE001 # it would end with the thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with pytest.raises(Exception, match=r"cuMemGetInfo failed: (CUDA_ERROR_INVALID_CONTEXT|invalid context)"):
        device.memory()


def test_what_cuda_refuses_is_said_of_the_gpu(device, driver):
    with device.active():
        memory = device.allocate(8)
        memory.free()
    with (
        pytest.raises(
            EngineError, match=r"(?i)^CUDA failed on NVIDIA Fake: cuMemFree failed: .*invalid.value$"
        ),
        device.active(),
    ):
        memory.free()


def test_no_room_says_how_much_there_is(device):
    with device.active(), pytest.raises(EngineError) as refusal:
        device.allocate(3 << 20)
    assert str(refusal.value) == (
        "NVIDIA Fake has 1 of its 8 MiB free, and 3 MiB more are needed; end what else runs on it, or build the engine"
        " for a smaller batch with --batch"
    )


def test_events_tell_the_time_between_them(device, driver):
    with device.active():
        memory, stream, other = device.allocate(24), device.stream(), device.stream()
        start, end, again = device.event(False), device.event(blocking=True), device.event(False)
        stream.record(start)
        stream.upload(memory, FLOATS)
        stream.record(end)
        other.wait_for_event(end)
        other.upload(memory, FLOATS)
        other.record(again)
        again.synchronise()
        assert (start.ms_until(end), start.ms_until(again)) == (1, 2)
        other.record(end)  # an event can be recorded again
        assert start.ms_until(end) == 2
        for one in (memory, stream, other):
            one.free()
    calls = driver.calls()
    assert [call for call in calls if call.startswith("cuEventCreate")] == [
        "cuEventCreate 0",
        "cuEventCreate 1",
        "cuEventCreate 0",
    ]
    assert calls.index("cuStreamWaitEvent 0") > calls.index("cuEventRecord")


def test_an_event_is_freed_where_its_last_reference_goes(device, driver):
    with device.active():
        events = [device.event(False)]
    held = driver.live()
    thread = threading.Thread(target=events.clear)
    thread.start()
    thread.join()
    assert (driver.live(), driver.depth()) == (held - 1, 0)


@pytest.mark.parametrize("handle", [0, 1, 2])
def test_the_default_streams_are_waited_for(handle, device, driver):
    with device.active():
        stream = device.stream()
        driver.calls()
        stream.wait_for(handle)
        create, *others = driver.calls()
        assert create.startswith("cuEventCreate")
        assert others == ["cuEventRecord default", "cuStreamWaitEvent 0", "cuEventDestroy"]
        stream.free()


def test_another_librarys_stream_is_waited_for(device, driver):
    with device.active():
        stream, theirs = device.stream(), device.stream()
        driver.calls()
        stream.wait_for(theirs.handle)
        expected = ["cuEventCreate 2", "cuEventRecord", "cuStreamWaitEvent 0", "cuEventDestroy"]
        assert driver.calls() == (["cuCtxSynchronize"] if device.calls.name == "PyCUDA" else expected)
        stream.free()
        theirs.free()


def test_a_graph_is_recorded_and_not_run_and_then_replayed(device, driver):
    with device.active():
        memory, stream, numbers = device.allocate(24), device.stream(), np.zeros((2, 3), np.float32)
        stream.upload(memory, numbers)
        graph = stream.capture(lambda: stream.upload(memory, FLOATS))
        stream.download(numbers, memory)
        stream.synchronise()
        assert not numbers.any()
        driver.calls()
        graph.launch(stream)
        stream.download(numbers, memory)
        stream.synchronise()
        assert np.array_equal(numbers, FLOATS)
        graph.free()
        assert driver.calls() == [
            "cuGraphLaunch", "cuMemcpyDtoHAsync 24", "cuStreamSynchronize", "cuGraphExecDestroy",
        ]  # fmt: skip
        memory.free()
        stream.free()


def test_a_stream_outlives_a_capture_that_failed(device, driver):
    def fail():
        raise ValueError("in the middle")

    with device.active():
        memory, stream = device.allocate(24), device.stream()
        with pytest.raises(ValueError, match="in the middle"):
            stream.capture(fail)
        with pytest.raises(EngineError, match=r"(?i)stream.capture.unsupported"), device.active():
            stream.capture(stream.synchronise)  # waiting is not allowed while it is recorded
        stream.upload(memory, FLOATS)
        stream.synchronise()
        memory.free()
        stream.free()


@pytest.mark.parametrize("function", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_what_cuda_refuses_of_a_graph(function, device, driver):
    with device.active():
        stream = device.stream()
        driver.fail(function, 900)
        with pytest.raises(EngineError) as refusal:
            stream.capture(lambda: None)
        assert str(refusal.value) == f"{function} failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
        stream.synchronise()
        stream.free()


@pytest.fixture(scope="module")
def raising_image(tmp_path_factory):
    """What NVRTC would give of a kernel that adds a number, for this driver."""
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "add.cu").write_text(
        f'#include "{HEADER}"\n'
        'extern "C" __global__ void add(float* values, int width, float more) {\n'
        "    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;\n"
        "    if (x < width && y < 2) values[y * width + x] += more;\n}\n"
        "EMULATED_KERNEL(add)\n"
    )
    command = [
        "g++",
        "-std=c++14",
        "-fPIC",
        "-shared",
        "-x",
        "c++",
        folder / "add.cu",
        "-o",
        folder / "add.so",
    ]
    subprocess.run(command, check=True)
    return bytes(folder / "add.so") + b"\0"


@pytest.mark.slow
@needs_compiler
def test_a_kernel_is_loaded_launched_and_unloaded(device, driver, raising_image):
    calls = cuda.graph_calls()
    with device.active():
        memory, stream, numbers = device.allocate(24), device.stream(), FLOATS.copy()
        module = calls.load_module(raising_image)
        kernel = calls.function_of(module, "add")
        stream.upload(memory, numbers)
        driver.calls()
        stream.launch(kernel, Size(2, 3), [ctypes.c_void_p(memory.address), 3, 0.5])
        stream.launch(kernel, Size(9, 65), [ctypes.c_void_p(memory.address), 3, 1.0])
        stream.download(numbers, memory)
        stream.synchronise()
        assert np.array_equal(numbers, FLOATS + 1.5)
        assert driver.calls()[:2] == ["cuLaunchKernel 1 1 1, 32 8 1", "cuLaunchKernel 3 2 1, 32 8 1"]
        with pytest.raises(EngineError, match="cuModuleGetFunction failed: CUDA_ERROR_NOT_FOUND"):
            calls.function_of(module, "subtract")
        with pytest.raises(EngineError, match="cuModuleLoadData failed: CUDA_ERROR_NO_BINARY_FOR_GPU"):
            calls.load_module(b"/no/such/library\0")
        calls.unload_module(module)
        memory.free()
        stream.free()


@pytest.mark.slow
@needs_compiler
def test_frames_are_labelled_through_the_driver(device, driver, tmp_path, monkeypatch):
    """All but NVRTC and the GPU: memory, tables, launches with their arguments' types, and what comes back."""
    signature = signature_of("logits", classes=5, size=(32, 48), sides=(8, 12))
    macros, draw = frames.macros_for(signature), np.random.default_rng(0)
    library = bytes(compile_kernels(macros, tmp_path / "kernels.so")) + b"\0"
    monkeypatch.setattr(frames, "compile_for", lambda capability, source, given: library)
    given = [draw.integers(0, 256, (*size, 3), np.uint8) for size in ((20, 31), (50, 33))]
    answer = draw.standard_normal((2, 5, 8, 12)).astype(np.float32)
    with device.active():
        kernels, unload = frames.load_kernels(device, signature)
        labelled, batch = frames.FrameLabels(device, kernels), NumpyBatch(device, signature, answer, 1 << 17)
        for turn in (given, given[::-1]):
            labels = labelled.label(batch, signature, turn, 2, "stretch", "linear")
            fitted = [image.fit(frame, signature.size) for frame in turn]
            assert np.array_equal(batch.input, to_input(signature, np.stack([one for one, _ in fitted])))
            for one, logits, (_, geometry) in zip(labels, answer, fitted, strict=True):
                assert np.array_equal(one, image.unfit_logits(logits, signature.size, geometry, False))
        for one in (labelled, batch):
            one.free()
        unload()


def test_an_array_that_does_not_lie_in_one_piece(device):
    with device.active():
        memory, stream = device.allocate(24), device.stream()
        if device.calls.name == "cuda-python":  # PyCUDA refuses it by itself
            with pytest.raises(ValueError, match="is not contiguous"):
                stream.upload(memory, FLOATS[:, ::2])
        memory.free()
        stream.free()


# ---- which package ---------------------------------------------------------------------------------------------


def test_the_functions_that_are_called_are_cuda_pythons():
    source = Path(cuda_python.__file__).read_text()
    called = set(re.findall(r'"(cu[A-Z]\w+)"|_driver\.(cu[A-Z]\w+)', source))
    names = {first or second for first, second in called}
    assert names - {"cuDeviceGetName"} == set(ENTRIES)
    assert names <= set(parameters())


@pytest.mark.parametrize(
    ("installed", "expected"),
    [(["PyCUDA"], "PyCUDA"), (["cuda-python"], "cuda-python"), (["PyCUDA", "cuda-python"], "PyCUDA")],
)
def test_pycuda_is_used_where_it_is_installed(installed, expected, driver, monkeypatch):
    if REAL in os.environ:
        pytest.skip("what is installed is there")
    for name in installed:
        install(name, driver, monkeypatch)
    assert cuda.why_no_gpu() is None
    assert cuda.open_device.__wrapped__().calls.name == expected


def test_pycuda_alone_has_no_graphs(driver, monkeypatch):
    if REAL in os.environ:
        pytest.skip("cuda-python is there")
    install("PyCUDA", driver, monkeypatch)
    device = cuda.open_device.__wrapped__()
    with device.active():
        stream = device.stream()
        with pytest.raises(MissingExtra) as refusal:
            stream.capture(lambda: None)
        assert str(refusal.value) == (
            "a CUDA graph needs cuda-python, which is not installed: pip install 'segdeploy[cuda]'"
        )
        stream.free()


@pytest.mark.parametrize("instead", [True, False])
def test_a_pycuda_for_another_cuda(instead, driver, monkeypatch):
    if REAL in os.environ:
        pytest.skip("there is no PyCUDA")

    def broken():
        raise ImportError("libcudart.so.11.0: cannot open shared object file")

    add_module(monkeypatch, "pycuda", ModuleType("pycuda"))
    monkeypatch.setattr(cuda, "PyCuda", broken)
    if instead:
        install("cuda-python", driver, monkeypatch)
        assert cuda.open_device.__wrapped__().calls.name == "cuda-python"
        return
    with pytest.raises(EngineError) as refusal:
        cuda.open_device.__wrapped__()
    assert str(refusal.value) == (
        "PyCUDA is installed and cannot be loaded (libcudart.so.11.0: cannot open shared object file): it is compiled"
        " for one CUDA. Take cuda-python in its place: pip install 'segdeploy[cuda]'"
    )


def test_neither_package(driver):
    if REAL in os.environ:
        pytest.skip("cuda-python is there")
    assert cuda.why_no_gpu() == "no cuda-python: pip install 'segdeploy[cuda]'"
    with pytest.raises(
        MissingExtra, match=r"running an engine needs cuda-python, .* pip install 'segdeploy\[cuda\]'"
    ):
        cuda.open_device.__wrapped__()


def test_a_gpu_that_cannot_be_opened(driver, monkeypatch):
    install("cuda-python", driver, monkeypatch)
    monkeypatch.setattr(cuda_python.CudaPython, "open", lambda self: self.call("cuDeviceGet", 3))
    with pytest.raises(EngineError) as refusal:
        cuda.open_device.__wrapped__()
    assert str(refusal.value) == (
        "the GPU cannot be opened through cuda-python: cuDeviceGet failed: CUDA_ERROR_NO_DEVICE"
    )


def test_a_function_that_an_old_driver_lacks(driver, monkeypatch):
    if REAL in os.environ:
        pytest.skip("its driver has all that is called")
    install("cuda-python", driver, monkeypatch)
    calls = cuda_python.CudaPython()

    def lacking():
        raise RuntimeError("function cuMemGetInfo_v2 is not found")

    monkeypatch.setattr(calls._driver, "cuMemGetInfo", lacking, raising=False)
    with pytest.raises(
        cuda_python.CudaError, match="cuMemGetInfo failed: function cuMemGetInfo_v2 is not found"
    ):
        calls.memory()


@pytest.mark.slow
def test_cuda_python_itself(library, tmp_path):
    """The real package finds the fake driver as it would find NVIDIA's."""
    if REAL in os.environ:
        pytest.skip("this is it")
    pytest.importorskip("cuda.bindings", reason="pip install 'segdeploy[cuda]'")
    path = compile_driver(tmp_path, "libcuda.so.1")
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(Path(__file__).resolve())]
    environment = {**os.environ, REAL: str(path), "LD_LIBRARY_PATH": str(tmp_path)}
    environment.pop("CI", None)  # what is skipped there was tested here
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b(\d+) passed", done.stdout), done.stdout


# ---- what the driver says --------------------------------------------------------------------------------------


def test_the_driver_is_asked_as_it_is_declared(driver):
    assert gpus.ask_driver() == {
        "cuda": [13, 0],
        "gpus": [
            {
                "name": "NVIDIA Fake",
                "compute_capability": [8, 6],
                "memory_bytes": 8 << 20,
                "bus_id": "0000:01:00.0",
            }
        ],
    }


def test_no_driver(monkeypatch):
    monkeypatch.setattr(gpus, "DRIVER", "libnosuchdriver.so.1")
    assert gpus.ask_driver() == {}
    assert cuda.why_no_gpu() == "no GPU (the NVIDIA driver's libcuda.so.1 is not here)"
    with pytest.raises(
        EngineError, match=r"an engine runs on an NVIDIA GPU, and there is no GPU \(.*runs anywhere"
    ):
        cuda.open_device.__wrapped__()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": "cuInit failed with code 100"}, "cuInit failed with code 100"),
        ({"cuda": [12, 6], "gpus": []}, "it counts 0"),
    ],
)
def test_a_driver_without_a_gpu(answer, words, monkeypatch):
    monkeypatch.setattr(cuda, "ask_driver", lambda: answer)
    assert cuda.why_no_gpu() == f"no GPU (the NVIDIA driver finds none: {words})"


def test_a_driver_that_does_not_start(monkeypatch):
    class Library:
        def __init__(self, name):
            self.cuInit = lambda flags: 803

    monkeypatch.setattr(ctypes, "CDLL", Library)
    assert gpus.ask_driver() == {"error": "cuInit failed with code 803"}


@pytest.mark.parametrize(("number", "version"), [(12060, [12, 6]), (11040, [11, 4]), (13000, [13, 0])])
def test_cudas_way_to_write_a_version(number, version):
    assert gpus.version_parts(number) == version
