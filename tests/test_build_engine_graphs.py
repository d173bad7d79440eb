"""Which graph an engine is built from, on each TensorRT: made on the way, or as it is with flags."""

import json
import re
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from conftest import behind
from onnx import TensorProto, helper

from segdeploy import files
from segdeploy.cli import main
from segdeploy.convert import build_engine, fp16
from segdeploy.convert.int8.cache import CalibrationCache, write_cache
from segdeploy.model.record import read_record
from segdeploy.prove import verify


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".onnx", ".engine", ".calib"))


def run(graph, out, *arguments):
    return main(["build-engine", str(graph), "-o", str(out), "--runtime", "tensorrt", *map(str, arguments)])


@pytest.mark.slow
@pytest.mark.parametrize("version", ["10.3.0", "11.4.0"])
def test_fp16_is_written_into_the_graph(version, graphs, tensorrt_here, tmp_path):
    there = tensorrt_here(version)
    assert run(graphs("frames"), tmp_path, "--fp16") == 0
    assert names(tmp_path) == ["tiny.frames.1.fp16.engine", "tiny.frames.1.fp16.onnx"]
    assert there.arguments_of("set_flag") == []


@pytest.mark.slow
@pytest.mark.parametrize("version", ["10.3.0", "11.4.0"])
def test_a_graph_that_is_fp16_is_built_as_it_is(version, typed, tensorrt_here, tmp_path):
    tensorrt_here(version)
    assert run(typed["fp16"], tmp_path, "--fp16") == 0
    assert names(tmp_path) == ["tiny.fp16.engine"]


@pytest.mark.slow
def test_8_6_gets_fp16_by_a_flag(graphs, tensorrt_here, tmp_path, capsys):
    there = tensorrt_here("8.6.1")
    assert run(graphs("frames"), tmp_path, "--fp16") == 0
    assert names(tmp_path) == ["tiny.frames.1.fp16.engine"]
    assert there.arguments_of("set_flag") == [("FP16",)]
    assert "100.0000% of the pixels equal to ONNX Runtime" in capsys.readouterr().out


@pytest.mark.slow
def test_8_6_gets_int8_by_pairs_and_the_rest_by_a_flag(graphs, images, tensorrt_here, tmp_path):
    there = tensorrt_here("8.6.1")
    assert run(graphs("frames"), tmp_path, "--int8", "--fp16", "--images", images, "--max-drop", 100) == 0
    assert names(tmp_path) == ["tiny.frames.1.int8.fp16.engine", "tiny.frames.1.int8.onnx"]
    assert there.arguments_of("set_flag") == [("FP16",), ("INT8",)]
    assert read_record(tmp_path / "tiny.frames.1.int8.fp16.engine").precision == "int8+fp16"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.16.1"])
def test_tensorrts_own_calibrator(version, graphs, images, tensorrt_here, tmp_path):
    there = tensorrt_here(version)
    assert (
        run(
            graphs("frames"), tmp_path, "--int8", "--images", images, "--calibrator", "tensorrt", "--count", 3
        )
        == 0
    )
    assert names(tmp_path) == ["tiny.frames.1.int8.engine"]
    assert len(there.arguments_of("calibrated")) == 3


@pytest.mark.slow
def test_the_calibrator_with_a_cache(graphs, tensorrt_here, tmp_path):
    there = tensorrt_here("10.3.0")
    write_cache(tmp_path / "x.calib", CalibrationCache("10.3.0", "EntropyCalibration2", {"frames": 0.02}))
    given = ("--int8", "--scales", tmp_path / "x.calib", "--calibrator", "tensorrt")
    assert run(graphs("frames"), tmp_path, *given) == 0
    assert there.arguments_of("calibrated") == []


@pytest.mark.slow
def test_a_dla_takes_the_calibrator(graphs, images, tensorrt_here, tmp_path, capsys):
    tensorrt_here("10.3.0", dla_cores=2)
    given = ("--int8", "--fp16", "--images", images, "--calibrator", "tensorrt", "--dla", 0)
    assert run(graphs("frames"), tmp_path, *given) == 0
    assert names(tmp_path) == ["tiny.frames.1.int8.fp16.dla0.engine"]
    assert "layers; the others fall back to the GPU" in capsys.readouterr().out


def test_the_calibrator_needs_something_to_eat(graphs, tensorrt_here, tmp_path, capsys):
    tensorrt_here("10.3.0")
    assert run(graphs("frames"), tmp_path, "--int8", "--calibrator", "tensorrt") == 1
    assert "--calibrator tensorrt needs images to calibrate on" in capsys.readouterr().err
    assert names(tmp_path) == []


def test_a_calibrator_that_is_given_a_number_and_no_images(graphs, tensorrt_here, tmp_path, capsys):
    tensorrt_here("10.3.0")
    assert run(graphs("frames"), tmp_path, "--int8", "--calibrator", "tensorrt", "--count", 5) == 1
    assert "--calibrator tensorrt needs images to calibrate on: --images DIR" in capsys.readouterr().err
    assert names(tmp_path) == []


@pytest.mark.parametrize("precision", [["--fp16"], ["--int8", "--images", "IMAGES"]])
@pytest.mark.parametrize(
    ("given", "why_not", "match"),
    [
        ([], "no GPU (for this test)", "here is no GPU (for this test)"),
        (
            ["--batch", "1:4:8"],
            None,
            "tiny.frames.1.onnx takes batches of exactly 1, and --batch 1:4:8 was asked for",
        ),
        (["--dla", "3"], None, "--dla 3 was asked for, and this machine has the cores 0 to 1"),
        ([], "locked", ".engine is being written by another segdeploy"),
    ],
)
def test_what_cannot_be_built_is_refused_before_a_graph_is_made(
    given, why_not, match, precision, graphs, images, tensorrt_here, tmp_path, monkeypatch, capsys
):
    def made_already(*arguments, **options):
        raise AssertionError("hours went into a graph first")

    tensorrt_here("11.4.0", dla_cores=2)
    monkeypatch.setattr(build_engine, "quantize", made_already)
    monkeypatch.setattr(fp16, "write_fp16", made_already)
    precision = [images if one == "IMAGES" else one for one in precision]
    lock = nullcontext()
    if why_not == "locked":
        stem = "tiny.frames.1.fp16" if "--fp16" in precision else "tiny.frames.1.int8"
        lock = files.locked(tmp_path / f"{stem}.engine")
    elif why_not:
        monkeypatch.setattr(verify, "why_not", lambda *asked: why_not)
    with lock:
        assert run(graphs("frames"), tmp_path, *precision, *given) == 1
    assert match in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_commands_from_the_checkpoint_on_each_once(graphs, tensorrt_here, tmp_path, monkeypatch):
    tensorrt_here("10.3.0")
    graph = tmp_path / "tiny.onnx"
    graph.write_bytes(graphs("frames").read_bytes())
    replace(read_record(graphs("frames")), artifact="tiny.onnx", command="segdeploy export tiny").write(
        tmp_path
    )
    assert run(graph, tmp_path, "--fp16") == 0
    assert read_record(tmp_path / "tiny.fp16.onnx").commands == ("segdeploy export tiny",)
    record = read_record(tmp_path / "tiny.fp16.engine")
    assert record.commands[0] == "segdeploy export tiny"
    assert record.commands[1].startswith(f"segdeploy build-engine {graph} ")
    assert "--fp16" in record.commands[1]


@pytest.mark.slow
def test_the_engine_is_compared_on_the_images_that_were_given(
    graphs, images, tensorrt_here, tmp_path, capsys
):
    tensorrt_here("10.3.0")
    assert run(graphs("frames"), tmp_path, "--fp16", "--images", images, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["file"], said["graphs"]) == (
        str(tmp_path / "tiny.frames.1.fp16.engine"), [str(tmp_path / "tiny.frames.1.fp16.onnx")],
    )  # fmt: skip
    used = [frame["image"] for frame in said["record"]["engine"]["golden"]]
    assert len(set(used)) == 3
    assert set(used) <= {path.name for path in images.rglob("*.png")}


@pytest.mark.slow
def test_a_warning_worth_telling(graphs, tensorrt_here, tmp_path, capsys):
    tensorrt_here("10.3.0", warns=["Missing scale and zero-point for tensor x, expect fall back to non-int8"])
    assert run(graphs("frames"), tmp_path) == 0
    assert "note: a tensor has no scale" in capsys.readouterr().out


@pytest.fixture
def reads(monkeypatch):
    """Counts how often each .onnx is opened to be read: its own name or the one it is written under."""
    counted: Counter[str] = Counter()
    watched = True

    def hear(event, arguments):
        if watched and event == "open" and isinstance(arguments[0], str) and arguments[1] in ("r", "rb"):
            name = re.fullmatch(r"(?:.*/)?\.?([^/]+\.onnx)(?:\.\d+\.part)?", arguments[0])
            if name:
                counted[name[1]] += 1

    sys.addaudithook(hear)  # which nothing can take away again
    yield counted
    watched = False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "precision"),
    [
        ("8.6.1", ["--int8"]),
        ("10.3.0", []),
        pytest.param("10.3.0", ["--int8", "--fp16"], marks=pytest.mark.thorough),
        ("11.4.0", ["--fp16"]),
        pytest.param("11.4.0", ["--int8"], marks=pytest.mark.thorough),
    ],
)
def test_no_graph_is_read_more_than_twice(version, precision, graphs, images, tensorrt_here, reads, tmp_path):
    tensorrt_here(version)
    wanted = ["--images", images, "--max-drop", 100] if "--int8" in precision else []
    assert run(graphs("frames"), tmp_path, *precision, *wanted) == 0
    made = [name for name in names(tmp_path) if name.endswith(".onnx")]
    assert reads["tiny.frames.1.onnx"] == (1 if made else 2)
    assert set(reads) == {"tiny.frames.1.onnx", *made}
    assert all(1 <= reads[name] <= 2 for name in made)  # INT8 is judged as it lies in the file


@pytest.mark.slow
def test_int8_is_not_made_of_an_fp16_graph(graphs, typed, images, tensorrt_here, tmp_path, capsys):
    tensorrt_here("11.4.0")
    assert run(typed["fp16"], tmp_path, "--int8", "--images", images) == 1
    assert "is FP16; give --int8 the FP32 graph it came from, and add --fp16" in capsys.readouterr().err
    nodes = [
        helper.make_node("Cast", ["input"], ["narrow"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["narrow", "unit"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["wide", "step", "zero"], ["whole"]),
        helper.make_node("DequantizeLinear", ["whole", "step", "zero"], ["back"]),
    ]
    constants = {"unit": np.float16(1), "step": np.float32(0.02), "zero": np.int8(0)}
    both = behind(graphs("nvinfer"), nodes, constants, tmp_path / "both.onnx")
    assert run(both, tmp_path / "out", "--int8", "--fp16") == 0
