"""The lines of --json as messages: when, of what, what is in it, and masks as COCO has them."""

import json
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from segdeploy.model.labels import generated_labels
from segdeploy.picture.rle import mask_of
from segdeploy.picture.segmentation import Segmentation
from segdeploy.serve.stream.messages import line_of_frame, line_of_image
from segdeploy.serve.stream.result import Shown

LABELS = np.array([[0, 0, 1, 1], [0, 0, 1, 9]], np.uint8)  # 9 is no class
RESULT = Segmentation(LABELS, generated_labels(("road", "sky", "car")))
AT_S = datetime(2026, 11, 29, 4, 30, 0, 250_000, timezone.utc).timestamp()
MASKS = {"road": {"size": [2, 4], "counts": "044"}, "sky": {"size": [2, 4], "counts": "431"}}


def test_a_frame():
    shown = Shown(
        "rtsp://cam/1", 7, 0.28, np.zeros((2, 4, 3), np.uint8), (RESULT,), 25.0, 31.42, 3, (None,), AT_S
    )
    told = {
        "schema": 1,
        "time": "2026-11-29T04:30:00.250+00:00",
        "source": "rtsp://cam/1",
        "index": 7,
        "time_s": 0.28,
        "areas": {"road": 0.5, "sky": 0.375},
        "latency_ms": 31.4,
        "dropped": 3,
        "flicker": [None],
    }
    assert json.loads(line_of_frame(shown)) == told
    assert json.loads(line_of_frame(shown, "rle")) == told | {"masks": MASKS}


def test_an_image():
    told = {
        "schema": 1,
        "time": "2026-11-29T04:30:00.250+00:00",
        "image": "a.png",
        "areas": {"road": 0.5, "sky": 0.375},
    }
    assert json.loads(line_of_image(Path("a.png"), RESULT, AT_S)) == told
    assert json.loads(line_of_image(Path("a.png"), RESULT, AT_S, "rle")) == told | {"masks": MASKS}


def test_masks_are_the_labels():
    masks = json.loads(line_of_image(Path("a.png"), RESULT, AT_S, "rle"))["masks"]
    for value, name in enumerate(("road", "sky")):
        np.testing.assert_array_equal(mask_of(masks[name]), value == LABELS)
