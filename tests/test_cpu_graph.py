import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from segdeploy.run.cpu_graph import copy_for_cpu
from segdeploy.run.io import to_input
from segdeploy.run.ort import OrtSession
from segdeploy.run.session import open_session


def images(session, count):
    size = session.signature.size
    frames = np.random.default_rng(0).integers(0, 256, (count, size.height, size.width, 3), np.uint8)
    return to_input(session.signature, frames)


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["nvinfer", "frames"])
@pytest.mark.parametrize("batch", [1, 3, None])
def test_the_copy_answers_as_the_file_does(interface, batch, graphs):
    path = graphs(interface, batch)
    with OrtSession(path) as whole, open_session(path) as short:
        assert whole.ran == {}
        assert short.ran == {
            "labels": "from the small logits, interpolated only where classes meet",
            "attention": "5 fused",
        }
        assert short.signature == whole.signature
        inputs = images(whole, batch or 2)
        expected, answer = whole.run(inputs), short.run(inputs)
    assert (answer.dtype, answer.shape) == (expected.dtype, expected.shape)
    assert np.mean(answer == expected) >= 0.9999


def test_a_graph_that_a_copy_would_not_fit_into_runs_as_it_is(graphs, monkeypatch):
    path = graphs("nvinfer")
    assert copy_for_cpu(path, "cpu") is not None
    monkeypatch.setattr("segdeploy.run.cpu_graph.MOST_BYTES", onnx.load(path).ByteSize() - 1)
    assert copy_for_cpu(path, "cpu") is None


@pytest.mark.slow
def test_logits_stay_and_only_attention_is_fused(graphs):
    path = graphs("logits")
    copy = copy_for_cpu(path, "cpu")
    assert (copy.labels, copy.rewritten) == (None, {"attention": "5 fused"})
    with OrtSession(path) as whole, open_session(path) as short:
        inputs = images(whole, 1)
        assert np.abs(whole.run(inputs) - short.run(inputs)).max() <= 1e-5 * np.ptp(whole.run(inputs))


def test_the_file_is_not_touched(graphs):
    path = graphs("frames")
    before = path.read_bytes()
    with open_session(path):
        assert path.read_bytes() == before


def test_without_fusing_nothing_but_the_labels_is_cut(graphs):
    copy = copy_for_cpu(graphs("frames"), "openvino")
    kinds = [node.op_type for node in onnx.load_from_string(copy.model).graph.node]
    assert copy.rewritten == {}
    assert "MultiHeadAttention" not in kinds
    assert "ArgMax" not in kinds
    assert kinds.count("Softmax") == 5


def labels_graph(
    scales=(1, 1, 4, 4),
    mode="linear",
    where="half_pixel",
    axis=1,
    kind=TensorProto.FLOAT,
    last=0,
    classes=3,
    sizes=None,
):
    """A foreign graph that raises its input and takes the arg-max."""
    resize_inputs = ["x", "", "s"] if sizes is None else ["x", "", "", "s"]
    constant = np.array(scales, np.float32) if sizes is None else np.array(sizes, np.int64)
    height, width = sizes[2:] if sizes else (int(4 * scales[2]), int(6 * scales[3]))
    graph = helper.make_graph(
        [
            helper.make_node("Resize", resize_inputs, ["up"], mode=mode, coordinate_transformation_mode=where),
            helper.make_node("ArgMax", ["up"], ["ids"], axis=axis, keepdims=0, select_last_index=last),
            helper.make_node("Cast", ["ids"], ["y"], to=TensorProto.INT32),
        ],
        "labels",
        [helper.make_tensor_value_info("x", kind, [1, classes, 4, 6])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, height, width])],
        [numpy_helper.from_array(constant, "s")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def cut(tmp_path, model):
    path = tmp_path / "x.onnx"
    onnx.save(model, path)
    return copy_for_cpu(path, "cpu").labels


@pytest.mark.parametrize(
    "options", [{}, {"where": "pytorch_half_pixel"}, {"sizes": (1, 3, 16, 24)}, {"classes": 256}]
)
def test_a_tail_of_the_same_shape_is_recognised(options, tmp_path):
    found = cut(tmp_path, labels_graph(**options))
    assert (found.factors, found.dtype, found.keeps_class_axis) == ((4, 4), "int32", False)


@pytest.mark.parametrize(
    "options",
    [
        {"scales": (1, 1, 3, 3)},
        {"scales": (1, 1, 1.5, 1.5)},
        {"mode": "nearest"},
        {"mode": "cubic"},
        {"where": "align_corners"},
        {"where": "asymmetric"},
        {"kind": TensorProto.FLOAT16},
        {"last": 1},
    ],
)
def test_another_tail_stays(options, tmp_path):
    assert cut(tmp_path, labels_graph(**options)) is None


def test_the_resize_of_an_old_opset_stays(tmp_path):
    model = labels_graph()
    model.opset_import[0].version = 12
    assert cut(tmp_path, model) is None


TURNS = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}


def attention_graph(heads_of=(2, 2, 2), scores_out=False, batch=2):
    """Attention of 4 queries over 5 keys, 8 channels, in the form of our graphs."""
    nodes, shapes = [], {}
    for name, heads, length in zip("qkv", heads_of, (4, 5, 5), strict=True):
        shapes[f"{name}.shape"] = (batch, length, heads, 8 // heads)
        nodes += [
            helper.make_node("Reshape", [name, f"{name}.shape"], [f"{name}.split"]),
            helper.make_node("Transpose", [f"{name}.split"], [f"{name}.heads"], perm=TURNS[name]),
        ]
    shapes["o.shape"] = (batch, 4, 8)
    nodes += [
        helper.make_node("MatMul", ["q.heads", "k.heads"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "v.heads"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["back", "o.shape"], ["y"]),
    ]
    lengths = {"q": 4, "k": 5, "v": 5}
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4, 8])]
    if scores_out:
        outputs.append(
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, [batch, heads_of[0], 4, 5])
        )
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, lengths[n], 8]) for n in lengths],
        outputs,
        [numpy_helper.from_array(np.array(shape, np.int64), name) for name, shape in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answers(model, inputs):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["y"], inputs)[0]


def fused(tmp_path, model):
    path = tmp_path / "x.onnx"
    onnx.save(model, path)
    return copy_for_cpu(path, "cpu")


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_attention_is_one_node_with_the_same_answer(heads, tmp_path):
    model = attention_graph((heads,) * 3)
    copy = fused(tmp_path, model)
    assert copy.rewritten == {"attention": "1 fused"}
    assert [node.op_type for node in onnx.load_from_string(copy.model).graph.node] == ["MultiHeadAttention"]
    rng = np.random.default_rng(0)
    inputs = {
        n: rng.standard_normal((2, length, 8)).astype(np.float32)
        for n, length in zip("qkv", (4, 5, 5), strict=True)
    }
    assert np.allclose(answers(copy.model, inputs), answers(model.SerializeToString(), inputs), atol=1e-6)


def test_attention_whose_weights_are_an_output_stays(tmp_path):
    assert fused(tmp_path, attention_graph(scores_out=True)).rewritten == {}


def test_attention_of_an_old_opset_stays(tmp_path):
    model = attention_graph()
    model.opset_import[0].version = 12
    assert fused(tmp_path, model).rewritten == {}


def test_labels_that_are_also_read_elsewhere_stay(tmp_path):
    model = labels_graph()
    model.graph.output.append(helper.make_tensor_value_info("up", TensorProto.FLOAT, [1, 3, 16, 24]))
    assert cut(tmp_path, model) is None


@pytest.mark.slow
def test_a_graph_whose_weights_lie_beside_it_is_run_as_it_is(graphs, tmp_path):
    path = tmp_path / "outside.onnx"
    onnx.save(onnx.load(graphs("frames")), path, save_as_external_data=True, size_threshold=256)
    assert copy_for_cpu(path, "cpu") is None
    with OrtSession(graphs("frames")) as whole, open_session(path) as session:
        assert session.ran == {}
        assert np.array_equal(session.run(images(whole, 1)), whole.run(images(whole, 1)))


def test_what_is_no_graph_is_left_to_the_runtime(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no graph")
    assert copy_for_cpu(path, "cpu") is None
