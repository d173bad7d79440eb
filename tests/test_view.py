"""What is known of a graph, and the little that is done to it in many places."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segdeploy.errors import GraphError
from segdeploy.graph.view import (
    MOST_READ,
    View,
    drop_unused,
    names_read,
    opset_of,
    replace_nodes,
    tensor_facts,
    without_large,
)
from segdeploy.model.signature import TensorFacts

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def value(name, kind=FLOAT, shape=("n", 4)):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, inputs, outputs, constants=(), opset=17, domain=""):
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, opset)], ir_version=8)


def by_hand():
    """x + x, times w, is read by y and once more: w is listed among the inputs, as older exporters do."""
    held = helper.make_tensor("held", FLOAT, [1], [2.0])
    return model_of(
        [
            helper.make_node("Constant", [], ["two"], value=held),
            helper.make_node("Add", ["x", "x"], ["sum"], name="add"),
            helper.make_node("Mul", ["sum", "w"], ["product"], name="mul"),
            helper.make_node("Mul", ["product", "two"], ["y"], name="twice"),
            helper.make_node("Relu", ["product"], ["z"], name="relu"),
        ],
        [value("x"), value("w", shape=[4])],
        [value("y"), value("z")],
        {"w": np.ones(4, np.float32)},
    )


def test_who_makes_and_who_reads():
    view = View(by_hand())
    assert [value.name for value in view.inputs] == ["x"]
    assert (view.ends, set(view.weights), set(view.constants)) == ({"y", "z"}, {"w"}, {"w", "two"})
    assert view.array("two").tolist() == [2.0]
    assert {name: node.name for name, node in view.makers.items()} == {
        "two": "", "sum": "add", "product": "mul", "y": "twice", "z": "relu",
    }  # fmt: skip
    assert view.places == {"two": 0, "sum": 1, "product": 2, "y": 3, "z": 4}
    assert [node.name for node in view.readers["x"]] == ["add", "add"]
    assert [node.name for node in view.readers["product"]] == ["twice", "relu"]
    assert "y" not in view.readers


@pytest.mark.parametrize(
    ("tensor", "maker", "reader"),
    [
        ("sum", "add", "mul"),
        ("product", None, None),  # two read it
        ("y", "twice", None),  # the graph's output alone does
        ("x", None, None),
    ],
)
def test_what_is_made_for_one_reader_alone(tensor, maker, reader):
    view = View(by_hand())
    found = view.only_maker(tensor, "Add", "Mul"), view.only_reader(tensor, "Mul")
    assert [node and node.name for node in found] == [maker, reader]
    assert view.only_maker(tensor, "Relu") is None
    assert view.only_reader(tensor, "Relu") is None


def test_what_the_graph_answers_is_not_for_one_reader_alone():
    nodes = [helper.make_node("Add", ["x", "x"], ["sum"]), helper.make_node("Relu", ["sum"], ["y"])]
    inner = View(model_of(nodes, [value("x")], [value("y")]))
    assert inner.only_reader("sum", "Relu") is not None
    assert inner.only_maker("sum", "Add") is not None
    answered = View(model_of(nodes, [value("x")], [value("y"), value("sum")]))
    assert answered.only_reader("sum", "Relu") is None
    assert answered.only_maker("sum", "Add") is None


def test_types_and_shapes():
    view = View(by_hand())
    assert view.shapes == {
        "x": (0, 4), "w": (4,), "two": (1,), "sum": (0, 4), "product": (0, 4), "y": (0, 4), "z": (0, 4),
    }  # fmt: skip
    assert set(view.types.values()) == {FLOAT}
    assert view.images == 1
    assert tensor_facts(view.values["sum"]) == TensorFacts("sum", "float32", (None, 4))


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["logits", "frames"])
@pytest.mark.parametrize("batch", [1, None, 3])
def test_inference_needs_no_large_weights(interface, batch, graphs):
    model = onnx.load(graphs(interface, batch))
    light = without_large(model)
    assert light.ByteSize() < model.ByteSize() / 2
    assert all(np.prod(item.dims) <= MOST_READ for item in light.graph.initializer)
    whole = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    view = View(model)
    for one in (*whole.input, *whole.output, *whole.value_info):
        assert view.values[one.name] == one
    for item in model.graph.initializer:
        assert (view.shapes[item.name], view.types[item.name]) == (tuple(item.dims), item.data_type)
    assert view.images == (batch or 1)


def test_sides_that_are_computed_while_it_runs():
    """A foreign graph's: twice the input's own sides."""
    nodes = [
        helper.make_node("Shape", ["x"], ["sides"]),
        helper.make_node("Mul", ["sides", "twos"], ["wanted"]),
        helper.make_node("ConstantOfShape", ["wanted"], ["y"]),
    ]
    y = value("y", shape=None)
    view = View(model_of(nodes, [value("x", shape=[8, 6])], [y], {"twos": np.array([2, 2])}))
    assert view.shapes["y"] == (16, 12)


@pytest.mark.parametrize(
    ("domain", "opset", "asked", "found"),
    [("", 17, "", 17), ("ai.onnx", 13, "", 13), ("mine", 3, "", 0), ("mine", 3, "mine", 3)],
)
def test_the_opset(domain, opset, asked, found):
    model = by_hand()
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid(domain, opset))
    assert opset_of(model, asked) == found


def test_what_a_branch_reads_is_kept():
    branch = helper.make_graph([helper.make_node("Add", ["x", "inner"], ["r"])], "b", [], [value("r")])
    model = model_of(
        [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)],
        [value("x")],
        [value("y"), value("told", shape=[4])],
        {name: np.ones(4, np.float32) for name in ("inner", "told", "forgotten")} | {"yes": np.array(True)},
    )
    assert names_read(model.graph.node[0]) == {"yes", "x", "inner"}
    drop_unused(model.graph)
    assert {item.name for item in model.graph.initializer} == {"inner", "told", "yes"}


def test_nodes_are_replaced_by_the_graphs_own():
    model = by_hand()
    replace_nodes(model.graph, list(model.graph.node)[::-1])
    assert [node.name for node in model.graph.node] == ["relu", "twice", "mul", "add", ""]
    assert list(model.graph.node[0].input) == ["product"]


def test_weights_that_do_not_fill_their_shape_are_named():
    model = by_hand()
    name = model.graph.initializer[0].name
    model.graph.initializer[0].dims[:] = [5, 3, 0, 1]
    with pytest.raises(GraphError) as refused:
        View(model).array(name)
    assert str(refused.value).startswith(f"the weights {name!r} of shape [5, 3, 0, 1] cannot be read (")
    assert str(refused.value).endswith("); export the graph again")
