import json

import pytest

from segdeploy.errors import GraphError
from segdeploy.labels import generated_labels
from segdeploy.signature import IMAGENET_MEAN, ONE_SCALE, Signature, TensorFacts, read_signature
from segdeploy.size import Size

LABELS = generated_labels(["road", "sky"], "two")
OURS = Signature(
    "nvinfer", TensorFacts("input", "float32", (1, 3, 64, 96)), TensorFacts("output", "int64", (1, 1, 64, 96)),
    Size(64, 96), 1, IMAGENET_MEAN, (ONE_SCALE,) * 3, LABELS, "pillow", "mine",
)  # fmt: skip


def image(dtype, *shape, name="x"):
    return TensorFacts(name, dtype, shape)


def test_metadata_comes_back():
    assert read_signature(OURS.metadata(), [OURS.input], [OURS.output], "x.onnx") == OURS


@pytest.mark.parametrize(
    "change",
    [
        {"segdeploy.interface": "other"},
        {"segdeploy.mean": "[1, 2]"},
        {"segdeploy.mean": "nonsense"},
        {"segdeploy.classes": None},
        {"segdeploy.interface": "frames"},
    ],
)
def test_metadata_that_does_not_hold(change):
    facts = {key: value for key, value in (OURS.metadata() | change).items() if value is not None}
    with pytest.raises(GraphError, match=r"x\.onnx carries segdeploy metadata that does not hold"):
        read_signature(facts, [OURS.input], [OURS.output], "x.onnx")


def test_hugging_faces_graph_is_understood():
    inputs = [image("float32", None, 3, 512, 1024, name="pixel_values")]
    signature = read_signature({}, inputs, [image("float32", None, 19, 128, 256)], "x.onnx")
    assert (signature.interface, signature.batch, signature.size) == ("logits", None, Size(512, 1024))
    assert (signature.classes, signature.mean) == (19, IMAGENET_MEAN)
    assert signature.scale == pytest.approx((1 / 58.395, 1 / 57.12, 1 / 57.375))


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_taos_graph_is_understood(dtype):
    signature = read_signature({}, [image("float32", 1, 3, 64, 96)], [image(dtype, 1, 1, 64, 96)], "x.onnx")
    assert (signature.interface, signature.scale) == ("nvinfer", (ONE_SCALE,) * 3)


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ([image("float32", 1, 3, 640, 640)], [image("float32", 1, 84, 8400)], "signature is not understood"),
        ([image("float32", 1, 3, 64, 96)], [image("float32", 1, None, 16, 24)], "names no number of classes"),
        ([image("float32", 1, 3, None, None)], [image("float32", 1, 19, 16, 24)], "leaves its height and width open"),
        ([image("float32", 1, 768)], [image("float32", 1, 19, 16, 24)], "has 2 dimensions"),
        ([image("float32", 1, 3, 64, 96)] * 2, [image("float32", 1, 19, 16, 24)], "has 2 inputs"),
        ([image("float32", 1, 4, 64, 96)], [image("float32", 1, 19, 16, 24)], "signature is not understood"),
    ],
)  # fmt: skip
def test_graphs_that_are_something_else(inputs, outputs, words):
    with pytest.raises(GraphError, match=words):
        read_signature({}, inputs, outputs, "x.onnx")


def test_metadata_is_plain_text():
    facts = OURS.metadata()
    assert json.loads(facts["segdeploy.classes"]) == ["road", "sky"]
    assert all(isinstance(value, str) for value in facts.values())
