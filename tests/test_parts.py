import numpy as np
import onnx
import pytest
from conftest import run_model

from segdeploy.graph.layers import layers_of
from segdeploy.graph.parts import parts_of
from segdeploy.run.inner_tensors import TapChain


def looked_at(model):
    return [
        model.graph.input[0].name,
        *sorted({layer.root for layer in layers_of(model)} - {model.graph.input[0].name}),
    ]


def chain_of(parts):
    return TapChain([(part.model, part.tensors, part.passed) for part in parts])


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, None])
def test_a_chain_gives_what_the_whole_graph_gives(batch, graphs):
    model = onnx.load(graphs("nvinfer", batch))
    tensors = looked_at(model)
    (whole,) = parts_of(model, tensors)
    assert whole.model is model
    parts = parts_of(model, tensors, 100_000)
    assert len(parts) > 5
    assert sorted(name for part in parts for name in part.tensors) == sorted(tensors)
    rng = np.random.default_rng(0)
    chain, alone = chain_of(parts), chain_of([whole])
    for count in (1,) if batch else (2, 1):
        inputs = rng.normal(size=[count, 3, 96, 160]).astype(np.float32)
        expected = dict(next(alone.run("input", inputs)))
        found = {name: values for part in chain.run("input", inputs) for name, values in part}
        assert found.keys() == expected.keys()
        for name, values in found.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_only_one_part_is_held(graphs):
    model = onnx.load(graphs("logits"))
    parts = parts_of(model, looked_at(model), 100_000)
    chain = chain_of(parts)
    inputs = np.zeros([1, 3, 96, 160], np.float32)
    for _ in chain.run("input", inputs):
        holding = [session for session in chain._sessions if session._arrays]
        assert len(holding) == 1
    assert not any(session._arrays for session in chain._sessions)


def test_a_branch_reads_from_outside(tmp_path):
    make, value, floats = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    branch = onnx.helper.make_graph(
        [make("Neg", ["early"], ["n"], "neg")], "b", [], [value("n", floats, [4])]
    )
    nodes = [
        make("Constant", [], ["two"], "two", value=onnx.helper.make_tensor("t", floats, [1], [2.0])),
        make("Mul", ["x", "two"], ["early"], "mul"),
        make("Relu", ["early"], ["late"], "relu"),
        make("If", ["yes"], ["chosen"], "if", then_branch=branch, else_branch=branch),
        make("Mul", ["chosen", "two"], ["y"], "again"),
    ]
    yes = onnx.helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True])
    graph = onnx.helper.make_graph(nodes, "g", [value("x", floats, [4])], [value("y", floats, [4])], [yes])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    parts = parts_of(model, ["early", "late", "chosen", "y"], 16)
    assert [part.tensors for part in parts] == [["early"], ["late"], ["chosen"], ["y"]]
    x = np.float32([1, -2, 3, -4])
    found = {name: values for part in chain_of(parts).run("x", x) for name, values in part}
    assert found["chosen"].tolist() == [-2, 4, -6, 8]
    assert np.array_equal(found["y"], run_model(model, x))
