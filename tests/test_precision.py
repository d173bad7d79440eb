"""Each kind of layer by hand, and a whole graph of ours."""

import onnx
import pytest
from onnx import TensorProto, helper

from segdeploy.graph.int8 import quantised
from segdeploy.graph.layers import all_macs, layers_of
from segdeploy.graph.precision import precisions_of


def product(kind, pair=None):
    """x (2×3) · w (3×4); with `pair` both operands come out of a pair that stores that type."""
    nodes, operands = [], ["x", "w"]
    initialisers = [helper.make_tensor("w", kind, [3, 4], [1.0] * 12)]
    if pair is not None:
        scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [0.5])
        zero = helper.make_tensor("zero", pair, [], [0])
        initialisers += [scale, zero]
        operands = []
        for name in ("x", "w"):
            nodes += [
                helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}.q"]),
                helper.make_node("DequantizeLinear", [f"{name}.q", "scale", "zero"], [f"{name}.d"]),
            ]
            operands.append(f"{name}.d")
    nodes.append(helper.make_node("MatMul", operands, ["y"], name="net.head/MatMul"))
    x, y = (helper.make_tensor_value_info(name, kind, [2, side]) for name, side in (("x", 3), ("y", 4)))
    graph = helper.make_graph(nodes, "g", [x], [y], initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])


@pytest.mark.parametrize(
    "kind, pair, expected",
    [
        (TensorProto.FLOAT, None, "FP32"),
        (TensorProto.FLOAT16, None, "FP16"),
        (TensorProto.FLOAT, TensorProto.INT8, "INT8"),
        (TensorProto.FLOAT, TensorProto.FLOAT8E4M3FN, "FP8"),
    ],
)
def test_a_product_is_in_the_type_of_its_operands(kind, pair, expected):
    (placed,) = precisions_of(product(kind, pair))
    assert (placed.precision, placed.group, placed.macs) == (expected, "net.head", 3 * 4)


def test_one_operand_in_eight_bits_is_not_enough():
    model = product(TensorProto.FLOAT, TensorProto.INT8)
    model.graph.node[-1].input[1] = "w"
    assert [one.precision for one in precisions_of(model)] == ["FP32"]


def test_of_a_quantised_graph_the_chosen_layers_are_int8(graphs):
    model = onnx.load(graphs("logits"))
    assert {one.precision for one in precisions_of(model)} == {"FP32"}
    chosen = [layer for layer in layers_of(model) if ".ffn." in layer.name]
    made = quantised(model, {layer.root: 0.1 for layer in chosen}, [layer.name for layer in chosen])
    placed = precisions_of(made)
    assert {one.name for one in placed if one.precision == "INT8"} == {layer.name for layer in chosen}
    assert sum(one.macs for one in placed) == all_macs(model)
