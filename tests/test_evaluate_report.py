"""Tables by their text, JSON by its schema, and pictures by the colours of single pixels."""

import io
import json

import cv2
import numpy as np
import pytest
from rich.console import Console

from segdeploy import scenes
from segdeploy.assess.evaluate.evaluate import Evaluation, Sight
from segdeploy.assess.evaluate.report import (
    WRONG,
    draw_classes,
    draw_confusion,
    draw_sight,
    result_tables,
    results_as_json,
    write_pictures,
)
from segdeploy.assess.evaluate.scores import ImageSums, Interval, Scores
from segdeploy.datasets.layouts import open_dataset
from segdeploy.model.labels import generated_labels, read_labels

THREE = generated_labels(["road", "sky", "tram"])
PERFECT = [[60, 0, 0, 0], [0, 40, 0, 0], [0, 0, 0, 0]]
WORSE = [[54, 6, 0, 0], [0, 38, 0, 2], [0, 0, 0, 0]]


@pytest.fixture
def evaluated(tmp_path):
    for index in range(2):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "labels").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"images/{index}.png"), scenes.make_scene(index, 64, 128).image)
        cv2.imwrite(str(tmp_path / f"labels/{index}.png"), np.zeros((64, 128), np.uint8))
    (tmp_path / "harbour.yaml").write_text("ids: {0: road, 1: sky, 2: tram}")
    dataset = open_dataset("folder", tmp_path, None, tmp_path / "harbour.yaml")

    def evaluation(matrix):
        counts, sums = np.array(matrix), ImageSums.empty(2, 3)
        sums.put(0, counts)
        sums.put(1, counts * [[1], [0], [0]])
        return Evaluation(dataset, Scores(counts, THREE), sums, Interval(0.5, 0.75))

    return evaluation


def printed(results):
    console = Console(file=io.StringIO(), width=120)
    for table in result_tables(results):
        console.print(table)
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_the_tables_of_one_model(evaluated):
    lines = printed({"x.onnx": evaluated(WORSE)})
    assert ["x.onnx", "86.30", "50.00", "to", "75.00", "92.00", "87.04"] in lines
    assert ["class", "pixels", "IoU", "precision", "recall"] in lines
    assert ["road", "60.00", "90.00", "100.00", "90.00"] in lines
    assert ["sky", "40.00", "82.61", "86.36", "95.00"] in lines
    assert ["tram", "0.00", "–", "–", "–"] in lines


def test_the_tables_of_two_models_say_what_changed(evaluated):
    lines = printed({"a.onnx": evaluated(PERFECT), "b.onnx": evaluated(WORSE)})
    assert ["class", "pixels", "IoU", "Δ", "b.onnx"] in lines
    assert ["road", "60.00", "100.00", "-10.00"] in lines
    assert ["tram", "0.00", "–", "–"] in lines
    (row,) = [line for line in lines if line[:1] == ["b.onnx"]]
    assert "-13.70" in row


def test_the_json_has_no_nan_and_says_what_was_scored(evaluated):
    results = {"a.onnx": evaluated(PERFECT), "b.onnx": evaluated(WORSE)}
    report = results_as_json(results, {"a.onnx": {"card": "tiny"}}, {"fit": "stretch"})
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert list(report) == ["schema", "segdeploy", "dataset", "options", "models"]
    assert report["dataset"] | {"digest": ""} == {
        "name": "harbour", "split": "", "images": 2, "digest": "", "classes": ["road", "sky", "tram"],
    }  # fmt: skip
    first, second = report["models"]
    assert (first["model"], first["card"], first["delta"]) == ("a.onnx", "tiny", None)
    assert first["scores"]["iou"] == {"road": 1.0, "sky": 1.0, "tram": None}
    assert first["miou_interval"] == {"low": 0.5, "high": 0.75, "level": 0.95, "draws": 1000, "seed": 0}
    assert second["delta"]["iou"]["road"] == pytest.approx(-0.1)
    assert second["delta"]["iou"]["tram"] is None
    assert second["confusion"] == WORSE
    assert [image["image"] for image in first["images"]] == ["images/0.png", "images/1.png"]


def test_a_cell_of_the_matrix_is_as_dark_as_its_share():
    """The row's own pixels are shared out; the diagonal is blue, the rest red."""
    picture = draw_confusion(Scores(np.array(WORSE), THREE))
    side, edge = 40, 8  # inside a cell, away from its number
    top = picture.shape[0] - 10 - 3 * side
    left = picture.shape[1] - 10 - 4 * side
    cell = {
        (row, column): picture[top + row * side + edge, left + column * side + edge].tolist()
        for row in range(3)
        for column in range(4)
    }
    assert cell[0, 0] == [33, 69, 122]  # 90 % of the way from white to the blue
    assert cell[0, 1] == [246, 231, 232]  # 10 % of the way to the red
    assert cell[1, 3] == [250, 243, 243]
    assert cell[2, 2] == cell[0, 2] == [255, 255, 255]


def test_a_bar_is_as_long_as_its_iou():
    picture = draw_classes(Scores(np.array(WORSE), THREE))
    lengths = [int((picture[30 + 26 * row + 8] == THREE.colours[row]).all(axis=1).sum()) for row in range(3)]
    assert lengths[0] == pytest.approx(500 * 0.9, abs=6)  # its outline and the line of the mean lie over it
    assert lengths[1] == pytest.approx(500 * 0.826, abs=6)
    assert lengths[2] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cityscapes", "ade20k"])
def test_any_number_of_classes_is_drawn(name):
    labels = read_labels(name)
    scores = Scores(np.eye(len(labels.names), len(labels.names) + 1, dtype=np.int64) * 7, labels)
    for picture in (draw_confusion(scores), draw_classes(scores)):
        assert picture.dtype == np.uint8
        assert max(picture.shape) < 5000


def test_a_frame_is_shown_with_truth_prediction_and_what_is_wrong():
    frame = np.full((2, 200, 3), 90, np.uint8)
    truth = np.zeros((2, 200), np.uint8)
    truth[:, 150:] = 255
    predicted = np.ones((2, 200), np.uint8)
    predicted[0] = 0
    picture = draw_sight(Sight("sträße.png", frame, truth, predicted), THREE)
    assert picture.shape == (2 + 28, 4 * 200, 3)
    image, true, guessed, difference = (picture[28:, 200 * i : 200 * (i + 1)] for i in range(4))
    assert np.array_equal(image, frame)
    assert true[1, 0].tolist() == list(THREE.colours[0])
    assert true[1, 199].tolist() == [0, 0, 0]
    assert guessed[1, 0].tolist() == list(THREE.colours[1])
    assert difference[0, 0].tolist() == [190, 190, 190]
    assert difference[1, 0].tolist() == list(WRONG)
    assert difference[1, 199].tolist() == [0, 0, 0]


def test_pictures_are_written_under_the_models_name(evaluated, tmp_path):
    sight = Sight("a.png", *(np.zeros(shape, np.uint8) for shape in ((4, 60, 3), (4, 60), (4, 60))))
    written = write_pictures(evaluated(WORSE), [sight, sight], tmp_path / "out", "x.onnx")
    assert [path.name for path in written] == [
        "x.onnx.confusion.png", "x.onnx.classes.png", "x.onnx.worst-01.png", "x.onnx.worst-02.png",
    ]  # fmt: skip
    assert all(cv2.imread(str(path)) is not None for path in written)
