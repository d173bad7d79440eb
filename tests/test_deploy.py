"""Which graph an engine is built from, on each TensorRT: made on the way, or as it is with flags."""

import pytest

from segdeploy.calibrate.cache import CalibrationCache, write_cache
from segdeploy.cli import main
from segdeploy.record import read_record
from segdeploy.scenes import write_cityscapes


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("city")
    write_cityscapes(root, 8, seed=700, height=96, width=160)
    return root / "leftImg8bit"


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".onnx", ".engine", ".calib"))


def run(graph, out, *arguments):
    return main(["build-engine", str(graph), "-o", str(out), "--runtime", "tensorrt", *map(str, arguments)])


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0"])
def test_fp16_is_written_into_the_graph(version, graphs, tensorrt_here, tmp_path):
    there = tensorrt_here(version)
    assert run(graphs("frames"), tmp_path, "--fp16") == 0
    assert names(tmp_path) == ["tiny.frames.1.fp16.engine", "tiny.frames.1.fp16.onnx"]
    assert there.arguments_of("set_flag") == []


def test_8_6_gets_fp16_by_a_flag(graphs, tensorrt_here, tmp_path, capsys):
    there = tensorrt_here("8.6.1")
    assert run(graphs("frames"), tmp_path, "--fp16") == 0
    assert names(tmp_path) == ["tiny.frames.1.fp16.engine"]
    assert there.arguments_of("set_flag") == [("FP16",)]
    assert "100.0000% of the pixels equal to ONNX Runtime" in capsys.readouterr().out


def test_8_6_gets_int8_by_pairs_and_the_rest_by_a_flag(graphs, images, tensorrt_here, tmp_path):
    there = tensorrt_here("8.6.1")
    assert run(graphs("frames"), tmp_path, "--int8", "--fp16", "--images", images, "--max-drop", 100) == 0
    assert names(tmp_path) == ["tiny.frames.1.int8.fp16.engine", "tiny.frames.1.int8.onnx"]
    assert there.arguments_of("set_flag") == [("FP16",), ("INT8",)]
    assert read_record(tmp_path / "tiny.frames.1.int8.fp16.engine").precision == "int8+fp16"


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


def test_the_calibrator_with_a_cache(graphs, tensorrt_here, tmp_path):
    there = tensorrt_here("10.3.0")
    write_cache(tmp_path / "x.calib", CalibrationCache("10.3.0", "EntropyCalibration2", {"frames": 0.02}))
    given = ("--int8", "--scales", tmp_path / "x.calib", "--calibrator", "tensorrt")
    assert run(graphs("frames"), tmp_path, *given) == 0
    assert there.arguments_of("calibrated") == []


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


def test_a_warning_worth_telling(graphs, tensorrt_here, tmp_path, capsys):
    tensorrt_here("10.3.0", warns=["Missing scale and zero-point for tensor x, expect fall back to non-int8"])
    assert run(graphs("frames"), tmp_path) == 0
    assert "note: a tensor has no scale" in capsys.readouterr().out
