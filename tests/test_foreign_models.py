"""Graphs from elsewhere are run and scored as ours are: the tiny network's own graphs, made into theirs."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import yaml
from conftest import CLASSES
from onnx import TensorProto, helper

from segdeploy import scenes
from segdeploy.assess.evaluate.windows import sliding_window
from segdeploy.cli import main
from segdeploy.convert.adopt.described import AdoptRequest, choose_normalisation
from segdeploy.errors import GraphError
from segdeploy.graph.load import read_graph
from segdeploy.model.card import read_card
from segdeploy.model.labels import generated_labels
from segdeploy.model.metadata import read_signature
from segdeploy.model.signature import ONE_SCALE, TensorFacts
from segdeploy.run.io import from_output
from segdeploy.run.ort import OrtSession
from segdeploy.run.session import open_session, segment
from segdeploy.scenes import make_scene
from segdeploy.size import Size

FRAMES = [make_scene(seed, 120, 200).image for seed in (1, 2)]
FLOAT, FLOAT16, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8


@pytest.fixture(scope="module")
def card(tmp_path_factory) -> Path:
    """What the tiny graphs' metadata says, for graphs that have lost it."""
    folder = tmp_path_factory.mktemp("card")
    colours = [[10 * index, 20, 30] for index in range(len(CLASSES))]
    classes = [{"name": name, "colour": colour} for name, colour in zip(CLASSES, colours, strict=True)]
    (folder / "five.yaml").write_text(json.dumps({"classes": classes}))
    facts = {
        "checkpoint": "somewhere/else", "size": "96x160", "labels": "five.yaml",
        "mean": [123.675, 116.28, 103.53], "std": [1 / ONE_SCALE] * 3, "resize": "pillow",
        "licence": "none",
    }  # fmt: skip
    path = folder / "theirs.yaml"
    path.write_text(json.dumps(facts))
    return path


class Foreign:
    """A graph of ours without its metadata, to be renamed and retyped at both ends."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(path)
        del self.model.metadata_props[:]
        del self.model.graph.value_info[:]

    def renamed(self, given: str, answer: str) -> "Foreign":
        graph = self.model.graph
        names = {graph.input[0].name: given, graph.output[0].name: answer}
        graph.input[0].name, graph.output[0].name = given, answer
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        return self

    def fed(self, operator: str, dtype: int, shape: list, **attributes) -> "Foreign":
        """Another input, that `operator` makes the former one of."""
        graph, former = self.model.graph, self.model.graph.input[0].name
        graph.node.insert(0, helper.make_node(operator, ["outer"], [former], **attributes))
        del graph.input[:]
        graph.input.append(helper.make_tensor_value_info("outer", dtype, shape))
        return self.renamed("outer", graph.output[0].name)

    def followed(self, operator: str, dtype: int, shape: list, *more: str, **attributes) -> "Foreign":
        graph, former = self.model.graph, self.model.graph.output[0].name
        graph.node.append(helper.make_node(operator, [former, *more], ["further"], **attributes))
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info("further", dtype, shape))
        return self

    def constant(self, name: str, values: list[int]) -> "Foreign":
        self.model.graph.initializer.append(
            helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        )
        return self

    def open_sides(self) -> "Foreign":
        """All sides of the input and the output left open, as Optimum exports them."""
        for tensor in (self.model.graph.input[0], self.model.graph.output[0]):
            for index, side in enumerate(tensor.type.tensor_type.shape.dim):
                side.ClearField("dim_value")
                side.dim_param = f"{tensor.name}_{index}"
        return self

    def written(self, path: Path) -> Path:
        onnx.checker.check_model(self.model)
        onnx.save(self.model, path)
        return path


def optimum(graph):
    return graph.renamed("pixel_values", "logits").open_sides()


def labels_without_channel(graph):
    return graph.constant("axis", [1]).followed("Squeeze", TensorProto.INT64, [1, 96, 160], "axis")


def int32_labels(graph):
    return graph.followed("Cast", TensorProto.INT32, [1, 1, 96, 160], to=TensorProto.INT32)


def labels_channel_last(graph):
    return graph.followed("Transpose", TensorProto.INT64, [1, 96, 160, 1], perm=[0, 2, 3, 1])


def images_channel_last(graph):
    return graph.fed("Transpose", FLOAT, [1, 96, 160, 3], perm=[0, 3, 1, 2])


def all_channel_last(graph):
    return images_channel_last(graph).followed("Transpose", FLOAT, [1, 24, 40, 5], perm=[0, 2, 3, 1])


def bytes_channel_first(graph):
    return graph.fed("Transpose", UINT8, [1, 3, 96, 160], perm=[0, 2, 3, 1])


def half_logits(graph):
    return graph.followed("Cast", FLOAT16, [1, 5, 24, 40], to=FLOAT16)


def half_in_and_out(graph):
    return half_logits(graph).fed("Cast", FLOAT16, [1, 3, 96, 160], to=FLOAT)


def named(given, answer):
    return lambda graph: graph.renamed(given, answer)


# The interface of ours that it is made from, its batch, what makes it theirs, and how many pixels must be equal.
KINDS = {
    "TAO": ("nvinfer", 1, lambda graph: graph, 1),
    "mmdeploy, labels": ("nvinfer", None, lambda graph: graph, 1),
    "mmdeploy, logits": ("logits", 1, named("input", "output"), 1),
    "Hugging Face": ("logits", None, named("pixel_values", "logits"), 1),
    "Optimum": ("logits", 1, optimum, 1),
    "labels N×H×W": ("nvinfer", 1, labels_without_channel, 1),
    "labels int32": ("nvinfer", 1, int32_labels, 1),
    "labels N×H×W×1": ("nvinfer", 1, labels_channel_last, 1),
    "images N×H×W×3": ("nvinfer", 1, images_channel_last, 1),
    "logits N×h×w×C": ("logits", 1, all_channel_last, 1),
    "bytes": ("frames", 1, named("image", "classes"), 1),
    "bytes N×3×H×W": ("frames", 1, bytes_channel_first, 1),
    "float16 logits": ("logits", 1, half_logits, 0.98),
    "float16": ("logits", 1, half_in_and_out, 0.98),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def theirs(kind, graphs, tmp_path) -> Path:
    interface, batch, change, _ = kind
    return change(Foreign(graphs(interface, batch))).written(tmp_path / "theirs.onnx")


@pytest.fixture
def ours(kind, graphs) -> Path:
    return graphs(*kind[:2])


@pytest.mark.slow
def test_the_card_makes_it_answer_as_ours(kind, theirs, ours, card):
    with open_session(theirs, card=read_card(str(card))) as session, open_session(ours) as own:
        signature = session.signature
        assert (signature.foreign, signature.card, str(signature.size)) == (True, "theirs", "96x160")
        assert (signature.labels.names, signature.resize) == (CLASSES, "pillow")
        for frame in FRAMES:
            for how in ("stretch", "letterbox"):
                answer, expected = segment(session, frame, how).labels, segment(own, frame, how).labels
                assert (answer == expected).mean() >= kind[3]
                assert len(np.unique(expected)) > 1


@pytest.mark.slow
def test_it_is_read_as_a_session_reads_it(theirs, card):
    described = read_card(str(card))
    with open_session(theirs, card=described) as session, OrtSession(theirs, card=described) as whole:
        assert read_graph(theirs, described).signature == session.signature == whole.signature


def test_open_sides_of_the_output_are_inferred(graphs, card, tmp_path):
    """Optimum names sides that the input's own fix."""
    theirs, described = Foreign(graphs("logits")), read_card(str(card))
    for index, side in enumerate(theirs.model.graph.output[0].type.tensor_type.shape.dim):
        side.dim_param = f"side_{index}"
    path = theirs.written(tmp_path / "theirs.onnx")
    with OrtSession(path, card=described) as session:
        assert session.signature.output.shape == (1, 5, 24, 40)
        assert read_graph(path, described, weights=False).signature == session.signature


def test_what_is_made_of_it_carries_its_signature(theirs, card):
    described = read_card(str(card))
    with open_session(theirs, card=described) as session:
        signature = session.signature
    for said in (None, described):
        tensors = [signature.input], [signature.output]
        assert read_signature(signature.metadata(), *tensors, "x.engine", said) == signature


@pytest.mark.slow
def test_it_is_scored_as_ours(kind, theirs, ours, card, tmp_path, capsys):
    with open_session(ours) as session:
        truth = [segment(session, frame).labels for frame in FRAMES]
    dataset = write_dataset(tmp_path / "data", truth)
    described = ["--card", str(card)]
    assert main(["evaluate", str(theirs), *dataset, *described, "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    confusion = np.array(report["models"][0]["confusion"])
    assert confusion.sum() == sum(labels.size for labels in truth)
    assert confusion.trace() >= kind[3] * confusion.sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Optimum", "logits N×h×w×C", "float16 logits"])
def test_windows_see_the_same(name, graphs, card, tmp_path):
    interface, batch, change, equal = KINDS[name]
    theirs = change(Foreign(graphs(interface, batch))).written(tmp_path / "theirs.onnx")
    low = FRAMES[0][:80]  # lower than a window, which is then padded
    with open_session(theirs, card=read_card(str(card))) as session, open_session(graphs("logits")) as own:
        for frame in (FRAMES[0], low):
            answer, expected = sliding_window(session)(frame), sliding_window(own)(frame)
            assert (answer == expected).mean() >= equal


@pytest.mark.slow
def test_it_is_run_and_inspected_on_the_command_line(graphs, card, tmp_path, capsys):
    theirs = optimum(Foreign(graphs("logits"))).written(tmp_path / "theirs.onnx")
    cv2.imwrite(str(tmp_path / "a.png"), FRAMES[0][..., ::-1])
    with open_session(graphs("logits")) as session:
        expected = segment(session, FRAMES[0]).labels
    arguments = [str(theirs), str(tmp_path / "a.png"), "--card", str(card), "-o", str(tmp_path / "out")]
    assert main(["run", *arguments]) == 0
    assert np.array_equal(cv2.imread(str(tmp_path / "out/a.ids.png"), cv2.IMREAD_UNCHANGED), expected)
    capsys.readouterr()
    assert main(["inspect", str(theirs), "--card", str(card), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["card"], facts["size"], facts["classes"]) == ("theirs", "96x160", list(CLASSES))
    assert facts["input"] == "'pixel_values' float32 ?×?×?×?"


def write_dataset(root: Path, truth) -> list[str]:
    for index, frame in enumerate(FRAMES):
        for kind, picture in (("images", frame[..., ::-1]), ("labels", truth[index])):
            (root / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / kind / f"{index}.png"), picture)
    mapping = root / "mapping.yaml"
    ids = dict(enumerate(CLASSES))
    mapping.write_text(yaml.safe_dump({"images": "images", "labels": "labels", "ids": ids}))
    return ["--dataset", "folder", "--root", str(root), "--mapping", str(mapping)]


# ---- TAO 6 -----------------------------------------------------------------------------------------------------

TAO_6 = (("input", (1, 3, 1024, 1820)), ("output", (1, 19, 256, 455)))


def signature_without_card(given, answer, dtype="float32"):
    ends = [TensorFacts(given[0], "float32", given[1])], [TensorFacts(answer[0], dtype, answer[1])]
    return read_signature({}, *ends, "x.onnx")


@pytest.mark.parametrize("sides", [(256, 455), (256, 456)])
def test_logits_of_tao_6_are_fed_as_tao_6_does_it(sides):
    given, (name, _) = TAO_6
    signature = signature_without_card((given[0], (None, 3, 1024, 1821)), (name, (None, 19, *sides)))
    assert (signature.interface, signature.mean, signature.scale) == (
        "logits",
        (127.5,) * 3,
        (1 / 127.5,) * 3,
    )
    assert (str(signature.size), signature.classes) == ("1024x1821", 19)


@pytest.mark.parametrize(
    ("given", "answer", "dtype"),
    [
        (("pixel_values", TAO_6[0][1]), TAO_6[1], "float32"),
        (TAO_6[0], ("logits", TAO_6[1][1]), "float32"),
        (TAO_6[0], ("output", (1, 19, 1024, 1820)), "float32"),
        (TAO_6[0], ("output", (1, 19, 128, 228)), "float32"),
        (TAO_6[0], ("output", (1, 19, None, None)), "float32"),
        (TAO_6[0], TAO_6[1], "float16"),
        (TAO_6[0], ("output", (1, 1, 1024, 1820)), "int64"),
        (TAO_6[0], ("output", (1, 1024, 1820, 1)), "int64"),
    ],
)
def test_other_graphs_are_not_taken_for_those_of_tao_6(given, answer, dtype):
    signature = signature_without_card(given, answer, dtype)
    assert signature.mean == (123.675, 116.28, 103.53)
    three = (1 / 58.395, 1 / 57.12, 1 / 57.375)
    assert signature.scale == (three if dtype != "int64" else (ONE_SCALE,) * 3)


def test_a_graph_of_tao_6_is_adopted_as_tao_6_feeds_it():
    ends = (TensorFacts(name, "float32", shape) for name, shape in TAO_6)
    mean, std, words = choose_normalisation(*ends, "x.onnx", AdoptRequest(), None, None)
    assert (mean, std) == ((127.5,) * 3, (127.5,) * 3)
    assert words == "the normalisation is TAO 6's, mean and std of 127.5, as its tensors are (--mean, --std)"
    ends = (TensorFacts(name, "float32", shape) for name, shape in TAO_6)
    asked = AdoptRequest(mean=[1, 2, 3], std=[4, 5, 6])
    assert choose_normalisation(*ends, "x.onnx", asked, None, None) == ((1, 2, 3), (4, 5, 6), "")


# ---- what cannot be ----------------------------------------------------------------------------------------------


def test_without_a_card_an_open_size_is_refused_with_the_remedy(graphs, tmp_path):
    theirs = optimum(Foreign(graphs("logits"))).written(tmp_path / "theirs.onnx")
    with pytest.raises(
        GraphError, match=r"leaves its height and width open; name the card .* --card NAME_OR_FILE"
    ):
        open_session(theirs)


def test_a_card_of_other_classes_is_refused(graphs, tmp_path):
    theirs = Foreign(graphs("logits")).renamed("pixel_values", "logits").written(tmp_path / "theirs.onnx")
    with pytest.raises(
        GraphError, match=r"has 5 classes, and the card 'segformer-b0-cityscapes' has 19 \(cityscapes\)"
    ):
        open_session(theirs, card=read_card("segformer-b0-cityscapes"))


def test_what_the_graph_leaves_open_is_checked_when_it_runs():
    nothing = TensorFacts("logits", "float32", (None,) * 4)
    named = replace(read_card("segformer-b0-ade"), size=Size(96, 160))
    signature = read_signature({}, [nothing], [nothing], "x.onnx", named)
    with pytest.raises(
        GraphError, match="answers logits of 5 classes, and the card 'segformer-b0-ade' has 150"
    ):
        from_output(signature, np.zeros((1, 5, 24, 40), np.float32))
    with pytest.raises(GraphError, match=r"answers labels \(1, 24, 40\) to images of 96x160"):
        from_output(replace(signature, interface="nvinfer"), np.zeros((1, 24, 40), np.int64))


def test_an_id_beyond_the_cards_classes_is_refused(graphs, card, tmp_path):
    described = read_card(str(card))
    two = replace(described, labels=generated_labels(["road", "kerb"], "two"))
    theirs = Foreign(graphs("nvinfer")).written(tmp_path / "theirs.onnx")
    with (
        open_session(theirs, card=two) as session,
        pytest.raises(GraphError, match=r"answers class ids of 0 to 4, and its card 'theirs' has 2 classes"),
    ):
        segment(session, FRAMES[0])


def test_the_first_id_that_is_no_class_is_refused(card):
    ends = [TensorFacts("input", "float32", (1, 3, 96, 160))], [TensorFacts("output", "int64", (1, 96, 160))]
    theirs = read_signature({}, *ends, "x.onnx", read_card(str(card)))
    signature = replace(theirs, labels=generated_labels(["road", "kerb", "sky"]))
    labels = np.zeros((1, 96, 160), np.int64)
    labels[0, 5, 7] = 2
    assert from_output(signature, labels)[0, 5, 7] == 2
    for id_, words in ((3, "of 0 to 3"), (-1, "of -1 to 0")):
        labels[0, 5, 7] = id_
        with pytest.raises(
            GraphError, match=f"answers class ids {words}, and its card 'theirs' has 3 classes"
        ):
            from_output(signature, labels)


def test_labels_of_another_size_are_refused(graphs, tmp_path):
    small = (
        Foreign(graphs("nvinfer")).constant("from", [0, 0]).constant("to", [48, 80]).constant("sides", [2, 3])
    )
    small = small.followed("Slice", TensorProto.INT64, [1, 1, 48, 80], "from", "to", "sides")
    with pytest.raises(GraphError, match=r"has labels of another size than the input's 96x160"):
        open_session(small.written(tmp_path / "small.onnx"))


def test_a_card_for_our_own_graph_must_agree_with_it(graphs, card):
    with open_session(graphs("nvinfer"), card=read_card(str(card))) as session:
        assert (session.signature.card, session.signature.foreign) == ("tiny", False)
    other = read_card("segformer-b0-cityscapes")
    with pytest.raises(
        GraphError, match=r"carries its own facts, of the card 'tiny' \(5 classes, .*Leave the card out"
    ):
        open_session(graphs("nvinfer"), card=other)


def test_ids_that_say_nothing_are_not_scored_as_the_data_sets_own(graphs, tmp_path, refused):
    """0.15 % mIoU was printed for a model of 47.7 %: Cityscapes' ids, counted as CamVid's."""
    theirs = Foreign(graphs("nvinfer")).written(tmp_path / "theirs.onnx")
    scenes.write_cityscapes(tmp_path / "city", 2, seed=70, height=64, width=128)
    asked = [theirs, "--dataset", "cityscapes", "--root", tmp_path / "city"]
    assert refused("evaluate", *asked) == (
        "segdeploy: the model answers class ids and does not say what they mean; name the card that does, with --card"
        " NAME_OR_FILE\n"
    )
