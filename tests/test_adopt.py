"""Any graph becomes one of ours: other exporters' beginnings and ends, each against what the graph answered before."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from test_foreign_models import FRAMES, KINDS, Foreign, card  # noqa: F401 - a fixture

import segdeploy
from segdeploy.cli import main
from segdeploy.convert.adopt.adopt import adopt
from segdeploy.convert.adopt.own_input import own_normalisation
from segdeploy.errors import CardError, ExportDisagrees, GraphError, RequestError
from segdeploy.graph.load import read_graph
from segdeploy.graph.view import View
from segdeploy.model.record import read_record
from segdeploy.model.signature import INTERFACES
from segdeploy.prove.against_graph import enlarged_bilinearly
from segdeploy.run.session import open_session, segment
from segdeploy.size import Size

SIDES = 64, 96
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


class Net:
    """A network of two convolutions with stride 2 and a classifier, written as an exporter would, node by node."""

    def __init__(
        self, classes: int = 5, *, last: bool = False, eats: int = FLOAT, opset: int = 17, pad: int = 1
    ) -> None:
        self.random, self.opset = np.random.default_rng(3), opset
        self.nodes, self.weights = [], []
        self.tensor = "image"
        self.given = helper.make_tensor_value_info("image", eats, [1, *SIDES, 3] if last else [1, 3, *SIDES])
        if eats != FLOAT:
            self.then("Cast", to=FLOAT)
        if last:
            self.then("Transpose", perm=[0, 3, 1, 2])
        self.begun = self.tensor
        self.classes, self.pad = classes, pad

    def body(self) -> "Net":
        for width, reads in ((8, 3), (16, 8)):
            self.then(
                "Conv",
                self.held(self.random.normal(0, 0.3, (width, reads, 3, 3))),
                strides=[2, 2],
                pads=[self.pad] * 4,
            )
            self.then("Relu")
        weight, bias = (
            self.random.normal(0, 1, (self.classes, 16, 1, 1)),
            self.random.normal(0, 0.1, self.classes),
        )
        return self.then("Conv", self.held(weight), self.held(bias))

    def then(self, kind: str, *more: str, **attributes) -> "Net":
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.tensor, *more], [output], **attributes))
        self.tensor = output
        return self

    def held(self, values, kind=np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def raised(self, **attributes) -> "Net":
        scales = self.held([1, 1, 4, 4])
        return self.then(
            "Resize",
            "",
            scales,
            **{"mode": "linear", "coordinate_transformation_mode": "half_pixel", **attributes},
        )

    def model(self, kind: int = FLOAT, outputs: int = 1) -> ModelProto:
        answers = [
            helper.make_empty_tensor_value_info(name)
            for name in (self.tensor, self.nodes[-2].output[0])[:outputs]
        ]
        for value in answers:
            value.type.tensor_type.elem_type = kind
        graph = helper.make_graph(self.nodes, "theirs", [self.given], answers, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def logits(**settings) -> Net:
    return Net(**settings).body()


def normalised(net: Net, mean, std) -> Net:
    net.then("Sub", net.held(np.reshape(mean, (1, 3, 1, 1)))).then(
        "Div", net.held(np.reshape(std, (1, 3, 1, 1)))
    )
    return net.body()


# What a graph of Net's ends with, and whether its logits are found below.
ENDS = {
    "logits": (lambda: logits().model(), True),
    "raised": (lambda: logits().raised().model(), True),
    "corners on corners": (
        lambda: logits().raised(coordinate_transformation_mode="align_corners").model(),
        True,
    ),
    "nearest": (
        lambda: (
            logits()
            .raised(mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
            .model()
        ),
        True,
    ),
    "soft-max": (lambda: logits().raised().then("Softmax", axis=1).model(), True),
    "small soft-max": (lambda: logits().then("Softmax", axis=1).model(), True),
    "raised soft-max": (lambda: logits().then("Softmax", axis=1).raised().model(), True),
    "log-soft-max": (lambda: logits().raised().then("LogSoftmax", axis=1).model(), True),
    "sigmoids": (lambda: logits().raised().then("Sigmoid").model(), True),
    "classes last": (lambda: logits().raised().then("Transpose", perm=[0, 2, 3, 1]).model(), True),
    "soft-max of the last": (
        lambda: logits().raised().then("Transpose", perm=[0, 2, 3, 1]).then("Softmax", axis=3).model(),
        True,
    ),
    "arg-max of a soft-max between transposes": (
        lambda: (
            logits()
            .raised()
            .then("Transpose", perm=[0, 3, 2, 1])
            .then("Softmax", axis=3)
            .then("Transpose", perm=[0, 3, 2, 1])
            .then("ArgMax", axis=1)
            .model(INT64)
        ),
        True,
    ),
    "arg-max": (lambda: logits().raised().then("ArgMax", axis=1, keepdims=0).model(INT64), True),
    "arg-max, kept": (
        lambda: (
            logits()
            .raised()
            .then("ArgMax", axis=1)
            .then("Cast", to=TensorProto.INT32)
            .model(TensorProto.INT32)
        ),
        True,
    ),
    "arg-max as float": (
        lambda: logits().raised().then("ArgMax", axis=1).then("Cast", to=FLOAT).model(),
        True,
    ),
    "arg-max over the last": (
        lambda: (
            logits()
            .raised()
            .then("Transpose", perm=[0, 2, 3, 1])
            .then("ArgMax", axis=-1, keepdims=0)
            .model(INT64)
        ),
        True,
    ),
    "labels by nearest": (lambda: by_nearest(logits().then("ArgMax", axis=1)).model(INT64), False),
    "one channel": (lambda: logits(classes=1).raised().model(), True),
    "one probability": (lambda: logits(classes=1).raised().then("Sigmoid").model(), True),
    "one small probability": (lambda: logits(classes=1).then("Sigmoid").model(), True),
    "a threshold": (
        lambda: above(logits(classes=1).raised().then("Sigmoid"), 0.3).model(TensorProto.INT32),
        True,
    ),
}
# What it begins with: the graph, and what has to be said of it.
BEGINNINGS = {
    "images last": (lambda: logits(last=True).raised().model(), {}),
    "bytes": (lambda: normalised(Net(eats=TensorProto.UINT8), MEAN, STD).model(), {}),
    "bytes last": (lambda: normalised(Net(eats=TensorProto.UINT8, last=True), MEAN, STD).model(), {}),
    "half": (lambda: logits(eats=TensorProto.FLOAT16).model(), {}),
    "0 to 255": (lambda: normalised(Net(), MEAN, STD).model(), {}),
    "0 to 1": (lambda: normalised(Net(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).model(), {}),
    "one std": (lambda: logits().model(), {"mean": (127.5,) * 3, "std": (127.5,) * 3}),
    "no zero padding": (lambda: logits(pad=0).model(), {}),
}


def by_nearest(net: Net) -> Net:
    scales = net.held([1, 1, 4, 4])
    net.then("Cast", to=FLOAT).then(
        "Resize",
        "",
        scales,
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )
    return net.then("Cast", to=INT64)


def above(net: Net, bound: float) -> Net:
    return net.then("Greater", net.held(bound)).then("Cast", to=TensorProto.INT32)


def written(model: ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "theirs.onnx")
    return folder / "theirs.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("name", ENDS)
def test_every_end_is_understood(name, interface, tmp_path):
    make, has_logits = ENDS[name]
    path = written(make(), tmp_path)
    known = {} if has_logits else {"classes": five(tmp_path)}
    if interface == "logits" and not has_logits:
        with pytest.raises(
            RequestError, match="no logits were found under the graph's labels; take another interface"
        ):
            adopt(path, interface=interface, output=tmp_path / "out", **known)
        return
    done = adopt(
        path, interface=interface, batch=2 if interface == "frames" else 1, output=tmp_path / "out", **known
    )
    assert done.agreement.pixel_agreement == 1
    assert (done.agreement.logits_error is not None) == has_logits
    assert done.agreement.logits_error is None or done.agreement.logits_error < 3e-6
    graph = read_graph(done.path)
    assert (graph.signature.interface, graph.signature.foreign, graph.opset) == (interface, False, 17)
    kinds = {node.op_type for node in graph.view.nodes}
    assert not kinds & {"Softmax", "LogSoftmax", "Sigmoid"} or "small" in name or name == "raised soft-max"


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("name", BEGINNINGS)
def test_every_beginning_is_understood(name, interface, tmp_path):
    make, known = BEGINNINGS[name]
    done = adopt(written(make(), tmp_path), interface=interface, output=tmp_path / "out", **known)
    assert done.agreement.pixel_agreement == 1
    assert done.agreement.logits_error < (2e-3 if name == "half" else 1e-6)
    kinds = [node.op_type for node in read_graph(done.path).view.nodes]
    if name == "images last":  # its own first step is undone, not followed by its opposite
        assert kinds.count("Transpose") == (interface == "frames")
    assert not any(
        node.op_type == "Cast" and node.attribute[0].i == TensorProto.UINT8
        for node in read_graph(done.path).view.nodes[:-1]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_our_own_graphs_come_back(name, graphs, card, tmp_path):  # noqa: F811 - the fixture
    """The tiny network's graphs, made into other people's, answer as they did before."""
    interface, batch, change, equal = KINDS[name]
    theirs = change(Foreign(graphs(interface, batch))).written(tmp_path / "theirs.onnx")
    done = adopt(theirs, card=str(card), output=tmp_path / "out")
    with open_session(done.path) as session, open_session(graphs("nvinfer")) as own:
        for frame in FRAMES:
            assert (segment(session, frame).labels == segment(own, frame).labels).mean() >= equal


def test_the_proof_raises_as_pytorch_does():
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).normal(size=(4, 7, 11)).astype(np.float32)
    for aligned in (False, True):
        for size in (Size(28, 44), Size(64, 65), Size(7, 11)):
            expected = torch.nn.functional.interpolate(
                torch.from_numpy(values)[None],
                (size.height, size.width),
                mode="bilinear",
                align_corners=aligned,
            )
            assert np.abs(enlarged_bilinearly(values, size, aligned) - expected[0].numpy()).max() < 5e-6


def five(folder: Path) -> Path:
    (folder / "five.txt").write_text("road\nkerb\nsky\ncar\nbus\n")
    return folder / "five.txt"


@pytest.mark.slow
def test_what_is_assumed_is_named(tmp_path):
    path = written(logits().model(), tmp_path)
    done = adopt(path, output=tmp_path / "out")
    assert done.assumed == (
        "the normalisation is ImageNet's (--mean, --std)",
        "the 5 classes are numbered (--classes)",
    )
    told = adopt(path, mean=MEAN, std=STD, classes=five(tmp_path), output=tmp_path / "told")
    assert told.assumed == ()
    assert read_graph(told.path).signature.labels.names == ("road", "kerb", "sky", "car", "bus")
    channel = adopt(written(logits(classes=1).model(), tmp_path), output=tmp_path / "one")
    assert channel.assumed[-1] == "its one channel is the second class above 0 (--threshold)"


def test_the_record_names_the_original(tmp_path):
    path = written(logits().model(), tmp_path)
    done = segdeploy.adopt(path, output=tmp_path / "out")
    record = read_record(done.path)
    assert record == done.record
    assert (record.source.checkpoint, record.source.layout) == ("theirs.onnx", "onnx")
    assert record.source.weights == segdeploy.files.digest_of(path)
    (step,) = record.ledger
    assert (step.name, step.compared_with, step.pixel_agreement) == ("fp32", "the original graph", 1.0)


@pytest.mark.slow
def test_more_classes_than_a_byte_has(tmp_path):
    done = adopt(written(logits(classes=300).model(), tmp_path), interface="frames", output=tmp_path / "out")
    assert read_graph(done.path).signature.output.dtype == "uint16"
    frames = np.random.default_rng(0).integers(0, 256, (1, *SIDES, 3), np.uint8)
    with open_session(done.path) as session:
        assert session.run(frames).max() > 255


@pytest.mark.slow
def test_an_open_batch_takes_any(tmp_path):
    done = adopt(
        written(logits().raised().model(), tmp_path), batch=None, interface="frames", output=tmp_path / "out"
    )
    frames = np.random.default_rng(0).integers(0, 256, (5, *SIDES, 3), np.uint8)
    with open_session(done.path) as session:
        assert session.signature.batch is None
        whole = session.run(frames)
        assert all(
            np.array_equal(whole[place], session.run(frames[place : place + 1])[0]) for place in range(5)
        )


@pytest.mark.slow
def test_scores_of_one_channel_are_cut_where_asked(tmp_path):
    path = written(logits(classes=1).raised().then("Sigmoid").model(), tmp_path)
    shares = []
    for threshold in (0.1, 0.5, 0.9):
        done = adopt(path, threshold=threshold, interface="frames", output=tmp_path / f"{threshold}")
        with open_session(done.path) as session:
            frames = np.random.default_rng(0).integers(0, 256, (1, *SIDES, 3), np.uint8)
            shares.append(session.run(frames).mean())
    assert shares[0] > shares[1] > shares[2]


def test_the_graphs_own_normalisation_is_seen():
    for mean, std, fed in (
        (MEAN, STD, 1.0),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 255.0),
        ((0, 0, 0), (255, 255, 255), 1.0),
    ):
        found = own_normalisation(View(normalised(Net(), mean, std).model()), "image")
        assert found.std == (fed,) * 3
    assert own_normalisation(View(logits().model()), "image") is None


def test_a_class_axis_without_a_number_is_counted(tmp_path):
    """Exporters name it (`classes`), or compute it from sides that are fixed here."""
    model = logits().raised().model()
    sides = model.graph.output[0].type.tensor_type.shape
    for side in (1, "classes", *SIDES):
        dim = sides.dim.add()
        setattr(dim, "dim_param" if isinstance(side, str) else "dim_value", side)
    adopted = adopt(written(model, tmp_path), interface="logits", output=tmp_path / "out")
    assert read_graph(adopted.path).signature.output.shape == (1, 5, 16, 24)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch would rather have its newer exporter
def test_open_sides_and_weights_beside_it(tmp_path):
    """Shapes that are computed while the graph runs are constants at one size."""
    torch = pytest.importorskip("torch")

    class Raises(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 5, 3, stride=4, padding=1)

        def forward(self, x):
            low = self.conv(x)
            flat = (
                low.flatten(2)
                .transpose(1, 2)
                .reshape(x.shape[0], low.shape[2], low.shape[3], 5)
                .permute(0, 3, 1, 2)
            )
            return torch.nn.functional.interpolate(flat, x.shape[2:], mode="bilinear").argmax(1)

    torch.manual_seed(0)
    path = tmp_path / "open.onnx"
    names = {"input_names": ["image"], "dynamic_axes": {"image": {0: "n", 2: "h", 3: "w"}}}
    torch.onnx.export(
        Raises().eval(), (torch.zeros(1, 3, 64, 64),), str(path), dynamo=False, opset_version=11, **names
    )
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="open.data", size_threshold=0)
    for size in ("64x96", "101x67"):
        done = adopt(path, size=size, batch=2, output=tmp_path / "out")
        assert done.agreement.pixel_agreement == 1
        graph = read_graph(done.path)
        assert not {node.op_type for node in graph.view.nodes} & {"Shape", "Gather", "ConstantOfShape"}
        assert all(0 not in shape for shape in graph.view.shapes.values())
    with pytest.raises(RequestError, match="leaves its height and width open; say the size: --size HxW"):
        adopt(path, output=tmp_path / "none")


def test_a_rewrite_that_computes_something_else_leaves_nothing(tmp_path, monkeypatch):
    from segdeploy.convert.adopt import adopt as module

    monkeypatch.setattr(module, "scale_for", lambda std: 1 / 40)
    monkeypatch.setattr(
        module, "put_input", lambda model, signature, factors: put(model, signature, [1.0, 1.0, 1.0])
    )
    put = __import__("segdeploy.convert.adopt.own_input", fromlist=["put_input"]).put_input
    with pytest.raises(
        ExportDisagrees,
        match=r"theirs\.64x96\.nvinfer\.onnx disagrees with theirs\.onnx: .* No file was written",
    ):
        adopt(written(logits().model(), tmp_path), output=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_an_upsample_of_opset_9_keeps_its_places(mode, tmp_path):
    net = logits(opset=9)
    net.then("Upsample", net.held([1, 1, 4, 4]), mode=mode)
    made = adopt(written(net.model(), tmp_path), output=tmp_path / "out")
    assert made.agreement.pixel_agreement == 1
    (resize,) = [node for node in onnx.load(made.path).graph.node if node.op_type == "Resize"]
    said = {one.name: one.s for one in resize.attribute}
    assert (said["mode"], said["coordinate_transformation_mode"]) == (mode.encode(), b"asymmetric")


@pytest.mark.slow
def test_an_export_of_ultralytics_says_what_it_takes(tmp_path):
    model = logits().raised().model()
    names = {index: f"class of {index}" for index in range(5)}
    helper.set_model_props(model, {"author": "Ultralytics", "names": str(names)})
    made = adopt(written(model, tmp_path), output=tmp_path / "out")
    assert made.assumed == ()
    assert made.record.classes == tuple(names.values())
    assert (made.record.normalisation.mean, made.record.normalisation.std) == ((0, 0, 0), (255, 255, 255))
    given = adopt(written(model, tmp_path), mean=MEAN, std=STD, output=tmp_path / "given")
    assert given.record.normalisation.mean == MEAN


def test_a_graph_that_no_file_holds_is_refused_before_it_is_read(tmp_path):
    model, size_bytes = logits().model(), 2**31
    large = TensorProto(name="large", data_type=FLOAT, dims=[2**29], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "large.data"), ("offset", "0"), ("length", str(size_bytes))):
        entry = large.external_data.add()
        entry.key, entry.value = key, value
    model.graph.initializer.append(large)
    with (tmp_path / "large.data").open("wb") as file:
        file.truncate(size_bytes)  # a hole, which takes no room
    with pytest.raises(GraphError, match=r"theirs\.onnx has 2\.1 GB, and what is made of it is one file"):
        adopt(written(model, tmp_path), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_larger_than_onnx_allows_is_refused_unread(tmp_path):
    path = tmp_path / "theirs.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(
        GraphError, match=r"theirs\.onnx is one file of 2\.1 GB, .* file beside it \(external data\)"
    ):
        adopt(path, output=tmp_path / "out")


def quantised(model: ModelProto) -> ModelProto:
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z")]
    )
    pair = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"]),
    ]
    nodes = [*pair, *model.graph.node]
    nodes[2].input[0] = "dq"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def classes_by_the_image(net: Net) -> Net:
    """Keep as many of the logits as the image's brightest pixel says."""
    scores = net.tensor
    net.tensor = "image"
    net.then("ReduceMax", keepdims=0).then("Cast", to=INT64).then("Reshape", net.held([1], np.int64))
    end, net.tensor = net.tensor, scores
    return net.then("Slice", net.held([0], np.int64), end, net.held([1], np.int64))


def with_words(net: Net) -> ModelProto:
    """Classify by vectors that come with each image, as networks of an open vocabulary do."""
    model = net.then("Conv", "words").model()
    model.graph.input.append(helper.make_tensor_value_info("words", FLOAT, ["classes", 5, 1, 1]))
    return model


def in_a_byte(net: Net) -> Net:
    return net.then("Cast", to=TensorProto.UINT8)


def with_branch(model: ModelProto) -> ModelProto:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["b"])], "b", [], [helper.make_empty_tensor_value_info("b")]
    )
    branch.output[0].type.tensor_type.elem_type = FLOAT
    asks = [
        helper.make_node("ReduceMax", ["image"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["yes"], to=TensorProto.BOOL),
        helper.make_node("If", ["yes"], ["either"], then_branch=branch, else_branch=branch),
    ]
    nodes = [*asks, *model.graph.node]
    nodes[3].input[0] = "either"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def of_ours(model: ModelProto) -> ModelProto:
    helper.set_model_props(model, {"segdeploy.interface": "nvinfer"})
    return model


def of_shape(model: ModelProto, *sides: int) -> ModelProto:
    for dim, side in zip(model.graph.input[0].type.tensor_type.shape.dim, sides, strict=True):
        dim.dim_value = side
    return model


REFUSED = {
    "two outputs": (
        lambda: logits().raised().model(outputs=2),
        {},
        "has 2 outputs: 't5', 't4'; name the one with the classes: --answer",
    ),
    "no such output": (lambda: logits().model(), {"answer": "x"}, "has no output 'x'; it has 't4'"),
    "another size": (
        lambda: logits().model(),
        {"size": "128x96"},
        "is fixed at 64x96, and 128x96 was asked for",
    ),
    "subtracted twice": (
        lambda: normalised(Net(), MEAN, STD).model(),
        {"mean": MEAN, "std": STD},
        "it would be subtracted twice",
    ),
    "one channel subtracted twice": (
        lambda: normalised(Net(), MEAN, STD).model(),
        {"mean": (0, 0, 103.53)},
        "it would be subtracted twice",
    ),
    "divided by twice": (
        lambda: normalised(Net(), MEAN, STD).model(),
        {"std": STD},
        r"std \(58\.395, 57\.12, 57\.375\) was given: it would be divided by twice",
    ),
    "all below what is subtracted": (
        lambda: normalised(Net(), MEAN, STD).model(),
        {"std": (255,) * 3},
        "pixels of 0 to 1 would all be below what it subtracts",
    ),
    "classes that the image counts": (
        lambda: classes_by_the_image(logits()).model(),
        {},
        r"first Slice\.\d+ \(Slice\), which is .*; export it again with every side fixed, height and width as the"
        " number of classes",
    ),
    "classes of a second input": (
        lambda: with_words(logits()),
        {},
        r"has 2 inputs \('image' float32 1×3×64×96, 'words' float32 \?×5×1×1\); a segmentation graph has one",
    ),
    "labels that wrap": (
        lambda: in_a_byte(logits(classes=300).raised().then("ArgMax", axis=1)).model(TensorProto.UINT8),
        {"interface": "frames"},
        r"the labels of its 300 classes are uint8 in '.*', which tells 256 apart: the others wrap",
    ),
    "more than 16 bits": (
        lambda: logits(classes=65536).model(),
        {},
        "65,536 classes are more than a label of 16 bits tells apart; expected at most 65,535",
    ),
    "bytes and a mean": (
        lambda: logits(eats=TensorProto.UINT8).model(),
        {"mean": MEAN},
        "takes bytes and normalises them itself",
    ),
    "small labels": (
        lambda: logits().then("ArgMax", axis=1).model(INT64),
        {},
        r"has labels of \(16, 24\) for an input of 64x96",
    ),
    "unnamed labels": (
        lambda: by_nearest(logits().then("ArgMax", axis=1)).model(INT64),
        {},
        "gives labels, but not the number of classes",
    ),
    "a threshold of five": (
        lambda: logits().model(),
        {"threshold": 0.5},
        "a threshold is for graphs of one channel, and this one has 5",
    ),
    "no probability": (
        lambda: logits(classes=1).raised().then("Sigmoid").model(),
        {"threshold": 1.5},
        "expected a probability",
    ),
    "quantised": (lambda: quantised(logits().model()), {}, "has INT8 inside already; adopt the FP32 graph"),
    "a branch": (
        lambda: with_branch(logits().model()),
        {},
        "has a node If .* whose branch or length depends on",
    ),
    "ours": (lambda: of_ours(logits().model()), {}, "is a graph of segdeploy already"),
    "a card and a mean": (
        lambda: logits().model(),
        {"card": "segformer-b0-ade", "mean": MEAN},
        "a card says mean, std and classes",
    ),
    "other classes": (
        lambda: logits().model(),
        {"card": "segformer-b0-ade"},
        "has 5 classes, and .* names 150; name 5",
    ),
    "a vast batch": (lambda: of_shape(logits().model(), 2**40, 3, 64, 96), {}, "1099511627776×3×64×96"),
    "no images": (lambda: of_shape(logits().model(), 0, 3, 64, 96), {}, "0×3×64×96"),
    "one row": (lambda: of_shape(logits().model(), 1, 3, 1, 96), {}, "a side of 1; a side is 64 to"),
    "batch 0": (lambda: logits().model(), {"batch": 0}, "a batch of 0 was asked for"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name, tmp_path):
    make, known, words = REFUSED[name]
    with pytest.raises((CardError, GraphError, RequestError), match=words):
        adopt(written(make(), tmp_path), output=tmp_path / "out", **known)
    assert not list(tmp_path.glob("out/*"))


def test_the_command_says_what_it_assumed_and_what_comes_next(tmp_path, capsys, refused):
    path = written(logits().model(), tmp_path)
    assert main(["adopt", str(path), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    first, *assumed = said.out.splitlines()
    made = tmp_path / "out/theirs.64x96.nvinfer.onnx"
    assert first.startswith(f"{made}: 100.0000% of 12,288 pixels equal over 2 inputs")
    assert assumed == [
        "assumed: the normalisation is ImageNet's (--mean, --std)",
        "assumed: the 5 classes are numbered (--classes)",
    ]
    assert said.err == f"segdeploy: next: segdeploy run {made} IMAGE -o out\n"
    assert main(["inspect", str(made), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["interface"] == "nvinfer"
    assert "there is no file" in refused("adopt", tmp_path / "none.onnx")


def test_a_graph_is_not_written_over_by_another_name(tmp_path):
    path = written(logits().raised().model(), tmp_path)
    before = path.read_bytes()
    (tmp_path / "link.onnx").symlink_to(path)
    with pytest.raises(RequestError, match="is the graph itself; name another file or folder: -o"):
        adopt(path, output=tmp_path / "link.onnx")
    assert path.read_bytes() == before


def test_a_tensor_beyond_what_is_computed_here(tmp_path, monkeypatch):
    path = written(logits().raised().model(), tmp_path)
    monkeypatch.setattr("segdeploy.convert.adopt.fixed.MOST_VALUES", 3 * 64 * 96 - 1)
    with pytest.raises(
        GraphError, match=r"its tensor image is \(1, 3, 64, 96\); expected at most 18,431 values"
    ):
        adopt(path, output=tmp_path / "out")
