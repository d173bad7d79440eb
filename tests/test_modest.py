"""Small files that ask for terabytes, or for hours: every verb that opens a graph says which bound they are beyond."""

import json

import numpy as np
import onnx
import plain_graph
import pytest
from onnx import TensorProto, helper, numpy_helper

from segdeploy.cli import main
from segdeploy.errors import GraphError
from segdeploy.graph import modest
from segdeploy.graph.load import read_graph
from segdeploy.graph.view import View
from segdeploy.run.session import open_session

node = helper.make_node
BIG = "big"


def sides(*counts):
    return np.array(counts, np.int64)


def loop():
    given = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("more", TensorProto.BOOL, []),
        helper.make_tensor_value_info("value", TensorProto.FLOAT, []),
    ]
    answers = [
        helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
    ]
    steps = [node("Identity", ["more"], ["on"]), node("Neg", ["value"], ["next"])]
    return helper.make_graph(steps, "body", given, answers)


# Nodes that make a tensor `big` of the features `b`, their constants, and what is said of it.
BOMBS = {
    "constant": ([node("ConstantOfShape", ["s"], [BIG])], {"s": sides(1 << 33)}, "big is (8589934592,), which cannot"),
    "doubled": (
        [node("Concat", [f"d{k}" if k else "b"] * 2, [f"d{k + 1}" if k < 29 else BIG], axis=0) for k in range(30)],
        {},
        "its tensor d20 is (1048576, 8, 16, 24), which cannot be computed; at most 2,147,483,647 values for",
    ),
    "tiled": ([node("Tile", ["b", "t"], [BIG])], {"t": sides(1, 1, 8192, 8192)}, "its tensor big is (1, 8, 131072,"),
    "held": (
        [
            *(node("ConstantOfShape", ["s"], [f"m{k}"]) for k in range(17)),
            node("Sum", [f"m{k}" for k in range(17)], [BIG]),
        ],
        {"s": sides(1 << 29)},
        "holds 9,663,678,336 values at once for each image; at most 8,589,934,592 are taken",
    ),
    "made": (
        [node("ConstantOfShape", ["s"], ["m0"])]
        + [node("Neg", [f"m{k}"], [f"m{k + 1}" if k < 149 else BIG]) for k in range(150)],
        {"s": sides(1 << 30)},
        "values for each image; at most 137,438,953,472 are taken",
    ),
    "multiplied": (
        [node("ConstantOfShape", ["s"], ["p"]), node("MatMul", ["p", "p"], [BIG])],
        {"s": sides(40_000, 40_000)},
        "takes 64,000,000,162,816 multiplications for each image; at most 20,000,000,000,000 are taken",
    ),
    "pooled": (
        [
            node("Resize", ["b", "", "k"], ["r"], mode="nearest"),
            node("MaxPool", ["r"], [BIG], kernel_shape=[16384, 16384], pads=[8192] * 4),
        ],
        {"k": np.array([1, 1, 512, 512], np.float32)},
        "multiplications for each image; at most 20,000,000,000,000 are taken",
    ),
    "without an end": (
        [node("Loop", ["trips", "yes", "zero"], [BIG], "endless", body=loop())],
        {"trips": np.array(1 << 60, np.int64), "yes": np.array(True), "zero": np.float32(0)},
        "has a node Loop (endless), whose end only its input decides",
    ),
}  # fmt: skip


def graph_with(path, nodes, constants, functions=()):
    """The plain network, whose logits depend on a tensor `big`."""
    model = onnx.load(plain_graph.write_graph(path, 5, "frames"))
    model.functions.extend(functions)
    own = [onnx.NodeProto.FromString(one.SerializeToString()) for one in model.graph.node]
    place = next(place for place, one in enumerate(own) if "logits" in one.output)
    own[place].output[0] = "features of classes"
    own[place + 1 : place + 1] = [
        *nodes,
        node("ReduceMax", [BIG], ["largest"], keepdims=0),
        node("Mul", ["largest", "nothing"], ["weighed"]),
        node("Add", ["features of classes", "weighed"], ["logits"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend(own)
    held = {**constants, "nothing": np.float32(0)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(held[name]), name) for name in held)
    if functions:
        model.opset_import.append(helper.make_opsetid("theirs", 1))
    onnx.save(model, path)
    return path


def test_inspect_says_that_no_runtime_loads_a_graph(tmp_path, capsys):
    path = graph_with(tmp_path / "x.onnx", [node("Neg", ["b"], [BIG])], {})
    assert main(["inspect", str(path)]) == 0
    assert main(["inspect", str(path), "--json"]) == 0
    assert '"onnxruntime": null' in capsys.readouterr().out
    path = graph_with(tmp_path / "x.onnx", [node("NoSuchThing", ["b"], [BIG])], {})
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "      runs  nowhere that is known: ONNX Runtime cannot load it: " in said
    assert "NoSuchThing" in said
    assert main(["inspect", str(path), "--json"]) == 0
    assert "NoSuchThing" in json.loads(capsys.readouterr().out)["onnxruntime"]


def test_deepstream_is_given_no_graph_that_no_runtime_loads(graphs, tmp_path, refused):
    model = onnx.load(graphs("nvinfer"))
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "NoSuchThing"
    onnx.save(model, tmp_path / "x.onnx")
    said = refused("deepstream", "config", tmp_path / "x.onnx")
    assert "x.onnx is loaded by no runtime, and nvinfer would fail on it too: " in said
    assert "NoSuchThing" in said


@pytest.mark.slow
def test_a_graph_of_two_outputs_is_not_taken_by_its_first(tmp_path, refused, capsys):
    path = graph_with(tmp_path / "x.onnx", [node("Neg", ["b"], [BIG])], {})
    model = onnx.load(path)
    model.graph.output.append(helper.make_empty_tensor_value_info(BIG))
    del model.metadata_props[:]
    onnx.save(model, path)
    words = "x.onnx has 2 outputs ('labels', 'big'), and which one holds the classes it does not say"
    for verb in (
        ["run", path, path],
        ["deepstream", "config", path],
        ["quantize", path, "--images", tmp_path],
    ):
        assert words in refused(*verb)
    assert main(["inspect", str(path)]) == 1
    assert words in capsys.readouterr().err


def calling(name, called, times):
    calls = [
        node(called, [f"x{k}"], [f"x{k + 1}"], domain="theirs" if called != "Neg" else "")
        for k in range(times)
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("theirs", 1)]
    return helper.make_function("theirs", name, ["x0"], [f"x{times}"], calls, opsets)


def refusal(path):
    found = set()
    for opened in (read_graph, lambda one: read_graph(one, weights=False), open_session):
        with pytest.raises(GraphError) as refused:
            opened(path)
        found.add(str(refused.value))
    (said,) = found
    return said


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_a_small_graph_may_not_ask_for(bomb, tmp_path):
    nodes, constants, words = BOMBS[bomb]
    path = graph_with(tmp_path / "bomb.onnx", nodes, constants)
    assert path.stat().st_size < 20_000
    said = refusal(path)
    assert said.startswith("bomb.onnx")
    assert words in said


def test_functions_are_counted_as_a_runtime_writes_them_out(tmp_path):
    chain = [calling("F0", "Neg", 2), *(calling(f"F{k}", f"F{k - 1}", 2) for k in range(1, 40))]
    path = graph_with(tmp_path / "x.onnx", [node("F39", ["b"], [BIG], domain="theirs")], {}, chain)
    assert "nodes when its functions are written out; at most 1,000,000 are taken" in refusal(path)
    circle = [calling("F0", "F1", 1), calling("F1", "F0", 1)]
    path = graph_with(tmp_path / "x.onnx", [node("F1", ["b"], [BIG], domain="theirs")], {}, circle)
    assert "calls itself, or is 50 others deep" in refusal(path)
    deep = [calling("F0", "Neg", 1), *(calling(f"F{k}", f"F{k - 1}", 1) for k in range(1, 3000))]
    path = graph_with(tmp_path / "x.onnx", [node("F2999", ["b"], [BIG], domain="theirs")], {}, deep)
    assert "calls itself, or is 50 others deep" in refusal(path)


def test_a_graph_within_the_bounds_runs_and_is_counted_as_it_is(tmp_path):
    path = graph_with(tmp_path / "x.onnx", [node("F1", ["b"], [BIG], domain="theirs")], {}, [
        calling("F0", "Neg", 2), calling("F1", "F0", 3),
    ])  # fmt: skip
    with open_session(path) as session:
        assert session.run(np.zeros((1, 64, 96, 3), np.uint8)).shape == (1, 64, 96)
    view = View(read_graph(path).model)
    made = {
        name: int(np.prod(view.shapes[name]))
        for one in view.nodes
        for name in one.output
        if name in view.shapes
    }
    assert modest.most_held(
        view, {name: made.get(name, 0) for one in view.nodes for name in one.output}
    ) >= max(made.values())
