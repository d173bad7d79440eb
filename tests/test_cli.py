"""The verbs as a user types them: what they write, what they say, and what a wrong request gets."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zipfile

import cv2
import numpy as np
import onnx
import pytest
import torch
from conftest import TINY, write_checkpoint
from onnx import TensorProto, helper
from PIL import Image

from segdeploy.cli import VERBS, main
from segdeploy.errors import RequestError
from segdeploy.model.card import known_cards
from segdeploy.version import __version__


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "street.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8))
    return path


@pytest.mark.slow
def test_export_run_inspect(tiny, image, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(tiny), "--interface", "frames", "--size", "64x96", "-o", str(out)]) == 0
    model = out / "tiny.64x96.frames.onnx"
    said = capsys.readouterr()
    assert f"{model}: 100.0000% of 12,288 pixels equal over 2 inputs" in said.out
    assert f"next: segdeploy run {model} IMAGE -o out" in said.err

    assert main(["run", str(model), str(image), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(str(out / "street.overlay.png"))
    assert cv2.imread(str(out / "street.overlay.png")).shape == (90, 140, 3)

    assert main(["run", str(model), str(image), "-o", str(out), "--json"]) == 0
    areas = json.loads(capsys.readouterr().out)["areas"]
    assert sum(areas.values()) == pytest.approx(1)

    assert main(["inspect", str(model)]) == 0
    said = capsys.readouterr().out
    assert "'frames' uint8 1×64×96×3" in said
    assert "100.0000% of 12,288 pixels equal to PyTorch FP32, largest" in said
    assert main(["inspect", "--json", str(model)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["record"]["artifact"] == model.name
    assert facts["interface"] == "frames"


def test_models(capsys):
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["card"] for row in rows] == known_cards()
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in known_cards())
    assert "nvidia/segformer-b0-finetuned-cityscapes-1024-1024" in said
    sources = dict(re.findall(r"^\[(\d+)\] (.*)$", said, re.MULTILINE))
    for row in rows:
        cells = re.search(rf"^{re.escape(row['card'])} .*? ([\d.]+) \[(\d+)\] ", said, re.MULTILINE)
        assert (cells is None) == (row["published_miou"] is None) == (row["miou_source"] == "")
        if cells:
            assert (float(cells[1]), sources[cells[2]]) == (row["published_miou"], row["miou_source"])


@pytest.mark.slow
def test_help_and_version(capsys):
    for arguments in (["--help"], *([verb, "--help"] for verb in VERBS)):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        assert "usage: segdeploy" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"segdeploy {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["quantise"], ["export"], ["run", "x.onnx"], ["export", "x", "--fp99"]]
)
def test_wrong_usage_is_status_2(arguments):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


# ---- checkpoints that are none -----------------------------------------------------------------------------------


def test_a_missing_checkpoint(refused, tmp_path):
    assert "there is no file or folder" in refused("export", tmp_path / "gone.pth")


@pytest.mark.parametrize("verb", [["export"], ["finetune", "--dataset", "voc", "--root", "."]])
def test_a_missing_checkpoint_costs_no_pytorch(verb, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main([verb[0], "gone.pth", *verb[1:], "-o", "out"]) == 1
    assert "there is no file or folder gone.pth; expected a .safetensors" in capsys.readouterr().err


def test_an_empty_folder(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "is an empty folder; expected config.json" in refused("export", tmp_path / "empty")


def test_a_truncated_safetensors(refused, tiny, tmp_path):
    folder = tmp_path / "cut"
    folder.mkdir()
    (folder / "config.json").write_text((tiny / "config.json").read_text())
    content = (tiny / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "cut" in refused("export", folder)


@pytest.mark.parametrize(
    "content", ["<!DOCTYPE html><html>Sign in</html>", "version https://git-lfs.github.com/spec/v1\n"]
)
def test_a_page_saved_as_pth(content, refused, tmp_path):
    (tmp_path / "b0.pth").write_text(content)
    said = refused("export", tmp_path / "b0.pth")
    assert ("is a web page" if "html" in content else "Git LFS") in said


def test_a_zip_named_pth(refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "b0.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "zip" in refused("export", tmp_path / "b0.pth")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


def test_a_pickle_with_code_is_not_run(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b0.pth").write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
    refused("export", tmp_path / "b0.pth")
    assert not (tmp_path / "made-by-a-pickle").exists()


def test_a_detector(refused, tmp_path):
    torch.save(
        {"model.0.conv.weight": torch.zeros(2, 3, 3, 3), "model.22.cv2.0.weight": torch.zeros(1)},
        tmp_path / "y.pt",
    )
    said = refused("export", tmp_path / "y.pt")
    assert "is not a SegFormer or " in said and ": its keys start with 0.conv, 22.cv2;" in said


def test_an_18_class_head_and_a_card_of_19(refused, tmp_path):
    folder = write_checkpoint(tmp_path / "eighteen", TINY, [f"LABEL_{i}" for i in range(18)])
    said = refused("export", folder, "--card", "segformer-b0-cityscapes")
    assert "predicts 18 classes, the card 'segformer-b0-cityscapes' has 19" in said


@pytest.mark.parametrize("size", ["0x0", "70000x70000", "512", "axb", "-64x64", "63x64"])
def test_sizes_that_are_none(size, misused):
    said = misused("export", "x", f"--size={size}")
    assert said.startswith("segdeploy export: error: argument --size: ")
    assert size.lstrip("-") in said


def test_other_flags_that_make_no_sense(refused, misused, tiny):
    assert "neither a number nor `dynamic`" in misused("export", tiny, "--batch", "many")
    assert "argument --interface: invalid choice: 'tensor'" in misused(
        "export", tiny, "--interface", "tensor"
    )
    assert "no card is called 'b0'; near it: segformer-b0-" in refused("export", tiny, "--card", "b0")


def test_an_output_that_cannot_be_written(tiny, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["export", str(tiny), "-o", str(tmp_path / "file" / "below")]) == 1
    assert "cannot be made: Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RequestError("no"), KeyboardInterrupt()])
def test_a_folder_that_a_refused_command_made_is_gone(error, tmp_path, monkeypatch, capsys):
    """Whatever the verb; what was there before stays."""
    words = ["quantize", "m.onnx", "--images", "i", "-o"]
    monkeypatch.setattr("segdeploy.cli.quantize.execute", lambda given: make_and_raise(given.output, error))
    monkeypatch.setattr("segdeploy.cli.put_graphs", lambda given: None)
    assert main([*words, str(tmp_path / "x/y")]) in (1, 130)
    assert not (tmp_path / "x").exists()
    assert main([*words, str(tmp_path)]) in (1, 130)
    assert tmp_path.is_dir()


def make_and_raise(folder, error):
    folder.mkdir(parents=True, exist_ok=True)
    raise error


@pytest.mark.slow
@pytest.mark.thorough
def test_a_disk_that_fills_up_while_writing(tiny, tmp_path):
    """A limit on file size stands for a full disk: the write itself fails half way."""
    code = (
        "import resource, signal, sys; from segdeploy.cli import main;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        "sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", code, "export", str(tiny), "-o", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert "cannot be written: File too large" in done.stderr
    assert not out.exists()


# ---- graphs that are not ours, or broken ------------------------------------------------------------------------


def foreign(path, output_shape):
    """What `transformers` users export: pixel_values to logits, no metadata."""
    weights = np.random.default_rng(0).standard_normal((4, 3, 4, 4)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["pixel_values", "w"], ["logits"], strides=[4, 4])]
    if len(output_shape) == 3:
        nodes = [
            helper.make_node("Conv", ["pixel_values", "w"], ["maps"], strides=[4, 4]),
            helper.make_node("Flatten", ["maps"], ["flat"], axis=2),
            helper.make_node("Unsqueeze", ["flat", "zero"], ["logits"]),
        ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, (1, 3, 64, 96))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, output_shape)],
        [
            onnx.numpy_helper.from_array(weights, "w"),
            onnx.numpy_helper.from_array(np.zeros(1, np.int64), "zero"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_a_foreign_graph_runs_if_it_is_understood(image, tmp_path, capsys):
    foreign(tmp_path / "theirs.onnx", (1, 4, 16, 24))
    assert main(["run", str(tmp_path / "theirs.onnx"), str(image), "-o", str(tmp_path / "out")]) == 0
    assert "class " in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "theirs.onnx")]) == 0
    assert "none beside it" in capsys.readouterr().out


def test_a_foreign_graph_that_is_not_says_what_is_missing(image, tmp_path, refused):
    foreign(tmp_path / "theirs.onnx", (1, 16, 96))
    said = refused("run", tmp_path / "theirs.onnx", image)
    assert "its signature is not understood: input 'pixel_values' float32 1×3×64×96" in said
    assert "segdeploy export CHECKPOINT" in said


def test_broken_models(graphs, image, tmp_path, refused):
    for content in (b"", b"<html>", graphs("frames").read_bytes()[:-2000]):
        (tmp_path / "x.onnx").write_bytes(content)
        assert "x.onnx cannot be loaded" in refused("run", tmp_path / "x.onnx", image)
    assert "there is no file" in refused("run", tmp_path / "gone.onnx", image)
    assert "the suffix '.png'" in refused("run", image, image)


# ---- images -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_corrupt_jpeg_among_good_ones(graphs, image, tmp_path, capsys):
    folder = tmp_path / "many"
    folder.mkdir()
    good = cv2.imencode(".jpg", cv2.imread(str(image)))[1].tobytes()
    for name, content in {"a.jpg": good, "b.jpg": b"\xff\xd8\xff" + good[200:300], "c.jpg": good}.items():
        (folder / name).write_bytes(content)
    out = tmp_path / "out"
    assert main(["run", str(graphs("frames", 3)), str(folder), "-o", str(out)]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[0].startswith(
        f"segdeploy: {folder / 'b.jpg'} is not an image that can be decoded"
    )
    assert said.err.splitlines()[1:] == ["segdeploy: 1 of 3 images could not be read"]
    assert sorted(path.name for path in out.glob("*.ids.png")) == ["a.ids.png", "c.ids.png"]


def odd_images(folder):
    upright = np.random.default_rng(1).integers(0, 256, (60, 100, 3), np.uint8)
    cv2.imwrite(str(folder / "deep.png"), upright.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "grey.png"), upright[..., 0])
    Image.fromarray(upright).convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(upright).convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    Image.fromarray(upright).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(upright).convert("P").save(folder / "palette.png")


def test_unusual_images_are_taken_as_they_look(graphs, tmp_path, capsys):
    folder = tmp_path / "odd"
    folder.mkdir()
    odd_images(folder)
    out = tmp_path / "out"
    assert main(["run", str(graphs("frames")), str(folder), "-o", str(out), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    shapes = {path.name: cv2.imread(str(path), -1).shape for path in out.glob("*.ids.png")}
    assert shapes.pop("turned.ids.png") == (100, 60)
    assert set(shapes.values()) == {(60, 100)}
    assert len(shapes) == 5


def test_nothing_to_run_on(graphs, tmp_path, refused):
    assert "there is no file or folder" in refused("run", graphs("frames"), tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused("run", graphs("frames"), tmp_path / "empty")


# ---- leaving in the middle --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_leaves_no_half_written_file(tiny, tmp_path):
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-m", "segdeploy", "export", str(tiny), "--size", "512x1024", "-o", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background jobs ignore it
    )
    while not out.exists() and child.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said == "segdeploy: stopped\n"
    assert not out.exists()


@pytest.mark.slow
def test_ctrl_c_inside_an_exec_has_the_same_exit_status(tmp_path):
    """Python would end by the signal: importing a library runs much of it by exec."""
    (tmp_path / "stopped.py").write_text(
        "import sys\nfrom segdeploy import cli\n"
        "def execute(arguments):\n    exec('raise KeyboardInterrupt')\n"
        "cli.models.execute = execute\nsys.exit(cli.main(['models']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "stopped"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "segdeploy: stopped\n")


@pytest.mark.slow
def test_a_closed_pipe_is_no_error(tmp_path):
    done = subprocess.run(
        f"{sys.executable} -m segdeploy models --json | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", [f"{'x' * 300}.onnx", f"{'y/' * 2500}z.onnx"])
@pytest.mark.parametrize("verb", [["inspect"], ["bench"], ["deepstream", "config", "-o", "out"]])
def test_a_name_that_no_file_can_have_is_no_fault_of_ours(verb, path, capsys):
    assert main([*verb[:2], path, *verb[2:]]) == 1
    said = capsys.readouterr().err
    assert said.endswith(" cannot be used: File name too long; name another file or folder\n")
    assert said.count("\n") == 1
