"""INT8 as it is written into a graph, and the exact balancing that makes it cost less."""

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import run_model
from onnx import TensorProto, helper, numpy_helper

from segdeploy.errors import CalibrationError, GraphError
from segdeploy.graph.equalise import equalised, factors_for, norms_to_equalise, with_equalised
from segdeploy.graph.fp16 import rest_in_fp16
from segdeploy.graph.int8 import quantise_weight, quantised
from segdeploy.graph.layers import (  # fmt: skip
    all_macs,
    group_of,
    layers_of,
    logits_of,
    pixel_tensors,
)
from segdeploy.graph.precision import shares_of
from segdeploy.graph.view import View
from segdeploy.run.inner_tensors import TapSession


@pytest.fixture(scope="module")
def model(graphs):
    return onnx.load(graphs("logits"))


def scales_for(model, scale=0.05):
    return {layer.root: scale for layer in layers_of(model)}


def test_layers_are_those_with_weights(model):
    layers = layers_of(model)
    # four embeddings, three reductions of one and one of... : query, key, value, project, three of the FFN a block
    assert len(layers) == 4 + 5 * 7 + 4 + 4 + 1
    assert {layer.axis for layer in layers} == {0, 1}
    depthwise = next(
        layer for layer in layers if layer.name == "network.stages.0.blocks.0.ffn.depthwise/Conv"
    )
    assert depthwise.macs == 9 * 32 * 24 * 40
    query = next(layer for layer in layers if layer.name.endswith("stages.1.blocks.1.attention.query/MatMul"))
    assert (query.group, query.macs) == ("stages.1.attention.query", 16 * 16 * 12 * 20)
    assert query.root == query.activation == "network.stages.1.blocks.1.norm1/LayerNormalization"
    reduce = next(layer for layer in layers if layer.name.endswith("stages.1.blocks.1.attention.reduce/Conv"))
    assert reduce.root == query.root != reduce.activation
    assert sum(layer.macs for layer in layers) < all_macs(model)


def test_groups_gather_the_blocks_of_a_stage():
    assert group_of("network.stages.2.blocks.17.ffn.expand/Conv") == "stages.2.ffn.expand"
    assert group_of("network.head.classifier/Conv") == "head.classifier"
    assert group_of("Conv_3") == "Conv_3"


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["logits", "nvinfer", "frames"])
def test_the_logits_are_found_in_every_interface(interface, graphs):
    model = onnx.load(graphs(interface))
    name = logits_of(model)
    assert View(model).shapes[name] == (1, 5, 24, 40)


@pytest.mark.parametrize("interface", ["logits", "frames"])
def test_pixels_are_told_from_features(interface, graphs):
    model = onnx.load(graphs(interface))
    found, first = pixel_tensors(model), layers_of(model)[0]
    assert first.group == "stages.0.embed"
    assert first.root in found
    assert not {layer.root for layer in layers_of(model)[1:]} & found


def test_weights_come_back_within_half_a_step():
    weight = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    weight[2] = 0
    values, scale = quantise_weight(weight, 0)
    assert values.dtype == np.int8
    assert values.min() >= -127
    assert np.abs(values[[0, 1, 3]]).max(axis=(1, 2, 3)).tolist() == [127] * 3
    back = values * scale[:, None, None, None]
    assert np.abs(back - weight).max() <= scale.max() / 2 * 1.0001
    assert scale[2] == 1


@pytest.fixture(scope="module")
def int8(model):
    return quantised(model, scales_for(model), {layer.name for layer in layers_of(model)})


def test_one_pair_a_tensor_and_weights_as_int8(model, int8):
    onnx.checker.check_model(int8, full_check=True)
    layers = layers_of(model)
    kinds = [node.op_type for node in int8.graph.node]
    assert kinds.count("QuantizeLinear") == len({layer.activation for layer in layers})
    assert kinds.count("DequantizeLinear") == kinds.count("QuantizeLinear") + len(layers)
    stored = {item.name: item for item in int8.graph.initializer}
    for layer in layers:
        assert layer.weight not in stored
        assert stored[f"{layer.weight}.q"].data_type == TensorProto.INT8
    assert all(
        not numpy_helper.to_array(item).any() for name, item in stored.items() if name.endswith(".zero")
    )
    biases = [item for item in stored.values() if "bias" in item.name]
    assert {item.data_type for item in biases} == {TensorProto.FLOAT}


def test_it_computes_what_rounding_by_hand_computes(model):
    """One layer in INT8 against numpy: rounded to even, clipped at -128 and 127."""
    layer = next(layer for layer in layers_of(model) if layer.name == "network.stages.0.embed/Conv")
    pixels = np.random.default_rng(1).standard_normal((1, 3, 96, 160)).astype(np.float32)
    scale = np.float32(0.02)
    rounded = np.clip(np.rint(pixels / scale), -128, 127).astype(np.float32) * scale
    by_hand = onnx.ModelProto()
    by_hand.CopyFrom(model)
    (item,) = [item for item in by_hand.graph.initializer if item.name == layer.weight]
    values, scales = quantise_weight(numpy_helper.to_array(item), layer.axis)
    item.CopyFrom(numpy_helper.from_array(values * scales[:, None, None, None], item.name))
    answer = run_model(quantised(model, {layer.root: scale}, [layer.name]), pixels)
    expected = run_model(by_hand, rounded)
    np.testing.assert_allclose(answer, expected, atol=1e-3 * np.ptp(expected))


def test_only_what_was_asked_for(model):
    chosen = [layer.name for layer in layers_of(model) if layer.group == "head.classifier"]
    kinds = [node.op_type for node in quantised(model, scales_for(model), chosen).graph.node]
    assert (kinds.count("QuantizeLinear"), kinds.count("DequantizeLinear")) == (1, 2)
    assert quantised(model, {}, []) == model


@pytest.mark.parametrize("scale", [0, -1, float("nan"), None])
def test_scales_that_are_none(scale, model):
    layer = layers_of(model)[0]
    scales = {} if scale is None else {layer.root: scale}
    with pytest.raises(CalibrationError, match=r"whose scale is .* leave this layer out"):
        quantised(model, scales, [layer.name])


def test_a_graph_is_quantised_once(model, int8):
    with pytest.raises(GraphError, match="is quantised already"):
        quantised(int8, {}, [])
    with pytest.raises(CalibrationError, match="no layer with weights called nothing"):
        quantised(model, {}, ["nothing"])


def test_equalising_is_exact(model):
    norms = norms_to_equalise(model)
    assert len(norms) == 2 * 5 + 4 + 4  # two a block, one a reduction, one a stage: only weights read them
    rng = np.random.default_rng(2)
    shapes = View(model).shapes
    peaks = {name: np.exp(2 * rng.standard_normal(shapes[name][-1])).astype(np.float32) for name in norms}
    even = equalised(model, factors_for(model, peaks))
    onnx.checker.check_model(even, full_check=True)
    pixels = rng.standard_normal((1, 3, 96, 160)).astype(np.float32)
    expected, answer = (run_model(one, pixels) for one in (model, even))
    assert np.abs(expected - answer).max() <= 1e-5 * np.ptp(expected)
    assert even != model


def test_what_equalising_would_make_is_seen_beside_what_is_there(model):
    """One run counts both, since nothing else of the two graphs differs."""
    rng = np.random.default_rng(5)
    shapes = View(model).shapes
    peaks = {
        name: np.exp(rng.standard_normal(shapes[name][-1])).astype(np.float32)
        for name in norms_to_equalise(model)
    }
    factors = factors_for(model, peaks)
    both, beside = with_equalised(model, factors)
    assert beside.keys() == factors.keys() == peaks.keys()
    pixels = rng.standard_normal((1, 3, 96, 160)).astype(np.float32)
    even = dict(TapSession(equalised(model, factors), list(factors)).run(pixels))
    for name, values in TapSession(both, list(beside.values())).run(pixels):
        expected = even[next(tensor for tensor, other in beside.items() if other == name)]
        np.testing.assert_allclose(values, expected, atol=1e-4 * np.abs(expected).max())
    other = {name: 2 * by for name, by in factors.items()}
    assert not set(with_equalised(model, other)[1].values()) & set(
        beside.values()
    )  # counts of one are not the other's


def test_a_norm_that_something_else_reads_is_left_alone():
    weights = [
        numpy_helper.from_array(np.ones(4, np.float32), "gain"),
        numpy_helper.from_array(np.ones((4, 2), np.float32), "w"),
    ]
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain"], ["n"], "norm"),
        helper.make_node("MatMul", ["n", "w"], ["m"], "product"),
        helper.make_node("Relu", ["n"], ["r"], "other"),
    ]
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, size))
        for name, size in (("x", 4), ("m", 2), ("r", 4))
    ]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert norms_to_equalise(model) == {}
    del model.graph.node[2], model.graph.output[1]
    assert norms_to_equalise(model) == {"n": [("w", 0)]}


@pytest.mark.parametrize("other", ["LayerNormalization", "Relu"])
def test_a_weight_that_something_else_reads_too_is_not_changed(other):
    """Two norms whose products share a weight, or one whose weight is also read as it is."""
    rng = np.random.default_rng(4)
    values = {"gain": rng.standard_normal(4), "w": rng.standard_normal((4, 4))}
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()]
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain"], ["n"], "norm"),
        helper.make_node("MatMul", ["n", "w"], ["m"], "product"),
    ]
    if other == "Relu":
        nodes += [helper.make_node("Relu", ["w"], ["r"], "relu"), helper.make_node("Add", ["m", "r"], ["y"])]
    else:
        nodes.append(helper.make_node("LayerNormalization", ["m", "gain"], ["o"], "second"))
        nodes.append(helper.make_node("MatMul", ["o", "w"], ["y"], "again"))
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 4, 4)) for name in "xy"]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert norms_to_equalise(model) == {}
    peaks = {name: np.array([1, 40, 1, 9], np.float32) for name in "no"}
    x = rng.standard_normal((1, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(
        run_model(equalised(model, factors_for(model, peaks)), x), run_model(model, x)
    )


def test_a_weight_that_is_read_along_two_axes_is_stored_for_both():
    """As tied embeddings are: one product reads the columns, another the rows."""
    rng = np.random.default_rng(3)
    values = (rng.standard_normal((6, 6)) * np.arange(1, 7)).astype(np.float32)
    weight = numpy_helper.from_array(values, "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Gemm", ["a", "w"], ["y"], "second", transB=1),
    ]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (4, 6)) for name in "xy"]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert [(layer.name, layer.axis) for layer in layers_of(model)] == [("first", 1), ("second", 0)]
    int8 = quantised(model, {"x": 0.02, "a": 0.2}, ["first", "second"])
    onnx.checker.check_model(int8, full_check=True)
    scales = {item.name: item.dims for item in int8.graph.initializer if item.name.endswith("scale")}
    assert {"w.scale", "w.axis0.scale"} <= set(scales)
    x = rng.standard_normal((4, 6)).astype(np.float32)
    expected, answer = run_model(model, x), run_as_written(int8, x)
    assert np.abs(answer - expected).max() < 0.05 * np.ptp(expected)


def run_as_written(model, values):
    """Run each pair by itself: ONNX Runtime's own product of bytes saturates on processors without VNNI."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: values})[0]


def test_the_shares_of_the_precisions_are_those_of_the_graph_s_types(model, int8):
    layers, total = layers_of(model), all_macs(model)
    assert shares_of(model) == {"fp32": 1}
    with_weights = sum(layer.macs for layer in layers) / total
    assert shares_of(int8) == pytest.approx({"int8": with_weights, "fp32": 1 - with_weights})
    mixed = rest_in_fp16(int8, ["*stages.0*"], {})
    shares = shares_of(mixed)
    assert shares["int8"] == pytest.approx(with_weights)
    assert 0 < shares["fp32"] < shares["fp16"] + shares["fp32"] == pytest.approx(1 - with_weights)
    one = [layers[0].name]
    assert shares_of(quantised(model, scales_for(model), one))["int8"] == pytest.approx(
        layers[0].macs / total
    )


def test_a_shape_that_the_graph_does_not_tell():
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"], "reshape"),
        helper.make_node("MatMul", ["r", "w"], ["y"], "product"),
    ]
    tensors = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 24)),
        helper.make_tensor_value_info("shape", TensorProto.INT64, (3,)),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    weight = numpy_helper.from_array(np.ones((4, 2), np.float32), "w")
    model = helper.make_model(helper.make_graph(nodes, "g", tensors[:2], tensors[2:], [weight]))
    with pytest.raises(GraphError, match="the shape of r, at product, cannot be inferred from the graph"):
        layers_of(model)
