"""Labels as COCO's panoptic files and as Cityscapes' server takes them: read back as their own tools read them."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from segdeploy.model.labels import read_labels
from segdeploy.picture.panoptic import categories, labels_in, panoptic_png, segments_info
from segdeploy.serve.archive.panoptic import image_id

CITYSCAPES = read_labels("cityscapes")


@pytest.mark.parametrize("most", [19, 1000])
def test_ids_come_back(most, tmp_path):
    labels = np.random.default_rng(0).integers(0, most, (20, 30)).astype(np.uint16)
    path = tmp_path / "x.png"
    path.write_bytes(panoptic_png(labels))
    red, green, blue = np.moveaxis(np.array(Image.open(path)).astype(int), 2, 0)
    np.testing.assert_array_equal(red + 256 * green + 65536 * blue, labels + 1)  # as panopticapi's rgb2id
    np.testing.assert_array_equal(labels_in(cv2.imread(str(path))), labels)


def test_segments_are_told_as_coco_tells_them():
    labels = np.zeros((4, 6), np.uint8)
    labels[1:3, 2:5] = 13
    assert segments_info(labels, CITYSCAPES) == [
        {"id": 1, "category_id": 7, "area": 18, "bbox": [0, 0, 6, 4], "iscrowd": 0},
        {"id": 14, "category_id": 26, "area": 6, "bbox": [2, 1, 3, 2], "iscrowd": 0},
    ]
    told = categories(CITYSCAPES)
    assert told[13] == {"id": 26, "name": "car", "supercategory": "car", "isthing": 0, "color": [0, 0, 142]}
    json.dumps(told)


@pytest.mark.parametrize(
    ("name", "number"),
    [("val2017/000000000139.jpg", 139), ("a/street.png", "a/street"), ("b/²³.png", "b/²³")],
)
def test_images_are_called_as_coco_calls_them(name, number):
    assert image_id(name) == number
