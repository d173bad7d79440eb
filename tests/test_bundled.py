"""The bundled graphs: whole, as proven, and of the checkpoint that lies beside them."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from segdeploy import scenes
from segdeploy.cli import main, parser
from segdeploy.cli.settings import leaves
from segdeploy.convert import bundled
from segdeploy.convert.bundled import bundled_graph
from segdeploy.errors import GraphError, RequestError
from segdeploy.files import digest_of
from segdeploy.model.record import read_record
from segdeploy.picture.segmentation import write_image


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
@pytest.mark.parametrize("interface", bundled.INTERFACES)
def test_a_graph_is_unpacked_with_the_record_that_was_proven(interface, cache):
    graph = bundled_graph(interface)
    assert cache in graph.parents
    record = read_record(graph)
    assert record.digest == digest_of(graph)
    assert (record.interface, record.size, record.precision) == (interface, "256x512", "fp32")
    assert record.agreement.pixel_agreement >= 0.9995
    assert record.agreement.logits_error <= 1e-3
    assert record.source.checkpoint == "models/demo-b0"


@pytest.mark.slow
def test_it_is_unpacked_once_and_again_where_it_was_changed(cache):
    graph = bundled_graph()
    first = graph.stat().st_ino
    assert bundled_graph().stat().st_ino == first
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-5])
    assert bundled_graph().read_bytes() == whole


@pytest.mark.slow
@pytest.mark.thorough
def test_it_answers_as_the_exported_checkpoint_does(bundled, cache):
    """`bundled` is the checkpoint's export, by the fixture."""
    assert (
        read_record(bundled_graph()).source.weights
        == read_record(bundled("frames", "256x512")).source.weights
    )
    mine, exported = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in (bundled_graph("frames"), bundled("frames", "256x512"))
    )
    frames = [scenes.make_scene(900_000_100 + index).image[None] for index in range(3)]
    equal = [
        np.mean(mine.run(None, {"frames": frame})[0] == exported.run(None, {"frames": frame})[0])
        for frame in frames
    ]
    assert np.mean(equal) >= 0.9998


@pytest.mark.slow
def test_weights_are_rounded_as_the_record_says(cache):
    model = onnx.load(bundled_graph())
    weights = [onnx.numpy_helper.to_array(one) for one in model.graph.initializer]
    large = [one for one in weights if one.dtype == np.float32 and one.size >= 1000]
    assert large
    for one in large:
        part, _ = np.frexp(one)
        assert np.array_equal(np.round(part * 2048), part * 2048)
    assert "11 bits" in read_record(bundled_graph()).verdict


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["", "frames"])
def test_its_name_is_a_model(interface, cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    street = tmp_path / "street.png"
    write_image(street, scenes.make_scene(900_000_000, 64, 128).image)
    asked = ["--interface", interface] if interface else []
    assert main(["run", "demo-b0", str(street), "-o", "out", *asked]) == 0
    assert (tmp_path / "out/street.overlay.png").is_file()
    assert "segformer-b0-demo knows made street scenes only" in capsys.readouterr().err
    assert main(["run", "demo-b0", "nowhere.png"]) == 1
    assert capsys.readouterr().err == "segdeploy: there is no file or folder nowhere.png\n"


def test_what_it_is_not_bundled_with_is_refused(cache, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refused("run", "demo-b0", "x.png", "--interface", "logits")
    assert "demo-b0 is bundled with the interfaces nvinfer and frames, not logits; from a clone:" in said
    assert "--fp16 is for a checkpoint" in refused("run", "demo-b0", "x.png", "--fp16")
    with pytest.raises(RequestError, match="not logits"):
        bundled_graph("logits")


def test_a_folder_of_that_name_is_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo-b0").mkdir()
    assert not bundled.is_bundled(bundled.Path("demo-b0"))


def test_a_pack_that_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(bundled, "folder", lambda name: tmp_path)
    with pytest.raises(GraphError, match="segdeploy was not installed whole"):
        bundled_graph()


@pytest.mark.slow
def test_every_verb_that_takes_a_model_takes_its_name(cache, tmp_path, capsys):
    short = ["--duration", "0.05", "--warmup", "0", "--batch", "1"]
    assert main(["bench", "demo-b0", "--interface", "frames", *short, "--json", "-"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["name"], model["interface"]) == ("segformer-b0-demo.256x512.frames.onnx", "frames")
    assert main(["bench", "demo-b0", "--interface", "logits", *short]) == 1
    assert "demo-b0 is bundled with the interfaces nvinfer and frames, not logits" in capsys.readouterr().err
    takers = [
        (leaf.prog, one.help) for leaf in leaves(parser()) for one in leaf._actions if one.metavar == "MODEL"
    ]
    unaware = [prog for prog, words in takers if "demo-b0" not in words]
    assert unaware == ["segdeploy adopt", "segdeploy deepstream lint"]  # which take a file that others made
