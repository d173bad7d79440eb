"""A network of two convolutions, in PyTorch and as `export` would write it, for any number of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from segdeploy.model.labels import generated_labels
from segdeploy.model.signature import ONE_SCALE, Signature, TensorFacts
from segdeploy.size import Size

SIZE = Size(64, 96)


class Network(torch.nn.Module):
    """Eight features of each 4×4 pixels, and as many logits as there are classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(classes)
        self.features = torch.nn.Conv2d(3, 8, 4, 4)
        self.classify = torch.nn.Conv2d(8, classes, 1)
        self.features.weight.data *= 30

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classify(self.features(pixels).relu())
        return logits

    def labels(self, frame: NDArray[np.uint8]) -> NDArray[np.int64]:
        with torch.inference_mode():
            pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float() * ONE_SCALE
            raised = F.interpolate(self(pixels), frame.shape[:2], mode="bilinear")
        return np.asarray(raised.argmax(1)[0])


def write_graph(path: Path, classes: int, interface: str) -> Path:
    """The network as `export` would write it."""
    network = Network(classes)
    height, width = SIZE.height, SIZE.width
    weights = [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in network.state_dict().items()]
    weights.append(numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32), "scales"))
    weights.append(numpy_helper.from_array(np.array(ONE_SCALE, np.float32), "scale"))
    name, kind = ("frames", TensorProto.UINT8) if interface == "frames" else ("input", TensorProto.FLOAT)
    nodes, pixels = [], name
    if interface == "frames":
        nodes = [
            helper.make_node("Cast", [name], ["float"], "cast", to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["float"], ["planes"], "planes", perm=[0, 3, 1, 2]),
            helper.make_node("Mul", ["planes", "scale"], ["pixels"], "scaled"),
        ]
        pixels = "pixels"
    nodes += [
        helper.make_node(
            "Conv", [pixels, "features.weight", "features.bias"], ["a"], "features", strides=[4, 4]
        ),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "classify.weight", "classify.bias"], ["logits"], "classify"),
    ]
    answer = ("logits", TensorProto.FLOAT, [1, classes, height // 4, width // 4])
    if interface != "logits":
        channel = interface == "nvinfer"
        nodes.append(helper.make_node("Resize", ["logits", "", "scales"], ["raised"], "raise", mode="linear"))
        nodes.append(helper.make_node("ArgMax", ["raised"], ["ids"], "choose", axis=1, keepdims=int(channel)))
        answer = ("ids", TensorProto.INT64, [1, 1, height, width])
    if interface == "nvinfer":
        nodes[-1].output[0], answer = "output", ("output", *answer[1:])
    if interface == "frames":
        narrow = TensorProto.UINT8 if classes <= 256 else TensorProto.UINT16
        nodes.append(helper.make_node("Cast", ["ids"], ["labels"], "narrow", to=narrow))
        answer = ("labels", narrow, [1, height, width])
    sides = [1, height, width, 3] if interface == "frames" else [1, 3, height, width]
    graph = helper.make_graph(
        nodes,
        "many",
        [helper.make_tensor_value_info(name, kind, sides)],
        [helper.make_tensor_value_info(*answer)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    signature = Signature(
        interface,
        TensorFacts(name, "", tuple(sides)),
        TensorFacts(answer[0], "", tuple(answer[2])),
        SIZE,
        1,
        (0.0, 0.0, 0.0),
        (1.0 if interface == "frames" else ONE_SCALE,) * 3,
        generated_labels([f"class of {index}" for index in range(classes)], "many"),
        "linear",
        "many",
    )
    helper.set_model_props(model, signature.metadata())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_saturating_graph(path: Path) -> Path:
    """One quantised product with two classes: the first is larger, unless sums of two products of bytes are cut off."""
    height, width = SIZE.height, SIZE.width
    weights = {
        "x.scale": np.float32(1 / 127),
        "x.zero": np.int8(0),
        "w.q": np.array([[127, 100], [127, 0], [0, 100]], np.int8),
        "w.scale": np.full(2, 1 / 127, np.float32),
        "w.zero": np.zeros(2, np.int8),
    }
    nodes = [
        helper.make_node("Transpose", ["input"], ["x"], "pixels", perm=[0, 2, 3, 1]),
        helper.make_node("QuantizeLinear", ["x", "x.scale", "x.zero"], ["x.q"], "q"),
        helper.make_node("DequantizeLinear", ["x.q", "x.scale", "x.zero"], ["x.int8"], "dq"),
        helper.make_node("DequantizeLinear", ["w.q", "w.scale", "w.zero"], ["w"], "weight", axis=1),
        helper.make_node("MatMul", ["x.int8", "w"], ["scores"], "product"),
        helper.make_node("Transpose", ["scores"], ["logits"], "planes", perm=[0, 3, 1, 2]),
    ]
    taken, given = (1, 3, height, width), (1, 2, height, width)
    graph = helper.make_graph(
        nodes,
        "saturating",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, given)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = TensorFacts("input", "", taken), TensorFacts("logits", "", given)
    labels = generated_labels(["larger", "smaller"], "two")
    signature = Signature("logits", *facts, SIZE, 1, (0.0,) * 3, (ONE_SCALE,) * 3, labels, "linear", "two")
    helper.set_model_props(model, signature.metadata())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def saturating_answer(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What that graph says: its pixels, 0 to 1, in steps of 1/127."""
    stored = np.rint(pixels * np.float32(127)) / 127
    answer = np.stack([stored[:, 0] + stored[:, 1], (stored[:, 0] + stored[:, 2]) * 100 / 127], 1)
    return answer.astype(np.float32)
