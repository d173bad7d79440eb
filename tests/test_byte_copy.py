"""The copy that OpenVINO multiplies in bytes: the same arithmetic in another order, and attention in bytes too."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segdeploy.errors import GraphError
from segdeploy.graph.attention import (
    SCALES,
    operands_of_attention,
    outputs_of_softmax,
    store_scales,
    stored_scales,
)
from segdeploy.graph.view import View, attributes_of
from segdeploy.prove.golden import as_rounded
from segdeploy.run.byte_copy import MOVERS, in_bytes_throughout
from segdeploy.run.cpu_graph import copy_for_cpu
from segdeploy.run.inner_tensors import TapSession
from segdeploy.run.io import to_input
from segdeploy.run.ort import OrtSession, run_exactly
from segdeploy.run.session import open_session
from segdeploy.scenes import make_scene


def answer(model, pixels):
    return run_exactly(as_rounded(model).SerializeToString(), pixels, model.graph.output[0].name)


def pixels_for(path):
    with OrtSession(path) as session:
        size = session.signature.size
        return to_input(session.signature, make_scene(3, size.height, size.width).image[None])


def copied(model):
    made = onnx.ModelProto.FromString(model.SerializeToString())
    in_bytes_throughout(made, "x.onnx")
    onnx.checker.check_model(made, full_check=True)
    return made


def without_scales(model):
    made = onnx.ModelProto.FromString(model.SerializeToString())
    for item in [item for item in made.metadata_props if item.key == SCALES]:
        made.metadata_props.remove(item)
    return made


@pytest.fixture(scope="module")
def attending(int8, graphs, tmp_path_factory):
    """The INT8 graph with scales for all of attention, which a network of random weights would not keep by itself."""
    plain, model = onnx.load(graphs("frames")), onnx.load(int8)
    operands = sorted({name for both in operands_of_attention(View(plain)).values() for name in both})
    seen = TapSession(plain, operands).run(pixels_for(int8))
    shares = outputs_of_softmax(View(plain))
    store_scales(model, {name: float(np.abs(x).max()) / (255 if name in shares else 127) for name, x in seen})
    path = tmp_path_factory.mktemp("attending") / int8.name
    onnx.save(model, path)
    return path


def kinds(model):
    return [node.op_type for node in model.graph.node]


# ---- a real graph ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_scales_of_attention_it_answers_to_the_bit(attending):
    model = without_scales(onnx.load(attending))
    made, pixels = copied(model), pixels_for(attending)
    assert made.SerializeToString() != model.SerializeToString()
    np.testing.assert_array_equal(answer(made, pixels), answer(model, pixels))


def test_nothing_is_turned_as_floats_before_it_is_quantised(attending):
    view = View(copied(onnx.load(attending)))
    pairs = [node for node in view.nodes if node.op_type == "QuantizeLinear"]
    assert pairs
    assert not [node.name for node in pairs if view.only_maker(node.input[0], *MOVERS)]
    turned = [node for node in view.nodes if list(attributes_of(node).get("perm", ())) == [0, 2, 1]]
    assert not [node.name for node in turned if view.only_maker(node.input[0], "Reshape")]


def test_every_product_of_attention_has_pairs(attending):
    model = onnx.load(attending)
    products = operands_of_attention(View(model))
    assert len(products) == 2 * kinds(model).count("Softmax") > 0
    assert stored_scales(model, "x.onnx").keys() == {name for both in products.values() for name in both}
    view = View(copied(model))
    for node in view.nodes:
        if node.name in products:
            assert all(restored(name, view) for name in node.input), node.name


def restored(name, view):
    while (node := view.makers[name]).op_type in MOVERS:
        name = node.input[0]
    return node.op_type == "DequantizeLinear"


@pytest.mark.slow
def test_attention_in_bytes_keeps_the_labels(attending):
    model, pixels = onnx.load(attending), pixels_for(attending)
    own, bytewise = answer(model, pixels), answer(copied(model), pixels)
    assert 0.9 <= np.mean(own == bytewise) < 1  # of random weights


@pytest.mark.slow
def test_a_session_in_bytes_is_told_so_and_agrees(attending):
    pytest.importorskip("openvino", reason="openvino is not installed")
    pixels = pixels_for(attending)
    with (
        open_session(attending, provider="openvino", precision="int8") as session,
        OrtSession(attending) as itself,
    ):
        assert session.ran["precision"] == "int8"
        assert np.mean(session.run(pixels) == itself.run(pixels)) >= 0.9


@pytest.mark.slow
def test_attention_may_stay_in_floats(attending):
    model = onnx.load(attending)
    made = onnx.ModelProto.FromString(model.SerializeToString())
    assert not in_bytes_throughout(made, "x.onnx", attention="none")
    assert kinds(made).count("QuantizeLinear") == kinds(model).count("QuantizeLinear")
    pixels = pixels_for(attending)
    np.testing.assert_array_equal(answer(made, pixels), answer(model, pixels))
    copy = copy_for_cpu(attending, "openvino", in_bytes=True)
    assert copy.ran_in("int8")["attention"] == "in bytes too"
    copy = copy_for_cpu(attending, "openvino", in_bytes=True, attention="none")
    assert "attention" not in copy.ran_in("int8")


@pytest.mark.slow
def test_or_only_the_scores_are_in_bytes(attending):
    model = onnx.load(attending)
    shares = outputs_of_softmax(View(model))
    products = operands_of_attention(View(model))
    scores = {name for both in products.values() if not shares & set(both) for name in both}
    made = onnx.ModelProto.FromString(model.SerializeToString())
    assert in_bytes_throughout(made, "x.onnx", attention="scores")
    added = kinds(made).count("QuantizeLinear") - kinds(model).count("QuantizeLinear")
    assert (added, len(scores)) == (len(scores), len(products))
    copy = copy_for_cpu(attending, "openvino", in_bytes=True, attention="scores")
    assert copy.ran_in("int8")["attention"] == "its scores in bytes"


def test_only_a_runtime_that_multiplies_bytes_gets_it(attending):
    plain, bytewise = (
        onnx.load_from_string(copy_for_cpu(attending, "openvino", in_bytes=one).model)
        for one in (False, True)
    )
    assert kinds(bytewise).count("QuantizeLinear") > kinds(plain).count("QuantizeLinear")


# ---- scales ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0, -1])
def test_an_operand_without_a_usable_scale_keeps_its_product_as_it_is(scale, attending):
    model = onnx.load(attending)
    store_scales(model, dict.fromkeys(stored_scales(model, "x.onnx"), scale))
    made = copied(model)
    assert kinds(made).count("QuantizeLinear") == kinds(model).count("QuantizeLinear")


@pytest.mark.parametrize("text", ["[1]", "{", '{"x": Infinity}', '{"x": "y"}', '{"x": null}', "1"])
def test_scales_that_cannot_be_read(text, attending):
    model = onnx.load(attending)
    helper.set_model_props(model, {SCALES: text})
    with pytest.raises(
        GraphError, match=r"x\.onnx has scales of attention that cannot be read \(.*\); quantise"
    ):
        stored_scales(model, "x.onnx")


def test_scales_of_tensors_that_are_not_there_are_left_alone(attending):
    model = without_scales(onnx.load(attending))
    store_scales(model, {"no.such": 0.1})
    assert kinds(copied(model)).count("QuantizeLinear") == kinds(model).count("QuantizeLinear")


def test_nothing_is_written_without_scales(attending):
    model = without_scales(onnx.load(attending))
    store_scales(model, {})
    assert SCALES not in {item.key for item in model.metadata_props}


def test_they_are_beside_the_other_metadata(attending):
    kept = {item.key: item.value for item in onnx.load(attending).metadata_props}
    assert "segdeploy.interface" in kept
    assert all(scale > 0 for scale in json.loads(kept[SCALES]).values())


# ---- graphs of other hands -------------------------------------------------------------------------------------


def small(*, turned_twice=False, per_channel=False, in_nodes=False, other_zero=False):
    """A turned tensor whose pair has one reader; each flag is a reason to leave it where it is."""
    scale = np.array([0.1, 0.2, 0.3, 0.4] if per_channel else 0.1, np.float32)
    zero = np.zeros(scale.shape, np.int8)
    held = {
        "scale": scale,
        "zero": zero,
        "weight": np.eye(4, dtype=np.float32),
        "other": np.array(1, np.int8),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], "turn", perm=[0, 2, 1]),
        helper.make_node("QuantizeLinear", ["turned", "scale", "zero"], ["q"], "q", axis=2),
        helper.make_node(
            "DequantizeLinear", ["q", "scale", "other" if other_zero else "zero"], ["dq"], "dq", axis=2
        ),
        helper.make_node("MatMul", ["dq", "weight"], ["y"], "product"),
    ]
    outputs = ["y", *(["turned"] if turned_twice else [])]
    if in_nodes:
        nodes.insert(
            1, helper.make_node("Constant", [], ["scale"], value=numpy_helper.from_array(held.pop("scale")))
        )
    graph = helper.make_graph(
        nodes, "small", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 6, 4]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_the_pair_moves_before_the_turn():
    made = copied(small())
    assert kinds(made) == ["QuantizeLinear", "DequantizeLinear", "Transpose", "MatMul"]
    x = np.random.default_rng(0).uniform(-15, 15, (1, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(answer(made, x), answer(small(), x))


@pytest.mark.parametrize("reason", ["turned_twice", "per_channel", "in_nodes", "other_zero"])
def test_the_pair_stays(reason):
    model = small(**{reason: True})
    assert kinds(copied(model)) == kinds(model)


@pytest.mark.parametrize("batch", [1, 2, None])
def test_tokens_lie_by_channels_last(batch):
    shapes = {"flat": np.array([0, 3, -1]), "back": np.array([0, 3, 4, 5])}
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["a"], "flatten"),
        helper.make_node("Transpose", ["a"], ["b"], "to tokens", perm=[0, 2, 1]),
        helper.make_node("Relu", ["b"], ["c"], "work"),
        helper.make_node("Transpose", ["c"], ["d"], "from tokens", perm=[0, 2, 1]),
        helper.make_node("Reshape", ["d", "back"], ["y"], "unflatten"),
    ]
    sides = [batch or "N", 3, 4, 5]
    graph = helper.make_graph(
        nodes, "tokens", [helper.make_tensor_value_info("x", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, sides)],
        [numpy_helper.from_array(array, name) for name, array in shapes.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    made = copied(model)
    assert kinds(made) == ["Transpose", "Reshape", "Relu", "Reshape", "Transpose"]
    x = np.random.default_rng(0).normal(size=(batch or 2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(answer(made, x), answer(model, x))


@pytest.mark.parametrize("weighted", [True, False])
def test_a_layer_before_a_softmax_is_no_attention(weighted):
    """As before a softmax over classes, whose shares weigh masks."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"], "classify"),
        helper.make_node("Softmax", ["scores"], ["shares"], "softmax", axis=-1),
        helper.make_node("MatMul", ["shares", "masks"], ["y"], "weigh"),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 4]) for name in ("x", "masks")]
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32)[None], "w")
    if not weighted:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [1, 4, 4]))
    graph = helper.make_graph(
        nodes, "classes", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4])],
        [weight] if weighted else [],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert list(operands_of_attention(View(model))) == (["weigh"] if weighted else ["classify", "weigh"])
