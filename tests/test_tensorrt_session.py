"""The session's logic, on a GPU and a runtime made of numpy that hold what each TensorRT really holds."""

import argparse
import json
import sys
import threading
from dataclasses import fields, replace

import emulated_kernels
import fake_runtime
import numpy as np
import pytest
from engine_records import facts_of_engine, record_of_engine
from fake_runtime import FakeDevice, fake_module, plan

from segdeploy import flavour
from segdeploy.cli import build_engine
from segdeploy.errors import EngineError, GraphError, MissingExtra, RequestError
from segdeploy.files import digest_of
from segdeploy.model.engine import EngineGpu, EngineMemory, EngineOptions, Verified, flag_of
from segdeploy.model.labels import generated_labels
from segdeploy.model.record import record_path
from segdeploy.model.signature import Signature, TensorFacts
from segdeploy.run import cuda, frames
from segdeploy.run.device_array import DeviceArray
from segdeploy.run.session import DeviceSession, open_session, segment, segment_many
from segdeploy.run.tensorrt import compatibility
from segdeploy.run.tensorrt.engine import why_invalid
from segdeploy.run.tensorrt.log import logger_of
from segdeploy.run.tensorrt.session import TensorrtSession
from segdeploy.size import Size

VERSIONS = ("8.6.1", "10.3.0", "10.16.1", "11.4.0", "rtx")
OPEN_DEVICE = cuda.open_device.__wrapped__
HEIGHT, WIDTH = 64, 96


def brightest(frames):
    """A network: which channel is the largest."""
    return frames.argmax(3).astype(np.uint8)


def frames_of(batch, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, HEIGHT, WIDTH, 3), np.uint8)


NETWORKS = {
    "brightest": brightest,
    "with a second output": lambda frames: (brightest(frames), frames[:, :, :, 0].astype(np.float32)),
    "normalised": lambda pixels: pixels.argmax(1, keepdims=True).astype(np.int32),
}


class Machine:
    """A machine with one GPU and one TensorRT, and engines to put on it."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.device = FakeDevice()
        monkeypatch.setattr(cuda, "open_device", lambda: self.device)
        monkeypatch.setattr(cuda, "why_no_gpu", lambda: None)

    def install(self, version):
        self.version = version
        self.module = fake_module(version, self.device, NETWORKS)
        for name in ("tensorrt", "tensorrt_rtx"):
            self.monkeypatch.delitem(sys.modules, name, raising=False)
        self.monkeypatch.setitem(sys.modules, self.module.__name__, self.module)
        here = flavour.RTX if version == "rtx" else flavour.TENSORRT
        self.monkeypatch.setattr(flavour, "is_installed", lambda name: name == here)
        self.monkeypatch.setattr(
            "segdeploy.run.tensorrt.compatibility.is_installed", lambda name: name == here
        )
        return here

    def engine(
        self, version="10.3.0", profile=(1, 1, 1), network="brightest", name="x.engine", further=(), **facts
    ):
        """Builds and installs; `facts` change the record."""
        here = self.install(version)
        batch = None if profile[0] != profile[2] else profile[0]
        if network == "normalised":
            interface, *sides = "nvinfer", (batch, 3, HEIGHT, WIDTH), (batch, 1, HEIGHT, WIDTH)
            bindings = [["input", "INPUT", "float32", sides[0]], ["output", "OUTPUT", "int32", sides[1]]]
        else:
            interface = "frames"
            bindings = [
                ["frames", "INPUT", "uint8", (batch, HEIGHT, WIDTH, 3)],
                ["labels", "OUTPUT", "uint8", (batch, HEIGHT, WIDTH)],
                *further,
            ]
        path = self.folder / name
        path.write_bytes(plan(network, bindings, profile))
        eaten, answered = (TensorFacts(one[0], one[2], tuple(one[3])) for one in bindings[:2])
        signature = Signature(
            interface, eaten, answered, Size(HEIGHT, WIDTH), batch, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0),
            generated_labels(["red", "green", "blue"], "three"), "linear", "mine",
        )  # fmt: skip
        built = {"flavour": here, "version": self.module.__version__.rpartition(".")[0]}
        if version == "rtx":
            built |= {"device": None, "targets": ("sm_86",)}
        engine = facts_of_engine(path, signature, profile, **(built | facts))
        record = record_of_engine(path, signature, engine)
        self.record = record
        record.write(self.folder)
        return path


@pytest.fixture
def machine(tmp_path, monkeypatch):
    made = Machine(tmp_path, monkeypatch)
    yield made
    assert made.device.live == set()
    assert made.device.streams == {}


def versions():
    return [
        pytest.param(
            version, marks=pytest.mark.skipif(version == "rtx" and not has_rtx(), reason="needs [rtx]")
        )
        for version in VERSIONS
    ]


def has_rtx():
    import importlib.util

    return importlib.util.find_spec("tensorrt_rtx") is not None


def test_the_fake_gpu_has_what_the_real_one_has():
    for real, fake in fake_runtime.PAIRS:
        missing = {
            name: names
            for name, names in fake_runtime.methods_of(real).items()
            if fake_runtime.methods_of(fake).get(name) != names
        }
        assert missing == {}, real


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.16.1", "11.4.0"])
def test_attributes_that_no_fake_can_refuse_are_in_every_tensorrt(version):
    assert fake_runtime.symbols(version) >= {
        "ICudaEngine.num_io_tensors", "IExecutionContext.active_optimization_profile", "DataType.name",
        "Runtime.engine_host_code_allowed", "init_libnvinfer_plugins", "ILogger.INTERNAL_ERROR", "ILogger.ERROR",
        "TensorIOMode.INPUT",
    }  # fmt: skip


# ---- answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", versions())
@pytest.mark.parametrize("profile", [(1, 1, 1), (3, 3, 3), (1, 2, 4)])
def test_right_answers_on_every_tensorrt(version, profile, machine):
    with open_session(machine.engine(version, profile)) as session:
        assert session.signature.batch == (None if profile[0] != profile[2] else profile[0])
        assert session.signature.labels.names == ("red", "green", "blue")
        for batch in (profile[2], profile[0], profile[1], profile[1]):
            given = frames_of(batch, batch)
            answer = session.run(given)
            assert answer.dtype == np.uint8
            assert np.array_equal(answer, brightest(given))


def test_an_answer_stays_what_it_was(machine):
    with open_session(machine.engine()) as session:
        first = session.run(frames_of(1, 1))
        kept = first.copy()
        session.run(frames_of(1, 2))
        assert np.array_equal(first, kept)


def test_numbers_that_do_not_lie_in_one_piece(machine):
    with open_session(machine.engine(network="normalised")) as session:
        pixels = np.random.default_rng(0).random((1, HEIGHT, WIDTH, 3), np.float32).transpose(0, 3, 1, 2)
        answer = session.run(pixels)
    assert answer.dtype == np.int32
    assert np.array_equal(answer, pixels.argmax(1, keepdims=True))


def test_a_second_output_gets_its_memory(machine):
    further = [["other", "OUTPUT", "float32", (1, HEIGHT, WIDTH)]]
    with open_session(machine.engine(network="with a second output", further=further)) as session:
        assert np.array_equal(session.run(frames_of(1)), brightest(frames_of(1)))


def test_a_profile_of_one_batch_fixes_the_batch(machine):
    path = machine.engine()
    open_batch = [
        ["frames", "INPUT", "uint8", (None, HEIGHT, WIDTH, 3)],
        ["labels", "OUTPUT", "uint8", (None, HEIGHT, WIDTH)],
    ]
    path.write_bytes(plan("brightest", open_batch, (2, 2, 2)))
    engine = replace(machine.record.engine, memory=EngineMemory(path.stat().st_size, None))
    replace(machine.record, digest=digest_of(path), engine=engine).write(path.parent)
    with open_session(path) as session:
        assert session.signature.batch == 2
        with pytest.raises(RequestError, match="takes 'frames' uint8 2×64×96×3, got"):
            session.run(frames_of(1))


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "11.4.0"])
def test_each_size_has_its_profile(version, machine):
    machine.engine(version)
    sizes = ((HEIGHT, WIDTH), (HEIGHT + 32, 2 * WIDTH))
    bindings = [
        ["frames", "INPUT", "uint8", (1, None, None, 3)],
        ["labels", "OUTPUT", "uint8", (1, None, None)],
    ]
    path = machine.folder / "x.engine"
    path.write_bytes(plan("brightest", bindings, sides=[(*size, 3) for size in sizes]))
    metadata = {**machine.record.engine.metadata, "segdeploy.sizes": "64x96,96x192"}
    engine = replace(machine.record.engine, memory=EngineMemory(path.stat().st_size, None), metadata=metadata)
    replace(machine.record, digest=digest_of(path), engine=engine).write(path.parent)
    small, large = (np.random.default_rng(0).integers(0, 255, (1, *size, 3), np.uint8) for size in sizes)
    with open_session(path) as session:
        for frames in (small, large, small, large, large):
            assert np.array_equal(session.run(frames), brightest(frames))
        first, second = session.submit(large), session.submit(small)
        assert np.array_equal(session.result(first), brightest(large))
        assert np.array_equal(session.result(second), brightest(small))
        assert segment(session, large[0]).labels.shape == sizes[1]
        with pytest.raises(RequestError, match="has the sizes 64x96,96x192, and 64x128 was asked for"):
            session.run(np.zeros((1, 64, 128, 3), np.uint8))


# ---- from frames to labels on the GPU ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frame_kernels(tmp_path_factory):
    """The kernels of a graph's types, compiled for the CPU."""
    if emulated_kernels.COMPILER is None:
        pytest.skip("there is no g++ here to compile the kernels with")
    folder, made = tmp_path_factory.mktemp("kernels"), {}

    def load(device, signature):
        device.demand_active()
        macros = tuple(frames.macros_for(signature).items())
        if macros not in made:
            made[macros] = emulated_kernels.compile_kernels(dict(macros), folder / f"{len(made)}.so")
        load.loaded += 1

        def unload():
            device.demand_active()
            load.loaded -= 1

        return emulated_kernels.emulated_kernels(made[macros]), unload

    load.loaded = 0
    return load


@pytest.fixture
def with_kernels(frame_kernels, monkeypatch):
    monkeypatch.setattr("segdeploy.run.tensorrt.session.load_kernels", frame_kernels)
    yield frame_kernels
    assert frame_kernels.loaded == 0


ODD = [(HEIGHT, WIDTH), (41, 53), (120, 31), (HEIGHT, WIDTH), (7, 200)]


def odd_frames(seed=0):
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, (*size, 3), np.uint8) for size in ODD]


def labels_on_the_processor(machine, path, monkeypatch, given, how):
    with monkeypatch.context() as patched:
        patched.setattr(TensorrtSession, "label_frames", lambda *_: None)
        with open_session(path) as session:
            return [one.labels for one in segment_many(session, given, how)]


@pytest.mark.parametrize("how", ["stretch", "letterbox"])
@pytest.mark.parametrize("network", ["brightest", "normalised"])
@pytest.mark.parametrize(
    ("version", "profile"), [("8.6.1", (1, 2, 4)), ("10.3.0", (3, 3, 3)), ("11.4.0", (1, 1, 1))]
)
def test_frames_are_labelled_by_the_kernels(
    version, profile, network, how, machine, with_kernels, monkeypatch
):
    path = machine.engine(version, profile, network)
    expected = labels_on_the_processor(machine, path, monkeypatch, odd_frames(), how)
    with open_session(path) as session:
        monkeypatch.setattr("segdeploy.run.session.fit_batch", None)  # nothing is fitted on the processor
        labels = [one.labels for one in segment_many(session, odd_frames(), how)]
        assert session.without_kernels is None
        assert with_kernels.loaded == 1
    for one, other in zip(labels, expected, strict=True):
        assert np.array_equal(one, other)
        assert one.dtype == other.dtype == np.uint8


def test_three_bytes_of_a_pixel_go_there_and_one_comes_back(machine, with_kernels, monkeypatch):
    moved = []
    for name in ("upload", "download"):
        real = getattr(fake_runtime.FakeStream, name)

        def counted(self, target, source, name=name, real=real):
            moved.append((name, (source if name == "upload" else target).nbytes))
            real(self, target, source)

        monkeypatch.setattr(fake_runtime.FakeStream, name, counted)
    (frame,) = (one for one in odd_frames() if one.shape[0] == 41)
    with open_session(machine.engine(network="normalised")) as session:
        segment(session, frame)  # the places of this size go there too
        moved.clear()
        segment(session, frame)
    assert moved == [("upload", 3 * 41 * 53), ("download", 41 * 53)]


def test_threads_label_frames_at_once(machine, with_kernels):
    given, wrong = odd_frames(), []
    with open_session(machine.engine()) as session:
        expected = [segment(session, frame).labels for frame in given]

        def work(seed):
            for turn in range(10):
                place = (seed + turn) % len(given)
                if not np.array_equal(segment(session, given[place]).labels, expected[place]):
                    wrong.append((seed, turn))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_without_nvrtc_the_processor_fits_and_labels(machine, monkeypatch):
    asked = []

    def none(*_):
        asked.append(1)
        raise EngineError("there is no NVRTC")

    monkeypatch.setattr("segdeploy.run.tensorrt.session.load_kernels", none)
    path = machine.engine()
    expected = labels_on_the_processor(machine, path, monkeypatch, odd_frames(), "stretch")
    with open_session(path) as session:
        labels = [one.labels for one in segment_many(session, odd_frames())]
        assert session.without_kernels == "there is no NVRTC"
    assert all(map(np.array_equal, labels, expected))
    assert asked == [1]  # once, and not for each frame


def test_an_engine_that_fails_under_the_kernels_can_be_used_again(machine, with_kernels):
    with open_session(machine.engine()) as session:
        expected = segment(session, odd_frames()[1]).labels
        machine.module.failures = ["out of memory in a tactic"] * 2  # recorded as a graph, and run
        with pytest.raises(EngineError, match="TensorRT did not run the engine: out of memory in a tactic"):
            segment(session, odd_frames()[1])
        assert np.array_equal(segment(session, odd_frames()[1]).labels, expected)


def test_a_class_that_is_none_is_refused_as_without_kernels(machine, with_kernels, monkeypatch):
    monkeypatch.setitem(NETWORKS, "brightest", lambda given: brightest(given) + np.uint8(3))
    with (
        open_session(machine.engine()) as session,
        pytest.raises(
            GraphError, match=r"the graph answers class ids of 3 to 5, and its card 'mine' has 3 classes"
        ),
    ):
        segment(session, odd_frames()[1])


def test_no_room_for_a_frame(machine, with_kernels):
    with open_session(machine.engine()) as session:
        expected = segment(session, odd_frames()[1]).labels
        machine.device.room = sum(one.size for one in machine.device.live) + 50_000
        with pytest.raises(EngineError, match="out of memory"):
            segment(session, np.zeros((500, 500, 3), np.uint8))
        machine.device.room = 1 << 30
        assert np.array_equal(segment(session, odd_frames()[1]).labels, expected)


# ---- two in flight, and threads --------------------------------------------------------------------------------


def test_two_in_flight_and_a_third_that_waits(machine):
    with TensorrtSession(machine.engine()) as session:
        given = [frames_of(1, seed) for seed in range(5)]
        tickets = [session.submit(frames) for frames in given]
        assert machine.device.most_under_way == 2
        assert len(machine.device.streams) == 2
        for ticket, frames in zip(tickets, given, strict=True):
            assert np.array_equal(session.result(ticket), brightest(frames))
        with pytest.raises(RequestError, match="was taken already"):
            session.result(tickets[0])


def test_results_in_any_order(machine):
    with TensorrtSession(machine.engine()) as session:
        first, second = session.submit(frames_of(1, 1)), session.submit(frames_of(1, 2))
        assert np.array_equal(session.result(second), brightest(frames_of(1, 2)))
        assert np.array_equal(session.result(first), brightest(frames_of(1, 1)))


def test_one_at_a_time_needs_one_context(machine):
    with open_session(machine.engine()) as session:
        for seed in range(3):
            session.run(frames_of(1, seed))
        assert len(machine.module.contexts) == 1


def test_no_memory_for_a_second_context(machine):
    path = machine.engine()
    machine.module.most_contexts = 1
    with TensorrtSession(path) as session:
        tickets = [session.submit(frames_of(1, seed)) for seed in range(3)]
        for seed, ticket in enumerate(tickets):
            assert np.array_equal(session.result(ticket), brightest(frames_of(1, seed)))


def test_tensorrt_8_shares_no_profile(machine):
    with TensorrtSession(machine.engine("8.6.1", (1, 2, 4))) as session:
        tickets = [session.submit(frames_of(2, seed)) for seed in range(3)]
        for seed, ticket in enumerate(tickets):
            assert np.array_equal(session.result(ticket), brightest(frames_of(2, seed)))
        assert len(machine.module.contexts) == 1


def test_threads_share_a_session(machine):
    wrong = []
    with open_session(machine.engine(profile=(1, 2, 4))) as session:

        def work(seed):
            for turn in range(20):
                given = frames_of(1 + (seed + turn) % 4, 100 * seed + turn)
                if not np.array_equal(session.run(given), brightest(given)):
                    wrong.append((seed, turn))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


# ---- CUDA graphs -----------------------------------------------------------------------------------------------


def test_a_graph_is_captured_when_a_shape_comes_again(machine):
    device = machine.device
    with open_session(machine.engine(profile=(1, 2, 4))) as session:
        seen = []
        for batch in (2, 2, 2, 4, 4, 2):
            given = frames_of(batch, len(seen))
            assert np.array_equal(session.run(given), brightest(given))
            seen.append((device.captures, device.launches))
        assert seen == [(0, 0), (1, 1), (1, 2), (1, 2), (2, 3), (2, 3)]
        assert session.without_graph is None


def test_a_graph_that_cannot_be_captured(machine):
    machine.device.refuse_capture = True
    with open_session(machine.engine()) as session:
        for seed in range(3):
            assert np.array_equal(session.run(frames_of(1, seed)), brightest(frames_of(1, seed)))
        assert "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" in session.without_graph
        assert (machine.device.captures, machine.device.launches) == (0, 0)


def test_without_graphs(machine):
    with TensorrtSession(machine.engine(), graphs=False) as session:
        session.run(frames_of(1))
        assert session.without_graph == "CUDA graphs are off"
    assert machine.device.captures == 0


@pytest.mark.skipif(not has_rtx(), reason="needs [rtx]")
def test_rtx_captures_by_itself_and_keeps_what_it_compiled(machine):
    path = machine.engine("rtx")
    kept = path.with_name("x.engine.compiled")
    with open_session(path) as session:
        assert not kept.exists()
        session.run(frames_of(1))
        config = machine.module.contexts[0]._config
    assert machine.device.captures == 0
    assert config.cuda_graph_strategy.name == "WHOLE_GRAPH_CAPTURE"
    assert config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
    assert config._cache._loaded is None
    assert kept.read_bytes() == b"compiled here"
    with open_session(path) as session:
        session.run(frames_of(1))
    assert machine.module.contexts[1]._config._cache._loaded == b"compiled here"
    machine.module.compiled_again = 1  # as for another batch
    with open_session(path) as session:
        session.run(frames_of(1))
    assert kept.read_bytes() == b"compiled here again"
    kept.chmod(0o444)
    unchanged = kept.stat().st_ino
    with open_session(path) as session:
        session.run(frames_of(1))
    assert kept.stat().st_ino == unchanged
    machine.module.compiled_again = 0
    kept.chmod(0o644)
    kept.write_bytes(b"of another GPU")
    with open_session(path) as session:
        session.run(frames_of(1))
    assert kept.read_bytes() == b"compiled here"


# ---- arrays on the GPU -----------------------------------------------------------------------------------------


def on_gpu(device, array):
    with device.active():
        memory = device.allocate(array.nbytes)
    fake_runtime.at(memory.address, array.shape, array.dtype)[:] = array
    return DeviceArray(memory.address, array.shape, array.dtype, memory)


class OnlyInterface:
    def __init__(self, array, **change):
        self.__cuda_array_interface__ = array.__cuda_array_interface__ | change


def test_a_session_says_what_it_is(machine):
    with open_session(machine.engine(profile=(1, 2, 4))) as session:
        assert isinstance(session, DeviceSession)
        assert repr(session) == (
            "<TensorrtSession of x.engine on Test GPU: 'frames' uint8 ?×64×96×3 to 'labels' uint8 ?×64×96>"
        )


def test_from_the_gpu_to_the_gpu(machine):
    device = machine.device
    with TensorrtSession(machine.engine(profile=(1, 2, 4))) as session:
        for batch in (2, 3, 3):
            given = frames_of(batch, batch)
            inputs = on_gpu(device, given)
            for array in (inputs, OnlyInterface(inputs)):
                answer = session.run_device(array)
                assert (answer.shape, answer.dtype) == ((batch, HEIGHT, WIDTH), np.uint8)
                found = fake_runtime.at(answer.address, answer.shape, answer.dtype)
                assert np.array_equal(found, brightest(given))
            free(device, inputs)
        del answer


def free(device, array):
    with device.active():
        array._owner.free()


def test_the_answer_in_memory_of_the_callers(machine):
    device = machine.device
    with TensorrtSession(machine.engine()) as session:
        inputs, out = on_gpu(device, frames_of(1)), on_gpu(device, np.zeros((1, HEIGHT, WIDTH), np.uint8))
        answer = session.run_device(inputs, out)
        assert answer.address == out.address
        assert np.array_equal(fake_runtime.at(out.address, out.shape, out.dtype), brightest(frames_of(1)))
        wrong = on_gpu(device, np.zeros((1, HEIGHT, WIDTH), np.int64))
        with pytest.raises(RequestError, match=r"the answer is uint8 \(1, 64, 96\), and `out` is int64"):
            session.run_device(inputs, wrong)
        assert np.array_equal(session.run(frames_of(1, 3)), brightest(frames_of(1, 3)))
        for array in (inputs, out, wrong):
            free(device, array)


def test_the_producers_stream_is_waited_for(machine):
    with TensorrtSession(machine.engine()) as session:
        inputs = on_gpu(machine.device, frames_of(1))
        answers = [session.run_device(OnlyInterface(inputs, stream=stream)) for stream in (None, 1, 77)]
        (stream,) = machine.device.streams.values()
        assert stream.waited_for == [1, 77]
        del answers
        free(machine.device, inputs)


def test_arrays_that_are_not_on_the_gpu(machine):
    with TensorrtSession(machine.engine()) as session:
        with pytest.raises(RequestError, match=r"not in the memory of an NVIDIA GPU .*give it to run\(\)"):
            session.run_device(frames_of(1))
        with pytest.raises(RequestError, match="list is no array on the GPU"):
            session.run_device([1, 2])
        inputs = on_gpu(machine.device, frames_of(1))
        turned = OnlyInterface(inputs, strides=(3 * HEIGHT * WIDTH, 3, 3 * HEIGHT, 1))
        with pytest.raises(RequestError, match="make it contiguous first"):
            session.run_device(turned)
        assert np.array_equal(session.run(frames_of(1)), brightest(frames_of(1)))
        free(machine.device, inputs)


# ---- what is refused -------------------------------------------------------------------------------------------


def test_a_batch_outside_the_profile(machine):
    with open_session(machine.engine(profile=(2, 4, 8))) as session:
        for batch, wider in ((1, "1:4:8"), (9, "2:4:9")):
            with pytest.raises(RequestError) as refusal:
                session.run(frames_of(batch))
            assert str(refusal.value) == (
                f"a batch of {batch} is outside the profile of x.engine, which holds 2 to 8 (fastest at 4). For more"
                f" build it again: segdeploy build-engine x.onnx --batch {wider}"
            )
        with pytest.raises(RequestError, match="this graph takes"):
            session.run(frames_of(2).astype(np.float32))
        assert np.array_equal(session.run(frames_of(2)), brightest(frames_of(2)))


def test_a_session_that_is_closed(machine):
    session = TensorrtSession(machine.engine())
    ticket = session.submit(frames_of(1))
    session.close()
    session.close()
    assert np.array_equal(session.result(ticket), brightest(frames_of(1)))
    with pytest.raises(RequestError, match=r"the session of x\.engine is closed"):
        session.run(frames_of(1))


def test_tensorrt_fails_in_the_middle(machine):
    with open_session(machine.engine()) as session:
        machine.module.failures.append("Myelin  fails\nhere")
        with pytest.raises(EngineError, match="TensorRT did not run the engine: Myelin fails here"):
            session.run(frames_of(1))
        assert np.array_equal(session.run(frames_of(1)), brightest(frames_of(1)))


def test_the_gpu_fails_in_the_middle(machine, monkeypatch):
    def fail(frames):
        raise RuntimeError("an illegal memory access was encountered")

    with open_session(machine.engine()) as session:
        monkeypatch.setitem(NETWORKS, "brightest", fail)
        with pytest.raises(EngineError, match="a batch failed on the GPU: an illegal memory access"):
            session.run(frames_of(1))


def test_no_memory_for_the_engine(machine):
    path = machine.engine()
    machine.module.most_contexts = 0
    with pytest.raises(
        EngineError, match=r"x\.engine needs more memory than Test GPU has free.*could not be allocated"
    ):
        open_session(path)


@pytest.mark.parametrize(
    "room", [1000, 3 * HEIGHT * WIDTH + 100, 4 * HEIGHT * WIDTH + 100, 7 * HEIGHT * WIDTH + 100]
)
def test_no_memory_for_the_buffers(room, machine):
    path = machine.engine()
    machine.device.room = room
    with pytest.raises(EngineError, match="out of memory"):
        open_session(path)


def refusal_of(path):
    with pytest.raises(EngineError) as refusal:
        open_session(path)
    return str(refusal.value)


def test_an_engine_without_its_record(machine):
    path = machine.engine()
    (path.parent / "x.engine.json").unlink()
    assert refusal_of(path) == (
        "x.engine has no record x.engine.json beside it, which says what it was built by and for and what its classes"
        " are. Copy it there, or build the engine again: segdeploy build-engine MODEL.onnx"
    )


def test_a_record_without_its_engine(machine):
    path = machine.engine()
    path.unlink()
    assert refusal_of(path) == (
        "the record x.engine.json is here, and x.engine is not. Copy it here, or build it again:"
        " segdeploy build-engine x.onnx"
    )
    (path.parent / "x.engine.json").unlink()
    with pytest.raises(
        RequestError, match=r"there is no file .*x\.engine; an engine is made by: segdeploy build-engine"
    ):
        open_session(path)


def test_a_record_of_something_else(machine):
    path = machine.engine()
    replace(machine.record, engine=None).write(path.parent)
    assert "is the record of a graph, not of an engine" in refusal_of(path)
    (path.parent / "x.engine.json").write_text("{")
    with pytest.raises(GraphError, match="not a record that can be read"):
        open_session(path)


def test_an_engine_that_is_not_whole(machine):
    path = machine.engine()
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert refusal_of(path).startswith(
        f"x.engine has 100 bytes, and its record says {len(whole)}: it was cut off, or"
    )
    path.write_bytes(whole[:-1] + b"!")
    assert "x.engine is not the file that its record describes (their digests differ)" in refusal_of(path)
    assert machine.module.loaded == []


def test_an_engine_that_was_seen_to_be_wrong(machine):
    wrong = Verified(why="slot 2 of batch 4 is wrong", disagrees=True)
    path = machine.engine(
        verified=wrong, options=EngineOptions(fp16=True, batch="1:4:4", dla=0, optimization_level=0)
    )
    assert refusal_of(path) == (
        "x.engine was compared with its graph, and is wrong: slot 2 of batch 4 is wrong. Rebuild it:"
        " segdeploy build-engine x.onnx --fp16 --batch 1:4:4 --dla 0 --optimization-level 0"
    )
    with TensorrtSession(path, record=machine.record) as session:  # to compare it again
        assert np.array_equal(session.run(frames_of(1)), brightest(frames_of(1)))


@pytest.mark.parametrize("key", ["flavour", "version", "graph", "profile", "metadata", "memory", "options"])
def test_a_record_that_lacks_something(key, machine):
    path = machine.engine()
    beside = record_path(path)
    facts = json.loads(beside.read_text())
    facts["engine"][key] = None
    beside.write_text(json.dumps(facts))
    with pytest.raises(GraphError, match=rf"engine\.{key} is null; expected .*; build the engine again"):
        open_session(path)
    del facts["engine"][key]
    beside.write_text(json.dumps(facts))
    with pytest.raises(GraphError, match=f"engine has no '{key}'"):
        open_session(path)


def test_the_command_is_made_of_what_was_asked_for(machine):
    asked = EngineOptions(
        int8=True,
        targets=("sm_86", "sm_89"),
        workspace_gib=4.0,
        dla=0,
        optimization_level=5,
        version_compatible=True,
    )
    machine.engine(options=asked)
    assert compatibility.rebuild(machine.record) == (
        "segdeploy build-engine x.onnx --int8 --workspace 4.0 --version-compatible --dla 0 --optimization-level 5"
    )
    assert compatibility.rebuild(machine.record, runtime="tensorrt-rtx", batch="1:2:2") == (
        "segdeploy build-engine x.onnx --runtime tensorrt-rtx --int8 --batch 1:2:2 --target sm_86,sm_89 --workspace 4.0"
        " --optimization-level 5"
    )
    machine.engine(options=EngineOptions(int8=True, calibrator="tensorrt", timing_cache="t.cache"))
    assert compatibility.rebuild(machine.record) == (
        "segdeploy build-engine x.onnx --int8 --timing-cache t.cache --calibrator tensorrt --images DIR"
    )
    assert compatibility.rebuild(machine.record, runtime="tensorrt-rtx") == (
        "segdeploy build-engine x.onnx --runtime tensorrt-rtx --int8"
    )


@pytest.mark.parametrize("option", [field.name for field in fields(EngineOptions)])
def test_each_option_has_a_flag_of_build_engine(option):
    described = argparse.ArgumentParser()
    build_engine.describe(described)
    assert flag_of(option) in described._option_string_actions


@pytest.mark.parametrize(
    ("profile", "given"),
    [((1, 1, 4), [1, 1, 1, 1, 1]), ((1, 2, 4), [2, 2, 1]), ((2, 3, 4), [3, 2]), ((4, 4, 4), [4, 4])],
)
def test_many_frames_in_the_batches_that_the_engine_is_tuned_for(profile, given, machine):
    with TensorrtSession(machine.engine(profile=profile)) as session:
        seen, run = [], session.run
        session.run = lambda inputs: (seen.append(len(inputs)), run(inputs))[1]
        frames = [frames_of(1, seed)[0] for seed in range(5)]
        answers = [one.labels for one in segment_many(session, frames)]
    assert seen == given
    assert all(
        np.array_equal(one, brightest(frame[None])[0]) for one, frame in zip(answers, frames, strict=True)
    )


def test_an_engine_of_another_version(machine):
    path = machine.engine("10.3.0")
    machine.install("10.16.1")
    assert refusal_of(path) == (
        "x.engine was built by TensorRT 10.3.0, and this machine has TensorRT 10.16.1: an engine runs on the very"
        " version that built it. Rebuild it: segdeploy build-engine x.onnx"
    )
    assert machine.module.loaded == []


def test_an_engine_of_another_patch_version(machine):
    path = machine.engine("10.3.0")
    machine.module.__version__ = "10.3.1.4"
    assert refusal_of(path) == (
        "x.engine was built by TensorRT 10.3.0, and this machine has TensorRT 10.3.1: an engine runs on the very"
        " version that built it. Rebuild it: segdeploy build-engine x.onnx"
    )
    assert machine.module.loaded == []


def test_a_version_compatible_engine(machine):
    path = machine.engine("10.3.0", options=EngineOptions(version_compatible=True))
    machine.install("10.16.1")
    with open_session(path) as session:
        assert np.array_equal(session.run(frames_of(1)), brightest(frames_of(1)))
        assert machine.module.loaded[0].engine_host_code_allowed
    machine.install("11.4.0")
    said = refusal_of(path)
    assert "was built by TensorRT 10.3.0, and this machine has TensorRT 11.4.0" in said
    assert "a version-compatible engine runs on that version and later ones of 10" in said


def test_host_code_is_not_let_in_unasked(machine):
    with open_session(machine.engine()):
        assert not machine.module.loaded[0].engine_host_code_allowed


@pytest.mark.skipif(not has_rtx(), reason="needs [rtx]")
def test_an_engine_of_the_other_flavour(machine):
    path = machine.engine("10.3.0")
    machine.install("rtx")
    assert refusal_of(path) == (
        "x.engine was built by TensorRT 10.3.0, and this machine has TensorRT-RTX 1.7.1, which cannot read it. Rebuild"
        " it: segdeploy build-engine x.onnx --runtime tensorrt-rtx"
    )


def test_an_engine_of_another_gpu(machine):
    path = machine.engine()
    machine.device = FakeDevice("Other GPU", "8.9")
    assert refusal_of(path) == (
        "x.engine was built on Test GPU (sm_86), and this Other GPU is sm_89: an engine runs on the kind of GPU that it"
        " was built on. Rebuild it here: segdeploy build-engine x.onnx"
    )


def test_a_hardware_compatible_engine(machine):
    path = machine.engine(options=EngineOptions(hardware_compatible=True))
    machine.module.device = machine.device = FakeDevice("Newer GPU", "12.0")
    with open_session(path) as session:
        assert np.array_equal(session.run(frames_of(1)), brightest(frames_of(1)))
    machine.device = FakeDevice("Oldest GPU", "8.0")
    open_session(path).close()
    machine.device = FakeDevice("Older GPU", "7.5")
    assert "this Older GPU is sm_75: a hardware-compatible engine runs on sm_80 and later" in refusal_of(path)
    built_on_turing = machine.engine(
        options=EngineOptions(hardware_compatible=True), device=EngineGpu("NVIDIA T4", "7.5")
    )
    machine.device = FakeDevice("Newer GPU", "12.0")
    assert "was built on NVIDIA T4 (sm_75), and this Newer GPU is sm_120" in refusal_of(built_on_turing)


@pytest.mark.skipif(not has_rtx(), reason="needs [rtx]")
def test_an_rtx_engine_for_other_targets(machine):
    path = machine.engine("rtx")
    machine.device = FakeDevice("Other GPU", "8.9")
    assert refusal_of(path) == (
        "x.engine was built for sm_86, and this Other GPU is sm_89. Rebuild it: segdeploy build-engine x.onnx"
        " --runtime tensorrt-rtx --target sm_89"
    )
    machine.device = FakeDevice("NVIDIA H100", "9.0")
    assert refusal_of(path).endswith(
        "this NVIDIA H100 is sm_90. Rebuild it: segdeploy build-engine x.onnx --runtime tensorrt"
    )


@pytest.mark.skipif(not has_rtx(), reason="needs [rtx]")
def test_an_rtx_engine_that_rtx_itself_refuses(machine):
    path = machine.engine("rtx", targets=())
    machine.module.validity = (machine.module.EngineValidity.INVALID, 2 | 16)
    assert refusal_of(path) == (
        "TensorRT-RTX 1.7.1 says that x.engine cannot run on this Test GPU (compute capability 8.6): UNSUPPORTED_CC,"
        " INSUFFICIENT_GPU_MEMORY. Rebuild it: segdeploy build-engine x.onnx --runtime tensorrt-rtx --target sm_86"
    )
    machine.module.validity = (machine.module.EngineValidity.SUBOPTIMAL, 0)
    open_session(path).close()


def test_an_engine_that_tensorrt_cannot_read(machine):
    path = machine.engine()
    path.write_bytes(b"not a plan")
    engine = replace(machine.record.engine, memory=EngineMemory(path.stat().st_size, None))
    replace(machine.record, digest=digest_of(path), engine=engine).write(path.parent)
    assert refusal_of(path) == (
        "x.engine cannot be loaded by TensorRT 10.3.0: Serialization assertion magicTag failed. Rebuild it:"
        " segdeploy build-engine x.onnx"
    )


@pytest.mark.skipif(not has_rtx(), reason="needs [rtx]")
def test_the_real_rtx_tells_why_without_a_gpu():
    here = flavour.open_flavour(flavour.RTX)
    runtime = here.module.Runtime(logger_of(here.module))
    assert why_invalid(here, runtime, b"no engine" * 99) == ["MALFORMED_ENGINE"]


def test_a_gpu_that_nothing_could_name_when_the_engine_was_built(machine):
    with open_session(machine.engine(device=None)) as session:
        assert np.array_equal(session.run(frames_of(1)), brightest(frames_of(1)))


def test_flags_of_the_other_runtime(machine):
    path = machine.engine()
    for option, said in (
        ({"threads": 2}, "threads 2 is not for x.engine, which runs in TensorRT on the GPU; leave it out"),
        (
            {"provider": "cuda"},
            "provider 'cuda' is not for x.engine, which runs in TensorRT on the GPU; leave it out",
        ),
    ):
        with pytest.raises(RequestError) as refusal:
            open_session(path, **option)
        assert str(refusal.value) == said


def test_neither_of_cudas_packages(machine, monkeypatch):
    path = machine.engine()
    monkeypatch.setattr(cuda, "open_device", OPEN_DEVICE)
    monkeypatch.setattr(cuda, "why_no_gpu", lambda: cuda.NO_PACKAGE)
    with pytest.raises(
        MissingExtra, match=r"an engine needs cuda-python, .* pip install 'segdeploy\[cuda\]'"
    ):
        open_session(path)
