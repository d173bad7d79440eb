"""What becomes of segmented frames: clips that do not grow for ever, and lines that are messages."""

import clips
import numpy as np
import pytest
from heap import bytes_per_call

from segdeploy.model.labels import generated_labels
from segdeploy.picture.segmentation import Segmentation
from segdeploy.picture.video_reading import Video
from segdeploy.serve.stream import sinks
from segdeploy.serve.stream.result import Shown
from segdeploy.serve.stream.sinks import Pictures

CLASSES = generated_labels(("road", "sky", "car"))


def shown(index, source="rtsp://cam/1"):
    frame = clips.frame(index)
    results = (Segmentation(np.zeros(frame.shape[:2], np.uint8), CLASSES),)
    return Shown(source, index, index / 10, frame, results, 10.0, 12.34, 0)


class Camera:
    name, fps, path, live = "rtsp://cam/1", 10.0, None, True


class File(Camera):
    live = False


@pytest.mark.parametrize(
    ("stream", "lengths"), [(Camera, {"a.mp4": 5, "a.2.mp4": 5, "a.3.mp4": 2}), (File, {"a.mp4": 12})]
)
def test_a_camera_goes_on_in_a_further_clip(stream, lengths, tmp_path, monkeypatch):
    monkeypatch.setattr(sinks, "MOST_IN_A_CLIP", 5)
    pictures = Pictures(str(tmp_path / "a.mp4"), stream(), lambda shown: shown.frame, 5)
    for index in range(12):
        pictures.take(shown(index))
    pictures.close()
    found = {}
    for path in tmp_path.iterdir():
        with Video(path) as clip:
            times = [one.time_s for one in clip.read()]
        assert times == pytest.approx([index / 10 for index in range(len(times))], abs=1e-3)
        found[path.name] = len(times)
    assert found == lengths


@pytest.mark.slow
def test_what_a_clip_takes_for_each_picture(tmp_path):
    """An .mp4 keeps an index of all pictures until it is closed, which is why a camera's clip has an end."""
    pictures = Pictures(str(tmp_path / "a.mp4"), Camera(), lambda shown: shown.frame[:32, :32].copy(), 5)
    numbers = iter(range(10_000))
    kept = bytes_per_call(lambda: pictures.take(shown(next(numbers))), before=300, calls=1200)
    pictures.close()
    assert kept * sinks.MOST_IN_A_CLIP < 32e6
