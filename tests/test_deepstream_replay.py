"""nvinfer's semantics on ONNX Runtime: our configuration gives PyTorch's labels, a wrong one the loss it would give."""

import json
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from conftest import TINY, write_checkpoint
from onnx import numpy_helper

from segdeploy import scenes
from segdeploy.cli import main
from segdeploy.errors import DeepStreamError, RequestError, VideoError
from segdeploy.graph.load import read_graph
from segdeploy.model.card import read_card
from segdeploy.model.foreign import numbered_labels
from segdeploy.model.signature import ONE_SCALE, Signature, TensorFacts
from segdeploy.run.session import open_session
from segdeploy.serve.deepstream.config import NvinferConfig
from segdeploy.serve.deepstream.document import read_document
from segdeploy.serve.deepstream.lint import lint
from segdeploy.serve.deepstream.parse_output import Parsed, parser_of
from segdeploy.serve.deepstream.preprocess import make_feed
from segdeploy.serve.deepstream.reference import PyTorchReference
from segdeploy.serve.deepstream.render import render
from segdeploy.serve.deepstream.replay import drawn, replay
from segdeploy.serve.deepstream.request import RenderRequest
from segdeploy.shipped import folder
from segdeploy.size import Size


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Six frames of a made street, twice as large as the tiny network's input and odd in height."""
    path = tmp_path_factory.mktemp("clip") / "street.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 180))
    for scene in scenes.make_clip(900_000_000, 6, 180, 320):
        writer.write(cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for index in range(3):
        made = scenes.make_scene(900_000_100 + index, 192, 320).image
        cv2.imwrite(str(folder / f"{index}.png"), cv2.cvtColor(made, cv2.COLOR_RGB2BGR))
    return folder


@pytest.fixture
def made(graphs, tmp_path):
    """A rendered configuration, with values changed on request."""

    def make(interface="nvinfer", batch=1, changes=None, model=None, **asked):
        place = tmp_path / "rendered"
        shutil.rmtree(place, ignore_errors=True)  # what was changed in it is not rendered over
        render(RenderRequest(model or graphs(interface, batch), **asked), place)
        path = place / "nvinfer_config.txt"
        document = read_document(path.read_text(), "txt")
        for key, value in (changes or {}).items():
            document = document.with_value("property", key, value)
        path.write_text(document.text)
        return path

    return make


@pytest.fixture(scope="module")
def reference(tiny, graphs):
    return PyTorchReference(str(tiny), read_graph(graphs("nvinfer")).signature)


def agreement(config, source, reference, tmp_path):
    return replay(config, source, tmp_path / "out.mp4", reference=reference).agreement.pixel_agreement


def frames_of(path):
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        ok, frame = capture.read()
        if not ok:
            return found
        found.append(frame)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interface", "asked"),
    [
        ("nvinfer", {}),
        ("nvinfer", {"parser": "segdeploy"}),
        ("nvinfer", {"network_type": 100}),
        ("logits", {}),
        ("logits", {"network_type": 100}),
    ],
)
def test_our_configuration_gives_pytorch_s_labels(interface, asked, made, clip, reference, tmp_path):
    if (interface, asked) in (("logits", {}), ("nvinfer", {"parser": "segdeploy"})) and not shutil.which(
        "g++"
    ):
        pytest.skip("there is no g++ here to build the parser with")
    config = made(interface, **asked)
    for path in (config, config.with_suffix(".yml")):
        assert agreement(path, clip, reference, tmp_path) >= 0.999
    assert len(frames_of(tmp_path / "out.mp4")) == 6
    assert frames_of(tmp_path / "out.mp4")[0].shape == (180, 320, 3)


@pytest.mark.slow
def test_every_slot_of_a_batch_is_used(made, images, reference, tmp_path):
    config = made(batch=None, streams=3)
    seen = replay(config, images, tmp_path / "out.mp4", reference=reference)
    assert (seen.frames, seen.inferred) == (3, 3)
    assert seen.lowest.pixel_agreement >= 0.999


@pytest.mark.slow
@pytest.mark.thorough
def test_the_bundled_checkpoint(tmp_path, images, bundled):
    source = folder("models") / "demo-b0"
    size = read_card("segformer-b0-demo").size
    graph = bundled("nvinfer", str(size))
    render(RenderRequest(graph), tmp_path / "ds")
    truth = PyTorchReference(str(source), read_graph(graph, weights=False).signature)
    seen = replay(tmp_path / "ds" / "nvinfer_config.txt", images, tmp_path / "out.mp4", reference=truth)
    assert seen.agreement.pixel_agreement >= 0.999
    assert seen.pixels == 3 * size.height * size.width
    assert seen.without_class == 0


# ---- what a wrong configuration costs --------------------------------------------------------------------------


@pytest.mark.slow
def test_one_scale_on_a_graph_without_the_stds_folded_in_costs_pixels(
    graphs, made, images, tiny, reference, tmp_path
):
    model = onnx.load(graphs("nvinfer"))
    card_std = np.array([58.395, 57.12, 57.375], np.float32)
    first = next(node for node in model.graph.node if "input" in node.input)
    weight = next(item for item in model.graph.initializer if item.name == first.input[1])
    plain = numpy_helper.to_array(weight) * (card_std * np.float32(ONE_SCALE))[:, None, None]
    weight.CopyFrom(numpy_helper.from_array(plain.astype(np.float32), weight.name))
    onnx.save(model, tmp_path / "unfolded.onnx")
    config = made(model=tmp_path / "unfolded.onnx")
    assert 0.9 < agreement(config, images, reference, tmp_path) < 0.999


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"model-color-format": "1"},
        {"offsets": "0;0;0"},
        {"net-scale-factor": "0.0039215697906911373"},
        {"scaling-filter": "6"},
        {"maintain-aspect-ratio": "1"},
    ],
    ids=str,
)
def test_wrong_values_are_shown_and_not_corrected(changes, made, clip, reference, tmp_path):
    assert agreement(made(changes=changes), clip, reference, tmp_path) < 0.99


@pytest.mark.slow
def test_nvinfer_s_own_parser_on_quarter_resolution(made, clip, reference, tmp_path):
    config = made("logits", changes={"parse-segmentation-func-name": "", "segmentation-output-order": "0"})
    seen = replay(config, clip, tmp_path / "out.mp4", reference=reference)
    assert seen.agreement.pixel_agreement < 0.7
    # per frame and class c of 5: places c·960 + 40y + x of 4800 values, over 96×160 pixels
    places = 40 * np.arange(96)[:, None] + np.arange(160)
    assert seen.beyond == 6 * sum(int((label * 960 + places >= 4800).sum()) for label in range(5))


# ---- nvinfer's rules one by one --------------------------------------------------------------------------------


def config_of(text, path="x.txt"):
    return NvinferConfig(Path(path), read_document("[property]\n" + text, "txt"))


SMALL = Size(4, 6)


def signature_of(dtype, shape, size=SMALL, interface="logits", name="logits"):
    base = TensorFacts("input", "float32", (1, 3, size.height, size.width))
    classes = numbered_labels(3)
    return Signature(
        interface,
        base,
        TensorFacts(name, dtype, shape),
        size,
        1,
        (0,) * 3,
        (1,) * 3,
        classes,
        "linear",
        "made",
    )


def parse(text, signature, answer):
    with parser_of(config_of(text), signature) as parser:
        return parser(answer)


STOCK = "network-type=2\nnum-detected-classes=3\n"


def test_nvinfer_s_own_parser():
    logits = np.full((3, 4, 6), -2, np.float32)
    logits[1, 0, 0], logits[2, 0, 0] = 0.25, 0.75
    logits[:, 0, 1] = (-0.5, -0.25, -0.75)  # none above the threshold of 0, its default
    logits[:, 0, 2] = 0.5  # a tie: the first
    signature = signature_of("float32", (1, 3, 4, 6))
    answer = parse(STOCK, signature, logits).class_map
    assert answer[0, :4].tolist() == [2, -1, 0, -1]
    answer = parse(STOCK + "segmentation-threshold=0.6\n", signature, logits).class_map
    assert answer[0, :4].tolist() == [2, -1, -1, -1]
    by_pixel = signature_of("float32", (1, 4, 6, 3))
    answer = parse(STOCK + "segmentation-output-order=1\n", by_pixel, logits.transpose(1, 2, 0).copy())
    assert answer.class_map[0, :4].tolist() == [2, -1, 0, -1]
    assert answer.beyond == 0


@pytest.mark.parametrize(
    ("text", "signature", "words"),
    [
        (STOCK, signature_of("float32", (1, 1, 3, 4, 6)), "nvinfer's own parser reads three dimensions"),
        ("network-type=0\n", signature_of("float32", (1, 3, 4, 6)), "has network-type 0"),
        (
            STOCK + "parse-segmentation-func-name=F\ncustom-lib-path=gone.so\n",
            signature_of("float32", (1, 3, 4, 6)),
            "there is no such file: nvinfer would not start",
        ),
    ],
)
def test_where_nvinfer_would_stop(text, signature, words):
    with pytest.raises(DeepStreamError) as refusal:
        parse(text, signature, np.zeros(signature.output.shape[1:], np.float32))
    assert words in str(refusal.value)


TAO = "NvDsInferParseCustomSegformerTAO"
PEOPLE = "NvDsInferParseCustomPeopleSemSegNet"


@pytest.mark.parametrize(
    ("text", "signature", "words"),
    [
        (STOCK, signature_of("int64", (1, 1, 4, 6)), "nvinfer's own parser reads float32, and the graph has"),
        (STOCK.replace("3", "4"), signature_of("float32", (1, 3, 4, 6)), "num-detected-classes is 4"),
        (STOCK + "segmentation-output-order=1\n", signature_of("float32", (1, 3, 4, 6)), "takes 6 of"),
        (
            f"{STOCK}parse-segmentation-func-name={TAO}\n",
            signature_of("float32", (1, 3, 4, 6)),
            "int64 of the input",
        ),
        (
            f"{STOCK}parse-segmentation-func-name={TAO}\n",
            signature_of("int64", (1, 1, 4, 6)),
            f"{TAO} takes one output",
        ),
        (
            f"{STOCK}parse-segmentation-func-name={TAO}2\n",
            signature_of("int64", (1, 1, 4, 6)),
            "float32 of three sides",
        ),
        (
            f"{STOCK}parse-segmentation-func-name={PEOPLE}\n",
            signature_of("int64", (1, 1, 4, 6), name="argmax_1"),
            "int32 or int64 of height x width x 1",
        ),
    ],
)
def test_a_refused_frame_has_no_class_and_a_reason(text, signature, words):
    """nvinfer goes on where a parser refuses, with a map that nobody wrote."""
    answer = parse(text, signature, np.zeros(signature.output.shape[1:], signature.output.dtype))
    assert words in answer.refused
    assert (answer.class_map == -1).all()


def test_nvidia_s_parsers():
    ids = np.arange(24).reshape(1, 4, 6)
    config = f"{STOCK}parse-segmentation-func-name={TAO}\n"
    answer = parse(config, signature_of("int64", (1, 1, 4, 6), name="output"), ids)
    assert np.array_equal(answer.class_map, ids[0])  # ids are not held against the classes
    short = parse(config, signature_of("int64", (1, 1, 2, 6), name="output"), ids[:, :2])
    assert (short.beyond, short.refused) == (12, "")
    config = f"{STOCK}parse-segmentation-func-name={PEOPLE}\n"
    answer = parse(
        config, signature_of("int32", (1, 4, 6, 1), name="argmax_1"), ids.reshape(4, 6, 1).astype(np.int32)
    )
    assert np.array_equal(answer.class_map, ids[0])
    config = f"{STOCK}parse-segmentation-func-name={TAO}2\n"
    logits = np.zeros((3, 2, 3), np.float32)
    logits[2, 0, 0], logits[1, 1, 2] = 1, 1
    logits[0, 0, 1] = np.nan  # it is taken first, and nothing is larger
    answer = parse(config, signature_of("float32", (1, 3, 2, 3), name="output"), logits)
    assert answer.class_map.tolist() == [[2, 2, 0, 0, 0, 0]] * 2 + [[0, 0, 0, 0, 1, 1]] * 2
    more = parse(config.replace("3", "4", 1), signature_of("float32", (1, 3, 2, 3), name="output"), logits)
    assert more.beyond == 6


@pytest.mark.slow
@pytest.mark.thorough
def test_an_app_s_muxer_scales_the_frames_first(made, clip, reference, tmp_path, capsys):
    config = made()
    straight = replay(config, clip, tmp_path / "out.mp4", reference=reference)
    muxed = replay(config, clip, tmp_path / "mux.mp4", reference=reference, muxer=Size(64, 112))
    assert muxed.agreement.pixel_agreement < straight.agreement.pixel_agreement
    assert straight.muxed.agreement is None  # no muxer, and nothing to tell of it
    assert muxed.muxed.lowest.pixel_agreement >= 0.999 > muxed.lowest.pixel_agreement
    assert muxed.as_json()["as_muxed"]["agreement"]["pixels"] == muxed.agreement.pixels
    assert frames_of(tmp_path / "mux.mp4")[0].shape == (64, 112, 3)
    words = ["deepstream", "replay", "-c", str(config), "-i", str(clip), "-o", str(tmp_path / "app.mp4")]
    assert main([*words, "--app", "ds-tao-segmentation"]) == 0
    assert frames_of(tmp_path / "app.mp4")[0].shape == (720, 1280, 3)
    assert main([*words, "--muxer", "64x112"]) == 0
    assert frames_of(tmp_path / "app.mp4")[0].shape == (64, 112, 3)
    capsys.readouterr()


def test_a_scale_of_0_or_less_is_left_out_with_the_offsets():
    signature = signature_of("float32", (1, 3, 4, 6))
    for scale in ("0", "-0.5"):
        feed = make_feed(config_of(f"net-scale-factor={scale}\noffsets=1;2;3\n"), signature)
        assert (feed.scale, feed.offsets) == (1.0, (0.0, 0.0, 0.0))


def test_a_side_is_compared_before_it_is_cut():
    """512 * 719 / 1279 is 287.8, which fits into no 287: the width is what gives."""
    feed = make_feed(
        config_of("maintain-aspect-ratio=1\nscaling-filter=1\n"),
        signature_of("float32", (1, 3, 287, 512), Size(287, 512)),
    )
    kept = feed.scaled(np.full((718, 1278, 3), 200, np.uint8))
    assert 512 * 718 / 1278 > 287
    assert ((kept[0] == 200).all(1)).sum() == int(287 * 1278 / 718) == 510


def test_frames_are_scaled_and_padded_as_nvinfer_does():
    frame = np.full((31, 61, 3), 200, np.uint8)
    frame[:, 60:] = frame[30:] = 0  # what an even crop leaves out
    signature = signature_of("float32", (1, 3, 40, 40), Size(40, 40))
    assert (make_feed(config_of("scaling-filter=1\n"), signature).scaled(frame) == 200).all()
    kept = make_feed(config_of("maintain-aspect-ratio=1\n"), signature).scaled(frame)
    assert (kept[:20] == 200).all()
    assert (kept[20:] == 0).all()
    centred = make_feed(config_of("maintain-aspect-ratio=1\nsymmetric-padding=1\n"), signature).scaled(frame)
    assert (centred[10:30] == 200).all()
    assert (centred[:10] == 0).all()
    assert (centred[30:] == 0).all()
    upright = make_feed(config_of("maintain-aspect-ratio=1\n"), signature).scaled(
        frame.transpose(1, 0, 2).copy()
    )
    assert (upright[:, :20] == 200).all()
    assert (upright[:, 20:] == 0).all()


@pytest.mark.parametrize("turned", [False, True])
def test_an_odd_rest_is_left_at_the_end(turned):
    """27 columns beside 13 of the image: 13 before it, 14 behind."""
    frame, signature = (
        np.full((60, 20, 3), 200, np.uint8),
        signature_of("float32", (1, 3, 40, 40), Size(40, 40)),
    )
    feed = make_feed(config_of("maintain-aspect-ratio=1\nsymmetric-padding=1\n"), signature)
    seen = feed.scaled(frame.transpose(1, 0, 2).copy()).transpose(1, 0, 2) if turned else feed.scaled(frame)
    shown = np.flatnonzero(seen[20, :, 0])
    assert (shown[0], shown[-1]) == (13, 25)


@pytest.mark.parametrize(("height", "width"), [(1, 40), (40, 1), (1, 1), (2, 200), (200, 2)])
def test_a_frame_of_which_nothing_is_left_is_refused(height, width):
    feed = make_feed(
        config_of("maintain-aspect-ratio=1\n"), signature_of("float32", (1, 3, 40, 40), Size(40, 40))
    )
    with pytest.raises(DeepStreamError) as refused:
        feed.scaled(np.zeros((height, width, 3), np.uint8))
    assert str(refused.value) == (
        f"a frame of {height}x{width} has no pixel left in 40x40, as nvinfer scales it from even sides; give frames of"
        " an ordinary shape"
    )


def test_an_unset_filter_is_nearest_neighbour():
    frame = np.zeros((2, 4, 3), np.uint8)
    frame[:, 2:] = 100
    signature = signature_of("float32", (1, 3, 2, 8), Size(2, 8))
    assert set(np.unique(make_feed(config_of(""), signature).scaled(frame))) == {0, 100}
    assert len(np.unique(make_feed(config_of("scaling-filter=1\n"), signature).scaled(frame))) > 2


def test_offsets_belong_to_the_network_s_channels():
    frame = np.broadcast_to(np.array([10, 20, 30], np.uint8), (1, 4, 6, 3)).copy()
    signature = signature_of("float32", (1, 3, 4, 6))
    plain = make_feed(config_of("net-scale-factor=0.5\noffsets=1;2;3\n"), signature)
    assert plain.network_input(frame)[0, :, 0, 0].tolist() == [4.5, 9, 13.5]
    turned = make_feed(config_of("net-scale-factor=0.5\noffsets=1;2;3\nmodel-color-format=1\n"), signature)
    assert turned.network_input(frame)[0, :, 0, 0].tolist() == [14.5, 9, 3.5]
    bare = make_feed(config_of(""), signature)
    assert bare.network_input(frame)[0, :, 0, 0].tolist() == [10, 20, 30]


def test_a_mean_file_takes_the_place_of_offsets(tmp_path):
    mean = np.full((4, 6, 3), (1, 2, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "mean.ppm"), cv2.cvtColor(mean, cv2.COLOR_RGB2BGR))
    config = config_of("mean-file=mean.ppm\noffsets=9;9;9\n", tmp_path / "x.txt")
    feed = make_feed(config, signature_of("float32", (1, 3, 4, 6)))
    frame = np.full((1, 4, 6, 3), 10, np.uint8)
    assert feed.network_input(frame)[0, :, 0, 0].tolist() == [9, 8, 7]
    with pytest.raises(DeepStreamError, match="is not a PPM image of the network's 5x6"):
        make_feed(config, signature_of("float32", (1, 3, 5, 6), Size(5, 6)))
    body = (tmp_path / "mean.ppm").read_bytes()
    for head in (b"P6\n# a comment\n6 4\n255\n", b"P5\n6 4\n255\n"):
        (tmp_path / "mean.ppm").write_bytes(head + body[-72:])
        with pytest.raises(DeepStreamError, match="without a comment"):
            make_feed(config, signature_of("float32", (1, 3, 4, 6)))


@pytest.mark.parametrize(
    "text", ["model-color-format=2\n", "network-input-order=1\n", "infer-dims=3;6;4\n", "offsets=1;2\n"]
)
def test_inputs_that_nvinfer_would_not_start_with(text):
    with pytest.raises(DeepStreamError, match="nvinfer would not start"):
        make_feed(config_of(text), signature_of("float32", (1, 3, 4, 6)))


@pytest.mark.slow
def test_interval_leaves_frames_without_a_mask(made, clip, tmp_path):
    seen = replay(made(changes={"interval": "2"}), clip, tmp_path / "out.mp4")
    assert (seen.frames, seen.inferred) == (6, 2)
    originals, shown = frames_of(clip), frames_of(tmp_path / "out.mp4")
    changed = [np.abs(a.astype(int) - b).mean() > 15 for a, b in zip(originals, shown, strict=True)]
    assert changed == [True, False, False, True, False, False]


def test_tensors_that_nobody_asked_for_are_seen_by_nobody(made, clip, tmp_path):
    config = made(network_type=100, changes={"output-tensor-meta": "0"})
    seen = replay(config, clip, tmp_path / "out.mp4")
    assert (seen.frames, seen.inferred) == (6, 0)
    assert seen.notes == [
        "network-type 100 without output-tensor-meta=1: nothing behind nvinfer sees a result"
    ]


def test_no_class_is_black_and_a_mask_covers_the_whole_frame(graphs):
    class_map = np.full((96, 160), -1, np.int32)
    class_map[:48] = 2
    frame = np.full((100, 200, 3), 100, np.uint8)
    with open_session(graphs("nvinfer")) as session:
        shown = drawn(frame, Parsed(class_map), session)
    assert shown.shape == frame.shape
    assert shown[90, 190].tolist() == [45, 45, 45]
    assert shown[5, 190].tolist() != [45, 45, 45]


# ---- requests ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_verb(made, clip, tiny, tmp_path, capsys):
    config, out = made(), tmp_path / "out.mp4"
    request = ["deepstream", "replay", "-c", str(config), "-i", str(clip), "-o", str(out)]
    assert main([*request, "--reference", str(tiny)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("This stands in for DeepStream: ")
    assert f"{out}: 6 frames, 6 of them inferred" in said
    assert "against PyTorch: 100.0000% of 92,160 pixels equal over 6 inputs" in said
    assert main([*request, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["stands_in_for"] == "DeepStream"
    assert (facts["frames"], facts["agreement"]) == (6, None)


@pytest.mark.slow
def test_a_clip_that_is_cut_short_is_told(made, clip, tmp_path):
    whole = frames_of(clip)
    cut = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(cut), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 180))
    for frame in whole * 5:
        writer.write(frame)
    writer.release()
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    seen = replay(made(), cut, tmp_path / "out.mp4")
    assert 0 < seen.frames < 30
    assert len(frames_of(tmp_path / "out.mp4")) == seen.frames


def test_what_is_refused(made, clip, graphs, tmp_path):
    config = made()
    with pytest.raises(RequestError, match="both the input and the output"):
        replay(config, clip, clip)
    with pytest.raises(RequestError, match="is not a clip that is written here"):
        replay(config, clip, tmp_path / "out.avi")
    with pytest.raises(RequestError, match="there is no file or folder"):
        replay(config, tmp_path / "gone.mp4", tmp_path / "out.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(VideoError, match="holds no video that can be decoded"):
        replay(config, tmp_path / "text.mp4", tmp_path / "out.mp4")
    lost = made(changes={"onnx-file": "gone.onnx"})
    with pytest.raises(DeepStreamError, match="is not beside nvinfer_config"):
        replay(lost, clip, tmp_path / "out.mp4")
    engine = tmp_path / "engine.txt"
    engine.write_text("[property]\nmodel-engine-file=x.engine\n")
    with pytest.raises(DeepStreamError, match="an engine cannot be run here"):
        replay(engine, clip, tmp_path / "out.mp4")
    wrong = made(changes={"batch-size": "many"})
    with pytest.raises(DeepStreamError, match="batch-size is 'many'"):
        replay(wrong, clip, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.slow
def test_another_checkpoint_is_no_reference(graphs, tmp_path):
    for names in (["a", "b"], ["road", "kerb", "sky", "car", "tram"]):
        other = write_checkpoint(tmp_path / f"{len(names)} classes", TINY, names)
        with pytest.raises(DeepStreamError, match="name the checkpoint that the graph was exported from"):
            PyTorchReference(str(other), read_graph(graphs("nvinfer")).signature)


# ---- whose library is loaded ---------------------------------------------------------------------------------------

EVIL = """
#include <stdio.h>
__attribute__((constructor)) static void run(void) { fclose(fopen("RAN", "w")); }
"""


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A library that writes a file as soon as it is loaded."""
    if not shutil.which("gcc"):
        pytest.skip("there is no gcc here to build a library with")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.c").write_text(EVIL)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "evil.so", "evil.c"], cwd=tmp_path, check=True)
    return tmp_path / "evil.so"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "instead"),
    [("Anything", ""), ("NvDsInferParseSegdeploy", "; without the file segdeploy's own takes its place")],
)
def test_a_library_that_is_not_ours_is_loaded_if_it_is_trusted(
    function, instead, made, clip, evil, tmp_path, capsys
):
    names = {"parse-segmentation-func-name": function, "custom-lib-path": str(evil)}
    config = made("logits", changes=names)
    request = ["deepstream", "replay", "-c", str(config), "-i", str(clip), "-o", str(tmp_path / "out.mp4")]
    assert main(request) == 1
    assert capsys.readouterr().err == (
        f"segdeploy: {function} is to come from {evil}, which is not what segdeploy's own source gives here, and"
        f" loading it would run its code. If you trust whoever made it, add --trust-parser{instead}\n"
    )
    assert lint(config, strict=True)[0].code == "foreign-library"
    assert not (tmp_path / "RAN").exists()
    assert not (tmp_path / "out.mp4").exists()
    assert main([*request, "--trust-parser"]) == 1
    assert capsys.readouterr().err == (
        f"segdeploy: evil.so holds no function {function}; correct parse-segmentation-func-name\n"
    )
    assert (tmp_path / "RAN").exists()


@pytest.mark.slow
def test_what_make_gives_here_is_ours(made, clip, reference, tmp_path):
    if not (shutil.which("make") and shutil.which("g++")):
        pytest.skip("there is no make or no g++ here")
    config = made("logits")
    headers = folder("deepstream") / "parser" / "abi"
    subprocess.run(
        ["make", "-C", str(config.parent / "parser"), f"INCLUDES=-I{headers}", "ON=cpu"],
        check=True,
        capture_output=True,
    )
    assert (config.parent / "parser" / "libsegdeploy_parser.so").is_file()
    assert agreement(config, clip, reference, tmp_path) >= 0.999
