"""A graph whose weights were trained with quantisation, as ModelOpt's exporter writes it, goes on as it is."""

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from segdeploy import open_session, scenes
from segdeploy.cli import main
from segdeploy.graph.view import View, replace_nodes


def as_trained(model):
    """Put pairs before products and norms: scales in Constant nodes, weights in float with a pair of their own."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.metadata_props[:]
    view, nodes = View(made), []

    def pair(tensor, name, scale, axis=None):
        constants = [f"{name}/scale", f"{name}/zero"]
        for value, called in ((scale, constants[0]), (np.zeros(scale.shape, np.int8), constants[1])):
            nodes.append(
                helper.make_node("Constant", [], [called], called, value=numpy_helper.from_array(value))
            )
        more = {} if axis is None else {"axis": axis}
        for kind, given in (("QuantizeLinear", tensor), ("DequantizeLinear", f"{name}/QuantizeLinear")):
            nodes.append(
                helper.make_node(kind, [given, *constants], [f"{name}/{kind}"], f"{name}/{kind}", **more)
            )
        return f"{name}/DequantizeLinear"

    for node in list(made.graph.node):
        if node.op_type in ("Conv", "MatMul", "LayerNormalization"):
            node.input[0] = pair(node.input[0], f"{node.name}/input_quantizer", np.array(0.05, np.float32))
            weight = node.input[1]
            if weight in view.weights and node.op_type == "Conv":
                largest = np.abs(view.array(weight)).max(axis=(1, 2, 3))
                node.input[1] = pair(
                    weight, f"{node.name}/weight_quantizer", (largest / 127).astype(np.float32), 0
                )
        nodes.append(node)
    replace_nodes(made.graph, nodes)
    return made


@pytest.fixture
def trained(graphs, tmp_path):
    path = tmp_path / "qat.onnx"
    onnx.save(as_trained(onnx.load(graphs("logits"))), path)
    return path


@pytest.fixture
def card(tmp_path):
    classes = ("road", "pavement", "sky", "car", "person")
    named = ", ".join(f"{{name: {name}, colour: [{place}, 9, 9]}}" for place, name in enumerate(classes))
    (tmp_path / "five.yaml").write_text(f"classes: [{named}]")
    path = tmp_path / "theirs.yaml"
    path.write_text(
        "checkpoint: theirs\nsize: 96x160\nmean: [123.675, 116.28, 103.53]\nstd: [58.395, 57.12, 57.375]\n"
        "labels: five.yaml\nresize: linear\nlicence: none\n"
    )
    return path


@pytest.mark.slow
def test_it_is_seen_and_run_as_it_is(trained, card, tmp_path, capsys):
    assert main(["inspect", str(trained), "--card", str(card)]) == 0
    said = capsys.readouterr().out
    assert "logits" in said
    assert "road, pavement, sky, car, person" in said
    picture = tmp_path / "street.png"
    cv2.imwrite(str(picture), scenes.make_scene(3, 96, 160).image)
    assert main(["run", str(trained), str(picture), "--card", str(card), "-o", str(tmp_path / "out")]) == 0
    ids = cv2.imread(str(tmp_path / "out" / "street.ids.png"), cv2.IMREAD_UNCHANGED)
    with open_session(trained, card=str(card)) as session:
        assert ids.shape == (96, 160)
        assert ids.max() < session.signature.classes


@pytest.mark.slow
def test_it_is_not_quantised_again(trained, card, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for seed in range(8):
        cv2.imwrite(str(tmp_path / "images" / f"{seed}.png"), scenes.make_scene(seed, 96, 160).image)
    asked = ["quantize", trained, "--images", tmp_path / "images", "--card", card, "-o", tmp_path / "out"]
    assert main([*map(str, asked)]) == 1
    assert "the graph is quantised already" in capsys.readouterr().err


@pytest.mark.slow
def test_an_engine_has_its_eight_bits(trained, card, tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx", reason="pip install 'segdeploy[rtx]'")
    asked = [
        "build-engine",
        trained,
        "--int8",
        "--runtime",
        "tensorrt-rtx",
        "--target",
        "sm_86",
        "--card",
        card,
    ]
    assert main([*map(str, asked), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "qat.rtx.engine: int8" in said
    convolutions = sum(node.op_type == "Conv" for node in onnx.load(trained).graph.node)
    eight = int(said.partition(" INT8 (")[0].rpartition(" ")[2])
    assert eight >= convolutions
