import numpy as np
import pytest
from conftest import CLASSES

from segdeploy.errors import GraphError, RequestError
from segdeploy.picture.image import fit
from segdeploy.run.io import to_input
from segdeploy.run.session import open_session, segment, segment_many


def frames_of(count, height=120, width=200):
    return [np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8) for i in range(count)]


@pytest.mark.slow
def test_all_interfaces_give_the_same_labels_at_the_input_size(graphs):
    (frame,) = frames_of(1, 96, 160)
    answers = []
    for interface in ("nvinfer", "frames", "logits"):
        with open_session(graphs(interface)) as session:
            answers.append(segment(session, frame).labels)
    for answer in answers:
        assert answer.shape == (96, 160)
        assert answer.dtype == np.uint8
        assert np.mean(answer == answers[0]) >= 0.9999


@pytest.mark.parametrize("how", ["stretch", "letterbox"])
@pytest.mark.parametrize("interface", ["frames", "logits"])
def test_labels_come_back_at_the_size_of_each_frame(interface, how, graphs):
    frames = [*frames_of(2), *frames_of(1, 61, 300), *frames_of(1, 96, 160)]
    with open_session(graphs(interface)) as session:
        assert [answer.labels.shape for answer in segment_many(session, frames, how)] == [
            (120, 200), (120, 200), (61, 300), (96, 160),
        ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 4])
def test_batches_answer_as_single_frames_do(count, graphs):
    frames = frames_of(count)
    with open_session(graphs("frames", 1)) as one:
        expected = [answer.labels for answer in segment_many(one, frames)]
    for batch in (3, None):
        with open_session(graphs("frames", batch)) as session:
            answers = [answer.labels for answer in segment_many(session, frames)]
        assert len(answers) == count
        for answer, single in zip(answers, expected, strict=True):
            assert np.mean(answer == single) >= 0.9999


def test_frames_are_resized_as_the_model_was_trained_unless_told(graphs):
    (frame,) = frames_of(1)
    with open_session(graphs("frames")) as session:
        assert session.signature.resize == "pillow"
        for kernel, used in ((None, "pillow"), ("linear", "linear"), ("pillow", "pillow")):
            fitted, _ = fit(frame, session.signature.size, kernel=used)
            expected = session.run(to_input(session.signature, fitted[None]))[0]
            fitted_back = segment(session, frame, kernel=kernel)
            assert set(np.unique(fitted_back.labels)) <= set(np.unique(expected))


def test_the_signature_is_the_graphs_own(graphs):
    with open_session(graphs("nvinfer", None)) as session:
        signature = session.signature
    assert (signature.interface, signature.card, str(signature.size)) == ("nvinfer", "tiny", "96x160")
    assert (signature.batch, signature.classes, signature.labels.names) == (None, 5, CLASSES)
    assert signature.input == ("input", "float32", (None, 3, 96, 160))
    assert signature.output == ("output", "int64", (None, 1, 96, 160))


@pytest.mark.parametrize("shape", [(2, 96, 160, 3), (1, 96, 161, 3), (96, 160, 3)])
def test_a_wrong_shape_is_refused_with_both_shapes(shape, graphs):
    with (
        open_session(graphs("frames")) as session,
        pytest.raises(RequestError, match=r"takes .*1×96×160×3, got"),
    ):
        session.run(np.zeros(shape, np.uint8))


def test_a_wrong_type_is_refused(graphs):
    with (
        open_session(graphs("frames")) as session,
        pytest.raises(RequestError, match=r"takes .* uint8 .* float32"),
    ):
        session.run(np.zeros((1, 96, 160, 3), np.float32))


def test_files_that_are_no_model(tmp_path, graphs):
    with pytest.raises(RequestError, match=r"there is no file .*gone\.onnx; a model is an \.onnx made by"):
        open_session(tmp_path / "gone.onnx")
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(GraphError, match=r"x\.pt has the suffix '\.pt'"):
        open_session(tmp_path / "x.pt")
    for content in (b"", b"<html>", graphs("frames").read_bytes()[:3000]):
        (tmp_path / "broken.onnx").write_bytes(content)
        with pytest.raises(GraphError, match=r"broken\.onnx cannot be loaded by ONNX Runtime"):
            open_session(tmp_path / "broken.onnx")


def test_threads(graphs):
    (frame,) = frames_of(1)
    with open_session(graphs("frames"), threads=1) as one, open_session(graphs("frames")) as every:
        assert np.array_equal(segment(one, frame).labels, segment(every, frame).labels)


def test_closed_once_or_twice(graphs):
    session = open_session(graphs("frames"))
    session.close()
    session.close()
    with pytest.raises(RequestError, match=r"the session of tiny\.frames\.1\.onnx is closed"):
        session.run(np.zeros((1, 96, 160, 3), np.uint8))


@pytest.mark.slow
def test_how_many_images_at_once(graphs):
    for batch, expected in ((1, (1, 1)), (4, (4, 4)), (None, (1, 1))):
        with open_session(graphs("frames", batch)) as session:
            assert session.batches == expected


@pytest.mark.parametrize("threads", [0, -1, 1025, 1_000_000, 4_000_000_000])
def test_threads_that_no_machine_has(threads, graphs):
    with pytest.raises(RequestError, match=rf"^{threads} threads were asked for; expected 1 to 1024$"):
        open_session(graphs("frames"), threads=threads)
