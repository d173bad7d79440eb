"""Where a layer's output channels are, what it multiplies, and over which axis labels are taken: by hand."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from segdeploy.errors import GraphError
from segdeploy.graph.layers import argmax_is_over_last, layers_of, logits_of

FLOAT = TensorProto.FLOAT


def graph_of(node, shape, output, weight=None, kind=FLOAT):
    ends = [helper.make_tensor_value_info(node.input[0], FLOAT, shape)]
    ends.append(helper.make_tensor_value_info(node.output[0], kind, output))
    weights = [] if weight is None else [numpy_helper.from_array(np.ones(weight, np.float32), "w")]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("kind", "attributes", "shape", "weight", "output", "axis", "macs"),
    [
        # 4·6·6 outputs, each of 3·3·3 products
        ("Conv", {"pads": [1, 1, 1, 1]}, (1, 3, 6, 6), (4, 3, 3, 3), (1, 4, 6, 6), 0, 144 * 27),
        # two groups: each output has one channel's 3·3 products
        ("Conv", {"pads": [1, 1, 1, 1], "group": 2}, (1, 2, 6, 6), (4, 1, 3, 3), (1, 4, 6, 6), 0, 144 * 9),
        # 2·3·3 inputs, each spread over 5·2·2
        ("ConvTranspose", {"strides": [2, 2]}, (1, 2, 3, 3), (2, 5, 2, 2), (1, 5, 6, 6), 1, 18 * 20),
        ("MatMul", {}, (1, 7, 3), (3, 5), (1, 7, 5), 1, 35 * 3),
        ("Gemm", {}, (7, 3), (3, 5), (7, 5), 1, 35 * 3),
        ("Gemm", {"transB": 1}, (7, 3), (5, 3), (7, 5), 0, 35 * 3),
        ("Gemm", {"transA": 1}, (3, 7), (3, 5), (7, 5), 1, 35 * 3),
        # a batch of 4 counts once
        ("MatMul", {}, (4, 7, 3), (3, 5), (4, 7, 5), 1, 35 * 3),
    ],
)
def test_a_layers_axis_and_its_multiplications(kind, attributes, shape, weight, output, axis, macs):
    node = helper.make_node(kind, ["x", "w"], ["y"], name="layer", **attributes)
    (layer,) = layers_of(graph_of(node, shape, output, weight))
    images = shape[0] if kind == "Gemm" else 1  # a Gemm's rows are taken for the batch
    assert (layer.axis, layer.macs) == (axis, macs // images)


@pytest.mark.parametrize(("axis", "last"), [(1, False), (3, True), (-1, True), (-3, False)])
def test_labels_over_the_last_axis(axis, last):
    node = helper.make_node("ArgMax", ["x"], ["y"], axis=axis, keepdims=0)
    output = (1, 4, 6) if last else (1, 6, 5)
    model = graph_of(node, (1, 4, 6, 5), output, kind=TensorProto.INT64)
    assert argmax_is_over_last(model) is last


def test_one_class_is_no_choice():
    node = helper.make_node("Relu", ["x"], ["y"])
    assert logits_of(graph_of(node, (1, 2, 6, 6), (1, 2, 6, 6))) == "y"
    with pytest.raises(GraphError, match=r"no class scores were found in the graph: y is \[1, 1, 6, 6\]"):
        logits_of(graph_of(node, (1, 1, 6, 6), (1, 1, 6, 6)))
