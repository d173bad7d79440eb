"""`build-engine` and `inspect` from the command line, with NVIDIA's own parser and builder, which need no GPU."""

import json
import os
import shutil
import signal
import sys
import threading

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segdeploy.cli import main
from segdeploy.errors import EngineError
from segdeploy.files import digest_of
from segdeploy.flavour import RTX
from segdeploy.model.engine import Profile
from segdeploy.model.record import read_record

IMAGES = "a folder of images"
pytest.importorskip("tensorrt_rtx", reason="pip install 'segdeploy[rtx]'")
ON_RTX = ("--runtime", RTX)


@pytest.fixture(scope="session")
def demo(bundled):
    return bundled("nvinfer", "96x160")


def run(*arguments):
    return main(["build-engine", *map(str, arguments), *ON_RTX])


@pytest.fixture(scope="session")
def engine(graphs, tmp_path_factory):
    out = tmp_path_factory.mktemp("engine")
    assert run(graphs("frames"), "-o", out) == 0
    return out / "tiny.frames.1.rtx.engine"


@pytest.mark.slow
def test_the_bundled_model_in_fp32(demo, tmp_path, capsys):
    assert run(demo, "-o", tmp_path, "--target", "sm_86,sm_120") == 0
    path = tmp_path / f"{demo.stem}.rtx.engine"
    said = capsys.readouterr().out
    assert f"{path}: fp32, " in said
    assert "206 FP32 (100%) of 206, by the types of the network" in said
    record = read_record(path)
    assert record.digest == digest_of(path)
    assert record.engine.targets == ("sm_86", "sm_120")
    assert record.engine.device is None
    assert record.engine.memory.engine_bytes == path.stat().st_size > 1 << 20
    assert record.engine.metadata["segdeploy.card"] == "segformer-b0-demo"
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name, f"{path.name}.json"]


@pytest.mark.slow
@pytest.mark.thorough
def test_the_bundled_model_in_fp16(demo, tmp_path, capsys):
    assert run(demo, "-o", tmp_path, "--fp16") == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / demo.stem}.fp16.onnx: made on the way" in said
    record = read_record(tmp_path / f"{demo.stem}.fp16.rtx.engine")
    assert record.precision == "fp16"
    counted = record.engine.layers.by_precision
    assert counted["FP16"] > 0.95 * record.engine.layers.total
    assert [step.name for step in record.ledger] == ["fp32", "fp16"]
    assert record.engine.graph.digest == digest_of(tmp_path / f"{demo.stem}.fp16.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("fp16", [pytest.param((), marks=pytest.mark.thorough), ("--fp16",)])
@pytest.mark.thorough
def test_the_bundled_model_in_int8(fp16, demo, images, tmp_path, capsys):
    assert run(demo, "-o", tmp_path, "--int8", *fp16, "--images", images, "--max-drop", 100) == 0
    said = capsys.readouterr().out
    stem = f"{demo.stem}.int8.fp16" if fp16 else f"{demo.stem}.int8"
    assert f"{tmp_path / stem}.onnx: made on the way" in said
    record = read_record(tmp_path / f"{stem}.rtx.engine")
    counted = record.engine.layers.by_precision
    assert counted["INT8"] > 60
    assert (counted["FP16"] > counted["FP32"]) is bool(fp16)
    assert record.verdict in said
    assert record.calibration.int8_share == 1
    assert len(record.engine.calibration_digest) == 64
    if fp16:
        return
    # The graph is quantised now: building from it is one step, and asking for INT8 again checks it.
    assert run(tmp_path / f"{stem}.onnx", "-o", tmp_path / "again", "--int8") == 0
    assert read_record(tmp_path / "again" / f"{stem}.rtx.engine").engine.layers.by_precision == counted


@pytest.mark.slow
@pytest.mark.parametrize("fp16", [(), ("--fp16",)])
def test_a_dynamic_batch(fp16, graphs, tmp_path):
    assert run(graphs("frames", None), "-o", tmp_path, "--batch", "1:4:8", *fp16) == 0
    stem = "tiny.frames.dynamic" + (".fp16" if fp16 else "")
    record = read_record(tmp_path / f"{stem}.b1-4-8.rtx.engine")
    assert record.engine.profile == Profile(1, 4, 8)
    assert record.engine.bindings[0].shape == (None, 96, 160, 3)


@pytest.mark.slow
def test_a_fixed_batch(graphs, tmp_path):
    assert run(graphs("frames", 4), "-o", tmp_path / "x.engine") == 0
    assert read_record(tmp_path / "x.engine").engine.profile == Profile(4, 4, 4)


# ---- requests that are refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--int8"], "--int8 needs images to calibrate on: add --images DIR"),
        (["--target", "sm_90"], "has no target sm_90; it has sm_75, sm_80, sm_86"),
        (["--target", "8.6"], "expected one like sm_86"),
        (["--batch", "1:4:8"], "takes batches of exactly 1, and --batch 1:4:8 was asked for"),
        (["--batch", "8:4:1"], "does not hold: expected 1 ≤ MIN"),
        (["--dla", "0"], "--dla is not for TensorRT-RTX"),
        (["--dla", "0", "--fp16"], "--dla is not for TensorRT-RTX"),
        (["--timing-cache", "x"], "--timing-cache is not for TensorRT-RTX"),
        (["--hardware-compatible"], "name the GPUs with --target instead"),
        (["--version-compatible"], "--version-compatible is not for TensorRT-RTX"),
        (["--calibrator", "tensorrt", "--int8"], "has no calibrator: 11 removed it"),
        (
            ["--int8", "--images", IMAGES, "--card", "segformer-b0-demo"],
            "Leave the card out",
        ),
        (["--images", IMAGES], "images are for --int8, and to judge --fp16 on"),
    ],
)
def test_requests_that_cannot_be_met(arguments, match, graphs, images, refused):
    arguments = [images if word is IMAGES else word for word in arguments]
    assert match in refused("build-engine", graphs("frames"), *arguments, *ON_RTX)


def test_a_workspace_has_a_size(graphs, misused):
    assert misused("build-engine", graphs("frames"), "--workspace", "-1").endswith(
        "-1 is outside 0.001 to 1,024"
    )


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--calibrator", "mine"),
        ("--runtime", "openvino"),
        ("--msda", "plugin"),
        ("--optimization-level", "6"),
    ],
)
def test_what_is_not_among_the_choices(flag, value, misused):
    assert f"argument {flag}: invalid choice: " in misused("build-engine", "x.onnx", flag, value)


def test_a_quantised_graph_needs_no_images(graphs, refused, images, tmp_path):
    model = onnx.load(graphs("frames"))
    from segdeploy.graph.int8 import quantised
    from segdeploy.graph.layers import layers_of

    layers = layers_of(model)
    path = tmp_path / "x.onnx"
    onnx.save(quantised(model, {layer.root: 0.02 for layer in layers}, [layers[0].name]), path)
    assert "is quantised already" in refused("build-engine", path, "--int8", "--images", images, *ON_RTX)


def test_files_that_are_no_graph(tmp_path, refused, graphs):
    assert "there is no file" in refused("build-engine", tmp_path / "none.onnx", *ON_RTX)
    (tmp_path / "x.onnx").write_bytes(b"no onnx at all")
    assert "cannot be read as an ONNX graph" in refused("build-engine", tmp_path / "x.onnx", *ON_RTX)
    (tmp_path / "x.engine").write_bytes(b"")
    assert "ends in '.engine'; a graph is an .onnx" in refused("build-engine", tmp_path / "x.engine", *ON_RTX)


def foreign(path, nodes, constants):
    """A graph from elsewhere: images N×3×64×96 to logits."""
    given = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, 3, 64, 96])
    answered = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4, 64, 96])
    stored = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [given], [answered], stored),
        opset_imports=[helper.make_opsetid("", 19)],
    )
    model.ir_version = 9
    onnx.save(model, path)
    return path


def test_a_zero_point_is_named_with_its_node(tmp_path, refused):
    import numpy as np

    weight = np.ones((4, 3, 1, 1), np.float32)
    names = ["step", "zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["pixel_values", *names], ["q"], "stem/quantise"),
        helper.make_node("DequantizeLinear", ["q", *names], ["d"], "stem/dequantise"),
        helper.make_node("Conv", ["d", "weight"], ["logits"], "stem/Conv"),
    ]
    constants = {"step": np.float32(0.1), "zero": np.int8(5), "weight": weight}
    said = refused("build-engine", foreign(tmp_path / "x.onnx", nodes, constants), *ON_RTX)
    assert "quantised asymmetrically" in said
    assert "the node 'stem/quantise' (QuantizeLinear) is an INVALID_NODE" in said
    assert "no GPU" not in said


def test_an_int32_bias_is_named_with_its_node(tmp_path, refused):
    import numpy as np

    nodes = [
        helper.make_node("DequantizeLinear", ["stored", "step"], ["bias"], "stem/bias"),
        helper.make_node("Conv", ["pixel_values", "weight", "bias"], ["logits"], "stem/Conv"),
    ]
    constants = {
        "stored": np.zeros(4, np.int32), "step": np.float32(0.1), "weight": np.ones((4, 3, 1, 1), np.float32),
    }  # fmt: skip
    said = refused("build-engine", foreign(tmp_path / "x.onnx", nodes, constants), *ON_RTX)
    assert "stored as int32 with a DequantizeLinear" in said
    assert "the node 'stem/bias' (DequantizeLinear)" in said


@pytest.mark.slow
def test_int8_that_no_layer_computes_is_an_error(tmp_path, refused):
    """Pairs that stand before an addition only: TensorRT multiplies nothing in INT8."""
    import numpy as np

    nodes = [
        helper.make_node("Conv", ["pixel_values", "weight"], ["a"], "stem/Conv"),
        helper.make_node("QuantizeLinear", ["a", "step", "zero"], ["q"], "quantise"),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["d"], "dequantise"),
        helper.make_node("Add", ["d", "one"], ["logits"], "head/Add"),
    ]
    constants = {
        "step": np.float32(0.1), "zero": np.int8(0), "weight": np.ones((4, 3, 1, 1), np.float32),
        "one": np.float32([1]),
    }  # fmt: skip
    said = refused("build-engine", foreign(tmp_path / "x.onnx", nodes, constants), "--int8", *ON_RTX)
    assert "INT8 was asked for, and none of the 2 layers" in said


def test_no_tensorrt_at_all(graphs, refused, monkeypatch):
    from segdeploy import flavour

    monkeypatch.setattr(flavour, "is_installed", lambda name: False)
    monkeypatch.setattr(flavour, "l4t_major", lambda: None)
    said = refused("build-engine", graphs("frames"))
    assert "needs TensorRT or TensorRT-RTX, which is not installed" in said


@pytest.mark.slow
def test_ctrl_c_ends_with_130(graphs, tmp_path, monkeypatch, capsys):
    from segdeploy.convert.engine.progress import THREAD, Phases

    start, pressed = Phases.start, []

    def press(self, name, parent, steps):
        start(self, name, parent, steps)
        if not pressed:
            pressed.append(name)
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.3)

    monkeypatch.setattr(Phases, "start", press)
    assert run(graphs("frames"), "-o", tmp_path) == 130
    assert capsys.readouterr().err == "segdeploy: stopped\n"
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == THREAD]


# ---- inspect ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_inspect_needs_the_record_only(engine, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert main(["inspect", str(engine)]) == 0
    said = capsys.readouterr().out
    for words in (
        "TensorRT-RTX 1.", "for every GPU that it supports", "'frames' uint8 1×96×160×3", "'labels' uint8 1×96×160",
        "FP32 (100%)", "stages.1.ffn.expand", "not known: this TensorRT names its kernels", "verified  ",
    ):  # fmt: skip
        assert words in said


def test_inspect_in_json(engine, capsys):
    assert main(["inspect", str(engine), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["record"]["engine"]["flavour"] == RTX
    assert facts["record"]["digest"] == digest_of(engine)


def test_an_engine_without_a_record(engine, tmp_path, capsys):
    alone = shutil.copy(engine, tmp_path / "x.engine")
    assert main(["inspect", str(alone)]) == 1
    assert "x.engine has no record x.engine.json beside it" in capsys.readouterr().err


def test_a_record_without_an_engine(engine, tmp_path, capsys):
    shutil.copy(f"{engine}.json", tmp_path / "x.engine.json")
    assert main(["inspect", str(tmp_path / "x.engine")]) == 1
    assert (
        "the record x.engine.json is here, and x.engine is not. Copy it here, or build it again: segdeploy"
        in (capsys.readouterr().err)
    )
    assert main(["inspect", str(tmp_path / "y.engine")]) == 1
    assert "there is no file" in capsys.readouterr().err


def test_a_truncated_engine(engine, tmp_path, capsys):
    path = tmp_path / engine.name
    shutil.copy(f"{engine}.json", f"{path}.json")
    path.write_bytes(engine.read_bytes()[:-1])
    assert main(["inspect", str(path)]) == 1
    assert "it was cut off, or replaced by another" in capsys.readouterr().err
    path.write_bytes(bytes(engine.stat().st_size))
    assert main(["inspect", str(path)]) == 1
    assert "their digests differ" in capsys.readouterr().err


def test_the_errors_are_engine_errors(engine, tmp_path):
    from segdeploy.cli.inspect_engine import inspect_engine

    shutil.copy(f"{engine}.json", tmp_path / "x.engine.json")
    with pytest.raises(EngineError):
        inspect_engine(tmp_path / "x.engine", None)
