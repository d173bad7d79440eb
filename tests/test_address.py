"""Addresses of models on a server: what is read out of them, and what is never shown."""

import pytest

from segdeploy.cli import main
from segdeploy.errors import RequestError
from segdeploy.run.address import ModelAddress, as_model, is_served
from segdeploy.run.runtimes import kind_of_model, runtime_for


@pytest.mark.parametrize(
    ("text", "protocol", "secure", "server", "name", "rest"),
    [
        ("triton://box/b0", "gRPC", False, "box:8001", "b0", {}),
        ("triton+http://box/b0/3", "HTTP", False, "box:8000", "b0/3", {"version": "3"}),
        ("triton+grpcs://[::1]:9/b0", "gRPC", True, "[::1]:9", "b0", {"host": "::1"}),
        ("triton+https://box:1/b_0.x-1?memory=shared&timeout=2.5&ca=a.pem", "HTTP", True, "box:1", "b_0.x-1",
         {"shared": True, "timeout_s": 2.5, "authority": "a.pem"}),
        ("triton+https://u:p%40@box/b0", "HTTP", True, "box:8000", "b0", {"authorization": "Basic dTpwQA=="}),
        ("triton://box/b0?token=abc", "gRPC", False, "box:8001", "b0", {"authorization": "Bearer abc"}),
    ],
)  # fmt: skip
def test_what_an_address_says(text, protocol, secure, server, name, rest):
    address = as_model(text)
    assert (address.protocol, address.secure, address.server, address.name) == (
        protocol,
        secure,
        server,
        name,
    )
    assert {key: getattr(address, key) for key in rest} == rest
    assert runtime_for(address, None).title == "Triton"
    assert kind_of_model(text) == "triton://"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("triton://box", "names no model on a server"),
        ("triton:///b0", "names no model on a server"),
        ("triton://box/b0/latest", "names no model on a server"),
        ("triton://box/b0/1/2", "names no model on a server"),
        ("triton://box/..%2fetc", "names no model on a server"),
        ("triton://box/-rf", "names no model on a server"),
        ("triton://box:port/b0", "is no address"),
        ("triton://box:99999/b0", "is no address"),
        ("triton+ftp://box/b0", "is no address of a model; expected one as triton://localhost:8001/MODEL"),
        ("triton://box/b0?memory=cuda", "asks for memory=cuda; expected memory=shared"),
        ("triton://box/b0?timeout=soon", "asks for timeout=soon; expected seconds"),
        ("triton://box/b0?timeout=nan", "asks for timeout=nan; expected seconds"),
        ("triton://box/b0?retries=3", "has an option 'retries'; known: memory, timeout, ca, token"),
    ],
)
def test_what_is_no_address(text, said):
    with pytest.raises(RequestError, match=said.replace("?", r"\?")):
        ModelAddress.parse(text)


def test_secrets_are_never_shown():
    address = ModelAddress.parse("triton+https://ann:geheim@box/b0?token=abcdef")
    for shown in (str(address), repr(address), f"{address}"):
        assert "geheim" not in shown and "ann" not in shown and "abcdef" not in shown
    with pytest.raises(RequestError) as refusal:
        ModelAddress.parse("triton+https://ann:geheim@box/b0?token=abcdef&x=1")
    assert "geheim" not in str(refusal.value) and "abcdef" not in str(refusal.value)


def test_other_models_are_paths():
    assert as_model("a/b.onnx").name == "b.onnx"
    assert not is_served("http://box/b0.onnx") and not is_served("triton")


def test_verbs_that_look_into_a_file_say_which_ones_do_not(misused, capsys):
    said = misused("quantize", "triton://u:geheim@box/b0", "--images", "x")
    assert (
        "triton://box/b0 is a model on a server, which run, evaluate, bench and verify take; name its file"
        in said
    )
    assert "geheim" not in said
    assert "names no model on a server" in misused("run", "triton://box", "x.png")


def test_a_deadline_is_for_servers(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "x.engine"), "--deadline", "3"]) == 1
    assert "--deadline is for a model on a server, and x.engine is a file" in capsys.readouterr().err
