"""An .onnx is read once: what the graph says of itself, and what is refused."""

import hashlib
import subprocess
import sys

import onnx
import pytest

from segdeploy.errors import GraphError, RequestError
from segdeploy.files import digest_of
from segdeploy.graph.load import as_graph, read_graph
from segdeploy.graph.precision import Precision
from segdeploy.run.session import open_session

MADE_BY = "; a graph is an .onnx made by: segdeploy export CHECKPOINT"


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["nvinfer", "frames", "logits"])
@pytest.mark.parametrize("batch", [1, None])
def test_the_signature_is_the_sessions(interface, batch, graphs):
    path = graphs(interface, batch)
    for weights in (True, False):
        graph = read_graph(path, weights=weights)
        with open_session(path) as session:
            assert graph.signature == session.signature
        assert (graph.name, graph.precision, graph.digest) == (
            path.name,
            Precision(False, False),
            digest_of(path),
        )
    assert graph.outputs == (graph.signature.output,)


def test_a_graph_that_was_read_is_taken_as_it_is(graphs):
    graph = read_graph(graphs("frames"))
    assert as_graph(graph) is graph
    assert as_graph(str(graphs("frames"))) == graph


def test_weights_in_a_file_beside_it(graphs, tmp_path):
    path, where = tmp_path / "x.onnx", {"location": "x.data", "size_threshold": 64}
    whole = onnx.load(graphs("frames"))
    onnx.save(whole, path, save_as_external_data=True, **where)
    digests = digest_of(path) + digest_of(tmp_path / "x.data")
    graph = read_graph(path)
    assert graph.digest == hashlib.sha256(digests.encode()).hexdigest()
    held = {item.name: item.raw_data for item in graph.model.graph.initializer}
    assert held == {item.name: item.raw_data for item in onnx.load(graphs("frames")).graph.initializer}
    looked_at = read_graph(path, weights=False)
    assert (looked_at.signature, looked_at.digest) == (graph.signature, graph.digest)
    assert not any(item.raw_data for item in looked_at.model.graph.initializer if len(item.external_data))
    (tmp_path / "x.data").unlink()
    assert read_graph(path, weights=False).signature == graph.signature
    with pytest.raises(
        GraphError,
        match=r"^the weights of .*x\.onnx lie in .*x\.data, which is not there; keep its files together$",
    ):
        read_graph(path)


@pytest.mark.parametrize("name", ["/etc/hostname", "../x.data", "a/../../x.data"])
def test_weights_that_lie_elsewhere_are_not_looked_for(name, graphs, tmp_path):
    path = tmp_path / "x.onnx"
    model = onnx.load(graphs("frames"))
    onnx.save(model, path, save_as_external_data=True, location="x.data", size_threshold=64)
    model = onnx.load(path, load_external_data=False)
    for item in model.graph.initializer:
        for entry in item.external_data:
            if entry.key == "location":
                entry.value = name
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match=r"says that its weights lie in '.*', which is not beside it"):
        read_graph(path)
    with pytest.raises(GraphError, match="which is not beside it"):
        read_graph(path, weights=False)


@pytest.mark.parametrize(
    ("name", "data", "kind", "said"),
    [
        ("gone.onnx", None, RequestError, "there is no file {path}" + MADE_BY),
        ("x.engine", b"", GraphError, "x.engine ends in '.engine'" + MADE_BY),
        ("x.onnx", b"", GraphError, "{path} is not an ONNX graph: it has no input or no output" + MADE_BY),
        (
            "x.onnx",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            GraphError,
            "{path} is a pointer of Git LFS and not the graph itself; fetch it with: git lfs pull",
        ),
    ],
)
def test_what_is_no_graph(name, data, kind, said, tmp_path):
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(kind) as error:
        read_graph(path)
    assert str(error.value) == said.format(path=path)


@pytest.mark.parametrize("data", [b"<html>not found</html>", b"\x80\x02}q\x00", "cut"])
def test_what_is_no_protobuf(data, graphs, tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(graphs("frames").read_bytes()[:5000] if data == "cut" else data)
    with pytest.raises(GraphError) as error:
        read_graph(path)
    assert str(error.value).startswith(f"{path} cannot be read as an ONNX graph (")
    assert str(error.value).endswith(MADE_BY)
    assert "\n" not in str(error.value)


def test_a_graph_that_is_too_old(graphs, tmp_path):
    model = onnx.load(graphs("frames"))
    model.opset_import[0].version = 6
    onnx.save(model, tmp_path / "old.onnx")
    with pytest.raises(GraphError) as error:
        read_graph(tmp_path / "old.onnx")
    assert str(error.value) == (
        "old.onnx has opset 6, and ONNX Runtime reads 7 and newer; export it again with a newer one"
    )


@pytest.mark.slow
def test_a_graph_is_inspected_without_a_runtime(graphs):
    """Nor with what reads pictures: ONNX alone, as the base install has it."""
    heavy = "('onnxruntime', 'openvino', 'torch', 'tensorrt', 'cv2', 'av')"
    code = f"import sys; from segdeploy.cli import main; main(); print(*(set({heavy}) & set(sys.modules)))"
    command = [sys.executable, "-c", code, "inspect", str(graphs("frames"))]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[1].split() == ["card", "tiny"]
    assert said[-1] == ""
