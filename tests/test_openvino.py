import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from plain_graph import SIZE, saturating_answer, write_saturating_graph

from segdeploy.errors import ExportDisagrees, GraphError, MissingExtra, RequestError
from segdeploy.machine import adds_bytes_in_16_bits
from segdeploy.prove import opening
from segdeploy.run.cpu_graph import AS_WRITTEN
from segdeploy.run.io import to_input
from segdeploy.run.ort import OrtSession
from segdeploy.run.session import open_session


@pytest.fixture
def openvino():
    return pytest.importorskip("openvino", reason="openvino is not installed")


def images(session, count):
    size = session.signature.size
    frames = np.random.default_rng(0).integers(0, 256, (count, size.height, size.width, 3), np.uint8)
    return to_input(session.signature, frames)


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["nvinfer", "frames", "logits"])
@pytest.mark.parametrize("batch", [1, 3, None])
def test_it_answers_as_onnx_runtime_does(interface, batch, graphs, openvino):
    path = graphs(interface, batch)
    with OrtSession(path) as reference, open_session(path, provider="openvino", threads=1) as session:
        assert session.signature == reference.signature
        inputs = images(reference, batch or 2)
        expected, answer = reference.run(inputs), session.run(inputs)
        again = session.run(images(reference, batch or 1)[: batch or 1])
    assert (answer.dtype, answer.shape) == (expected.dtype, expected.shape)
    if interface == "logits":
        assert np.abs(answer - expected).max() <= 1e-5 * np.ptp(expected)
    else:
        assert np.mean(answer == expected) >= 0.999
    assert again is not answer


@pytest.mark.slow
def test_it_says_what_it_is(graphs, openvino):
    path = graphs("frames")
    with open_session(path, provider="openvino") as session:
        assert repr(session) == (
            f"<OpenvinoSession of {path.name} on cpu: 'frames' uint8 1×96×160×3 to 'labels' uint8 1×96×160>"
        )


@pytest.mark.slow
def test_it_computes_in_the_graphs_own_types(graphs, openvino):
    with open_session(graphs("logits"), provider="openvino") as session:
        compiled = session._idle.queue[0].get_compiled_model()
        assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


def test_a_quantised_graph_is_computed_as_written(openvino, tmp_path):
    path = write_saturating_graph(tmp_path / "x.onnx")
    pixels = np.random.default_rng(0).uniform(0.5, 1, (1, 3, SIZE.height, SIZE.width)).astype(np.float32)
    with open_session(path, provider="openvino") as session:
        np.testing.assert_allclose(session.run(pixels), saturating_answer(pixels), atol=1e-5)
        assert session._settings["LP_TRANSFORMS_MODE"] == "NO"
        assert session.ran["precision"] == AS_WRITTEN


@pytest.mark.slow
def test_its_own_products_of_bytes_are_used_only_where_they_are_right(openvino, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write_saturating_graph(tmp_path / "x.onnx")
    if not adds_bytes_in_16_bits():
        opening.open_session(path, provider="openvino", precision="int8").close()
        return
    with pytest.raises(ExportDisagrees) as refused:
        opening.open_session(path, provider="openvino", precision="int8")
    assert str(refused.value).endswith(
        "It is not used (this CPU has no VNNI, and its sums of products of bytes can saturate): leave --precision out"
    )


@pytest.mark.slow
def test_bad_input(graphs, openvino, tmp_path):
    session = open_session(graphs("frames"), provider="openvino")
    with pytest.raises(RequestError, match="this graph takes 'frames' uint8 1×96×160×3, got"):
        session.run(np.zeros((2, 96, 160, 3), np.uint8))
    session.close()
    with pytest.raises(RequestError, match="is closed"):
        session.run(np.zeros((1, 96, 160, 3), np.uint8))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(GraphError, match=r"broken\.onnx cannot be loaded by OpenVINO"):
        open_session(broken, provider="openvino")


def test_openvino_is_not_installed(graphs, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "segdeploy.run.openvino", raising=False)
    with pytest.raises(MissingExtra) as seen:
        open_session(graphs("frames"), provider="openvino")
    assert str(seen.value) == (
        "the provider openvino needs openvino, which is not installed: pip install 'segdeploy[openvino]'"
    )


@pytest.mark.slow
def test_streams_answer_side_by_side_as_one_does(graphs, openvino):
    path = graphs("frames")
    with open_session(path, provider="openvino", threads=1) as one:
        given = [images(one, 1) // (1 + turn) for turn in range(4)]
        expected = [one.run(inputs) for inputs in given]
    with open_session(path, provider="openvino", threads=1, streams=2) as session:
        compiled = session._idle.queue[0].get_compiled_model()
        assert (compiled.get_property("NUM_STREAMS"), session._idle.qsize()) == (2, 2)
        with ThreadPoolExecutor(4) as pool:
            for _ in range(3):
                for answer, known in zip(pool.map(session.run, given), expected, strict=True):
                    np.testing.assert_array_equal(answer, known)
        assert session._idle.qsize() == 2
