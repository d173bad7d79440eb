"""A model on the real Triton as a session, and what `verify` finds out about it; the server is NVIDIA's own."""

import json
import shutil
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import triton_server
from triton_server import TritonServer
from tritonclient import grpc as client

from segdeploy.assess.bench.models import ModelOptions, open_model
from segdeploy.cli import main
from segdeploy.errors import EngineDisagrees, RequestError, ServerError
from segdeploy.picture.rle import mask_of
from segdeploy.prove.verify_served import verify_served
from segdeploy.run.address import ModelAddress
from segdeploy.run.session import open_session, segment
from segdeploy.run.triton import asking, http_wire
from segdeploy.scenes import make_scene
from segdeploy.serve.triton.repository import write_repository
from segdeploy.serve.triton.request import TritonRequest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not triton_server.is_installed(), reason="there is no Triton here: make triton"),
]
NAME = "tiny"
FORMS = ("triton", "triton+http")


@pytest.fixture(scope="module")
def graph(graphs, tmp_path_factory):
    source = graphs("frames", batch=None)
    path = tmp_path_factory.mktemp("served") / f"{NAME}.onnx"
    path.write_bytes(source.read_bytes())
    return path


@pytest.fixture(scope="module")
def repository(graph):
    folder = graph.parent / "repository"
    write_repository(
        TritonRequest((graph,), "python", batch=4, delay_ms=50, jpeg=True, areas=True, threads=1), folder
    )
    return folder


@pytest.fixture(scope="module")
def server(repository):
    with TritonServer(repository, repository.parent / "server.log") as running:
        yield running


@pytest.fixture(scope="module")
def frames():
    return np.stack([make_scene(seed, 96, 160).image for seed in range(4)])


@pytest.fixture(scope="module")
def expected(graph, frames):
    with open_session(graph) as session:
        return session.run(frames)


# ---- the same labels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", ["", "?memory=shared"])
def test_labels_are_those_of_the_graph(form, options, server, graph, frames, expected):
    with open_session(server.address(NAME, form) + options) as session, open_session(graph) as own:
        assert session.signature == own.signature
        for batch in (1, 4, 2):
            assert np.array_equal(session.run(frames[:batch]), expected[:batch])
        assert not session.run(frames[:1]).flags.owndata or session.run(frames[:1]).base is None
        with pytest.raises(
            RequestError, match="takes at most 4 frames at once, and 5 were given; give fewer"
        ):
            session.run(np.concatenate([frames, frames[:1]]))
        with pytest.raises(RequestError, match="this graph takes 'frames' uint8"):
            session.run(frames.astype(np.float32))
    with pytest.raises(RequestError, match="is closed"):
        session.run(frames[:1])
    assert not list(Path("/dev/shm").glob("psm_*segdeploy*"))


def infer(server, model, image, *outputs):
    """Ask as any other client of Triton would."""
    with client.InferenceServerClient(f"127.0.0.1:{server.grpc}") as other:
        given = client.InferInput("image", [1, 1], "BYTES")
        given.set_data_from_numpy(np.array([[image]], np.object_))
        wanted = [client.InferRequestedOutput(name) for name in outputs]
        return other.infer(model, [given], outputs=wanted or None, client_timeout=30)


def test_an_image_file_becomes_labels_of_its_size(server, graph):
    frame = make_scene(7, 131, 211).image
    coded = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes()
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    with open_session(graph) as session:
        expected = segment(session, decoded)
    answer = infer(server, f"{NAME}_jpeg", coded)
    assert np.array_equal(answer.as_numpy("labels")[0], expected.labels)
    areas = infer(server, f"{NAME}_areas", coded, "areas", "size", "masks")
    assert areas.as_numpy("size").tolist() == [[131, 211]]
    names = expected.classes.names
    for name, share in zip(names, areas.as_numpy("areas")[0], strict=True):
        assert share == pytest.approx(expected.areas().get(name, 0), abs=1e-6)
    masks = json.loads(areas.as_numpy("masks")[0, 0])
    assert masks.keys() == expected.areas().keys()
    for name, mask in masks.items():
        assert np.array_equal(mask_of(mask), expected.labels == names.index(name))


@pytest.mark.parametrize("model", [f"{NAME}_jpeg", f"{NAME}_areas"])
@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"\xff\xd8\xff\xe0 no more of it", "the image is not an image that can be decoded"),
        (
            b"P6\n40000 40000\n255\n",
            "the image is 40000x40000, 1,600,000,000 pixels; at most 100,000,000 are read",
        ),
    ],
)
def test_a_bad_image_file_is_refused_in_words(model, image, said, server):
    with pytest.raises(client.InferenceServerException) as refusal:
        infer(server, model, image)
    assert said in refusal.value.message()
    assert refusal.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("shape", "kind", "said"),
    [
        ((1, 95, 160, 3), "UINT8", "unexpected shape for input 'frames'"),
        ((1, 96, 160, 3), "FP32", "data-type"),
        ((5, 96, 160, 3), "UINT8", "batch-size must be <= 4"),
    ],
)
def test_a_wrong_tensor_is_refused_by_the_server(shape, kind, said, server):
    with client.InferenceServerClient(f"127.0.0.1:{server.grpc}") as other:
        given = client.InferInput("frames", list(shape), kind)
        given.set_data_from_numpy(np.zeros(shape, {"UINT8": np.uint8, "FP32": np.float32}[kind]))
        with pytest.raises(client.InferenceServerException, match=said):
            other.infer(NAME, [given], client_timeout=30)


def test_requests_are_merged(server, frames, expected):
    def counted():
        return server.counted("nv_inference_count", NAME), server.counted("nv_inference_exec_count", NAME)

    with open_session(server.address(NAME)) as session:
        before = counted()
        right = []

        def ask(place):
            right.append(np.array_equal(session.run(frames[place : place + 1])[0], expected[place]))

        for _ in range(3):
            threads = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    until = time.monotonic() + 10
    while counted()[0] - before[0] < 12 and time.monotonic() < until:  # it counts after it has answered
        time.sleep(0.05)
    images, executions = (after - then for after, then in zip(counted(), before, strict=True))
    assert right == [True] * 12
    assert images == 12
    assert executions < 12


# ---- the verbs ---------------------------------------------------------------------------------------------------


def test_run_on_a_server(server, graph, frames, tmp_path, capsys):
    picture = tmp_path / "street.png"
    cv2.imwrite(str(picture), cv2.cvtColor(frames[0], cv2.COLOR_RGB2BGR))
    for model, out in ((str(graph), "own"), (server.address(NAME), "served")):
        assert main(["run", model, str(picture), "-o", str(tmp_path / out)]) == 0
    capsys.readouterr()
    own, served = ((tmp_path / out / "street.ids.png").read_bytes() for out in ("own", "served"))
    assert own == served


def test_evaluate_on_a_server(server, graph, tmp_path, capsys):
    images, truth = tmp_path / "images", tmp_path / "labels"
    for folder in (images, truth):
        folder.mkdir()
    for seed in range(2):
        scene = make_scene(seed, 96, 160)
        cv2.imwrite(str(images / f"{seed}.png"), scene.image)
        cv2.imwrite(str(truth / f"{seed}.png"), np.full((96, 160), seed, np.uint8))
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("ids:\n  0: road\n  1: kerb\n")
    asked = ["--dataset", "folder", "--root", str(tmp_path), "--mapping", str(mapping), "--json", "-"]
    models = [str(graph), server.address(NAME)]
    assert main(["evaluate", *models, *asked]) == 0
    report = json.loads(capsys.readouterr().out)
    first, second = report["models"].values() if isinstance(report["models"], dict) else report["models"]
    for part in ("miou", "digest"):
        assert json.dumps(find(first, part)) == json.dumps(find(second, part))


def find(facts, name):
    if isinstance(facts, dict):
        for key, value in facts.items():
            if key == name:
                return value
            if (found := find(value, name)) is not None:
                return found
    return None


def test_bench_shows_the_shares_of_a_server(server, capsys):
    assert main(["bench", server.address(NAME), "--duration", "0.3", "--warmup", "50", "--json", "-"]) == 0
    results = json.loads(capsys.readouterr().out)
    (measured,) = results["measurements"]
    shares = measured["server"]
    latency = measured["timings"]["latency"]["mean"]
    assert 0 < shares["compute_ms"] < latency
    parts = shares["queue_ms"] + shares["compute_ms"] + shares["elsewhere_ms"]
    assert parts == pytest.approx(latency)
    assert shares["images_per_execution"] >= 1
    (model,) = results["models"]
    assert model["runtime"].startswith("Triton 2.51.0 at 127.0.0.1:")
    assert len(model["digest"]) == 64
    assert main(["bench", server.address(NAME), "--duration", "0.1", "--warmup", "10"]) == 0
    said = capsys.readouterr().out
    assert "server's queue mean, ms" in said and "client and network mean, ms" in said


def test_what_is_for_other_models_is_refused(server):
    with pytest.raises(
        RequestError, match="provider 'cpu' is not for tiny, which runs in Triton on a server"
    ):
        open_session(server.address(NAME), provider="cpu")
    with pytest.raises(RequestError, match="threads 2 is not for tiny, which runs in Triton on a server"):
        open_session(server.address(NAME), threads=2)
    opened = open_model(server.address(NAME, "triton+http"), ModelOptions())
    opened.session.close()
    assert opened.record is None


# ---- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("other", "has no model 'other'; it has: tiny, tiny_areas, tiny_back, tiny_decode, tiny_jpeg"),
        ("tiny/7", "does not serve version 7 of 'tiny'"),
    ],
)
def test_a_wrong_model_or_version(form, model, said, server):
    with pytest.raises(ServerError, match=said):
        open_session(server.address(model, form))


def test_a_part_of_a_chain_is_no_model(server):
    with pytest.raises(
        RequestError, match=r"tiny_jpeg on .* is for image files, beside the model 'tiny'; name that one"
    ):
        open_session(server.address("tiny_jpeg"))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("triton+https", r"there is no TLS with 127\.0\.0\.1:\d+ \(.*\); write triton\+http:// where"),
        ("triton+grpcs", r"there is no TLS with 127\.0\.0\.1:\d+ \(.*\); write triton:// where"),
    ],
)
def test_tls_is_refused(form, said, server):
    with pytest.raises(ServerError, match=said):
        open_session(server.address(NAME, form))


def test_the_other_protocols_port(server):
    with pytest.raises(ServerError, match="no Triton server answers gRPC"):
        open_session(f"triton://127.0.0.1:{server.http}/{NAME}?timeout=3")
    with pytest.raises(
        ServerError, match=r"no Triton server answers HTTP .*\(what answers there is not HTTP\)"
    ):
        open_session(f"triton+http://127.0.0.1:{server.grpc}/{NAME}?timeout=3")


@pytest.mark.parametrize("form", FORMS)
def test_verify(form, server, capsys):
    assert main(["verify", server.address(NAME, form), "--deadline", "60"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        f"{server.address(NAME, form)}: 100.0000% of the pixels as the record of tiny.onnx has them"
    )
    assert "(version 1, batches of 1, 3, Triton 2.51.0 at" in said


# ---- a server of its own for what harms it -----------------------------------------------------------------------


def test_a_dead_model_is_found_where_triton_says_ready(repository, tmp_path, capsys):
    """Trap: both of Triton's health checks go on answering 200."""
    with TritonServer(repository, tmp_path / "log") as server:
        address = ModelAddress.parse(server.address(NAME))
        verify_served(address, 60)
        assert server.kill_backend(NAME) == 1
        began = time.monotonic()
        status = main(["verify", server.address(NAME)])
        seconds = time.monotonic() - began
        assert server.answers("health/ready") and server.answers(f"models/{NAME}/ready")
        said = capsys.readouterr().err
        assert status == 1
        assert seconds < 5
        assert "The server still says that the model is ready: its process has died or hangs" in said
        with (
            open_session(server.address(NAME, "triton+http")) as session,
            pytest.raises(ServerError, match="failed"),
        ):
            session.run(np.zeros((1, 96, 160, 3), np.uint8))


def test_a_polling_server_loads_a_model_once(repository, tmp_path):
    """Trap: Python's bytecode beside model.py was taken for a change."""
    flags = ("--model-control-mode=poll", "--repository-poll-secs=1")
    with TritonServer(repository, tmp_path / "log", *flags) as server:
        time.sleep(2.5)
        assert server.log.read_text().count(f"successfully loaded '{NAME}'") == 1
    assert not [path for path in repository.rglob("__pycache__") if path.is_dir()]


def test_a_newer_numpy_is_named(repository, tmp_path, capsys):
    """Trap: with NumPy 2 this server's bindings take every output for empty, and load the model all the same."""
    copy = tmp_path / "repository"
    shutil.copytree(repository / NAME, copy / NAME)
    (copy / NAME / "1/model.py").write_text(
        f"import sys\nsys.path.insert(0, {str(triton_server.FOLDER / 'newer')!r})\n"
        "from segdeploy.serve.triton.python_models import FramesModel as TritonPythonModel\n"
    )
    with TritonServer(copy, tmp_path / "log") as server:
        for form in FORMS:
            assert main(["verify", server.address(NAME, form), "--deadline", "60"]) == 1
            said = capsys.readouterr().err
            assert "tiny on 127.0.0.1:" in said and "failed: it answered no bytes." in said
            assert "pip install 'numpy<2' 'opencv-python-headless<4.12' into the server's Python" in said


def test_wrong_labels_are_found(repository, tmp_path, capsys):
    """A model that was exchanged under the record of another."""
    copy = tmp_path / "repository"
    shutil.copytree(repository / NAME, copy / NAME)
    (copy / NAME / "1/model.py").write_text(
        "import numpy as np\n"
        "from segdeploy.serve.triton.python_models import FramesModel\n"
        "class TritonPythonModel(FramesModel):\n"
        "    def execute(self, requests):\n"
        "        made = super().execute(requests)\n"
        "        return [self.triton.InferenceResponse(output_tensors=[self.triton.Tensor('labels',\n"
        "            (one.output_tensors()[0].as_numpy() + 1) % 5)]) for one in made]\n"
    )
    with TritonServer(copy, tmp_path / "log") as server:
        with pytest.raises(EngineDisagrees, match=r"disagrees with the record of tiny\.onnx: "):
            verify_served(ModelAddress.parse(server.address(NAME)), 60)
        assert main(["verify", server.address(NAME), "--deadline", "60"]) == 1
    assert (
        "Start the server anew; if it disagrees again, make its repository again" in capsys.readouterr().err
    )


def test_a_server_that_was_started_anew_is_asked_again(repository, frames, expected, tmp_path):
    with TritonServer(repository, tmp_path / "log") as first:
        ports = first.http, first.grpc, first.metrics
        sessions = [open_session(f"{first.address(NAME, form)}?timeout=90") for form in FORMS]
        shared = open_session(f"{first.address(NAME)}?timeout=90&memory=shared")
        for session in (*sessions, shared):
            assert np.array_equal(session.run(frames), expected)
    again = []
    asked = threading.Thread(target=lambda: again.extend(one.run(frames) for one in (*sessions, shared)))
    asked.start()
    time.sleep(0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_server, "free_ports", lambda count: list(ports))
        with TritonServer(repository, tmp_path / "log2"):
            asked.join(120)
            for session in (*sessions, shared):
                session.close()
    assert [np.array_equal(labels, expected) for labels in again] == [True] * 3


# ---- servers that are none ---------------------------------------------------------------------------------------


class Slow(BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(3)

    def log_message(self, *_):
        pass


class Web(BaseHTTPRequestHandler):
    seen: ClassVar[list[str | None]] = []

    def do_GET(self):
        self.seen.append(self.headers.get("Authorization"))
        body = b"<html>hello</html>"
        self.send_response(401 if "secret" in self.path else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def serving():
    """`serving(Handler)`: a web server on this machine; gives its port."""
    running = []

    def start(handler):
        server = HTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return server.server_address[1]

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_a_server_that_hangs_ends_with_the_deadline(serving, capsys):
    began = time.monotonic()
    assert main(["verify", f"triton+http://127.0.0.1:{serving(Slow)}/x", "--deadline", "0.5"]) == 1
    assert time.monotonic() - began < 3
    assert "did not answer within" in capsys.readouterr().err


def test_another_web_server_is_named(serving):
    with pytest.raises(ServerError, match="its answer is not Triton's"):
        open_session(f"triton+http://127.0.0.1:{serving(Web)}/x")


def test_a_client_that_is_not_let_in(serving, capsys):
    Web.seen.clear()
    address = f"triton+http://ann:pass%2Fword@127.0.0.1:{serving(Web)}/secret"
    assert main(["verify", address]) == 1
    said = capsys.readouterr().err
    assert "does not let this client in" in said
    assert "pass" not in said.replace("PASSWORD", "") and "ann" not in said
    assert Web.seen[0] == "Basic YW5uOnBhc3Mvd29yZA=="


@pytest.mark.parametrize("form", FORMS)
def test_nobody_is_there(form, capsys):
    (port,) = triton_server.free_ports(1)
    assert main(["verify", f"{form}://user:geheim@127.0.0.1:{port}/x"]) == 1
    said = capsys.readouterr().err
    assert f"no Triton server answers {'HTTP' if 'http' in form else 'gRPC'} at 127.0.0.1:{port} (" in said
    assert "geheim" not in said and said.count("\n") == 1


def test_tls_errors_and_lost_connections_are_told_apart():
    lost = http_wire.refused(ConnectionResetError(104, "reset"), fresh=False)
    assert (lost.kind, lost.said) == ("away", "the connection was lost: reset")
    assert http_wire.refused(ssl.SSLError(1, "no"), fresh=True).kind == "unsafe"
    assert http_wire.refused(TimeoutError(), fresh=True).kind == "late"
    assert asking.hint(ModelAddress.parse("triton://h:8000/x")) == " (8000 is Triton's port for HTTP)"
    assert asking.hint(ModelAddress.parse("triton://h:8001/x")) == ""
