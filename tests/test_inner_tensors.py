import numpy as np
import onnx
import pytest
from conftest import run_model

from segdeploy.errors import GraphError
from segdeploy.graph.layers import layers_of
from segdeploy.run.inner_tensors import TapSession


@pytest.mark.slow
@pytest.mark.parametrize(("interface", "batch"), [("logits", 1), ("frames", 3), ("nvinfer", None)])
def test_each_tensor_is_what_the_graph_computes_there(interface, batch, graphs):
    model = onnx.load(graphs(interface, batch))
    name = model.graph.input[0].name
    tensors = [name, *sorted({layer.root for layer in layers_of(model)} - {name})[::7]]
    session = TapSession(model, tensors)
    rng = np.random.default_rng(0)
    for count in (batch,) * 2 if batch else (2, 1):
        shape = [count, 96, 160, 3] if interface == "frames" else [count, 3, 96, 160]
        pixels = rng.integers(0, 256, shape, np.uint8)
        inputs = pixels if interface == "frames" else (pixels / 128 - 1).astype(np.float32)
        for tensor, values in session.run(inputs):
            if tensor == name:
                assert np.array_equal(values, inputs)
                continue
            del model.graph.output[:]
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
            expected = run_model(model, inputs)
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)


def test_a_tensor_that_is_not_there(graphs):
    with pytest.raises(GraphError, match="ONNX Runtime cannot open the graph"):
        TapSession(onnx.load(graphs("logits")), ["nothing"])


def test_a_tensor_whose_shape_is_not_known_beforehand(tmp_path):
    """What is non-zero depends on the input; ONNX Runtime makes such tensors afresh."""
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("NonZero", ["x"], ["places"], "nonzero"),
        make("Cast", ["places"], ["y"], "cast", to=onnx.TensorProto.FLOAT),
        make("Relu", ["x"], ["r"], "relu"),
    ]
    floats = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes, "g", [value("x", floats, (2, 3))], [value("y", floats, None), value("r", floats, (2, 3))]
    )
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    session = TapSession(model, ["y", "r", "places"])
    for zeros in (1, 4):
        x = np.ones((2, 3), np.float32)
        x.flat[:zeros] = 0
        found = dict(session.run(x))
        assert found["places"].tolist() == np.array(np.nonzero(x)).tolist()
        assert np.array_equal(found["y"], found["places"])
        assert np.array_equal(found["r"], x)
