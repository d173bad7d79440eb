"""Class ids beyond a byte, through every verb that a CPU runs: the labels are PyTorch's, and none ever wraps.

255 is `ignore` in a label file of 8 bits, so the counts around it are tried: 255, 256 and 257 classes.
"""

import json

import cv2
import numpy as np
import pytest
import yaml
from plain_graph import SIZE, Network, write_graph

from segdeploy.cli import main
from segdeploy.errors import CardError, GraphError
from segdeploy.graph.load import read_graph
from segdeploy.model.labels import generated_labels, ignore_of, parse_labels
from segdeploy.prove.golden import as_text, labels_in_text
from segdeploy.run.io import as_labels
from segdeploy.run.session import open_session, segment
from segdeploy.serve.deepstream.replay import replay
from segdeploy.serve.stream.view import ids_picture

COUNTS = (2, 255, 256, 257, 300, 847)
TYPES = {"nvinfer": "int64", "frames": "uint8", "logits": "float32"}


def noise(seed, size=SIZE):
    """Squares of one colour: something of every class, and edges to raise over."""
    small = np.random.default_rng(seed).integers(0, 256, (size.height // 8, size.width // 8, 3), np.uint8)
    return small.repeat(8, 0).repeat(8, 1)


def write_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels)


@pytest.mark.parametrize("interface", TYPES)
@pytest.mark.parametrize("classes", COUNTS)
def test_labels_are_pytorchs(classes, interface, tmp_path):
    frame, path = noise(1), write_graph(tmp_path / "many.onnx", classes, interface)
    expected = Network(classes).labels(frame)
    with open_session(path) as session:
        found = segment(session, frame)
        wide = np.uint8 if classes <= 256 else np.uint16
        assert found.labels.dtype == wide
        assert np.mean(found.labels == expected) == 1
        assert session.signature.output.dtype == (
            "uint16" if wide is np.uint16 and interface == "frames" else TYPES[interface]
        )
    if classes > 257:
        assert expected.max() > 255


@pytest.mark.parametrize("interface", TYPES)
def test_openvino_gives_them_too(interface, tmp_path):
    pytest.importorskip("openvino")
    frame, path = noise(1), write_graph(tmp_path / "many.onnx", 300, interface)
    with open_session(path, provider="openvino") as session:
        assert np.mean(segment(session, frame).labels == Network(300).labels(frame)) == 1


@pytest.mark.parametrize("classes", COUNTS)
def test_run_writes_ids_and_colours(classes, tmp_path):
    write_png(tmp_path / "in/a.png", noise(1))
    path = write_graph(tmp_path / "many.onnx", classes, "nvinfer")
    assert main(["run", str(path), str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    expected = Network(classes).labels(noise(1))
    ids = cv2.imread(str(tmp_path / "out/a.ids.png"), cv2.IMREAD_UNCHANGED)
    assert ids.dtype == (np.uint8 if classes <= 255 else np.uint16)
    assert np.array_equal(ids, expected)
    colours = cv2.imread(str(tmp_path / "out/a.colours.png"))[..., ::-1]
    palette = np.uint8(generated_labels([str(index) for index in range(classes)]).colours)
    assert np.array_equal(colours, palette[expected])


@pytest.mark.slow
@pytest.mark.parametrize("classes", [300, pytest.param(847, marks=pytest.mark.thorough)])
def test_evaluate_counts_every_class(classes, tmp_path, capsys):
    """The network's own labels as the truth, with a corner that is ignored: all of the rest is right."""
    for seed in (1, 2):
        truth = Network(classes).labels(noise(seed)).astype(np.uint16)
        truth[:8, :8] = ignore_of(classes)
        write_png(tmp_path / f"images/{seed}.png", noise(seed))
        write_png(tmp_path / f"labels/{seed}.png", truth)
    ids = {index: f"class of {index}" for index in range(classes)} | {ignore_of(classes): "ignore"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"ids": ids}))
    path = write_graph(tmp_path / "many.onnx", classes, "frames")
    asked = ["--dataset", "folder", "--mapping", tmp_path / "own.yaml", "--root", tmp_path]
    assert main(["evaluate", *map(str, [path, *asked]), "--json", "-", "-o", str(tmp_path / "out")]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    scores = model["scores"]
    assert (scores["miou"], scores["pixel_accuracy"]) == (1, 1)
    seen = cv2.imread(str(tmp_path / "out/many.onnx.worst-01.png"))
    assert (seen[28:36, SIZE.width : SIZE.width + 8] == 0).all()  # the corner that is ignored, in the truth


@pytest.mark.slow
def test_quantize_and_bench_take_it(tmp_path, capsys):
    for seed in range(9):
        write_png(tmp_path / f"images/{seed}.png", noise(seed))
    path = write_graph(tmp_path / "many.onnx", 300, "frames")
    asked = [path, "--images", tmp_path / "images", "--max-drop", "100", "-o", tmp_path]
    assert main(["quantize", *map(str, asked)]) == 0
    made = read_graph(tmp_path / "many.int8.onnx").signature
    assert (made.output.dtype, made.classes) == ("uint16", 300)
    assert main(["bench", str(path), "--duration", "0.1", "--warmup", "0"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["nvinfer", "logits"])
def test_replay_shows_the_classes_that_pytorch_gives(interface, tmp_path):
    path = write_graph(tmp_path / "many.onnx", 300, interface)
    assert main(["deepstream", "config", str(path), "-o", str(tmp_path / "ds")]) == 0
    config = tmp_path / "ds/nvinfer_config.txt"
    assert "num-detected-classes=300" in config.read_text()
    write_png(tmp_path / "in/a.png", noise(1))
    seen = replay(config, tmp_path / "in", tmp_path / "out.mp4", reference=Network(300).labels)
    assert (seen.frames, seen.agreement.pixel_agreement) == (1, 1.0)


def test_tensorrt_has_no_uint16(tmp_path, refused):
    path = write_graph(tmp_path / "many.onnx", 300, "frames")
    said = refused("build-engine", path, "--runtime", "tensorrt-rtx")
    assert said == (
        "segdeploy: many.onnx answers the labels of its 300 classes as uint16, which TensorRT does not have; export it"
        " with --interface nvinfer, whose labels are int64, or with --interface logits\n"
    )


@pytest.mark.parametrize(
    ("classes", "wrong", "dtype"),
    [
        (classes, wrong, dtype)
        for classes, wrong in ((19, 19), (19, 255), (19, 256), (19, -1), (256, 256), (300, 300), (300, 65536))
        for dtype in (np.int64, np.int32, np.uint16, np.uint8)
        if np.iinfo(dtype).min <= wrong <= np.iinfo(dtype).max
    ],
)
def test_an_id_that_is_no_class_is_refused_and_never_wraps(classes, wrong, dtype, tmp_path):
    signature = read_graph(write_graph(tmp_path / "many.onnx", classes, "nvinfer")).signature
    ids = np.zeros((1, SIZE.height, SIZE.width), dtype)
    assert as_labels(signature, ids).dtype == (np.uint8 if classes <= 256 else np.uint16)
    ids[0, 1, 2] = wrong
    with pytest.raises(
        GraphError,
        match=rf"class ids of {min(wrong, 0)} to {max(wrong, 0)}, and its card 'many' has {classes}",
    ):
        as_labels(signature, ids)


@pytest.mark.parametrize("classes", [255, 256, 257])
def test_ignore_is_no_class(classes):
    labels = generated_labels([str(index) for index in range(classes)])
    assert labels.ignore == (255 if classes == 255 else 65535)
    assert labels.ignore >= classes
    palette = labels.palette()
    assert palette[labels.ignore].tolist() == [0, 0, 0]
    assert palette[classes - 1].tolist() == list(labels.colours[classes - 1])


def test_more_classes_than_ids_are_refused(tmp_path):
    entry = {"name": "a", "colour": [1, 2, 3]}
    with pytest.raises(CardError, match="has no list `classes` of 1 to 65535 classes"):
        parse_labels("many", {"classes": [entry] * 65536}, tmp_path / "many.yaml")
    labels = parse_labels(
        "many", {"classes": [{**entry, "name": str(i), "id": i + 1} for i in range(300)]}, tmp_path
    )
    table = labels.lookup_from_ids()
    assert (table[300], table[0]) == (299, labels.ignore)


def test_golden_labels_keep_their_bits():
    labels = np.arange(16, dtype=np.uint16).reshape(4, 4) * 17 + 250
    assert np.array_equal(labels_in_text(as_text(labels)), labels)
    assert np.array_equal(labels_in_text(as_text(labels.astype(np.uint8))), labels.astype(np.uint8))


def test_a_browser_gets_both_bytes():
    labels = np.arange(0, 900, 100, np.uint16).reshape(3, 3)
    picture = ids_picture(labels)
    _, data = cv2.imencode(".png", picture)
    blue, green, red = np.moveaxis(cv2.imdecode(data, cv2.IMREAD_COLOR), -1, 0).astype(int)
    assert np.array_equal(red + 256 * green, labels)
    assert not blue.any()
    assert np.array_equal(ids_picture(labels.astype(np.uint8)), labels.astype(np.uint8))
