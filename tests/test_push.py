"""A folder on its way to the Hub: what goes, what stays, the card, and a stand-in for the Hub that takes the commit."""

import base64
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from segdeploy.cli import main
from segdeploy.errors import GraphError, RequestError
from segdeploy.files import digest_of
from segdeploy.model.labels import read_labels
from segdeploy.model.record import ArtifactRecord, ArtifactSource, LedgerStep, Normalisation, record_path
from segdeploy.serve.hub.contents import contents_to_push
from segdeploy.serve.hub.push import PushRequest, prepare


def record_of(name, digest):
    ones, names = (1.0, 1.0, 1.0), read_labels("voc").names
    return ArtifactRecord(
        name, digest, "mine", "frames", "64x96", 1, "fp32", 17, Normalisation(ones, ones), "linear", names,
        ArtifactSource("acme/street-net", "Apache-2.0"),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A model with a record, and what else may lie beside them."""
    place = tmp_path / "out"
    place.mkdir()
    (place / "x.onnx").write_bytes(b"graph")
    record = record_of("x.onnx", digest_of(place / "x.onnx"))
    step = LedgerStep("fp32", "PyTorch FP32", 1.0, 12_288)
    replace(record, ledger=(step,), command="segdeploy export acme/street-net").write(place)
    (place / "street.overlay.png").write_bytes(b"a street with people")
    (place / ".hidden").write_text("x")
    return place


class Hub(BaseHTTPRequestHandler):
    """Takes what huggingface_hub asks of the Hub for one commit; `asked` keeps it."""

    def do_GET(self):
        self.answer({"id": "acme/streets", "sha": "0" * 40, "siblings": [], "private": True})

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.server.asked.append((self.path, self.headers.get("Authorization"), text))
        if self.server.status != 200:
            self.answer({"error": "not yours"}, self.server.status)
        elif "/preupload/" in self.path:
            files = json.loads(text)["files"]
            self.answer({"files": [{**one, "uploadMode": "regular", "shouldIgnore": False} for one in files]})
        elif "/commit/" in self.path:
            self.answer(
                {
                    "commitUrl": "https://huggingface.co/acme/streets/commit/1",
                    "commitOid": "1" * 40,
                    "success": True,
                }
            )
        else:
            self.answer({"url": "https://huggingface.co/acme/streets", "name": "acme/streets"})

    def answer(self, facts, status=200):
        data = json.dumps(facts).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words):
        pass


@pytest.fixture
def hub(monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def committed(server):
    """The files of the commit, by name."""
    (text,) = [text for path, _, text in server.asked if "/commit/" in path]
    lines = [json.loads(line) for line in text.splitlines()]
    return {
        line["value"]["path"]: base64.b64decode(line["value"]["content"])
        for line in lines
        if line["key"] == "file"
    }


def test_models_go_with_their_records_and_pictures_stay(folder, hub, capsys):
    assert main(["push", str(folder), "acme/streets", "--message", "first"]) == 0
    said = capsys.readouterr()
    graph = next(path for path in folder.iterdir() if path.suffix == ".onnx")
    found = committed(hub)
    assert set(found) == {graph.name, f"{graph.name}.json", "README.md"}
    assert found[graph.name] == graph.read_bytes()
    created = next(json.loads(text) for path, _, text in hub.asked if path.endswith("/create"))
    assert (created["name"], created["organization"]) == ("streets", "acme")
    assert created.get("private") is True or created.get("visibility") == "private"
    assert {token for _, token, _ in hub.asked} == {"Bearer hf_secret"}
    assert "left out: street.overlay.png" in said.out
    assert said.out.endswith("https://huggingface.co/acme/streets/commit/1\n")
    assert "hf_secret" not in said.out + said.err
    assert "next: hf download acme/streets" in said.err
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [".hidden", graph.name, f"{graph.name}.json", "street.overlay.png"]
    )


def test_no_folder_of_this_machine_is_told(folder, hub, capsys):
    record = record_of("x.onnx", digest_of(folder / "x.onnx"))
    made = f"segdeploy export '{folder}/my net.pth' -o {folder}"
    source = ArtifactSource(f"{folder}/my net.pth", "Apache-2.0")
    replace(record, command=made, commands=(made,), source=source).write(folder)
    assert main(["push", str(folder), "acme/streets"]) == 0
    found = committed(hub)
    assert str(folder.parent) not in b"".join(found.values()).decode()
    sent = json.loads(found["x.onnx.json"])
    assert (sent["source"]["checkpoint"], sent["command"]) == (
        "my net.pth",
        "segdeploy export 'my net.pth' -o out",
    )
    assert "segdeploy export 'my net.pth' -o out" in found["README.md"].decode()
    assert str(folder) in (folder / "x.onnx.json").read_text()


def test_a_name_that_is_no_utf_8_goes_as_an_escape(folder, hub):
    record = record_of("x.onnx", digest_of(folder / "x.onnx"))
    replace(record, command=f"segdeploy export {folder}/\udcff.pth").write(folder)
    assert main(["push", str(folder), "acme/streets"]) == 0
    assert json.loads(committed(hub)["x.onnx.json"])["command"] == "segdeploy export '\udcff.pth'"


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[" * 100_000], ids=["cut off", "no UTF-8", "too deep"])
def test_a_report_that_is_no_json_is_named(folder, text):
    (folder / "evaluation.json").write_bytes(text)
    with pytest.raises(RequestError, match=r"evaluation\.json .*; mend it or remove it"):
        prepare(PushRequest(folder, "acme/streets"))


def test_the_card_has_the_ledger_and_what_the_hub_reads(folder):
    card = prepare(PushRequest(folder, "acme/streets")).card
    _, front, body = card.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert (facts["library_name"], facts["pipeline_tag"]) == ("segdeploy", "image-segmentation")
    assert (facts["license"], facts["base_model"]) == ("apache-2.0", ["acme/street-net"])
    assert "# streets\n" in body
    assert "segdeploy export acme/street-net\n" in body
    assert "| fp32 | PyTorch FP32 | 100.0000% |  |  |" in body


def test_a_dry_run_asks_nobody(folder, hub, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    assert main(["push", str(folder), "acme/streets", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("---\nlibrary_name: segdeploy\n")
    assert "would be sent: " in said.out
    assert hub.asked == []
    assert main(["push", str(folder), "acme/streets"]) == 1
    assert "pip install 'segdeploy[hub]'" in capsys.readouterr().err


def test_a_card_of_ones_own_is_kept(folder, hub, capsys):
    (folder / "README.md").write_text("mine")
    assert main(["push", str(folder), "acme/streets", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["card"], "README.md" in facts["files"]) == (None, True)
    assert committed(hub)["README.md"] == b"mine"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            403,
            "the Hub does not let you write to acme/streets (403): hf auth login with a token that may write",
        ),
        (418, "the Hub answered 418 for acme/streets: "),
    ],
)
def test_a_hub_that_refuses(status, words, folder, hub, capsys):
    hub.status = status
    assert main(["push", str(folder), "acme/streets"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"segdeploy: {words}")
    assert said.count("\n") == 1


def test_a_hub_that_is_not_there(folder, hub, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", str(folder), "acme/streets"]) == 1
    assert "acme/streets could not be sent: " in capsys.readouterr().err


def test_what_is_not_proven_is_not_sent(folder, tmp_path):
    graph = next(path for path in folder.iterdir() if path.suffix == ".onnx")
    for name in ("streets", "a/b/c", "../x", "acme/..", "acme/"):
        with pytest.raises(RequestError, match="is no repository of the Hub; expected OWNER/NAME"):
            prepare(PushRequest(folder, name))
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(GraphError, match="it was changed after that was written"):
        contents_to_push(folder)
    record_path(graph).unlink()
    with pytest.raises(RequestError, match="has no record beside it"):
        contents_to_push(folder)
    graph.unlink()
    with pytest.raises(RequestError, match=r"holds no \.onnx, no \.engine and no checkpoint"):
        contents_to_push(folder)
    with pytest.raises(RequestError, match="there is no folder"):
        contents_to_push(tmp_path / "gone")


def test_a_checkpoint_goes_whole(tmp_path):
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (tmp_path / name).write_text("{}")
    done = prepare(PushRequest(tmp_path, "acme/streets"))
    assert len(done.contents.files) == 3
    assert done.contents.is_checkpoint
