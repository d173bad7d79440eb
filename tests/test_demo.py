import contextlib
import io
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

import segdeploy.demo
from segdeploy import scenes
from segdeploy.cli import main
from segdeploy.demo import sheet
from segdeploy.model.labels import read_labels
from segdeploy.shipped import folder
from segdeploy.size import Size

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The verb's work, smaller than usual: its folder, what it returned and what was printed."""
    made, said, steps, run = [], io.StringIO(), io.StringIO(), segdeploy.demo.run_demo
    out = tmp_path_factory.mktemp("demo")

    def small(*given, **asked):
        small_sizes = {"images": 8, "clip_frames": 5, "calibration_scenes": 12, "shown": Size(180, 320)}
        made.append(run(*given, **asked, **small_sizes))
        return made[0]

    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(steps),
    ):
        patch.setattr(segdeploy.demo, "run_demo", small)
        patch.setattr(segdeploy.demo, "ROWS", 1)
        assert main(["demo", "-o", str(out)]) == 0
    return out, made[0], said.getvalue(), steps.getvalue()


def test_the_demo_goes_the_whole_way(ran):
    out, demo, _, _ = ran
    assert demo.record.agreement.pixel_agreement >= 0.9995
    assert demo.miou >= 0.75
    fp32, int8 = demo.int8.record.ledger
    assert fp32.miou - int8.miou <= 0.005
    assert demo.int8.record.calibration.int8_share >= 0.8
    assert int8.macs["int8"] >= 0.8
    assert cv2.imread(str(demo.first)).shape == (180, 320, 3)
    clips = [cv2.VideoCapture(str(path)) for path in (demo.street, demo.clip, demo.wipe, demo.replayed)]
    for clip in clips:
        assert int(clip.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
        assert int(clip.get(cv2.CAP_PROP_FRAME_WIDTH)) == 320
    assert (demo.replay.frames, demo.replay.inferred, demo.replay.without_class) == (5, 5, 0)
    assert demo.replay.agreement.pixels == 256 * 512  # the first frame
    assert demo.replay.agreement.pixel_agreement >= 0.9999
    assert main(["deepstream", "lint", str(demo.configuration)]) == 0
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_scenes_stand_beside_their_truth_under_headings_and_above_a_key(ran):
    _, demo, _, _ = ran
    picture = cv2.cvtColor(cv2.imread(str(demo.sheet)), cv2.COLOR_BGR2RGB)
    scene = scenes.make_scene(segdeploy.demo.HELD_OUT, sheet.TILE.height, sheet.TILE.width)
    top, left = sheet.HEADING, sheet.EDGE
    tile = picture[top : top + sheet.TILE.height, left : left + sheet.TILE.width]
    assert np.array_equal(tile, scene.image)
    assert (picture[:top] != 255).any(), "headings"
    key = picture[top + sheet.TILE.height + sheet.GAP :]
    for colour in read_labels("cityscapes").colours:
        assert (key == colour).all(axis=2).sum() > sheet.SWATCH**2 * 0.9, colour


def test_the_demo_needs_no_pytorch():
    code = "import sys, segdeploy.demo, segdeploy.cli.demo; print(sorted({'torch', 'onnxscript'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_bundled_checkpoint_is_what_its_record_says():
    facts = json.loads((folder("models") / "demo-b0" / "training.json").read_text())
    held_out = facts["held_out"]
    assert held_out["scenes"] >= 100
    assert held_out["miou"] >= 0.75
    assert len(held_out["iou"]) == 19
    assert min(held_out["iou"].values()) >= 0.40
    first, last = facts["training_seeds"]
    assert not set(range(first, last + 1)) & set(range(held_out["seeds"][0], held_out["seeds"][1] + 1))
    assert (folder("models") / "demo-b0" / "model.safetensors").stat().st_size <= 16e6


def test_the_verb_says_what_to_look_at_and_what_to_type_next(ran):
    out, _, said, _ = ran
    assert "compared with PyTorch when it was packed: 99.9" in said
    assert "INT8 covers" in said
    assert str(out / "scenes.png") in said
    assert "It knows made scenes only" in said
    assert f"Its DeepStream configuration is {out / 'deepstream' / 'nvinfer_config.txt'}." in said
    assert "it agrees with the graph in Python: 100.0000% of 131,072 pixels equal" in said
    assert str(out / "replay.mp4") in said
    assert f"run demo-b0 {out / 'street.mp4'} -o {out / 'seen.mp4'}" in said
    assert "export nvidia/" in said
    assert "https://download.pytorch.org/whl/cpu" in said


def test_each_step_is_a_line_where_there_is_no_terminal(ran):
    out, _, _, steps = ran
    lines = steps.splitlines()
    assert all(line.startswith("segdeploy: ") for line in lines)
    assert lines[0] == "segdeploy: loading ONNX Runtime and OpenCV"
    assert f"segdeploy: the first picture is {out / 'first.png'}" in lines[:5]
    assert len(set(lines)) >= 8
