import json
from dataclasses import replace

import pytest

from segdeploy.errors import GraphError
from segdeploy.model.card import read_card
from segdeploy.model.foreign import IMAGENET_MEAN
from segdeploy.model.labels import generated_labels
from segdeploy.model.metadata import read_signature
from segdeploy.model.signature import ONE_SCALE, Signature, TensorFacts
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
    ("change", "why"),
    [
        ({"interface": "other"}, "interface is 'other'; expected nvinfer or frames or logits"),
        ({"mean": "[1, 2]"}, "mean is a list of 2; expected one of 3"),
        ({"mean": "nonsense"}, "mean is not JSON: Expecting value: line 1 column 1 (char 0)"),
        ({"mean": '["a", 1, 2]'}, "mean[0] is 'a'; expected a finite number"),
        ({"mean": "[" * 20_000}, "mean is nested too deeply"),
        ({"scale": "[NaN, 1, 1]"}, "scale[0] is nan; expected a finite number"),
        ({"scale": "[0, 1, 1]"}, "scale is (0.0, 1.0, 1.0); expected numbers above 0"),
        ({"classes": None}, "it has no 'classes'"),
        ({"classes": "[]", "colours": "[]"}, "0 classes have 0 colours"),
        ({"classes": '["a"]'}, "1 classes have 2 colours"),
        ({"classes": '["a", 5]'}, "classes[1] is 5; expected text"),
        ({"classes": r'["\ud800", "b"]'}, r"classes[0] is '\ud800'; expected text"),
        (
            {"classes": r'["a\nb", "b"]'},
            r"class 0 is called 'a\nb'; expected one line of text that can be printed: correct it where the classes are"
            " named",
        ),
        ({"colours": "[]"}, "2 classes have 0 colours"),
        ({"colours": "[[1, 2, 300], [1, 2, 3]]"}, "colours[0][2] is 300; expected 0 to 255"),
        (
            {"card": "../../x"},
            r"card is '../../x'; expected text that matches (?!\.{1,2}$)[A-Za-z0-9._-]{1,250}",
        ),
        ({"resize": "magic"}, "resize is 'magic'; expected linear or pillow"),
        ({"align_corners": "2"}, "align_corners is 2; expected true or false"),
        ({"mean": "[1e300, 0, 0]"}, "mean is (1e+300, 0.0, 0.0); expected 0 to 255"),
        ({"interface": "frames"}, "it has no 'frames', but 'input'"),
        ({"tensors": '["input", "other"]', "size": "64x96"}, "it has no 'other', but 'output'"),
        (
            {"tensors": '["input", "output"]', "size": "5"},
            "'5' is not a size; expected HEIGHTxWIDTH, as in 512x1024",
        ),
    ],
)
def test_metadata_that_does_not_hold(change, why):
    given = OURS.metadata() | {f"segdeploy.{name}": value for name, value in change.items()}
    facts = {key: value for key, value in given.items() if value is not None}
    with pytest.raises(GraphError) as raised:
        read_signature(facts, [OURS.input], [OURS.output], "x.onnx")
    assert (
        str(raised.value) == f"x.onnx carries segdeploy metadata that does not hold ({why}); export it again"
    )


def test_the_metadata_of_others_stands_beside_ours():
    others = {"segdeploy.precision": "{", "producer": "\x1b", "segdeploy.what": "["}
    assert read_signature(OURS.metadata() | others, [OURS.input], [OURS.output], "x.onnx") == OURS


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (OURS.input, OURS.output._replace(shape=())),
        (OURS.input, OURS.output._replace(dtype="float32")),
        (OURS.input, OURS.output._replace(dtype="float32", shape=(1, 2))),
        (OURS.input._replace(dtype="uint8"), OURS.output),
        (OURS.input._replace(dtype="sequence_type", shape=()), OURS.output),
        (OURS.input._replace(shape=(1, 4, 64, 96)), OURS.output),
    ],
)
def test_tensors_that_are_not_those_of_the_interface(given, answer):
    with pytest.raises(GraphError, match=r"its interface is nvinfer, and its tensors|has 0 dimensions"):
        read_signature(OURS.metadata(), [given], [answer], "x.onnx")


@pytest.mark.parametrize("metadata", [{}, OURS.metadata()])
@pytest.mark.parametrize(
    "shape", [(0, 3, 64, 96), (1, 3, 0, 96), (1, 3, -4, 96), (1, 3, 2**31, 96), (2**40, 3, 64, 96)]
)
def test_sides_that_no_tensor_has(shape, metadata):
    given = OURS.input._replace(shape=shape)
    said = "cannot be computed; expected sides of 1 or more, and at most 1,073,741,824 values in all"
    with pytest.raises(GraphError, match=said):
        read_signature(metadata, [given], [OURS.output], "x.onnx")


def test_a_side_beyond_the_largest():
    given = image("float32", 1, 3, 16, 20000)
    with pytest.raises(GraphError, match="has images of 16x20000; a side is at most 16384 pixels"):
        read_signature({}, [given], [image("float32", 1, 19, 4, 5000)], "x.onnx")


@pytest.mark.parametrize("classes", [2**40, 200_000_000, 65536])
def test_more_classes_than_there_can_be(classes):
    with pytest.raises(GraphError, match=r"classes; at most 65,535|cannot be computed"):
        read_signature({}, [image("float32", 1, 3, 8, 8)], [image("float32", 1, classes, 2, 2)], "x.onnx")


def test_a_graph_without_an_output():
    with pytest.raises(
        GraphError, match=r"x\.onnx has no output; a segmentation graph answers logits or labels"
    ):
        read_signature({}, [image("float32", 1, 3, 8, 8)], [], "x.onnx")


YOLO = {"author": "Ultralytics", "task": "semantic", "names": "{0: 'road', 1: 'sky'}"}


def test_ultralytics_names_its_classes_and_eats_pixels_of_0_to_1():
    signature = read_signature(
        YOLO, [image("float32", 1, 3, 256, 256)], [image("uint8", 1, 256, 256)], "yolo.onnx"
    )
    assert (signature.labels.names, signature.mean) == (("road", "sky"), (0, 0, 0))
    assert signature.scale == (1 / 255,) * 3


@pytest.mark.parametrize("names", ["{0: 'a', 2: 'b'}", "{0: 1}", "__import__('os')", "(" * 9000, "[1]", "{}"])
def test_names_that_are_none_are_left(names):
    given = YOLO | {"names": names}
    signature = read_signature(
        given, [image("float32", 1, 3, 8, 8)], [image("float32", 1, 2, 8, 8)], "yolo.onnx"
    )
    assert signature.labels.names == ("class 0", "class 1")


def test_more_names_than_logits():
    with pytest.raises(GraphError, match="has 3 classes, and its metadata names 2; name the card"):
        read_signature(YOLO, [image("float32", 1, 3, 8, 8)], [image("float32", 1, 3, 8, 8)], "yolo.onnx")


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


CITYSCAPES = read_card("segformer-b0-cityscapes")
TAO = (
    [image("float32", None, 3, 1024, 1820, name="input")],
    [image("int64", None, 1, 1024, 1820, name="output")],
)


def test_taos_city_model_gets_its_classes_from_a_card():
    bare = read_signature({}, *TAO, "city.onnx")
    assert (str(bare.size), bare.batch, bare.classes, bare.card) == ("1024x1820", None, 256, "unknown")
    assert (bare.mean, bare.scale) == (
        IMAGENET_MEAN,
        (ONE_SCALE,) * 3,
    )  # as NVIDIA's own nvinfer configuration has it
    named = read_signature({}, *TAO, "city.onnx", CITYSCAPES)
    assert (named.labels.name, named.classes, named.card) == ("cityscapes", 19, "segformer-b0-cityscapes")
    assert (str(named.size), named.resize) == ("1024x1820", "pillow")
    assert named.scale == pytest.approx((1 / 58.395, 1 / 57.12, 1 / 57.375))


def test_optimums_open_graph_takes_size_and_classes_from_a_card():
    inputs, outputs = [image("float32", *[None] * 4, name="pixel_values")], [image("float32", *[None] * 4)]
    signature = read_signature({}, inputs, outputs, "x.onnx", CITYSCAPES)
    assert (signature.interface, signature.size, signature.classes) == ("logits", CITYSCAPES.size, 19)
    assert not signature.channels_last
    assert not signature.logits_last
    assert read_signature(signature.metadata(), inputs, outputs, "x.engine") == signature


@pytest.mark.parametrize(
    ("eaten", "answered", "interface", "classes", "last"),
    [
        (image("float32", 1, 64, 96, 3), image("float32", 1, 16, 24, 5), "logits", 5, (True, True)),
        (image("float32", 1, 64, 96, 3), image("float32", 1, 5, 16, 24), "logits", 5, (True, False)),
        (image("float32", 1, 64, 96, 3), image("int64", 1, 64, 96), "nvinfer", 256, (True, False)),
        (image("uint8", 1, 3, 64, 96), image("uint8", 1, 64, 96), "frames", 256, (False, False)),
        (image("uint8", 1, 64, 96, 3), image("float16", 1, 5, 64, 96), "logits", 5, (True, False)),
        (image("float16", 1, 3, 64, 96), image("int32", 1, 64, 96, 1), "nvinfer", 256, (False, False)),
    ],
)
def test_layouts_and_types(eaten, answered, interface, classes, last):
    signature = read_signature({}, [eaten], [answered], "x.onnx")
    assert (signature.interface, signature.classes) == (interface, classes)
    assert (signature.channels_last, signature.logits_last) == last
    assert signature.size == Size(64, 96)
    if eaten.dtype == "uint8":
        assert (signature.mean, signature.scale) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(("name", "kernel"), [("pixel_values", "pillow"), ("input", "linear")])
def test_the_resize_of_those_who_export_it(name, kernel):
    inputs = [image("float32", 1, 3, 64, 96, name=name)]
    assert read_signature({}, inputs, [image("float32", 1, 19, 16, 24)], "x.onnx").resize == kernel


def test_a_card_says_nothing_new_about_a_graph_of_ours():
    def card(labels, mean=IMAGENET_MEAN):
        return replace(CITYSCAPES, labels=labels, mean=mean)

    arguments = OURS.metadata(), [OURS.input], [OURS.output], "x.onnx"
    assert read_signature(*arguments, card(LABELS)) == OURS
    for other in (CITYSCAPES, card(LABELS, (127.5, 127.5, 127.5)), replace(card(LABELS), resize="linear")):
        with pytest.raises(
            GraphError, match=r"carries its own facts, of the card 'mine' \(2 classes, .*Leave the card"
        ):
            read_signature(*arguments, other)


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ([image("float32", 1, 3, 640, 640)], [image("float32", 1, 84, 8400)], "signature is not understood"),
        ([image("float32", 1, 3, 64, 96)], [image("float32", 1, None, 16, 24)], "names no number of classes"),
        ([image("float32", 1, 3, None, None)], [image("float32", 1, 19, 16, 24)], "leaves its height and width open"),
        ([image("float32", 1, 3, 64, 96)], [image("float32", 1, 1, 64, 96)], "has 1 channel, and logits have one for"),
        ([image("float32", 1, 3, 64, 96)], [image("int64", 1, 32, 48)], "labels of another size than the input"),
        ([image("float64", 1, 3, 64, 96)], [image("int64", 1, 64, 96)], "signature is not understood"),
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
