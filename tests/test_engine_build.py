"""Every path that needs a real TensorRT, on a recording fake that has exactly the names of a real version."""

import errno
import json
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from segdeploy.cli.words import layers_in_words
from segdeploy.convert.engine.build import build_from
from segdeploy.convert.engine.request import CalibratorSource, EngineRequest
from segdeploy.convert.int8.cache import CalibrationCache, write_cache
from segdeploy.errors import (
    CalibrationError,
    EngineDisagrees,
    EngineError,
    GraphError,
    ImageError,
    OutputError,
    RequestError,
)
from segdeploy.files import digest_of
from segdeploy.flavour import open_flavour
from segdeploy.graph.fp16 import to_fp16
from segdeploy.graph.int8 import quantised
from segdeploy.graph.layers import layers_of
from segdeploy.graph.load import read_graph
from segdeploy.model.engine import (
    Binding,
    BuiltFrom,
    EngineGpu,
    EngineMemory,
    EngineOptions,
    Profile,
)
from segdeploy.model.record import ArtifactSource, read_record
from segdeploy.prove import verify
from segdeploy.scenes import write_cityscapes

TYPED = ("10.3.0", "10.16.1", "11.4.0")


@pytest.fixture(scope="session")
def int8_graph(graphs, tmp_path_factory):
    model = onnx.load(graphs("frames"))
    layers = layers_of(model)
    scales = {layer.root: 0.02 for layer in layers}
    path = tmp_path_factory.mktemp("int8") / "tiny.int8.onnx"
    onnx.save(quantised(model, scales, [layer.name for layer in layers]), path)
    return path


@pytest.fixture(scope="session")
def fp16_graph(graphs, tmp_path_factory):
    path = tmp_path_factory.mktemp("fp16") / "tiny.fp16.onnx"
    onnx.save(to_fp16(onnx.load(graphs("frames"))), path)
    return path


def silent(step, share=None):
    pass


def made(graph, output, request=EngineRequest(), progress=silent, **more):  # noqa: B008
    return build_from(graph, request, output, progress, flavour=open_flavour("tensorrt"), **more)


def refused(kind, match, graph, output, request=EngineRequest()):  # noqa: B008
    with pytest.raises(kind, match=match) as raised:
        made(graph, output, request)
    assert not output.exists() or list(output.iterdir()) == []
    return str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("version", TYPED)
def test_a_strongly_typed_engine_and_its_record(version, graphs, tensorrt_here, tmp_path):
    there = tensorrt_here(version)
    built = made(graphs("frames"), tmp_path, command="segdeploy build-engine tiny.onnx")
    (flags,) = there.arguments_of("create_network")
    assert flags == (1 << int(there.NetworkDefinitionCreationFlag.STRONGLY_TYPED),)
    assert there.arguments_of("set_flag") == []
    assert there.arguments_of("config.profiling_verbosity") == [(there.ProfilingVerbosity.DETAILED,)]
    assert built.path == tmp_path / "tiny.frames.1.engine"
    record = read_record(built.path)
    assert record == built.record
    assert record.digest == digest_of(built.path)
    assert record.classes == ("road", "kerb", "sky", "car", "bus")
    engine = record.engine
    assert (engine.flavour, engine.version) == ("tensorrt", version)
    assert engine.device == EngineGpu("NVIDIA A2", "8.6")
    assert engine.graph == BuiltFrom("tiny.frames.1.onnx", digest_of(graphs("frames")))
    assert engine.profile == Profile(1, 1, 1)
    assert engine.bindings == (
        Binding("frames", "input", "uint8", (1, 96, 160, 3)),
        Binding("labels", "output", "uint8", (1, 96, 160)),
    )
    assert engine.layers.source == "inspector"
    assert engine.layers.by_precision["FP32"] == engine.layers.total > 50
    assert engine.layers.groups["stages.1.ffn.expand"] == {"FP32": 2}  # of two blocks
    assert engine.layers.fused_attention == 0
    assert engine.memory == EngineMemory(built.path.stat().st_size, 8192)
    assert engine.verified.proof
    assert record.ledger[-1].name == "engine"
    assert record.command == "segdeploy build-engine tiny.onnx"
    assert len(engine.golden) == 3


@pytest.mark.slow
def test_8_6_has_flags_instead_of_types(graphs, int8_graph, tensorrt_here, tmp_path):
    there = tensorrt_here("8.6.1")
    built = made(graphs("nvinfer"), tmp_path, EngineRequest(fp16=True))
    (flags,) = there.arguments_of("create_network")
    assert flags == (1 << int(there.NetworkDefinitionCreationFlag.EXPLICIT_BATCH),)
    assert there.arguments_of("set_flag") == [("FP16",)]
    assert built.path.name == "tiny.nvinfer.1.fp16.engine"
    assert built.record.precision == "fp16"
    assert built.record.engine.bindings[1].dtype == "int32"  # it has no int64
    assert built.record.engine.memory.device_bytes == 4096
    there.calls.clear()
    assert made(int8_graph, tmp_path).record.engine.layers.by_precision["INT8"] > 0
    assert there.arguments_of("set_flag") == [("INT8",)]


@pytest.mark.slow
@pytest.mark.parametrize("version", TYPED)
def test_int8_in_the_graph_is_int8_in_the_engine(version, graphs, int8_graph, tensorrt_here, tmp_path):
    there = tensorrt_here(version, fused_attention=4)
    built = made(int8_graph, tmp_path, EngineRequest(int8=True))
    assert there.arguments_of("set_flag") == []
    assert built.path.name == "tiny.int8.engine"
    assert built.record.precision == "int8"
    layers = built.record.engine.layers
    assert layers.by_precision["INT8"] == len(layers_of(onnx.load(graphs("frames"))))
    assert layers.fused_attention == 4
    assert len(built.record.engine.calibration_digest) == 64


@pytest.mark.slow
@pytest.mark.parametrize("version", ["8.6.1", *TYPED])
def test_a_precision_that_was_dropped_is_an_error(version, int8_graph, fp16_graph, tensorrt_here, tmp_path):
    tensorrt_here(version, drops_to_fp32=True)
    out = tmp_path / "out"
    refused(EngineError, "INT8 was asked for, and none of the", int8_graph, out, EngineRequest(int8=True))
    refused(EngineError, "FP16 was asked for, and none of the", fp16_graph, out, EngineRequest(fp16=True))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["8.6.1", *TYPED])
def test_a_dynamic_batch(version, graphs, tensorrt_here, tmp_path):
    there = tensorrt_here(version)
    built = made(graphs("frames", None), tmp_path, EngineRequest(profile=Profile(1, 4, 8)))
    shapes = [(batch, 96, 160, 3) for batch in (1, 4, 8)]
    assert there.arguments_of("set_shape") == [("frames", *shapes)]
    assert built.path.name == "tiny.frames.dynamic.b1-4-8.engine"
    assert built.record.batch is None
    assert built.record.engine.profile == Profile(1, 4, 8)
    assert built.record.engine.bindings[0].shape == (None, 96, 160, 3)
    there.calls.clear()
    single = made(graphs("frames", None), tmp_path)
    assert there.arguments_of("set_shape") == [("frames", *[(1, 96, 160, 3)] * 3)]
    assert single.path.name == "tiny.frames.dynamic.engine"
    assert single.record.batch == 1


@pytest.mark.slow
@pytest.mark.parametrize("version", ["8.6.1", *TYPED])
def test_types_of_open_sizes_are_asked_with_the_best_shape(version, graphs, tensorrt_here, tmp_path):
    there = tensorrt_here(version)
    built = made(graphs("frames", None), tmp_path, EngineRequest(profile=Profile(1, 4, 8)))
    assert there.arguments_of("set_input_shape") == [("frames", (4, 96, 160, 3))]
    assert built.record.engine.layers.source == "inspector"
    assert built.record.engine.layers.by_precision["FP32"] > 50


@pytest.mark.slow
def test_types_that_the_inspector_never_tells(graphs, fp16_graph, tensorrt_here, tmp_path):
    """A typed network computes in its own types; of another one nobody knows, and it is not refused for that."""
    tensorrt_here("10.3.0", never_tells_types=True)
    layers = made(fp16_graph, tmp_path, EngineRequest(fp16=True)).record.engine.layers
    assert (layers.source, layers.by_precision["FP16"] > 50) == ("network", True)
    tensorrt_here("8.6.1", never_tells_types=True)
    layers = made(graphs("frames"), tmp_path, EngineRequest(fp16=True)).record.engine.layers
    assert (layers.source, layers.by_precision) == ("unknown", {})
    assert "precision not known" in layers_in_words(layers)


@pytest.mark.slow
def test_a_fixed_batch_takes_its_own_only(graphs, tensorrt_here, tmp_path):
    there = tensorrt_here("10.3.0")
    graph = graphs("frames", 4)
    words = refused(
        RequestError,
        "takes batches of exactly 4",
        graph,
        tmp_path / "out",
        EngineRequest(profile=Profile(1, 4, 8)),
    )
    assert "--batch 1:4:8 was asked for" in words
    built = made(graph, tmp_path, EngineRequest(profile=Profile(4, 4, 4)))
    assert built.path.name == "tiny.frames.4.b4.engine"
    assert there.arguments_of("set_shape") == []


@pytest.mark.slow
def test_settings_reach_the_builder(graphs, tensorrt_here, tmp_path):
    there = tensorrt_here("10.16.1")
    request = EngineRequest(
        workspace_gib=1.5, hardware_compatible=True, version_compatible=True, optimization_level=5
    )
    built = made(graphs("frames"), tmp_path, request)
    assert there.arguments_of("set_memory_pool_limit") == [("WORKSPACE", 1610612736)]
    assert there.arguments_of("set_flag") == [("VERSION_COMPATIBLE",)]
    assert there.arguments_of("config.builder_optimization_level") == [(5,)]
    level = there.HardwareCompatibilityLevel.AMPERE_PLUS
    assert there.arguments_of("config.hardware_compatibility_level") == [(level,)]
    assert there.arguments_of("runtime.engine_host_code_allowed") == [(True,)]
    assert built.record.engine.options == EngineOptions(
        workspace_gib=1.5, hardware_compatible=True, version_compatible=True, optimization_level=5
    )


@pytest.mark.slow
@pytest.mark.parametrize("version", ["8.6.1", *TYPED])
def test_the_timing_cache_is_read_and_written_back(version, graphs, tensorrt_here, tmp_path):
    there, cache = tensorrt_here(version), tmp_path / "timing.cache"
    made(graphs("frames"), tmp_path, EngineRequest(timing_cache=cache))
    assert cache.read_bytes() == b"+timed"
    made(graphs("frames"), tmp_path, EngineRequest(timing_cache=cache))
    assert there.arguments_of("create_timing_cache") == [(b"",), (b"+timed",)]
    assert cache.read_bytes() == b"+timed+timed"


@pytest.mark.slow
def test_a_timing_cache_that_cannot_be_written_costs_no_engine(graphs, tensorrt_here, tmp_path):
    tensorrt_here("10.3.0")
    (tmp_path / "file").write_bytes(b"")
    built = made(graphs("frames"), tmp_path, EngineRequest(timing_cache=tmp_path / "file" / "timing.cache"))
    assert built.path.is_file()
    assert built.advice[-1].startswith("the timing cache was not kept: ")


@pytest.mark.slow
def test_kernels_compiled_for_the_old_engine_go_with_it(graphs, tensorrt_here, tmp_path):
    tensorrt_here("10.3.0")
    compiled = tmp_path / "tiny.frames.1.engine.compiled"
    compiled.write_bytes(b"old")
    made(graphs("frames"), tmp_path)
    assert not compiled.exists()


def test_weights_beside_the_graph_are_in_its_digest(graphs, tensorrt_here, tmp_path):
    tensorrt_here("10.3.0")
    path = tmp_path / "x.onnx"
    onnx.save(
        onnx.load(graphs("frames")), path, save_as_external_data=True, location="x.data", size_threshold=64
    )
    first = read_graph(path).digest
    assert first != digest_of(path)
    data = bytearray((tmp_path / "x.data").read_bytes())
    data[-1] ^= 1
    (tmp_path / "x.data").write_bytes(data)
    assert read_graph(path).digest != first
    assert read_graph(graphs("frames")).digest == digest_of(graphs("frames"))


@pytest.mark.slow
def test_a_timing_cache_of_another_gpu(graphs, tensorrt_here, tmp_path):
    tensorrt_here("10.3.0", takes_timing_cache=False)
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"other")
    request = EngineRequest(timing_cache=cache)
    words = refused(
        EngineError,
        "is not a timing cache that TensorRT 10.3.0 takes",
        graphs("frames"),
        tmp_path / "o",
        request,
    )
    assert "name another --timing-cache" in words
    assert cache.read_bytes() == b"other"


@pytest.mark.slow
def test_a_dla(graphs, tensorrt_here, tmp_path):
    there = tensorrt_here("10.3.0", dla_cores=2)
    built = made(graphs("frames"), tmp_path, EngineRequest(fp16=True, dla=1))
    assert there.arguments_of("create_network") == [(0,)]  # TensorRT chooses what the DLA computes in
    assert there.arguments_of("config.default_device_type") == [(there.DeviceType.DLA,)]
    assert there.arguments_of("config.DLA_core") == [(1,)]
    assert there.arguments_of("set_flag") == [("FP16",), ("GPU_FALLBACK",)]
    assert built.path.name == "tiny.frames.1.fp16.dla1.engine"
    convolutions = [node for node in onnx.load(graphs("frames")).graph.node if node.op_type == "Conv"]
    assert built.record.engine.dla.on_dla == len(convolutions)


def test_no_dla_here(graphs, tensorrt_here, tmp_path):
    tensorrt_here("10.3.0")
    request = EngineRequest(fp16=True, dla=0)
    refused(
        EngineError,
        "--dla 0 was asked for, and this machine has no DLA",
        graphs("frames"),
        tmp_path / "o",
        request,
    )
    refused(RequestError, "FP16 and INT8 only", graphs("frames"), tmp_path / "o", EngineRequest(dla=0))
    request = EngineRequest(int8=True, dla=0)
    refused(RequestError, "from a calibrator, not from Q/DQ pairs", graphs("frames"), tmp_path / "o", request)
    tensorrt_here("11.4.0")  # has no calibrator any more, and its DLA reads pairs
    refused(EngineError, "this machine has no DLA", graphs("frames"), tmp_path / "o", request)


# ---- TensorRT's own calibrator ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.16.1"])
def test_the_calibrator_is_fed_by_our_images(version, graphs, tensorrt_here, tmp_path):
    there = tensorrt_here(version)
    images = tuple(write_cityscapes(tmp_path / "city", 5, seed=1, height=96, width=160))
    request = EngineRequest(int8=True, profile=Profile(1, 2, 2), calibration=CalibratorSource(images))
    built = made(graphs("frames", None), tmp_path / "out", request)
    assert there.arguments_of("calibrated") == [(2, 4096), (2, 4096)]  # the fifth fills no batch
    assert [inputs.shape for _, inputs in there.gpu.uploads] == [(2, 96, 160, 3)] * 2
    assert there.gpu.held == {}
    assert there.gpu.streams == 0
    assert there.arguments_of("set_calibration_profile") == [()]
    assert ("INT8",) in there.arguments_of("set_flag")
    expected = 1 << int(there.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if version == "8.6.1" else 0
    assert there.arguments_of("create_network") == [(expected,)]
    assert built.path.name == "tiny.frames.dynamic.int8.b1-2-2.engine"
    assert built.record.precision == "int8"
    assert built.record.engine.layers.by_precision["INT8"] > 0
    assert built.record.engine.options.calibrator == "tensorrt"
    assert len(built.record.engine.calibration_digest) == 64


@pytest.mark.slow
def test_a_build_is_stopped_where_an_image_cannot_be_read(graphs, tensorrt_here, tmp_path):
    there = tensorrt_here("10.3.0")
    steps = []
    there.on_step = lambda phase, step: steps.append(phase)
    images = write_cityscapes(tmp_path / "city", 2, seed=1, height=96, width=160)
    images[1].write_bytes(b"no image")
    with pytest.raises(ImageError, match="is not an image"):
        made(
            graphs("frames"),
            tmp_path / "o",
            EngineRequest(int8=True, calibration=CalibratorSource(tuple(images))),
        )
    assert len(steps) == 1
    assert there.gpu.streams == 0


def cache_of(version, path, algorithm="EntropyCalibration2"):
    write_cache(path, CalibrationCache(version, algorithm, {"frames": 0.02}))
    return path


@pytest.mark.slow
def test_the_calibrator_takes_a_cache(graphs, tensorrt_here, tmp_path):
    there = tensorrt_here("10.3.0")
    calibration = CalibratorSource(cache=cache_of("10.3.0", tmp_path / "x.calib"))
    made(graphs("frames"), tmp_path, EngineRequest(int8=True, calibration=calibration))
    assert there.arguments_of("calibrated") == []
    assert there.gpu.uploads == []


def test_a_cache_of_another_tensorrt(graphs, tensorrt_here, tmp_path):
    tensorrt_here("10.3.0")
    old = CalibratorSource(cache=cache_of("10.9.0", tmp_path / "x.calib"))
    words = refused(
        CalibrationError, "is of TensorRT 10.9.0, asked for is 10.3.0", graphs("frames"), tmp_path / "o",
        EngineRequest(int8=True, calibration=old),
    )  # fmt: skip
    assert "--cache-for 10.3.0" in words
    other = CalibratorSource(cache=cache_of("10.3.0", tmp_path / "y.calib", "MinMaxCalibration"))
    refused(
        CalibrationError, "is a cache of MinMaxCalibration; expected Entropy", graphs("frames"), tmp_path / "o",
        EngineRequest(int8=True, calibration=other),
    )  # fmt: skip


def test_11_has_no_calibrator(graphs, tensorrt_here, tmp_path):
    tensorrt_here("11.4.0")
    request = EngineRequest(int8=True, calibration=CalibratorSource((Path("x.png"),)))
    refused(
        EngineError,
        "TensorRT 11.4.0 has no calibrator: 11 removed it",
        graphs("frames"),
        tmp_path / "o",
        request,
    )


@pytest.mark.slow
def test_what_a_calibrator_does_not_take(graphs, int8_graph, tensorrt_here, tmp_path):
    tensorrt_here("10.3.0")
    calibration = CalibratorSource(
        tuple(write_cityscapes(tmp_path / "city", 1, seed=1, height=96, width=160))
    )
    out, request = tmp_path / "o", EngineRequest(int8=True, calibration=calibration)
    refused(GraphError, "give TensorRT's calibrator the FP32 graph", int8_graph, out, request)
    refused(RequestError, "add --int8", graphs("frames"), out, EngineRequest(calibration=calibration))
    larger = EngineRequest(int8=True, calibration=calibration, profile=Profile(1, 4, 4))
    refused(RequestError, "1 images are fewer than one batch of 4", graphs("frames", None), out, larger)


@pytest.mark.slow
def test_an_image_that_cannot_be_read_ends_the_calibration(graphs, tensorrt_here, tmp_path):
    there = tensorrt_here("10.3.0")
    (tmp_path / "broken.png").write_bytes(b"no image")
    request = EngineRequest(int8=True, calibration=CalibratorSource((tmp_path / "broken.png",)))
    with pytest.raises(Exception, match=r"broken\.png is not an image") as raised:
        made(graphs("frames"), tmp_path / "o", request)
    assert type(raised.value).__name__ == "ImageError"
    assert there.gpu.held == {}
    assert there.gpu.streams == 0
    assert list((tmp_path / "o").iterdir()) == []


# ---- what goes wrong -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_error_of_the_parser_with_its_node(graphs, tensorrt_here, tmp_path):
    says = [
        (
            "INVALID_NODE",
            3,
            "stages.0/Mix",
            "Add",
            "add: ElementWiseOperation SUM must have same input types",
        ),
        ("UNSUPPORTED_NODE", 5, "head/NonZero", "NonZero", "NonZero plugin creator was not found"),
    ]
    tensorrt_here("10.3.0", parser_says=says)
    words = refused(
        EngineError, r"TensorRT 10\.3\.0 cannot read tiny\.frames\.1\.onnx", graphs("frames"), tmp_path / "o"
    )
    assert "the node 'stages.0/Mix' (Add) is an INVALID_NODE: add: ElementWise" in words
    assert "the node 'head/NonZero' (NonZero) is an UNSUPPORTED_NODE" in words
    assert "two types of numbers meet in one node" in words


@pytest.mark.slow
def test_8_6_counts_nodes_and_we_name_them(graphs, tensorrt_here, tmp_path):
    node = onnx.load(graphs("frames")).graph.node[7]
    tensorrt_here("8.6.1", parser_says=[("UNSUPPORTED_NODE", 7, "", "", "No importer registered for op")])
    words = refused(EngineError, "cannot read", graphs("frames"), tmp_path / "o")
    assert f"the node {node.name!r} ({node.op_type}) is an UNSUPPORTED_NODE" in words


@pytest.mark.slow
def test_out_of_memory_says_what_to_try(graphs, tensorrt_here, tmp_path):
    tensorrt_here(
        "10.3.0",
        warns=["Requested amount of GPU memory (17179869184 bytes) could not be allocated."],
        builder_says=[
            "[virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (no further information)"
        ],
    )
    request = EngineRequest(workspace_gib=16, profile=Profile(1, 4, 8))
    words = refused(EngineError, "no engine came out of", graphs("frames", None), tmp_path / "o", request)
    assert "try --workspace 8, then --batch 1:4:4 instead of 1:4:8, then a graph smaller than 96x160" in words
    assert "Error Code 2: OutOfMemory" in words


@pytest.mark.slow
def test_a_failed_build_keeps_the_old_engine(graphs, tensorrt_here, tmp_path):
    there = tensorrt_here("10.3.0")
    built = made(graphs("frames"), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    there.builder_says = ["Could not find any implementation for node {ForeignNode[a...b]}."]
    with pytest.raises(EngineError, match=r"no kernel that runs this part.*ForeignNode\[a\.\.\.b\]"):
        made(graphs("frames"), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert built.path in before


@pytest.mark.slow
def test_an_engine_that_disagrees_is_not_handed_over(graphs, tensorrt_here, tmp_path, monkeypatch):
    tensorrt_here("10.3.0")

    def disagrees(path, record):
        assert path.read_bytes()
        assert record.engine.golden
        raise EngineDisagrees("slot 1 of batch 4 (NVIDIA/TensorRT#4853)")

    monkeypatch.setattr(verify, "prove", disagrees)
    refused(EngineDisagrees, "slot 1 of batch 4", graphs("frames"), tmp_path / "out")


@pytest.mark.slow
def test_a_full_disk_in_the_last_step_keeps_the_old_engine(graphs, tensorrt_here, tmp_path, monkeypatch):
    tensorrt_here("10.3.0")
    made(graphs("frames"), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    whole = Path.write_text

    def full(self, text, *arguments, **options):
        if self.name.endswith(".part"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(self, text, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        made(graphs("frames"), tmp_path, command="again")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_too_little_room_is_said_before_writing(graphs, tensorrt_here, tmp_path, monkeypatch):
    tensorrt_here("10.3.0")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    refused(OutputError, r"has 0\.0 MB free and the engine needs", graphs("frames"), tmp_path / "out")


@pytest.mark.slow
def test_two_builds_of_one_engine_at_once(graphs, tensorrt_here, tmp_path):
    there = tensorrt_here("10.3.0")
    second = []

    def meanwhile(phase, step):
        if not second:
            second.append("tried")
            with pytest.raises(OutputError, match=r"is being written by another segdeploy") as raised:
                made(graphs("frames"), tmp_path)
            second.append(str(raised.value))

    there.on_step = meanwhile
    made(graphs("frames"), tmp_path)
    assert len(second) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tiny.frames.1.engine", "tiny.frames.1.engine.json",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("version", ["8.6.1", *TYPED])
def test_ctrl_c_stops_the_build_and_leaves_nothing(version, graphs, tensorrt_here, tmp_path):
    there = tensorrt_here(version)
    steps = []

    def press(phase, step):
        steps.append(phase)
        if len(steps) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.3)

    there.on_step = press
    with pytest.raises(KeyboardInterrupt):
        made(graphs("frames"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(steps) == (5 if version == "8.6.1" else 1)  # 8.6 cannot be told; it was waited for


@pytest.mark.slow
@pytest.mark.parametrize("version", TYPED)
def test_progress_is_told_phase_by_phase(version, graphs, tensorrt_here, tmp_path):
    tensorrt_here(version)
    told = []
    made(graphs("frames"), tmp_path, progress=lambda step, share=None: told.append((step, share)))
    assert [step for step, share in told if share is None] == [
        "reading the graph", "computing what the engine must answer", "building", "looking into the engine",
        "comparing the engine with ONNX Runtime",
    ]  # fmt: skip
    assert [one for one in told if one[1] is not None] == [
        ("building: Building engine 0/2", 0),
        ("building: Building engine 1/2", 1 / 2),
        ("building: Optimizing graph 0/3", 1 / 2),
        ("building: Optimizing graph 1/3", pytest.approx(2 / 3)),
        ("building: Optimizing graph 2/3", pytest.approx(5 / 6)),
        ("building: Optimizing graph 3/3", 1),
        ("building: Building engine 2/2", 1),
    ]


@pytest.mark.slow
def test_a_progress_that_fails_ends_the_build_with_its_own_error(graphs, tensorrt_here, tmp_path):
    tensorrt_here("10.3.0")

    def fails(step, share=None):
        if step.startswith("building: "):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        made(graphs("frames"), tmp_path, progress=fails)
    assert list(tmp_path.iterdir()) == []


def test_tensorrt_without_a_gpu(graphs, tensorrt_here, tmp_path, monkeypatch):
    tensorrt_here("10.3.0")
    monkeypatch.setattr(verify, "why_not", lambda flavour, engine=None: "no GPU (no driver)")
    words = refused(
        EngineError,
        r"on the GPU that the engine is for, and here is no GPU \(no driver\)",
        graphs("frames"),
        tmp_path / "o",
    )
    assert "--runtime tensorrt-rtx" in words


@pytest.mark.slow
def test_tensorrt_without_a_driver(graphs, tensorrt_here, tmp_path):
    tensorrt_here("10.3.0", has_driver=False)
    words = refused(
        EngineError, "TensorRT 10.3.0 cannot start: there is no GPU here", graphs("frames"), tmp_path / "o"
    )
    assert "CUDA initialization failure with error: 35" in words


@pytest.mark.slow
def test_a_graph_that_is_not_the_one_of_its_record(graphs, tensorrt_here, tmp_path):
    tensorrt_here("10.3.0")
    graph = tmp_path / "x.onnx"
    graph.write_bytes(graphs("frames").read_bytes())
    record = json.loads(graphs("frames").with_name("tiny.frames.1.onnx.json").read_text())
    (tmp_path / "x.onnx.json").write_text(json.dumps(record | {"digest": "0" * 64}))
    refused(GraphError, r"is not the file that x\.onnx\.json describes", graph, tmp_path / "o")


@pytest.mark.slow
def test_a_graph_without_a_record(graphs, tensorrt_here, tmp_path):
    tensorrt_here("10.3.0")
    graph = tmp_path / "x.onnx"
    graph.write_bytes(graphs("frames").read_bytes())
    record = made(graph, tmp_path).record
    assert record.source == ArtifactSource("unknown", "unknown")
    assert (record.size, record.interface) == ("96x160", "frames")


def test_targets_are_for_rtx(graphs, tensorrt_here, tmp_path):
    tensorrt_here("10.3.0")
    request = EngineRequest(targets=("sm_86",))
    refused(RequestError, "--target is for TensorRT-RTX", graphs("frames"), tmp_path / "o", request)


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        (EngineRequest(workspace_gib=0), "--workspace 0 is not a size in GiB"),
        (EngineRequest(optimization_level=6), "--optimization-level 6 is outside 0 to 5"),
        (EngineRequest(fp16=True, dla=-1), "--dla -1 is not the number"),
    ],
)
def test_values_that_make_no_sense(request_, match, graphs, tensorrt_here, tmp_path):
    tensorrt_here("10.3.0")
    refused(RequestError, match, graphs("frames"), tmp_path / "o", request_)
