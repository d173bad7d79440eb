import cv2
import numpy as np
import pytest

from segdeploy.errors import VideoError
from segdeploy.serve.stream.clips import Slides


@pytest.fixture
def paths(tmp_path):
    """Three images that a mean tells apart, and one that is none."""
    for name, grey in (("a", 10), ("b", 20), ("c", 30)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((8, 8, 3), grey, np.uint8))
    (tmp_path / "bad.png").write_text("no image")
    return {path.stem: path for path in tmp_path.iterdir()}


def test_an_image_that_is_given_twice_has_a_time_of_its_own(paths):
    frames = list(Slides("x", [paths[name] for name in ("a", "b", "a", "a", "c")]).read())
    assert [frame.time_s for frame in frames] == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert [int(frame.frame.mean()) for frame in frames] == [10, 20, 10, 10, 30]


def test_an_image_that_cannot_be_read_takes_no_time(paths):
    times = []
    with pytest.raises(VideoError, match=r"^2 of 5 images could not be read; the first: .*bad\.png"):
        for frame in Slides("x", [paths[name] for name in ("a", "bad", "b", "bad", "c")]).read():
            times.append(frame.time_s)
    assert times == [0.0, 0.2, 0.4]
