"""A model on the real Triton behind TLS: gRPC by the server's own, HTTP through a proxy, as in front of a cluster."""

import socket
import ssl
import subprocess
import threading
from contextlib import suppress

import numpy as np
import pytest
import triton_server
from triton_server import TritonServer

from segdeploy.cli import main
from segdeploy.errors import RequestError, ServerError
from segdeploy.run.address import ModelAddress
from segdeploy.run.session import open_session
from segdeploy.run.triton import wire
from segdeploy.serve.triton.repository import write_repository
from segdeploy.serve.triton.request import TritonRequest

on_triton = [
    pytest.mark.slow,
    pytest.mark.skipif(not triton_server.is_installed(), reason="there is no Triton here: make triton"),
]
FORMS = ("triton+grpcs", "triton+https")


class TlsProxy:
    """Ends TLS before a port of this host, and passes bytes on, until its block ends."""

    def __init__(self, port, folder):
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with suppress(OSError):
            while True:
                taken, _ = self._listening.accept()
                threading.Thread(target=self._pass_on, args=(taken,), daemon=True).start()

    def _pass_on(self, taken):
        with (
            suppress(OSError),
            self._context.wrap_socket(taken, server_side=True) as client,
            socket.create_connection(("127.0.0.1", self._target)) as server,
        ):
            back = threading.Thread(target=copy, args=(server, client), daemon=True)
            back.start()
            copy(client, server)
            back.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listening.close()


def copy(source, target):
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def openssl(folder, *words):
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, a server's certificate by it for 127.0.0.1, and another authority."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other"):
        words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}")
        openssl(folder, *words, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    words = ("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=server", "-keyout", "server.key")
    openssl(folder, *words, "-out", "server.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    words = ("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
    openssl(folder, *words, "-days", "2", "-extfile", "names", "-out", "server.pem")
    return folder


@pytest.fixture(scope="module")
def served(graphs, certificates, tmp_path_factory):
    """Give a function that makes the address of the model in each form."""
    folder = tmp_path_factory.mktemp("served")
    path = folder / "tiny.onnx"
    path.write_bytes(graphs("frames").read_bytes())
    write_repository(TritonRequest((path,), "python", threads=1), folder / "repository")
    flags = (
        "use-ssl=true",
        f"server-cert={certificates}/server.pem",
        f"server-key={certificates}/server.key",
    )
    with (
        TritonServer(folder / "repository", folder / "log", *(f"--grpc-{flag}" for flag in flags)) as server,
        TlsProxy(server.http, certificates) as proxy,
    ):

        def address(form, ca=None, host="127.0.0.1"):
            port = proxy.port if "http" in form else server.grpc
            return f"{form}://{host}:{port}/tiny?timeout=20" + (f"&ca={certificates / ca}" if ca else "")

        yield address, path


class TestOnTriton:
    pytestmark = on_triton

    @pytest.mark.parametrize("form", FORMS)
    def test_labels_are_those_of_the_graph(self, form, served):
        address, path = served
        with open_session(address(form, "ca.pem")) as session, open_session(path) as own:
            size = own.signature.size
            frames = np.random.default_rng(0).integers(0, 256, (1, size.height, size.width, 3), np.uint8)
            assert np.array_equal(session.run(frames), own.run(frames))

    @pytest.mark.parametrize("form", FORMS)
    def test_verify(self, form, served, capsys):
        address, _ = served
        assert main(["verify", address(form, "ca.pem"), "--deadline", "60"]) == 0
        assert "100.0000% of the pixels" in capsys.readouterr().out

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize(
        ("ca", "host"), [(None, "127.0.0.1"), ("other.pem", "127.0.0.1"), ("ca.pem", "localhost")]
    )
    def test_a_certificate_that_is_not_trusted_or_of_another_host(self, form, ca, host, served, capsys):
        address, _ = served
        assert main(["verify", address(form, ca, host), "--deadline", "60"]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"there is no TLS with {host}:" in said
        assert "?ca=FILE.pem at the address where its certificate is of your own authority" in said

    @pytest.mark.parametrize(
        ("form", "secure"), [("triton", "triton+grpcs"), ("triton+http", "triton+https")]
    )
    def test_no_tls_where_the_server_wants_it(self, form, secure, served):
        address, _ = served
        with pytest.raises(ServerError) as refused:
            open_session(address(form).replace("timeout=20", "timeout=3"))
        assert f"correct the address: what answers there speaks TLS, so write {secure}://" in str(
            refused.value
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file or directory"), ("no PEM", "no certificate")]
)
def test_certificates_that_cannot_be_read(content, why, tmp_path):
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    with pytest.raises(RequestError, match=rf"{file} cannot be read \(.*{why}.*\); expected a PEM file"):
        wire.trusted_by(ModelAddress.parse(f"triton+https://host/model?ca={file}"))
