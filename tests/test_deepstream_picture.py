"""The picture of a rendered folder has the card's colours, wherever the street has a class of the same name."""

import cv2
import numpy as np
import pytest

from segdeploy.model.labels import Labels, known_labels, read_labels
from segdeploy.scenes import make_scene
from segdeploy.serve.deepstream.picture import HEIGHT, SEED, WIDTH, picture_of

MOST_BYTES = 150_000
RED, GREEN = (255, 0, 0), (0, 255, 0)


def decoded(classes):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(picture_of(classes), np.uint8), 1), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("name", known_labels())
def test_the_picture_of_every_list_of_classes_is_small(name):
    assert len(picture_of(read_labels(name))) < MOST_BYTES


def test_only_what_the_card_names_is_painted_and_in_its_colours():
    scene = make_scene(SEED, HEIGHT, WIDTH)
    picture = decoded(Labels("mine", ("lamp", "Road"), (GREEN, RED), None))[:HEIGHT]
    right = np.s_[:, WIDTH // 2 :]  # of the legend
    changed = np.abs(picture[right].astype(int) - scene.image[right]).max(axis=2) > 40
    road = cv2.erode((scene.labels[right] == 0).astype(np.uint8), np.ones((9, 9))) > 0
    rest = cv2.dilate((scene.labels[right] == 0).astype(np.uint8), np.ones((9, 9))) == 0
    assert changed[road].mean() > 0.99
    assert changed[rest].mean() < 0.01
    wanted = 0.45 * scene.image[right][road] + 0.55 * np.array(RED)
    assert np.abs(picture[right][road] - wanted).mean() < 4


def test_the_list_below_has_every_colour_and_says_how_many_are_left_out():
    few = decoded(Labels("mine", ("lamp", "table"), (GREEN, RED), None))[HEIGHT:]
    assert [tuple(np.round(few[14, left] / 255)) for left in (16, WIDTH // 4 + 16)] == [(0, 1, 0), (1, 0, 0)]
    names = tuple(f"class {index}" for index in range(49))
    full = decoded(Labels("mine", names[:48], (GREEN,) * 48, None))
    beyond = decoded(Labels("mine", names, (GREEN,) * 49, None))
    assert beyond.shape[0] > full.shape[0]


def test_classes_beyond_a_byte_are_drawn_too():
    names = tuple(f"class {index}" for index in range(299))
    picture = decoded(Labels("many", (*names, "sky"), (GREEN,) * 299 + (RED,), None))
    assert picture[60, WIDTH // 2 - 100, 0] > 150
