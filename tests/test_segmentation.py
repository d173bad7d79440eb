import cv2
import numpy as np
import pytest

from segdeploy.errors import OutputError
from segdeploy.model.labels import read_labels
from segdeploy.picture.segmentation import LEAST_SHARE, Segmentation, legend_rows, write_image

CITY = read_labels("cityscapes")


@pytest.fixture
def result():
    labels = np.zeros((90, 160), np.uint8)
    labels[:30] = 10  # sky
    labels[30:45] = 13  # car
    labels[89, 159] = 18  # one pixel of bicycle
    return Segmentation(labels, CITY)


def test_areas_are_shares_largest_first(result):
    assert list(result.areas()) == ["road", "sky", "car", "bicycle"]
    assert result.areas()["sky"] == pytest.approx(1 / 3)
    assert sum(result.areas().values()) == pytest.approx(1)


def test_pixels_without_a_class_are_in_no_area():
    labels = np.full((2, 2), 255, np.uint8)
    labels[0, 0] = 0
    assert Segmentation(labels, CITY).areas() == {"road": 0.25}


def test_colours_and_ids_read_back(result, tmp_path):
    result.write_colours(tmp_path / "colours.png")
    result.write_ids(tmp_path / "ids.png")
    colours = cv2.imread(str(tmp_path / "colours.png"))[..., ::-1]
    assert tuple(colours[60, 0]) == (128, 64, 128)
    assert tuple(colours[0, 0]) == (70, 130, 180)
    ids = cv2.imread(str(tmp_path / "ids.png"), cv2.IMREAD_UNCHANGED)
    assert ids.ndim == 2
    assert np.array_equal(ids, result.labels)


def test_overlay_mixes_by_alpha(result):
    frame = np.full((90, 160, 3), 200, np.uint8)
    assert np.array_equal(result.overlay(frame, alpha=0, legend=False), frame)
    assert np.array_equal(result.overlay(frame, alpha=1, legend=False), result.colours())
    assert tuple(result.overlay(frame, alpha=0.5, legend=False)[60, 0]) == (164, 132, 164)


def test_the_legend_is_in_the_overlay_only_when_asked_for(result):
    frame = np.full((90, 160, 3), 200, np.uint8)
    plain, named = (result.overlay(frame, legend=legend) for legend in (False, True))
    changed = np.any(plain != named, axis=-1)
    assert changed.any()
    assert not changed[:, -20:].any()
    assert (frame == 200).all()


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (3, 500), (2000, 90)])
def test_any_shape_can_be_drawn(shape):
    frame = np.zeros((*shape, 3), np.uint8)
    assert Segmentation(np.zeros(shape, np.uint8), CITY).overlay(frame).shape == frame.shape


def test_an_unknown_format(tmp_path):
    with pytest.raises(OutputError, match=r"'\.xyz' is not an image format"):
        write_image(tmp_path / "a.xyz", np.zeros((4, 4), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_what_is_hardly_seen_has_no_row_in_the_legend():
    assert legend_rows({"road": 0.9, "sky": LEAST_SHARE, "car": LEAST_SHARE / 2}) == [
        ("road", 0.9), ("sky", LEAST_SHARE),
    ]  # fmt: skip
