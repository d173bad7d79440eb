"""Where ONNX Runtime computes: what was asked for, or an error. Stand-ins for its CUDA build, which needs a GPU."""

import ctypes
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from plain_graph import SIZE, saturating_answer, write_graph, write_saturating_graph

from segdeploy.cli import main
from segdeploy.errors import EngineError, GraphError, MissingExtra, RequestError
from segdeploy.run import device_array, ort
from segdeploy.run.cpu_graph import AS_WRITTEN
from segdeploy.run.device_array import DeviceArray
from segdeploy.run.ort import OrtSession
from segdeploy.run.ort_gpu import OrtDeviceSession
from segdeploy.run.session import DeviceSession, open_session

ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def packages(monkeypatch, **versions):
    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(ort.metadata, "version", version)


@pytest.mark.slow
def test_the_cpu_is_the_default(graphs):
    for options in ({}, {"provider": "cpu"}, {"provider": None}):
        with open_session(graphs("frames"), **options) as session:
            assert session.device == "cpu"
            assert session._session.get_providers() == ["CPUExecutionProvider"]


def test_a_graph_that_cannot_be_computed_is_named(tmp_path):
    """It says that it answers a small map, and makes one of 2^40 pixels."""
    shape = numpy_helper.from_array(np.array([1, 2, 1 << 20, 1 << 20]), "shape")
    eaten = helper.make_tensor_value_info("in", TensorProto.FLOAT, [1, 3, 64, 96])
    answered = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2, 64, 96])
    node = helper.make_node("ConstantOfShape", ["shape"], ["out"])
    made = helper.make_graph([node], "g", [eaten], [answered], [shape])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    expected = r"^x\.onnx cannot be computed by ONNX Runtime: [^\[]"
    with OrtSession(tmp_path / "x.onnx") as session, pytest.raises(GraphError, match=expected):
        session.run(np.zeros((1, 3, 64, 96), np.float32))


@pytest.mark.parametrize("precision", [None, "int8"])
def test_products_of_bytes_do_not_saturate(precision, tmp_path):
    """As ONNX Runtime's own do by default, on a CPU without VNNI."""
    path = write_saturating_graph(tmp_path / "x.onnx")
    pixels = np.random.default_rng(0).uniform(0.5, 1, (1, 3, SIZE.height, SIZE.width)).astype(np.float32)
    expected = saturating_answer(pixels)
    with open_session(path, precision=precision) as session:
        np.testing.assert_allclose(session.run(pixels), expected, atol=1e-5)
        assert session.ran["precision"] == (precision or AS_WRITTEN)
        if precision is None:
            options = session._session.get_session_options()
            assert options.get_session_config_entry("session.disable_quant_qdq") == "1"


def test_whole_numbers_in_a_foreign_graph_do_not_saturate(tmp_path):
    """They are no pairs, so they are always this CPU's products of bytes."""
    weight = np.full((64, 8), 127, np.int8)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, (4, 64))],
            [helper.make_tensor_value_info("y", TensorProto.INT32, (4, 8))],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    answer = ort.run_exactly(model.SerializeToString(), np.full((4, 64), 255, np.uint8), "y")
    assert np.all(answer == 255 * 127 * 64)


def test_an_unknown_provider(graphs):
    with pytest.raises(
        RequestError, match="no provider is called 'gpu'; known: cpu, openvino, cuda, tensorrt"
    ):
        open_session(graphs("frames"), provider="gpu")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_installed(provider, graphs, monkeypatch):
    packages(monkeypatch, onnxruntime="1.31.0")
    monkeypatch.setattr(ort.ort, "get_available_providers", lambda: ALL[2:])
    with pytest.raises(MissingExtra) as refusal:
        open_session(graphs("frames"), provider=provider)
    assert str(refusal.value) == (
        f"the provider {provider} needs onnxruntime-gpu, which is not installed: pip uninstall -y onnxruntime && pip"
        " install 'segdeploy[gpu]' (onnxruntime 1.31.0 is here)"
    )


def test_both_packages_side_by_side(graphs, monkeypatch):
    packages(monkeypatch, **{"onnxruntime": "1.31.0", "onnxruntime-gpu": "1.30.0"})
    monkeypatch.setattr(ort.ort, "get_available_providers", lambda: ALL[2:])
    with pytest.raises(RequestError) as refusal:
        open_session(graphs("frames"), provider="cuda")
    assert str(refusal.value) == (
        "onnxruntime 1.31.0 and onnxruntime-gpu 1.30.0 are installed side by side, overwrite each other's files, and"
        " what is left has no provider cuda. Keep one of them: pip uninstall -y onnxruntime onnxruntime-gpu && pip"
        " install 'segdeploy[gpu]'"
    )


def test_never_a_silent_cpu(graphs, monkeypatch, capsys):
    """This very ONNX Runtime goes on with the CPU when CUDA does not load: with a warning, and no error."""
    monkeypatch.setattr(ort.ort, "get_available_providers", lambda: ALL)
    monkeypatch.setattr(ort.ort, "preload_dlls", lambda: print("Failed to load libcudnn.so.9"))
    real = ort.ort.InferenceSession
    asked = []

    def falls_back(path, options, providers):
        asked.append(providers)
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort.ort, "InferenceSession", falls_back)
    for provider, order in (("cuda", ALL[1:]), ("tensorrt", ALL)):
        with pytest.raises(EngineError) as refusal:
            open_session(graphs("frames"), provider=provider)
        assert asked.pop() == order
        assert str(refusal.value) == (
            f"the provider {provider} did not start, and ONNX Runtime would go on with CPUExecutionProvider: Failed to"
            " load libcudnn.so.9. It needs the CUDA and cuDNN it was built for: see segdeploy doctor"
        )
    assert capsys.readouterr().out == ""


def test_the_flag(graphs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ort.ort, "get_available_providers", lambda: ALL[2:])
    (tmp_path / "x.png").write_bytes(b"")
    assert main(["run", str(graphs("frames")), str(tmp_path), "-o", str(tmp_path), "--provider", "cuda"]) == 1
    assert "the provider cuda needs onnxruntime-gpu" in capsys.readouterr().err


# ---- arrays on the GPU -----------------------------------------------------------------------------------------


class Binding:
    """An IO binding, on memory of the CPU's that passes for the GPU's."""

    def __init__(self):
        self.calls = []
        self.out = None

    def bind_input(self, name, device_type, device_id, element_type, shape, buffer_ptr):
        self.calls.append(("input", name, device_type))
        size = int(np.prod(shape)) * element_type.itemsize
        self.given = np.frombuffer((ctypes.c_ubyte * size).from_address(buffer_ptr), element_type).reshape(
            shape
        )

    def bind_output(self, name, device_type, device_id=0, element_type=None, shape=None, buffer_ptr=None):
        self.calls.append(("output", name, device_type, buffer_ptr))
        if buffer_ptr is not None:
            size = int(np.prod(shape)) * element_type.itemsize
            self.out = np.frombuffer((ctypes.c_ubyte * size).from_address(buffer_ptr), element_type).reshape(
                shape
            )

    def synchronize_inputs(self):
        self.calls.append("synchronize_inputs")

    def synchronize_outputs(self):
        self.calls.append("synchronize_outputs")

    def get_outputs(self):
        return [
            SimpleNamespace(
                data_ptr=lambda: self.out.ctypes.data, shape=lambda: list(self.out.shape), keep=self.out
            )
        ]


@pytest.fixture
def on_cuda(graphs, monkeypatch):
    """A session that takes itself to be on the GPU."""
    monkeypatch.setattr(device_array, "CUDA", 1)
    session = OrtDeviceSession(graphs("frames"))
    real, binding = session._session, Binding()

    def run_with_iobinding(bound):
        bound.calls.append("run")
        (answer,) = real.run(None, {"frames": bound.given})
        if bound.out is None:
            bound.out = answer
        else:
            bound.out[:] = answer

    session._opened = SimpleNamespace(
        io_binding=lambda: binding, run_with_iobinding=run_with_iobinding, run=real.run
    )
    return session, binding


def array_on(array):
    return DeviceArray(array.ctypes.data, array.shape, array.dtype, array)


def test_from_the_gpu_to_the_gpu(on_cuda):
    session, binding = on_cuda
    assert isinstance(session, DeviceSession)
    frames = np.random.default_rng(0).integers(0, 256, (1, 96, 160, 3), np.uint8)
    answer = np.from_dlpack(session.run_device(array_on(frames)))
    assert np.array_equal(answer, session.run(frames))
    assert binding.calls == [
        ("input", "frames", "cuda"), ("output", "labels", "cuda", None), "synchronize_inputs", "run",
        "synchronize_outputs",
    ]  # fmt: skip


def test_the_answer_in_memory_of_the_callers(on_cuda):
    session, _ = on_cuda
    frames = np.random.default_rng(1).integers(0, 256, (1, 96, 160, 3), np.uint8)
    out = np.zeros((1, 96, 160), np.uint8)
    assert session.run_device(array_on(frames), array_on(out)).address == out.ctypes.data
    assert np.array_equal(out, session.run(frames))
    with pytest.raises(RequestError, match=r"the answer is uint8 \(1, 96, 160\), and `out` is int64"):
        session.run_device(array_on(frames), array_on(out.astype(np.int64)))
    with pytest.raises(RequestError, match="this graph takes"):
        session.run_device(array_on(frames[:, :64].copy()))


def test_arrays_on_the_gpu_are_not_for_the_cpu(graphs):
    with open_session(graphs("frames")) as session:
        assert not isinstance(session, DeviceSession)


def test_a_session_says_what_it_is(graphs, on_cuda):
    path = graphs("logits", None)
    with open_session(path) as session:
        assert repr(session) == (
            f"<OrtSession of {path.name} on cpu: 'input' float32 ?×3×96×160 to 'logits' float32 ?×5×24×40>"
        )
    assert repr(on_cuda[0]).startswith("<OrtDeviceSession of tiny.frames.1.onnx on ")


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_logits_that_are_no_numbers_get_the_labels_of_the_file(provider, wrong, tmp_path):
    """The rule of where classes meet does not hold for them: the file's own last nodes are run."""
    path = write_graph(tmp_path / "plain.onnx", 19, "nvinfer")
    inputs = np.random.default_rng(0).standard_normal((1, 3, 64, 96)).astype(np.float32)
    inputs[0, :, 10:30, 20:40] = wrong
    if provider == "openvino":
        pytest.importorskip("openvino")
    with open_session(path, provider=provider) as session, OrtSession(path) as file:
        assert session.ran["labels"]
        found = session.run(inputs)
        if provider == "cpu":
            assert np.array_equal(found, file.run(inputs))
        assert (found.dtype, found.shape) == (np.dtype(np.int64), (1, 1, 64, 96))
        sound = np.zeros_like(inputs)
        assert np.array_equal(session.run(sound), file.run(sound))


RESIDENT = """
import sys
import numpy as np
from segdeploy.run.ort import open_graph, quiet_options

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024

session, pixels = open_graph(sys.argv[1], quiet_options()), np.ones((1, 8, 1024, 1024), np.float32)
session.run(None, {"x": pixels})
first = resident()
for _ in range(3):
    session.run(None, {"x": pixels})
print(resident() - first)
"""


@pytest.mark.slow
def test_later_runs_take_no_more_memory_than_the_first(tmp_path):
    """By default ONNX Runtime plans a block for all tensors then, beside what the first run took."""
    kinds = [
        ("Sigmoid", ["x"], "a"),
        ("Tanh", ["a"], "b"),
        ("Mul", ["a", "b"], "c"),
        ("ReduceMean", ["c"], "y"),
    ]
    nodes = [helper.make_node(kind, given, [made], made) for kind, given, made in kinds]
    sides = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 1024, 1024]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, 1]),
    ]
    graph = helper.make_graph(nodes, "large", sides[:1], sides[1:])
    path = tmp_path / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    ran = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(path)], capture_output=True, text=True, check=True
    )
    assert int(ran.stdout) <= 16  # MiB; a tensor has 32


SOURCE = (
    "/onnxruntime_src/onnxruntime/core/graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, const"
    " std::unordered_map<std::__cxx11::basic_string<char>, int>&, bool, int) "
)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            f"[ONNXRuntimeError] : 1 : FAIL : Load model from a b/x.onnx failed:{SOURCE}Unsupported\n",
            "Unsupported",
        ),
        (
            f"[ONNXRuntimeError] : 1 : FAIL : {SOURCE}ONNX Runtime only knows (28)",
            "ONNX Runtime only knows (28)",
        ),
        ("[ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from x failed:No Op (Foo)", "No Op (Foo)"),
        (
            "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions\n index: 1",
            "Got invalid dimensions",
        ),
        ("something else", "something else"),
        ("", "RuntimeError"),
    ],
)
def test_of_its_errors_the_reason_is_said(said, reason):
    assert ort.said_by_ort(RuntimeError(said)) == reason


def test_an_opset_that_it_does_not_know_is_named(tmp_path, graphs):
    model = onnx.load(graphs("frames"))
    model.opset_import[0].version = 99
    path = tmp_path / "tomorrow.onnx"
    onnx.save(model, path)
    with pytest.raises(GraphError) as refused:
        open_session(path)
    said = str(refused.value)
    assert said.startswith(f"{path} cannot be loaded by ONNX Runtime: ONNX Runtime only")
    assert "Opset 99" in said
