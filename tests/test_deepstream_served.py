"""Folders for nvinferserver that asks a Triton server: what is written, and what no server can be asked for."""

import json
import re

import pytest
from segdeploy_box.settings import WrongSettings, read_settings

from segdeploy.cli import main
from segdeploy.errors import DeepStreamError
from segdeploy.run.address import ModelAddress
from segdeploy.serve.deepstream.app.folder import render_app
from segdeploy.serve.deepstream.app.request import AppRequest
from segdeploy.serve.deepstream.lint import lint
from segdeploy.serve.deepstream.nvinferserver import demand_served
from segdeploy.serve.deepstream.render import render
from segdeploy.serve.deepstream.request import RenderRequest
from segdeploy.serve.triton.repository import write_repository
from segdeploy.serve.triton.request import TritonRequest

SERVER = ModelAddress.parse("triton://box:8001/tiny.frames.dynamic")
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def fields(text):
    """The fields of a message in protobuf's text format, by their names; nothing is said twice in ours."""
    tokens = TOKEN.findall(re.sub(r"(?m)^#.*$", "", text))

    def message():
        found = {}
        while tokens and tokens[0] != "}":
            name = tokens.pop(0)
            if tokens[0] == ":":
                tokens.pop(0)
            value = tokens.pop(0)
            if value == "{":
                value = message()
                tokens.pop(0)
            elif value == "[":
                value = []
                while (one := tokens.pop(0)) != "]":
                    value += [one] if one != "," else []
            assert name not in found
            found[name] = value
        return found

    return message()


@pytest.mark.slow
def test_a_server_is_sent_frames_as_they_are_and_gives_the_repository_s_model(graphs, tmp_path, capsys):
    model = graphs("frames", None)
    words = ["--deepstream", "9.0", "--streams", "12", "--triton", str(SERVER), "-o", str(tmp_path / "box")]
    assert main(["deepstream", "config", str(model), *words]) == 0
    assert f"segdeploy verify {SERVER}" in capsys.readouterr().err
    found = fields((tmp_path / "box" / "nvinferserver_config.txt").read_text())["infer_config"]
    assert found["backend"]["triton"] == {
        "model_name": '"tiny.frames.dynamic"', "version": "-1", "grpc": {"url": '"box:8001"'},
    }  # fmt: skip
    assert found["max_batch_size"] == "12"
    fed = found["preprocess"]
    assert (fed["tensor_name"], fed["tensor_order"], fed["normalize"]) == (
        '"frames"', "TENSOR_ORDER_NHWC", {"scale_factor": "1.0"},
    )  # fmt: skip
    assert found["postprocess"]["segmentation"]["num_segmentation_classes"] == "5"
    assert (tmp_path / "box" / found["custom_lib"]["path"].strip('"')).with_name("Makefile").is_file()
    assert len((tmp_path / "box" / "labels.txt").read_text().splitlines()) == 5
    assert not list((tmp_path / "box").rglob("*.onnx"))
    written = (tmp_path / "box" / "README.md").read_text()
    assert f"segdeploy triton {model.name} -o repository --batch 12" in written
    assert "nvinferserver config-file-path=nvinferserver_config.txt" in written
    repository = write_repository(TritonRequest((model,), batch=12), tmp_path / "repository")
    assert SERVER.model in repository.models
    served = (tmp_path / "repository" / SERVER.model / "config.pbtxt").read_text()
    assert 'name: "frames"' in served
    assert "max_batch_size: 12" in served
    assert "dynamic_batching" in served


def test_an_engine_s_server_merges_batches(graphs, tmp_path):
    address = ModelAddress.parse("triton://box/b0/3?memory=shared")
    render(RenderRequest(graphs("nvinfer", None), "7.1", streams=4, triton=address), tmp_path)
    found = fields((tmp_path / "triton" / "nvinferserver_config.txt").read_text())
    assert found["infer_config"]["backend"]["triton"] == {
        "model_name": '"b0"', "version": "3", "grpc": {"url": '"box:8001"', "enable_cuda_buffer_sharing": "true"},
    }  # fmt: skip
    assert found["infer_config"]["preprocess"]["normalize"] == {
        "scale_factor": "0.01735207357279195", "channel_offsets": ["123.675", "116.28", "103.53"],
    }  # fmt: skip
    assert found["output_control"] == {"output_tensor_meta": "true"}
    served = fields((tmp_path / "triton" / "models" / "b0" / "config.pbtxt").read_text())
    assert served["dynamic_batching"] == {"max_queue_delay_microseconds": "2000"}
    assert served["output"]["data_type"] == "TYPE_INT64"
    written = (tmp_path / "README.md").read_text()
    assert "tritonserver --model-repository=triton/models    # on box:8001" in written
    assert "trtexec" in written
    assert "saveEngine=triton/models/b0/1/" in written


def test_another_name_is_that_of_versions(graphs, tmp_path):
    address = ModelAddress.parse("triton://box/city")
    render(RenderRequest(graphs("frames", None), "9.1", 100, triton=address), tmp_path)
    written = (tmp_path / "README.md").read_text()
    assert "-o repository --versions-of city" in written
    assert "hands the tensor on" in written
    found = fields((tmp_path / "nvinferserver_config.txt").read_text())
    assert found["infer_config"]["postprocess"]["other"] == {}
    assert "custom_lib" not in found["infer_config"]


@pytest.mark.parametrize(
    ("batch", "change", "words"),
    [
        (None, {"deepstream": "8.0"}, "nothing public shows that nvinferserver of DeepStream 8.0"),
        (1, {}, "has a fixed batch of 1, of which a server merges nothing"),
        (None, {"precision": "fp16"}, "--precision is for the engine that nvinfer builds"),
        (None, {"dla": 0}, "--dla is for the engine"),
        (None, {"parser": "tao"}, "NVIDIA's parser takes one output 'output' int64"),
        (
            None,
            {"triton": ModelAddress.parse("triton+http://box/b0")},
            "over gRPC, without TLS, user or token",
        ),
        (
            None,
            {"triton": ModelAddress.parse("triton+grpcs://box/b0")},
            "over gRPC, without TLS, user or token",
        ),
        (None, {"triton": ModelAddress.parse("triton://u:secret@box/b0")}, "without TLS, user or token"),
        (None, {"triton": None}, "name the server that segdeploy triton has it on: --triton triton://"),
    ],
)
def test_what_no_server_can_be_asked_for(graphs, tmp_path, batch, change, words):
    request = RenderRequest(graphs("frames", batch), **({"deepstream": "9.1", "triton": SERVER} | change))
    with pytest.raises(DeepStreamError) as refused:
        render(request, tmp_path / "box")
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)
    assert not (tmp_path / "box").exists()


def test_labels_of_16_bits_would_be_halves(graphs):
    from dataclasses import replace

    from segdeploy.graph.load import read_graph

    signature = read_graph(graphs("frames", None)).signature
    wide = replace(signature, output=signature.output._replace(dtype="uint16"))
    request = RenderRequest(graphs("frames", None), "9.1", triton=SERVER)
    with pytest.raises(DeepStreamError, match="which nvinferserver calls a half"):
        demand_served(request, wide)
    planar = replace(signature, input=signature.input._replace(dtype="float32"))
    with pytest.raises(DeepStreamError, match="segdeploy triton serves uint8"):
        demand_served(request, planar)


def test_an_application_asks_the_server_too(graphs, tmp_path):
    request = AppRequest(graphs("frames", None), ("rtsp://a/1", "rtsp://a/2"), triton=SERVER)
    render_app(request, tmp_path / "box")
    settings = read_settings(tmp_path / "box" / "segdeploy_app.json")
    assert (settings.inference.element, settings.inference.config) == (
        "nvinferserver", "nvinferserver_config.txt",
    )  # fmt: skip
    configuration = (tmp_path / "box" / "deepstream_app.txt").read_text()
    assert "plugin-type=1\nconfig-file=nvinferserver_config.txt" in configuration
    assert lint(tmp_path / "box" / "deepstream_app.txt") == []
    assert f"The server of `{SERVER}` has to run" in (tmp_path / "box" / "APP.md").read_text()
    path = tmp_path / "wrong.json"
    read = json.loads((tmp_path / "box" / "segdeploy_app.json").read_text())
    path.write_text(json.dumps(read | {"inference": {"element": "nvdsmeta", "config": "x"}}))
    with pytest.raises(WrongSettings, match=r"inference\.element is 'nvdsmeta'"):
        read_settings(path)
    render_app(AppRequest(graphs("nvinfer", None), ("rtsp://a/1",), "7.1", triton=SERVER), tmp_path / "old")
    settings = read_settings(tmp_path / "old" / "segdeploy_app.json")
    assert settings.inference.config == "triton/nvinferserver_config.txt"
    assert (tmp_path / "old" / settings.inference.config).is_file()
