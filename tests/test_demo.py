import contextlib
import io
import json

import cv2
import pytest

import segdeploy.demo
from segdeploy.cli import main
from segdeploy.shipped import folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The verb's work, smaller than usual: its folder, what it returned and what was printed."""
    made, said, run = [], io.StringIO(), segdeploy.demo.run_demo
    out = tmp_path_factory.mktemp("demo")

    def small(*given, **asked):
        made.append(run(*given, **asked, images=8, clip_frames=5, calibration_scenes=12))
        return made[0]

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(segdeploy.demo, "run_demo", small)
        assert main(["demo", "-o", str(out)]) == 0
    return out, made[0], said.getvalue()


def test_the_demo_goes_the_whole_way(ran):
    out, demo, _ = ran
    assert demo.exported.agreement.pixel_agreement >= 0.9999
    assert demo.miou >= 0.75
    fp32, int8 = demo.int8.record.ledger
    assert fp32.miou - int8.miou <= 0.005
    assert demo.int8.record.calibration.int8_share >= 0.8
    assert int8.macs["int8"] >= 0.8
    sheet = cv2.imread(str(demo.sheet))
    assert sheet.shape == (4 * 256, 3 * 512, 3)
    clip = cv2.VideoCapture(str(demo.clip))
    assert int(clip.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
    assert int(clip.get(cv2.CAP_PROP_FRAME_WIDTH)) == 512
    replayed = cv2.VideoCapture(str(demo.replayed))
    assert int(replayed.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
    for _ in range(5):  # fed by our own arithmetic and by nvinfer's, and the same but for their coding
        (_, one), (_, other) = clip.read(), replayed.read()
        assert abs(one.astype(int) - other).mean() < 6
    assert (demo.replay.frames, demo.replay.inferred, demo.replay.without_class) == (5, 5, 0)
    assert demo.replay.agreement.pixels == 256 * 512  # the first frame
    assert demo.replay.agreement.pixel_agreement >= 0.9999
    assert main(["deepstream", "lint", str(demo.configuration)]) == 0
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


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
    out, _, said = ran
    assert "was compared with PyTorch: 100.0000% of" in said
    assert "INT8 covers" in said
    assert str(out / "scenes.png") in said
    assert "It knows made scenes only" in said
    assert f"Its DeepStream configuration is {out / 'deepstream' / 'nvinfer_config.txt'}." in said
    assert "Replayed without DeepStream it agrees with PyTorch: 100.0000% of 131,072 pixels equal" in said
    assert str(out / "replay.mp4") in said
    assert "segdeploy export nvidia/" in said
