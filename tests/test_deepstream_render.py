"""The folder that `deepstream config` writes: the values we mean, the same in both forms, clean, and copyable."""

import shlex
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from segdeploy.cli import main
from segdeploy.doctor.compatibility import tables
from segdeploy.errors import DeepStreamError, GraphError, RequestError
from segdeploy.graph.patterns import MATCHERS
from segdeploy.graph.tidy import spread_norms
from segdeploy.releases import DEEPSTREAMS, DeepStream, TaoApp, rendered_versions
from segdeploy.serve.deepstream import plan as plan_of_rendering
from segdeploy.serve.deepstream.config import read_config
from segdeploy.serve.deepstream.lint import lint
from segdeploy.serve.deepstream.plan import make_plan
from segdeploy.serve.deepstream.render import render
from segdeploy.serve.deepstream.reported import reported
from segdeploy.serve.deepstream.request import RenderRequest

NO_PARSER = ("6.0", "6.1", "6.1.1", "6.2", "6.3")
LATE = [
    version for version in rendered_versions() if version not in NO_PARSER
]  # they read LayerNormalization


@pytest.fixture(scope="module")
def spread(graphs, tmp_path_factory):
    """The tiny graphs as `export --opset 16` writes them, without their records."""
    folder, made = tmp_path_factory.mktemp("spread"), {}
    for interface in ("nvinfer", "logits"):
        model = onnx.load(graphs(interface))
        spread_norms(model)
        made[interface] = folder / f"{interface}.onnx"
        onnx.save(model, made[interface])
    return made


@pytest.fixture(autouse=True)
def every_graph_is_loaded(monkeypatch):
    """Some graphs here stand for those of older opsets, and no runtime would load them as they are."""
    monkeypatch.setattr(plan_of_rendering, "why_not_loaded", lambda model: None)


def values_of(path):
    config = read_config(path)
    assert config.document.problems == ()
    assert config.faults == []
    return {entry.key: config.get(entry.key) for entry in config.document.entries}


def test_the_values_are_the_graph_s_own(graphs, tmp_path):
    model = graphs("nvinfer")
    render(RenderRequest(model), tmp_path)
    values = values_of(tmp_path / "nvinfer_config.txt")
    assert values == {
        "gpu-id": 0,
        "onnx-file": model.name,
        "model-engine-file": f"{model.name}_b1_gpu0_fp32.engine",
        "labelfile-path": "labels.txt",
        "batch-size": 1,
        "network-mode": 0,
        "infer-dims": (3, 96, 160),
        "model-color-format": 0,
        "net-scale-factor": 0.01735207357279195,
        "offsets": (123.675, 116.28, 103.53),
        "maintain-aspect-ratio": False,
        "scaling-filter": 1,
        "scaling-compute-hw": 1,
        "process-mode": 1,
        "interval": 0,
        "gie-unique-id": 1,
        "cluster-mode": 2,
        "network-type": 2,
        "num-detected-classes": 5,
        "segmentation-output-order": 1,
        "parse-segmentation-func-name": "NvDsInferParseSegdeploy",
        "custom-lib-path": "parser/libsegdeploy_parser.so",
    }
    assert (tmp_path / "labels.txt").read_text() == "road\nkerb\nsky\ncar\nbus\n"
    assert (tmp_path / "colours.csv").read_text().splitlines()[:2] == [
        "id,name,red,green,blue",
        "0,road,255,64,64",
    ]
    assert "](seen.jpg)" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "seen.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert (
        "net-scale-factor=0.01735207357279195\noffsets=123.675;116.28;103.53\n"
        in (tmp_path / "nvinfer_config.txt").read_text()
    )


@pytest.mark.parametrize("version", ["7.1", "9.1"])
@pytest.mark.parametrize("interface", ["nvinfer", "logits"])
def test_compose_starts_what_the_readme_starts(version, interface, graphs, tmp_path):
    render(RenderRequest(graphs(interface), version), tmp_path)
    readme = (tmp_path / "README.md").read_text()
    block = readme.partition("    services:")[2].partition("\n## ")[0]
    (service,) = yaml.safe_load(f"    services:{block}")["services"].values()
    shell, flag, said = shlex.split(service["command"])
    assert (shell, flag) == ("bash", "-c")
    installed, started = said.split("; ", 1)
    assert installed.endswith("/user_additional_install.sh")
    folder, _, command = started.partition(" ") if started.startswith("PATH=") else ("", "", started)
    assert f"\n    {command}" in readme.partition("## 3. Start")[2]
    assert folder.removeprefix("PATH=$$PATH:/model/") in readme.partition("## 2. ")[2]


@pytest.mark.slow
@pytest.mark.parametrize("version", rendered_versions())
@pytest.mark.parametrize("network_type", [None, 2, 100])
@pytest.mark.parametrize("interface", ["nvinfer", "logits"])
def test_every_version_and_type_is_clean_and_says_the_same_twice(
    version, network_type, interface, graphs, spread, tmp_path
):
    model = graphs(interface) if version in LATE else spread[interface]
    request = RenderRequest(model, version, network_type)
    if network_type == 2 and version in NO_PARSER:
        with pytest.raises(DeepStreamError, match="calls no parser of one's own for network-type 2"):
            render(request, tmp_path / "made")
        return
    rendered = render(request, tmp_path / "made")
    assert all(path.is_file() for path in rendered.paths)
    folder = Path(shutil.copytree(tmp_path / "made", tmp_path / "copied"))
    shutil.rmtree(tmp_path / "made")
    values = values_of(folder / "nvinfer_config.txt")
    assert (folder / "nvinfer_config.yml").exists() == (version != "6.0")
    if version != "6.0":
        assert values == values_of(folder / "nvinfer_config.yml")
    kind = network_type or (2 if version in ("8.0", "9.0", "9.1", "9.2") else 100)
    assert values["network-type"] == kind
    assert ("output-tensor-meta" in values) == (kind == 100)
    assert read_config(folder / "nvinfer_config.txt").made_for == version
    for name in ("nvinfer_config.txt", "nvinfer_config.yml", "app.yml"):
        if (folder / name).exists():
            assert lint(folder / name) == []
    drawn = kind == 2 or (interface == "nvinfer" and version in ("7.0", "7.1"))
    assert (folder / "app.yml").exists() == (drawn and version != "6.4")
    assert (folder / "parser" / "Makefile").exists() == (kind == 2)
    assert (folder / "parser" / "segdeploy_parser.cu").exists() == (kind == 2 and interface == "logits")


def test_a_version_that_is_added_to_the_table_is_known_everywhere(
    graphs, monkeypatch, tmp_path, capsys, misused
):
    new = DeepStream("10.14", "11.4", "8.0", "10.0-samples", TaoApp("v10", draws_tensors=True), parses=True)
    monkeypatch.setitem(DEEPSTREAMS, "10.0", new)
    assert main(["deepstream", "config", str(graphs("nvinfer", None)), "--deepstream", "10.0", "--streams", "2",
                 "-o", str(tmp_path / "made")]) == 0  # fmt: skip
    assert "DeepStream 10.0 has a TensorRT 10.14" in capsys.readouterr().err
    config = read_config(tmp_path / "made" / "nvinfer_config.txt")
    assert config.made_for == "10.0"
    assert "nvcr.io/nvidia/deepstream:10.0-samples" in (tmp_path / "made" / "README.md").read_text()
    assert make_plan(RenderRequest(graphs("nvinfer"), "10.0", 100)).is_drawn_by_the_app
    assert lint(tmp_path / "made" / "nvinfer_config.txt", version="10.0") == []
    assert ("10.0", "10.14", "11.4") in tables()["DeepStream"]
    said = misused("deepstream", "config", "m.onnx", "-o", ".", "--deepstream", "11.0")
    assert "argument --deepstream: invalid choice: '11.0' (choose from " in said
    assert "10.0" in said


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--network-type", "0"), ("--parser", "yolo"), ("--precision", "bf16"), ("--streams", "0")],
)
def test_values_that_no_flag_takes(flag, value, misused):
    said = misused("deepstream", "config", "x.onnx", "-o", ".", flag, value)
    assert said.startswith(f"segdeploy deepstream config: error: argument {flag}: ")
    assert value in said


def test_streams(graphs, tmp_path):
    render(RenderRequest(graphs("nvinfer", None), streams=4), tmp_path)
    values = values_of(tmp_path / "nvinfer_config.txt")
    assert values["batch-size"] == 4
    assert values["model-engine-file"].endswith("_b4_gpu0_fp32.engine")
    app = yaml.safe_load((tmp_path / "app.yml").read_text())
    assert app["streammux"]["batch-size"] == 4
    assert len(app["source-list"]["list"].split(";")) == 4
    assert (app["segvisual"]["height"], app["segvisual"]["width"]) == (96, 160)
    assert lint(tmp_path / "app.yml") == []
    started = (tmp_path / "README.md").read_text().partition("## 3. Start")[2]
    assert started.count(" -i file:///") == 4


@pytest.mark.parametrize(
    ("version", "streams", "versions"),
    [
        ("8.0", 1, []),
        ("8.0", 2, ["10.13"]),
        ("9.0", 2, ["10.14", "10.13"]),
        ("7.1", 2, []),
        ("9.1", 2, ["10.16"]),
        ("7.0", 2, []),
    ],
)
def test_what_its_tensorrt_is_reported_to_compute_wrongly(version, streams, versions, graphs, tmp_path):
    """nvinfer builds and compares nothing, so the folder says it."""
    request = RenderRequest(graphs("nvinfer", None), version, streams=streams)
    warnings = render(request, tmp_path).warnings
    assert [warning.split(" has a TensorRT ")[1].split(" ")[0] for warning in warnings] == versions
    assert all("NVIDIA/TensorRT#4853" in warning and "for one stream" in warning for warning in warnings)
    readme = (tmp_path / "README.md").read_text()
    assert all(warning in readme for warning in warnings)
    assert ("by a report" in readme) == bool(versions)


def test_graphs_that_sample_are_warned_of_at_every_batch(graphs, monkeypatch):
    plan = make_plan(RenderRequest(graphs("nvinfer"), "9.2"))
    assert reported(plan) == []
    monkeypatch.setitem(MATCHERS, "gridsample", lambda seen: True)
    (warning,) = reported(plan)
    assert "NVIDIA/TensorRT#4813" in warning
    assert "--msda gather" in warning


def test_places_that_fp16_cannot_count_are_warned_of(graphs, monkeypatch):
    plan = make_plan(RenderRequest(graphs("nvinfer"), "9.2", precision="fp16"))
    assert reported(plan) == []
    monkeypatch.setitem(vars(plan.graph), "counts", 48)
    (warning,) = reported(plan)
    assert warning.startswith("48 nodes of ")
    assert "segdeploy build-engine" in warning
    exact = make_plan(RenderRequest(graphs("nvinfer"), "9.2"))
    monkeypatch.setitem(vars(exact.graph), "counts", 48)
    assert reported(exact) == []


def test_what_the_app_looks_up_is_where_it_looks(graphs, tmp_path):
    """It cuts two characters off the path and puts `configs` before the rest."""
    render(RenderRequest(graphs("nvinfer")), tmp_path)
    named = yaml.safe_load((tmp_path / "app.yml").read_text())["primary-gie"]["config-file-path"]
    seen = yaml.safe_load((tmp_path / ("configs" + named[2:])).read_text())["property"]
    assert seen == {"network-type": 2, "num-detected-classes": 5}
    assert (tmp_path / named).samefile(tmp_path / "nvinfer_config.yml")


@pytest.mark.parametrize(
    ("version", "precision", "said"),
    [
        ("8.0", None, {"network-mode": 0}),
        ("8.0", "fp16", {"network-mode": 2}),
        ("9.2", "fp16", {"network-mode": 2}),
    ],
)
def test_precision_of_an_fp32_graph(version, precision, said, graphs, tmp_path):
    render(RenderRequest(graphs("nvinfer"), version, precision=precision), tmp_path)
    values = values_of(tmp_path / "nvinfer_config.txt")
    assert {key: values[key] for key in said} == said
    assert "strongly-typed" not in values
    measured = "was not measured" in (tmp_path / "README.md").read_text()
    assert measured == (precision == "fp16")
    assert lint(tmp_path / "nvinfer_config.txt") == []


def test_a_typed_graph_is_taken_as_it_is_where_the_version_can(typed, tmp_path):
    half = typed["fp16"]
    render(RenderRequest(half, "9.1"), tmp_path / "new")
    values = values_of(tmp_path / "new" / "nvinfer_config.txt")
    assert (values["strongly-typed"], values["network-mode"]) == (True, 0)
    assert values["model-engine-file"] == "tiny.fp16.onnx_b1_gpu0_fp32.engine"
    assert lint(tmp_path / "new" / "nvinfer_config.txt") == []
    render(RenderRequest(half, "9.0"), tmp_path / "9.0")
    assert values_of(tmp_path / "9.0" / "nvinfer_config.yml")["strongly-typed"] is True
    assert lint(tmp_path / "9.0" / "nvinfer_config.yml") == []
    render(RenderRequest(half, "8.0"), tmp_path / "old")
    values = values_of(tmp_path / "old" / "nvinfer_config.yml")
    assert values["network-mode"] == 2
    assert "strongly-typed" not in values
    assert lint(tmp_path / "old" / "nvinfer_config.yml") == []
    with pytest.raises(DeepStreamError, match="is an fp16 graph and int8 was asked for"):
        render(RenderRequest(half, precision="int8"), tmp_path / "no")


def test_int8(typed, graphs, tmp_path):
    pairs = shutil.copy(typed["int8"], tmp_path / "tiny.int8.onnx")
    render(RenderRequest(pairs, "9.2"), tmp_path / "new")
    values = values_of(tmp_path / "new" / "nvinfer_config.txt")
    assert (values["strongly-typed"], values["network-mode"]) == (True, 0)
    with pytest.raises(DeepStreamError, match="without one nvinfer of DeepStream"):
        render(RenderRequest(pairs), tmp_path / "no")
    assert not (tmp_path / "no").exists()
    cache = pairs.with_name("tiny.int8.calib")  # where `quantize --cache-for` puts it
    cache.write_text("TRT-100900-EntropyCalibration2\ninput: 3c010a14\n")
    for model, named in ((pairs, None), (graphs("nvinfer"), cache)):
        folder = tmp_path / model.stem
        render(RenderRequest(model, precision="int8", int8_cache=named), folder)
        values = values_of(folder / "nvinfer_config.txt")
        assert (values["network-mode"], values["int8-calib-file"]) == (1, "tiny.int8.calib")
        assert values["model-engine-file"].endswith("_int8.engine")
        assert (folder / "tiny.int8.calib").read_bytes() == cache.read_bytes()
        assert lint(folder / "nvinfer_config.txt") == []
        assert "--calib=tiny.int8.calib" in (folder / "README.md").read_text()


def test_triton(graphs, tmp_path):
    render(RenderRequest(graphs("logits"), "9.1"), tmp_path)
    server = (tmp_path / "triton" / "nvinferserver_config.txt").read_text()
    assert 'path: "../parser/libsegdeploy_parser.so"' in server
    assert "scale_factor: 0.01735207357279195" in server
    assert server.count("{") == server.count("}")
    model = (tmp_path / "triton" / "models" / "tiny" / "config.pbtxt").read_text()
    assert "dims: [5, 24, 40]" in model
    assert "TYPE_FP32" in model
    render(RenderRequest(graphs("nvinfer"), "7.1", 100), tmp_path / "tensors")
    server = (tmp_path / "tensors" / "triton" / "nvinferserver_config.txt").read_text()
    assert "output_tensor_meta: true" in server
    assert "custom_lib" not in server


# ---- requests that cannot be met --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"deepstream": "5.1"}, "DeepStream '5.1' is not known here"),
        (
            {"deepstream": "6.3"},
            "has LayerNormalization nodes, which TensorRT 8.5 of DeepStream 6.3 does not read; export the checkpoint"
            " with --opset 16, which writes them as simpler ones, or name 6.4 or later with --deepstream",
        ),
        ({"deepstream": "6.4", "parser": "tao"}, "NVIDIA's parser came with DeepStream 8.0"),
        ({"dla": 2, "precision": "fp16"}, "there is no DLA core 2"),
        ({"dla": 0}, "a DLA computes in FP16 or INT8 and takes an FP32 graph"),
        ({"network_type": 0}, "network type 0 is not one of segmentation"),
        ({"streams": 0}, "0 streams cannot be run"),
        ({"streams": 2}, "has a batch of 1, and 2 streams make batches of 2; export it with --batch dynamic"),
        ({"parser": "yolo"}, "no parser is called 'yolo'; known: tao, segdeploy"),
        ({"parser": "tao", "deepstream": "7.1"}, "NVIDIA's parser came with DeepStream 8.0"),
        ({"precision": "bf16"}, "'bf16' is not a precision"),
        ({"precision": "int8"}, "there is no calibration cache"),
    ],
)
def test_what_is_refused(change, words, graphs, tmp_path):
    with pytest.raises((DeepStreamError, RequestError)) as refusal:
        render(RenderRequest(graphs("nvinfer"), **change), tmp_path / "no")
    assert words in str(refusal.value)
    assert not (tmp_path / "no").exists()


def test_graphs_that_are_refused(graphs, tmp_path):
    with pytest.raises(DeepStreamError, match=r"takes 'frames' uint8 .* --interface nvinfer"):
        render(RenderRequest(graphs("frames")), tmp_path / "no")
    with pytest.raises(DeepStreamError, match="use --parser segdeploy, or export with --interface nvinfer"):
        render(RenderRequest(graphs("logits"), parser="tao"), tmp_path / "no")
    for kind, shape, words in (
        (TensorProto.FLOAT, (1, 4, 64, 96), "does not say its classes; name a card that does"),
        (TensorProto.INT64, (1, 1, 64, 96), "does not say its classes"),
    ):
        inner = [helper.make_node("Conv", ["x", "w"], ["y"])]
        if kind == TensorProto.INT64:
            inner = [
                helper.make_node("Conv", ["x", "w"], ["many"]),
                helper.make_node("ArgMax", ["many"], ["y"], axis=1),
            ]
        graph = helper.make_graph(
            inner,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 64, 96))],
            [helper.make_tensor_value_info("y", kind, shape)],
            [numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")],
        )
        onnx.save(helper.make_model(graph), tmp_path / "theirs.onnx")
        with pytest.raises(DeepStreamError, match=words):
            render(RenderRequest(tmp_path / "theirs.onnx"), tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("std", "last", "said"),
    [
        (
            [50, 51, 52],
            False,
            "wants a scale per channel; nvinfer has one, net-scale-factor, and an nvdspreprocess in its place leaves"
            " masks where nothing draws them. Fold the others",
        ),
        (
            [50, 50, 50],
            True,
            "takes 'x' float32 1×64×96×3, and nvinfer feeds float32 N×3×H×W; change its input",
        ),
        ([50, 50, 50], False, ""),
    ],
)
def test_a_card_describes_a_foreign_graph(std, last, said, tmp_path, capsys):
    card = tmp_path / "own.yaml"
    facts = (
        f"checkpoint: x\nsize: 64x96\nlabels: own-labels.yaml\nmean: [1, 2, 3]\nstd: {std}\nresize: linear\n"
    )
    card.write_text(f"{facts}licence: none\n")
    (tmp_path / "own-labels.yaml").write_text(
        "classes: [{name: one, colour: [1, 2, 3]}, {name: two, colour: [4, 5, 6]}]"
    )
    turned = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])] if last else []
    graph = helper.make_graph(
        [*turned, helper.make_node("Conv", ["t" if last else "x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 64, 96, 3) if last else (1, 3, 64, 96))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 2, 64, 96))],
        [numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")],
    )
    model = tmp_path / "theirs.onnx"
    onnx.save(helper.make_model(graph), model)
    words = ["deepstream", "config", str(model), "--card", str(card), "-o", str(tmp_path / "out")]
    assert main(words) == (1 if said else 0)
    printed = capsys.readouterr()
    if said:
        assert said in printed.err
        assert printed.err.endswith(f": segdeploy adopt {model} --card {card}\n")
        assert not (tmp_path / "out").exists()
    else:
        written = (tmp_path / "out/nvinfer_config.txt").read_text()
        assert (
            "net-scale-factor=0.02 " in written.replace("\t", " ") + " "
            or "net-scale-factor=0.02\n" in written
        )
        assert (tmp_path / "out/labels.txt").read_text() == "one\ntwo\n"


def test_the_verb(graphs, tmp_path, capsys):
    model, out = graphs("nvinfer"), tmp_path / "out"
    assert (
        main(
            [
                "deepstream",
                "config",
                str(model),
                "--network-type",
                "100",
                "--deepstream",
                "7.1",
                "-o",
                str(out),
            ]
        )
        == 0
    )
    said = capsys.readouterr()
    assert str(out / "nvinfer_config.txt") in said.out.splitlines()
    assert said.err.splitlines()[-1].startswith("segdeploy: next: segdeploy deepstream replay -c ")
    assert main(["deepstream", "config", str(model), "-o", str(out)]) == 0  # again, over itself
    capsys.readouterr()
    assert main(["deepstream", "config", str(tmp_path / "gone.onnx"), "-o", str(out)]) == 1
    assert "there is no file" in capsys.readouterr().err
    assert main(["deepstream", "config", "tiny.engine", "-o", str(out)]) == 1
    assert "tiny.engine is not an .onnx; name the graph" in capsys.readouterr().err
    (tmp_path / "x.onnx").write_bytes(b"<html>")
    assert main(["deepstream", "config", str(tmp_path / "x.onnx"), "-o", str(out)]) == 1
    assert "x.onnx" in capsys.readouterr().err


def test_a_record_of_another_file_is_refused(graphs, tmp_path):
    model = Path(shutil.copy(graphs("nvinfer"), tmp_path))
    shutil.copy(f"{graphs('logits')}.json", f"{model}.json")
    with pytest.raises(GraphError, match=r"is not the file that .*\.onnx\.json describes"):
        render(RenderRequest(model), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_model_that_lies_in_its_own_folder_stays(graphs, tmp_path):
    model = Path(shutil.copy(graphs("nvinfer"), tmp_path / "model.onnx"))
    before = model.read_bytes()
    render(RenderRequest(model), tmp_path)
    assert model.read_bytes() == before
    assert lint(tmp_path / "nvinfer_config.txt") == []
