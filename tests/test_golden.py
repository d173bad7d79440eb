from dataclasses import replace

import numpy as np
import onnx
import pytest
from conftest import run_model

from segdeploy.convert.int8.quantize import Request, quantize
from segdeploy.errors import EngineError
from segdeploy.graph.fp16 import to_fp16
from segdeploy.graph.load import read_graph
from segdeploy.picture import image
from segdeploy.prove import golden
from segdeploy.prove.probes import small_frames
from segdeploy.run.io import to_input
from segdeploy.run.session import open_session, segment
from segdeploy.scenes import write_cityscapes
from segdeploy.size import Size


def signature_of(path):
    return read_graph(path).signature


def test_a_frame_is_a_few_ten_kilobytes():
    ((_, small),) = small_frames(1, Size(1024, 2048), "linear")
    assert len(golden.as_text(small)) < 50_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interface", "batch"), [("nvinfer", 1), ("frames", 1), ("frames", 3), ("frames", None), ("logits", 1)]
)
def test_the_labels_are_onnx_runtimes_own(interface, batch, graphs):
    signature = signature_of(graphs(interface, batch))
    made = golden.make_golden(
        read_graph(graphs(interface, batch)), count=4
    )  # which fills no two batches of 3
    frames, labels = golden.read_golden(made, signature.size)
    assert (frames.shape, labels.shape) == ((4, 96, 160, 3), (4, 96, 160))
    assert len({frame.tobytes() for frame in frames}) == 4
    with open_session(graphs(interface)) as session:
        for frame, known in zip(frames, labels, strict=True):
            assert np.mean(segment(session, frame).labels == known) >= 0.9999


@pytest.mark.slow
def test_fp16_is_rounded_as_the_graph_says(graphs, tmp_path):
    path = tmp_path / "half.onnx"
    onnx.save(to_fp16(onnx.load(graphs("frames"))), path)
    signature = signature_of(path)
    frames, labels = golden.read_golden(golden.make_golden(read_graph(path)), signature.size)
    rounded = golden.as_rounded(onnx.load(path))
    assert any(node.name.endswith(".exact") for node in rounded.graph.node)
    for frame, known in zip(frames, labels, strict=True):
        assert np.array_equal(run_model(rounded, frame[None])[0], known)
    plain = onnx.load(graphs("frames"))
    assert golden.as_rounded(plain) is plain


@pytest.mark.slow
def test_int8_is_computed_as_the_graph_says(graphs, tmp_path):
    write_cityscapes(tmp_path, 8, seed=5, height=96, width=160)
    request = Request(images=tmp_path / "leftImg8bit", probes=2, max_drop=100, equalise="off")
    path = quantize(graphs("frames"), request, output=tmp_path).path
    signature = signature_of(path)
    frames, labels = golden.read_golden(golden.make_golden(read_graph(path)), signature.size)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for frame, known in zip(frames, labels, strict=True):
        assert np.array_equal(session.run(None, {"frames": frame[None]})[0][0], known)


def test_logits_become_labels_after_upsampling(graphs):
    path = graphs("logits")
    with open_session(path) as session:
        frame = np.random.default_rng(3).integers(0, 256, (96, 160, 3), np.uint8)
        answer = session.run(to_input(session.signature, frame[None]))
        labels = golden.labels_from_output(session.signature, answer)
        fitted, geometry = image.fit(frame, session.signature.size)
    assert np.array_equal(fitted, frame)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels[0], image.unfit_logits(answer[0], Size(96, 160), geometry, False))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{"frame": "AAAA"}, {"labels": ""}, {"enlarged": 0}, {"enlarged": 1 << 40}, {"frame": "not base64!"}],
)
def test_a_record_whose_frames_are_spoilt(change, graphs):
    signature = signature_of(graphs("frames"))
    made = golden.make_golden(read_graph(graphs("frames")), count=1)
    with pytest.raises(
        EngineError, match=r"holds no frames to compare the engine with .* build the engine again"
    ):
        golden.read_golden([replace(made[0], **change)], signature.size)
    with pytest.raises(EngineError, match="holds no frames"):
        golden.read_golden([], signature.size)


@pytest.mark.slow
def test_frames_of_the_users_own_and_made_ones_for_the_rest(graphs, tmp_path):
    images = write_cityscapes(tmp_path, 2, seed=5, height=200, width=300)
    signature = signature_of(graphs("frames"))
    made = golden.make_golden(read_graph(graphs("frames")), images=images)
    assert [one.image for one in made] == [images[0].name, images[1].name, "a made scene"]
    frames, labels = golden.read_golden(made, signature.size)
    with open_session(graphs("frames")) as session:
        for frame, known in zip(frames, labels, strict=True):
            assert np.mean(segment(session, frame).labels == known) >= 0.9999
