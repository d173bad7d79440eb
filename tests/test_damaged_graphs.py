"""Graphs that are damaged, empty or lie: each verb that takes a graph ends in one message, or does its work."""

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from plain_graph import write_graph

from segdeploy.cli import main
from segdeploy.errors import GraphError
from segdeploy.graph.cost import cost_of
from segdeploy.graph.load import read_graph


def no_outputs(model):
    del model.graph.output[:]


def untyped(model):
    model.graph.output[0].type.Clear()


def sequence(model):
    name = model.graph.output[0].name
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None))


def of_no_rank(model):
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.output[0].type.tensor_type.shape.SetInParent()


def side(value):
    def change(model):
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = value

    return change


def channels(value):
    def change(model):
        model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = value

    return change


def outside(place):
    def change(model):
        weights = model.graph.initializer[0]
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        entry = weights.external_data.add()
        entry.key, entry.value = "location", place

    return change


def outside_in_a_node(model):
    value = numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[0]))
    node = helper.make_node("Constant", [], ["more"], value=value)
    held = node.attribute[0].t
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    entry = held.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    model.graph.node.insert(0, node)


def node_without_inputs(model):
    del model.graph.node[0].input[:]


def without_attributes(model):
    for node in model.graph.node:
        del node.attribute[:]


def without_opset(model):
    del model.opset_import[:]


def circle(model):
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def cut_weight(model):
    model.graph.initializer[0].raw_data = b"12"


def strange_node(model):
    model.graph.node[1].op_type = "Nonsense"


def weight_of(side):
    def change(model):
        model.graph.initializer[0].dims[0] = side

    return change


DAMAGES = {
    "no outputs": no_outputs, "untyped": untyped, "sequence": sequence, "no rank": of_no_rank, "side 0": side(0),
    "side 2³¹": side(2**31), "missing weights": outside("gone.data"), "weights outside": outside("../../etc/passwd"),
    "weights elsewhere": outside("/etc/passwd"), "weights in a folder": outside("."),
    "a node's weights outside": outside_in_a_node, "a node without inputs": node_without_inputs,
    "no attributes": without_attributes, "no opset": without_opset, "circle": circle, "cut weight": cut_weight,
    "strange node": strange_node, "a weight's side -5": weight_of(-5), "a weight's side 2⁵⁰": weight_of(2**50),
    "2⁴⁰ channels": channels(2**40), "2·10⁸ channels": channels(2 * 10**8),
}  # fmt: skip
SOUND_WITHOUT = {"untyped", "no attributes", "no rank"}  # the runtime infers what is not said


@pytest.fixture
def damaged(tmp_path, request):
    interface = "logits" if "channels" in request.param else "nvinfer"
    path = write_graph(tmp_path / "x.onnx", 19, interface)
    model = onnx.load(path)
    DAMAGES[request.param](model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.slow
@pytest.mark.parametrize("damaged", DAMAGES, indirect=True)
@pytest.mark.parametrize("foreign", [False, True])
def test_every_verb_ends_in_a_message(damaged, foreign, tmp_path, capsys):
    if foreign:
        model = onnx.load(damaged, load_external_data=False)
        del model.metadata_props[:]
        damaged.write_bytes(model.SerializeToString())
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.zeros((64, 96, 3), np.uint8))
    for verb in (
        ("inspect", damaged),
        ("inspect", damaged, "--cost"),
        ("run", damaged, image, "-o", tmp_path / "out"),
        ("bench", damaged, "--duration", "0.01", "--warmup", "0"),
        ("deepstream", "config", damaged, "-o", tmp_path / "ds"),
    ):
        assert main([str(word) for word in verb]) in (0, 1), verb
        said = capsys.readouterr().err
        assert said.count("\n") <= 1
        assert "fault in segdeploy" not in said


@pytest.mark.parametrize("damaged", DAMAGES, indirect=True)
def test_what_takes_a_graph_apart_refuses_it_first(damaged, request):
    name = request.node.callspec.params["damaged"]
    if name in SOUND_WITHOUT:
        return
    with pytest.raises(GraphError) as refusal:
        read_graph(damaged)
    assert "x.onnx" in str(refusal.value)
    assert len(str(refusal.value)) < 800


def test_cost_of_a_damaged_graph(tmp_path):
    path = write_graph(tmp_path / "x.onnx", 19, "nvinfer")
    model = onnx.load(path)
    node_without_inputs(model)
    with pytest.raises(GraphError, match="the multiplications of this graph cannot be counted"):
        cost_of(model)


def dropout(model):
    add = [
        numpy_helper.from_array(np.array(0.5, np.float32), "ratio"),
        numpy_helper.from_array(np.array(True), "mode"),
    ]
    model.graph.initializer.extend(add)
    model.graph.node.insert(2, helper.make_node("Dropout", ["b", "ratio", "mode"], ["d"], "drop"))
    model.graph.node[3].input[0] = "d"


@pytest.mark.parametrize("verb", [("inspect",), ("run",), ("bench",)])
def test_a_graph_in_training_mode_is_said(verb, tmp_path, capsys):
    """Its Dropout is active: two runs of one frame differ."""
    path = write_graph(tmp_path / "x.onnx", 19, "logits")
    model = onnx.load(path)
    dropout(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 96, 3), np.uint8))
    more = [str(tmp_path / "a.png"), "-o", str(tmp_path / "out")] if verb == ("run",) else []
    assert main([*verb, str(path), *more]) == 1
    assert capsys.readouterr().err == (
        "segdeploy: x.onnx is in training mode: 1 of its nodes are (Dropout 'drop' first), so that its answers are"
        " random or of the batch; export it after model.eval()\n"
    )
