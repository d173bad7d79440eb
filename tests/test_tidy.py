import numpy as np
import pytest
from conftest import run_model
from onnx import TensorProto, helper, numpy_helper, parser

from segdeploy.errors import GraphError
from segdeploy.graph.tidy import LOWEST_OPSET, resize_by_scales, scale_reaching, tidy
from segdeploy.graph.view import View


def traced(*, reshape=(1, 4, 24), allowzero=1, extra=()):
    """As an exporter leaves it: numbered names, stack traces, a Reshape and a Resize that name the batch."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["view_1"], "node_view_1", allowzero=allowzero),
        helper.make_node("Reshape", ["view_1", "back"], ["view_2"], "node_view_2", allowzero=allowzero),
        helper.make_node(
            "Resize", ["view_2", "", "", "sizes"], ["up"], "node_up", mode="linear", antialias=0
        ),
        *extra,
    ]
    nodes[0].doc_string = "/somebody/secret.py, line 3"
    scopes = nodes[0].metadata_props.add()
    scopes.key, scopes.value = "pkg.torch.onnx.name_scopes", "['', 'network.head', 'view_1']"
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 4, 6))],
        [helper.make_tensor_value_info("up", TensorProto.FLOAT, (1, 4, 9, 13))],
        [
            numpy_helper.from_array(np.array(value, np.int64), name)
            for name, value in (("shape", reshape), ("back", (1, 4, 4, 6)), ("sizes", (1, 4, 9, 13)))
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("batch", [1, 3, None])
def test_any_batch_gives_what_single_frames_gave(batch):
    frames = np.random.default_rng(0).random((batch or 2, 4, 4, 6), np.float32)
    expected = np.concatenate([run_model(traced(), frame[None]) for frame in frames])
    model = tidy(traced(), "input", "output", batch)
    np.testing.assert_allclose(run_model(model, frames), expected, rtol=1e-6)
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert (first.dim_param if batch is None else first.dim_value) == (batch or "batch")


def gathered(*, target=(1, 4, 2, 3, 6)):
    """Six of eight rows, taken in another order, and parted into two times three."""
    ints = {"order": (7, 0, 3, 3, 6, 1), "target": target}
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["x", "order"], ["taken"], "node_gather", axis=2),
            helper.make_node("Reshape", ["taken", "target"], ["parted"], "node_reshape"),
        ],
        "main_graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 8, 6))],
        [helper.make_tensor_value_info("parted", TensorProto.FLOAT, target)],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in ints.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(
    ("target", "kinds"),
    [
        ((1, 4, 2, 3, 6), ["Gather"]),
        ((1, 4, 6, 6), ["Gather"]),
        ((1, 4, 2, 3, 2, 3), ["Gather", "Reshape"]),
        ((1, 2, 2, 6, 6), ["Gather", "Reshape"]),
        ((1, 24, 6), ["Gather", "Reshape"]),
    ],
)
def test_a_gather_takes_rows_in_the_shape_that_is_wanted(target, kinds):
    frames = np.random.default_rng(0).random((3, 4, 8, 6), np.float32)
    expected = np.concatenate([run_model(gathered(target=target), frame[None]) for frame in frames])
    model = tidy(gathered(target=target), "input", "output", None)
    np.testing.assert_array_equal(run_model(model, frames), expected)
    assert [node.op_type for node in model.graph.node] == kinds


def test_sides_behind_the_batch_join_it():
    model = traced(reshape=(16, 6))
    frames = np.random.default_rng(0).random((3, 4, 4, 6), np.float32)
    expected = np.concatenate([run_model(model, frame[None]) for frame in frames])
    np.testing.assert_array_equal(run_model(tidy(model, "input", "output", None), frames), expected)


def test_names_opset_and_traces():
    model = tidy(traced(), "input", "output", 1)
    graph = model.graph
    assert (graph.input[0].name, graph.output[0].name, graph.name) == ("input", "output", "segdeploy")
    assert [node.name for node in graph.node] == ["network.head/Reshape", "Reshape", "Resize"]
    assert graph.node[0].output[0] == "network.head/Reshape"
    assert model.opset_import[0].version == LOWEST_OPSET
    assert b"secret" not in model.SerializeToString()
    assert not graph.value_info


def test_an_operator_of_a_later_opset_keeps_its_opset():
    ints = numpy_helper.from_array(np.ones(1, np.int32), "ints")
    model = traced(extra=[helper.make_node("BitwiseNot", ["ints"], ["unused"], "node_not")])
    model.graph.initializer.append(ints)
    assert tidy(model, "input", "output", 1).opset_import[0].version == 18


def test_a_reduction_names_its_axes_as_the_lowest_opset_does():
    """With the flag that opset 18 has beside it, which the exporter writes out."""
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    mean = helper.make_node(
        "ReduceMean", ["x", "axes"], ["mean"], "node_mean", keepdims=1, noop_with_empty_axes=0
    )
    model = traced(extra=[mean, helper.make_node("Add", ["up", "mean"], ["sum"], "node_sum")])
    model.graph.initializer.append(axes)
    model.graph.node[2].input[3] = "own"
    model.graph.initializer.append(numpy_helper.from_array(np.array((1, 4, 4, 6), np.int64), "own"))
    model.graph.output[0].name = "sum"
    model.graph.output[0].type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, (1, 4, 4, 6)))
    frame = np.random.default_rng(0).random((1, 4, 4, 6), np.float32)
    expected = run_model(model, frame)
    made = tidy(model, "input", "output", 1)
    assert made.opset_import[0].version == LOWEST_OPSET
    node = next(node for node in made.graph.node if node.op_type == "ReduceMean")
    assert {item.name: helper.get_attribute_value(item) for item in node.attribute} == {
        "keepdims": 1,
        "axes": [1],
    }
    np.testing.assert_allclose(run_model(made, frame), expected, rtol=1e-6)


def test_a_reshape_across_the_batch_is_refused():
    model = traced(reshape=(3, 1, 32))
    with pytest.raises(
        GraphError, match=r"node_view_1 reshapes across the batch: \(1, 4, 4, 6\) to \[3, 1, 32\]"
    ):
        tidy(model, "input", "output", 1)


@pytest.mark.slow
def test_scales_reach_every_size():
    for source in range(1, 130):
        for target in range(source, 1100):
            scale = scale_reaching(source, target)
            assert int(np.floor(source * float(scale))) == target
            assert int(np.floor(np.float32(source) * scale)) == target


def norm(name, source, axis=-1, **more):
    inputs = [source, "scale", "bias"]
    return helper.make_node(
        "LayerNormalization", inputs, [f"{name}_out"], name, axis=axis, epsilon=0.01, **more
    )


def normed(axis=-1):
    """What is traced, with two LayerNorms behind it, one of which is the answer."""
    model = traced(extra=(norm("first", "up", axis), norm("second", "first_out")))
    values = np.random.default_rng(1).random((2, 13), np.float32)
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in zip(("scale", "bias"), values, strict=True)
    )
    model.graph.output[0].name = "second_out"
    return model


def test_opset_16_has_its_norms_in_simpler_nodes():
    frame = np.random.default_rng(0).random((1, 4, 4, 6), np.float32)
    expected = run_model(normed(), frame)
    model = tidy(normed(), "input", "output", 1, 16)
    assert model.opset_import[0].version == 16
    assert {node.op_type for node in model.graph.node} == {
        "Reshape", "Resize", "ReduceMean", "Sub", "Mul", "Add", "Sqrt", "Div",
    }  # fmt: skip
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)
    np.testing.assert_allclose(run_model(model, frame), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(GraphError, match="normalises from axis 2 on, and only the last is taken apart"):
        tidy(normed(axis=2), "input", "output", 1, 16)


def test_opset_16_is_refused_where_a_node_is_newer():
    later = helper.make_node("BitwiseNot", ["ids"], ["not"], "later")
    model = traced(extra=(helper.make_node("Cast", ["up"], ["ids"], to=TensorProto.INT64), later))
    model.graph.output[0].name = "not"
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(GraphError, match="nodes that opset 16 lacks; export it at opset 17"):
        tidy(model, "input", "output", 1, 16)


def test_a_resize_gets_scales_that_reach_its_size():
    """Float32's 5/3 times 3 is just below 5; the batch and the channels keep theirs."""
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[2,1,3,3] x) => (float[2,1,5,5] y)
              { y = Resize<mode="linear">(x, , , sizes) }"""
    model = parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 5, 5]), "sizes"))
    resize_by_scales(model)
    (node,) = model.graph.node
    scales = View(model).array(node.input[2])
    assert scales.tolist() == [1, 1, scale_reaching(3, 5), scale_reaching(3, 5)]
    assert 3 * float(scales[2]) >= 5 > 3 * float(np.float32(5 / 3))
