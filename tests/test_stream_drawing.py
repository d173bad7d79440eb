"""Pictures of a stream: what is where, what stays where it was, and what two models look like together."""

import cv2
import numpy as np
import pytest

from segdeploy.model.labels import read_labels
from segdeploy.picture.segmentation import Segmentation
from segdeploy.serve.stream.drawing import LAYOUTS, Drawing, Style, statistics, wipe_at
from segdeploy.serve.stream.result import Shown

CITY = read_labels("cityscapes")
ROAD, SKY, CAR = (CITY.names.index(name) for name in ("road", "sky", "car"))
HEIGHT, WIDTH = 180, 320


def flat(*classes):
    """A result with as many equal bands as classes."""
    labels = np.repeat(np.array(classes, np.uint8), HEIGHT // len(classes))
    return Segmentation(np.tile(labels[:, None], (1, WIDTH)), CITY)


def shown(*results, time_s=0.0, dropped=0, frame=None):
    frame = np.full((HEIGHT, WIDTH, 3), 200, np.uint8) if frame is None else frame
    return Shown("clip.mp4", 0, time_s, frame, results, 24.96, 31.4, dropped)


def test_one_model_is_its_overlay():
    one, drawing = flat(ROAD, SKY), Drawing(Style(("a",), alpha=0.3, legend=False))
    picture = shown(one, frame=np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    before = picture.frame.copy()
    assert np.array_equal(drawing.draw(picture), one.overlay(before, 0.3, legend=False))
    assert np.array_equal(picture.frame, before)


def test_each_picture_is_its_own():
    drawing = Drawing(Style(("a",)))
    first = drawing.draw(shown(flat(ROAD)))
    kept = first.copy()
    drawing.draw(shown(flat(SKY)))
    assert np.array_equal(first, kept)


def test_side_by_side_each_keeps_its_size():
    one, two = flat(ROAD, SKY), flat(SKY, ROAD)
    picture = shown(one, two)
    drawn = Drawing(Style(("a", "b"), legend=False)).draw(picture)
    assert drawn.shape == (HEIGHT, 2 * WIDTH, 3)
    assert np.array_equal(drawn[:, :WIDTH], one.overlay(picture.frame, legend=False))
    assert np.array_equal(drawn[:, WIDTH:], two.overlay(picture.frame, legend=False))


@pytest.mark.parametrize(
    ("time_s", "cut"), [(0, 1), (2, 160), (4, 319), (6, 160), (8, 1), (-2, 160)], ids=str
)
def test_a_wipe_goes_to_and_fro(time_s, cut):
    one, two = flat(ROAD), flat(SKY)
    picture = shown(one, two, time_s=time_s)
    drawn = Drawing(Style(("a", "b"), layout="wipe", legend=False)).draw(picture)
    assert drawn.shape == picture.frame.shape
    assert (drawn[:, cut] == 255).all()
    assert np.array_equal(drawn[:, : cut - 1], one.overlay(picture.frame, legend=False)[:, : cut - 1])
    assert np.array_equal(drawn[:, cut + 2 :], two.overlay(picture.frame, legend=False)[:, cut + 2 :])


def test_the_wipe_is_at_its_ends_and_middle():
    assert [wipe_at(time) for time in (0, 1, 2, 4, 6, 8)] == [0, 0.25, 0.5, 1, 0.5, 0]


def test_a_class_keeps_its_row_for_two_seconds():
    """Road and sky stand; a car that goes away leaves its row, so that sky stays where it was."""
    drawing = Drawing(Style(("a",)))
    with_car, without = flat(ROAD, SKY, CAR), flat(ROAD, SKY)

    def rows(time_s, result):
        picture = shown(result, time_s=time_s)
        drawing.draw(picture)
        return [name for name, _ in drawing._rows(picture, 0, result)]

    assert rows(0.0, with_car) == ["road", "sky", "car"]
    assert rows(2.0, without) == ["road", "sky", "car"]
    assert rows(2.1, without) == ["road", "sky"]
    assert rows(2.2, with_car) == ["road", "sky", "car"]
    assert rows(0.0, without) == ["road", "sky"]  # the source has started again


def test_the_legend_does_not_move_as_shares_change():
    def swatches(*classes):
        drawn = Drawing(Style(("a",), alpha=0)).draw(shown(flat(*classes)))
        return [
            np.argwhere((drawn == np.array(CITY.colours[index])).all(axis=-1)).tolist()
            for index in (ROAD, SKY, CAR)
        ]

    many_cars, few_cars = swatches(ROAD, SKY, CAR, CAR, CAR), swatches(ROAD, ROAD, ROAD, SKY, CAR)
    assert many_cars == few_cars and all(many_cars)


def test_of_more_classes_than_there_is_room_for_the_largest_are_named():
    """In the order of the classes all the same, and above the lines at the foot."""
    labels = np.zeros((60, 100), np.uint8)
    for index in range(1, 12):
        labels[:, :: 12 - index] = index  # ever more of each
    picture = Shown("a", 0, 0.0, np.zeros((60, 100, 3), np.uint8), (Segmentation(labels, CITY),), 1.0, 1.0, 0)
    drawing = Drawing(Style(("a",), legend=True))
    drawing.draw(picture)
    rows = drawing._rows(picture, 0, picture.results[0])
    largest = [name for name in CITY.names if name in list(picture.results[0].areas())[:3]]
    assert [name for name, _ in rows] == largest


def test_two_models_have_their_legends_at_both_ends():
    """In a wipe the second stands at the right; beside each other each has its own at its left."""
    for layout, left_edge in (("wipe", WIDTH // 2), ("side", WIDTH)):
        picture = shown(flat(ROAD), flat(SKY), time_s=2.0)
        plain, named = (
            Drawing(Style(("one", "two"), alpha=0, layout=layout, legend=legend)).draw(picture)
            for legend in (False, True)
        )
        changed = np.any(plain != named, axis=-1)[:20]  # above the lines at the foot
        assert changed[:, :left_edge].any() and changed[:, left_edge:].any()
        assert changed[:, -1].any() == (layout == "wipe")


def test_figures_are_words():
    assert statistics(shown(flat(ROAD))) == "25.0 FPS  31 ms"
    assert statistics(shown(flat(ROAD), dropped=7)) == "25.0 FPS  31 ms  7 dropped"


def test_figures_stand_at_the_foot_and_without_a_legend_nothing_does():
    plain, named = (
        Drawing(Style(("a",), alpha=0, legend=legend)).draw(shown(flat(ROAD))) for legend in (False, True)
    )
    changed = np.any(plain != named, axis=-1)
    assert (plain == 200).all()
    assert changed[-8:, :40].all(axis=0).any() and not changed[30:-20].any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (3, 500), (2000, 90), (5, 2)])
def test_any_shape_can_be_drawn(shape, layout):
    result, frame = Segmentation(np.zeros(shape, np.uint8), CITY), np.zeros((*shape, 3), np.uint8)
    drawing = Drawing(Style(("a long name.onnx", "b.onnx"), layout=layout))
    width = 2 * shape[1] if layout == "side" else shape[1]
    for time_s in (0, 1, 4):
        assert drawing.draw(shown(result, result, time_s=time_s, frame=frame)).shape == (shape[0], width, 3)


def test_pixels_without_a_class_are_not_in_the_legend():
    result = Segmentation(np.full((HEIGHT, WIDTH), 255, np.uint8), CITY)
    drawn = Drawing(Style(("a",), alpha=0)).draw(shown(result))
    assert (drawn[:100] == 200).all()
    assert cv2.countNonZero(255 - drawn[..., 0]) == HEIGHT * WIDTH
