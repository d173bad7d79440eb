"""FP16 in the graph: which nodes stay FP32, that types agree everywhere, and that overflow is seen without a GPU."""

import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper, parser

from segdeploy.errors import CardError, GraphError
from segdeploy.graph.fp16 import fp32_nodes, loss, rounding, to_fp16
from segdeploy.prove.ranges import first_not_finite, measure_ranges

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
INTERFACES = ["nvinfer", "frames", "logits"]


def graph(body, inputs="float[1,2,4,4] x", outputs="float[1,2,4,4] y", **constants):
    """`a = Relu(x)` in ONNX's own text form, one node a line; a node has the name of its output."""
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {body} }}'
    model = parser.parse_model(text)
    for node in model.graph.node:
        node.name = node.output[0]
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    onnx.checker.check_model(model, full_check=True)
    return model


def types_of(model):
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.input, *inferred.output, *inferred.value_info]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {item.name: item.data_type for item in inferred.initializer}


def casts_of(model):
    return [node for node in model.graph.node if node.op_type == "Cast"]


def run(model, inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def kernel(*shape, scale=1.0):
    return scale * np.random.default_rng(0).standard_normal(shape)


def assert_strongly_typed(model):
    types = types_of(model)
    for node in model.graph.node:
        names = (
            node.input[:1] if node.op_type == "Resize" else node.input
        )  # its scales are FP32 by definition
        floats = {types[name] for name in names if name and types[name] in (FLOAT, HALF)}
        assert len(floats) <= 1, f"{node.name} reads FP16 and FP32"
    keys = Counter(
        (node.input[0], next(item.i for item in node.attribute if item.name == "to"))
        for node in casts_of(model)
    )
    assert set(keys.values()) <= {1}, "a tensor is cast twice"
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    assert all(made_by.get(node.input[0]) != "Cast" for node in casts_of(model))
    readers = {name for node in model.graph.node for name in node.input}
    outputs = {value.name for value in model.graph.output}
    assert all(node.output[0] in readers | outputs for node in casts_of(model))


@pytest.mark.parametrize(
    "keep", [[], ["*LayerNormalization"], ["*Softmax", "*blocks.?/Add*"], ["network.head*"], ["*"]]
)
@pytest.mark.parametrize("interface", INTERFACES)
def test_every_node_reads_one_type(interface, keep, graphs):
    model = onnx.load(graphs(interface))
    half = to_fp16(model, keep)
    assert_strongly_typed(half)
    assert half.graph.input == model.graph.input
    assert half.graph.output == model.graph.output
    assert half.opset_import == model.opset_import
    assert half.metadata_props == model.metadata_props


@pytest.mark.parametrize(
    ("interface", "islands", "casts"),
    [("nvinfer", [], 1), ("frames", ["Transpose", "Sub"], 3), ("logits", [], 2)],
)
def test_a_segformer_is_fp16_throughout(interface, islands, casts, graphs):
    half = to_fp16(onnx.load(graphs(interface)))
    assert fp32_nodes(half) == islands
    assert len(casts_of(half)) == casts
    full = {item.name for item in half.graph.initializer if item.data_type == FLOAT}
    readers = {node.op_type for node in half.graph.node if full.intersection(node.input)}
    assert readers == {"Resize", *(["Sub"] if islands else [])}  # Resize's scales are FP32 by definition


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, None])
def test_an_fp16_graph_answers_as_the_fp32_one(batch, graphs):
    model = onnx.load(graphs("logits", batch))
    inputs = np.random.default_rng(1).normal(0, 1, (batch or 2, 3, 96, 160)).astype(np.float32)
    expected, half = run(model, inputs), to_fp16(model)
    for made in (half, rounding(half)):
        answer = run(made, inputs)
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected, atol=5e-3 * np.ptp(expected))


def test_the_model_given_is_left_alone(graphs):
    model = onnx.load(graphs("logits"))
    before = model.SerializeToString()
    to_fp16(model, ["*Softmax"])
    assert model.SerializeToString() == before


# ---- islands ---------------------------------------------------------------------------------------------------


def test_a_cast_is_shared_by_all_who_read_it():
    model = graph(
        "a = Conv(x, w) b = Conv(a, w) c = Conv(a, w) d = Add(b, c) y = Conv(d, w)", w=kernel(2, 2, 1, 1)
    )
    half = to_fp16(model, ["b", "c"])
    assert fp32_nodes(half) == ["b", "c"]
    assert [node.name for node in casts_of(half)] == ["x.fp16", "a.fp32", "b.fp16", "c.fp16", "y/Cast"]


def test_what_lies_between_islands_joins_them():
    model = graph(
        "a = Conv(x, w) b = Relu(a) c = Transpose <perm = [0, 1, 3, 2]> (b) d = Conv(c, w) y = Conv(d, w)",
        w=kernel(2, 2, 1, 1),
    )
    half = to_fp16(model, ["a", "d"])
    assert fp32_nodes(half) == ["a", "b", "c", "d"]
    assert [node.name for node in casts_of(half)] == ["d.fp16", "y/Cast"]
    assert {item.name: item.data_type for item in half.graph.initializer} == {"w": FLOAT, "w.fp16": HALF}


def test_a_pattern_that_names_nothing_is_refused():
    with pytest.raises(CardError, match=r"keep_fp32 names 'head\*', and no node"):
        to_fp16(graph("y = Relu(x)"), ["head*"])


def test_pixels_are_cast_straight_to_what_reads_them():
    model = graph("a = Cast <to = 1> (x) y = Conv(a, w)", inputs="uint8[1,2,4,4] x", w=kernel(2, 2, 1, 1))
    half = to_fp16(model)
    assert fp32_nodes(half) == []
    assert [(node.name, node.attribute[0].i) for node in casts_of(half)] == [("a", HALF), ("y/Cast", FLOAT)]


@pytest.mark.parametrize(
    ("weight", "stays"),
    [
        (kernel(2, 2, 1, 1), False),
        (kernel(2, 2, 1, 1, scale=1e6), True),  # overflows
        (kernel(2, 2, 1, 1, scale=1e-6), True),  # subnormal as a whole
        (kernel(2, 2, 1, 1, scale=1e-9), True),  # vanishes
        (np.array([1, 1e-9, -0.3, 2e-6]).reshape(2, 2, 1, 1), False),
        (np.zeros((2, 2, 1, 1)), False),
    ],
)
def test_weights_that_fp16_cannot_hold(weight, stays):
    model = graph("a = Conv(x, w) y = Conv(a, v)", w=weight, v=kernel(2, 2, 1, 1))
    half = to_fp16(model)
    assert_strongly_typed(half)
    assert fp32_nodes(half) == (["a"] if stays else [])
    assert all(np.isfinite(numpy_helper.to_array(item)).all() for item in half.graph.initializer)


def test_the_loss_of_a_constant():
    assert loss(np.float32([1, 0.5, -2])) == 0
    assert loss(np.float32([1e5])) == float("inf")
    assert loss(np.float32([1e-9])) == 1
    assert 0 < loss(kernel(100).astype(np.float32)) < 2**-11


def test_operators_that_onnx_does_not_define_are_refused():
    model = graph("y = Relu(x)")
    model.graph.node[0].domain = "mine"
    model.opset_import.add(domain="mine", version=1)
    with pytest.raises(GraphError, match="the node 'y' is a Relu; FP16 is written into graphs of plain ONNX"):
        to_fp16(model)


# ---- ranges, infinities and NaN --------------------------------------------------------------------------------

ROOT = graph("a = Mul(x, big) b = Mul(a, big) c = Relu(b) d = Mul(c, small) y = Conv(d, w)",
             big=300, small=1e-3, w=kernel(2, 2, 1, 1))  # fmt: skip
ONES = np.ones((1, 2, 4, 4), np.float32)


def test_the_largest_of_every_tensor():
    ranges = measure_ranges(ROOT, [ONES, -2 * ONES, 0 * ONES])
    expected = 90 * np.maximum(kernel(2, 2, 1, 1).sum(axis=1), 0).max()
    assert ranges == pytest.approx(
        {"x": 2, "a": 600, "b": 180000, "c": 90000, "d": 90, "y": expected}, rel=1e-5
    )


@pytest.mark.slow
def test_looking_at_tensors_does_not_hold_them():
    """Thirty tensors of 16 MB each; in a process of its own, because a peak is never forgotten."""
    program = """
import resource, sys
import numpy as np
from onnx import TensorProto, helper
from segdeploy.prove.ranges import measure_ranges
names = [f"t{turn}" for turn in range(31)]
nodes = [helper.make_node("Add", [old, old], [new]) for old, new in zip(names, names[1:])]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 1024, 1024]) for name in (names[0], names[-1])]
model = helper.make_model(helper.make_graph(nodes, "chain", ends[:1], ends[1:]))
model.opset_import[0].version, model.ir_version = 17, 8
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
inputs, before = np.ones((1, 4, 1024, 1024), np.float32), peak()
ranges = measure_ranges(model, [inputs])
print(ranges["t30"], peak() - before)
"""
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    largest, grown = map(float, answer.split())
    assert largest == 2.0**30
    assert grown < 200e3  # KiB


def test_an_activation_beyond_fp16_stays_fp32():
    half = to_fp16(ROOT, largest=measure_ranges(ROOT, [ONES]))
    assert fp32_nodes(half) == ["a", "b", "c", "d"]  # a would be FP16 between two casts
    assert [node.name for node in casts_of(half)] == ["d.fp16", "y/Cast"]
    np.testing.assert_allclose(run(rounding(half), ONES), run(ROOT, ONES), atol=90 * 2**-10)


def test_an_activation_near_the_limit_stays_fp32():
    """The limit is an eighth of 65504, FP16's largest number: other images may reach further than the probes did."""
    assert fp32_nodes(to_fp16(ROOT, largest={"a": 8188.0})) == []
    assert fp32_nodes(to_fp16(ROOT, largest={"a": 8188.5})) == ["a", "b"]


def test_onnx_runtime_alone_does_not_see_the_overflow_and_we_do():
    half = to_fp16(ROOT)
    assert np.isfinite(run(half, ONES)).all()
    assert not np.isfinite(run(rounding(half), ONES)).all()
    assert first_not_finite(rounding(half), [0 * ONES, ONES]) == "b"
    assert first_not_finite(rounding(half), [0 * ONES]) is None


def test_the_first_nan_is_named():
    model = graph("a = Relu(x) b = Sub(a, one) c = Sqrt(b) d = Relu(c) y = Add(d, a)", one=1)
    mixed = ONES.copy()
    mixed[0, 1, 2, 3] = 0.5
    assert first_not_finite(model, [ONES]) is None
    assert first_not_finite(model, [ONES, mixed]) == "c"
    assert measure_ranges(model, [mixed])["c"] == float("inf")


def test_rounding_is_that_of_numpy():
    model = graph("a = Mul(x, tenth) b = Add(a, x) c = Sqrt(b) y = Div(c, tenth)", tenth=0.1)
    values = np.random.default_rng(2).uniform(0, 500, (1, 2, 4, 4)).astype(np.float32)
    x, tenth = values.astype(np.float16), np.float16(0.1)
    expected = np.sqrt(x * tenth + x) / tenth
    assert expected.dtype == np.float16
    np.testing.assert_array_equal(run(rounding(to_fp16(model)), values), expected.astype(np.float32))


def test_an_index_is_counted_in_fp32():
    """Position to index, 1 to 4093, of what a product has given: in FP16 most would be others."""
    body = """product = MatMul(x, one) scaled = Mul(product, wide) moved = Add(scaled, row) whole = Floor(moved)
              index = Cast<to=7>(whole) other = Relu(product)"""
    model = graph(
        body,
        "float[1024,1] x",
        "int64[1024,1] index, float[1024,1] other",
        one=np.eye(1, dtype=np.float32),
        wide=np.array(4, np.float32),
        row=np.array(1, np.float32),
    )
    half = to_fp16(model)
    assert [name for name in fp32_nodes(half) if name != "other/Cast"] == ["scaled", "moved", "whole"]
    x = np.arange(1024, dtype=np.float32)[:, None]
    assert np.array_equal(run(rounding(half), x), run(model, x))


def test_the_difference_of_two_positions_is_taken_before_rounding():
    """What lies between two places of a sampling grid: FP16 has no fractions beyond 1024."""
    body = """product = MatMul(x, one) moved = Mul(product, wide) whole = Floor(moved) between = Sub(moved, whole)
              index = Cast<to=7>(whole) other = MatMul(between, one)"""
    model = graph(
        body,
        "float[1024,1] x",
        "int64[1024,1] index, float[1024,1] other",
        one=np.eye(1, dtype=np.float32),
        wide=np.array(4.3, np.float32),
    )
    assert "between" in fp32_nodes(to_fp16(model))
    x = np.arange(1024, dtype=np.float32)[:, None]
    session = onnxruntime.InferenceSession(rounding(to_fp16(model)).SerializeToString())
    assert np.abs(session.run(["other"], {"x": x})[0] - (x * np.float32(4.3)) % 1).max() < 1e-3
