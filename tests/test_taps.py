import numpy as np
import onnx
import pytest
from conftest import run_model

from segdeploy.errors import GraphError
from segdeploy.graph.layers import layers_of
from segdeploy.sessions.taps import TapSession


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
