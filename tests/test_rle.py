"""Run lengths are COCO's: the texts below were written by pycocotools 2.0.11."""

import cv2
import numpy as np
import pytest

from segdeploy.errors import ImageError
from segdeploy.picture.rle import mask_of, segments_of

LABELS = [
    [3, 4, 0, 4, 2, 2, 3, 1, 4],
    [0, 1, 1, 2, 2, 0, 0, 0, 0],
    [0, 4, 0, 3, 3, 1, 1, 2, 1],
    [4, 0, 4, 3, 4, 0, 1, 3, 2],
    [3, 3, 3, 0, 4, 2, 4, 1, 1],
    [4, 0, 0, 1, 3, 0, 4, 1, 1],
    [2, 4, 4, 4, 1, 0, 3, 3, 3],
]
COUNTS = {
    0: "127OJ00000103050G0010O5000O",
    1: "816040M0K041MO010ON10",
    2: "61?0F10ON080L0L",
    3: "01303000N11OM060M0N0O040",
    4: "311000002000O13ON1:0KON",
}


def test_texts_are_those_of_pycocotools():
    found = segments_of(np.array(LABELS, np.uint8))
    assert found == {value: {"size": [7, 9], "counts": text} for value, text in COUNTS.items()}
    assert segments_of(np.zeros((4, 3), np.uint8)) == {0: {"size": [4, 3], "counts": "0<"}}
    large = np.zeros((300, 500), np.uint8)
    large[40:260, 30:470] = 1
    large[100:110, ::7] = 0
    text = segments_of(large)[1]["counts"]
    assert text == "`j8l6`200000000" + "PKjMj2V2V200000000000" * 62 + "PKjMj2Vj8"


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_masks_come_back(kind):
    random = np.random.default_rng(3)
    small = random.integers(0, 7, (9, 13)).astype(kind) + (300 if kind == np.uint16 else 0)
    for labels in (
        small,
        cv2.resize(small, (200, 110), interpolation=cv2.INTER_NEAREST),
        small[:1, :1],
        small[:, :1],
    ):
        found = segments_of(labels)
        assert sorted(found) == np.unique(labels).tolist()
        for value, segment in found.items():
            np.testing.assert_array_equal(mask_of(segment), labels == value)


def test_text_of_another_size_is_refused():
    with pytest.raises(ImageError, match="of 12 pixels; expected 4x4"):
        mask_of({"size": [4, 4], "counts": "0<"})
