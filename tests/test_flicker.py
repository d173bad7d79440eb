"""Flicker on frames made by hand, so that each share is known exactly."""

import numpy as np
import pytest

from segdeploy.model.labels import read_labels
from segdeploy.picture.segmentation import Segmentation
from segdeploy.serve.stream.flicker import Flicker
from segdeploy.serve.stream.result import Shown

CITY = read_labels("cityscapes")
SHAPE = 40, 50


def take(flicker, frame, *labels, source="a", index=0):
    results = tuple(Segmentation(one, CITY) for one in labels)
    flicker.take(Shown(source, index, index / 10, frame, results, 10.0, 1.0, 0))


def grey(level, shape=SHAPE):
    return np.full((*shape, 3), level, np.uint8)


def labels(changed=0, shape=SHAPE):
    """Road, but for the first `changed` pixels, which are sky."""
    made = np.zeros(shape, np.uint8)
    made.reshape(-1)[:changed] = 10
    return made


def test_what_changes_in_a_still_image_is_flicker():
    flicker = Flicker(1)
    take(flicker, grey(100), labels())
    assert flicker.share() == (None,) and flicker.still_share() is None
    take(flicker, grey(100), labels(30))
    assert flicker.share() == (30 / 2000,)
    take(flicker, grey(100), labels(30))
    assert flicker.share() == (30 / 4000,)
    take(flicker, grey(100), labels(10))
    assert flicker.share() == (50 / 6000,)
    assert flicker.still_share() == 1.0


@pytest.mark.parametrize(("step", "still"), [(4, 1.0), (-4, 1.0), (5, 0.0), (-5, 0.0)])
def test_four_levels_are_still_and_five_are_not(step, still):
    flicker = Flicker(1)
    take(flicker, grey(100), labels())
    take(flicker, grey(100 + step), labels(100))
    assert flicker.still_share() == still
    assert flicker.share() == ((100 / 2000,) if still else (None,))


def test_every_colour_counts():
    flicker, frame = Flicker(1), grey(100)
    take(flicker, frame, labels())
    frame = frame.copy()
    frame[:, :, 2] += 5
    take(flicker, frame, labels(100))
    assert flicker.still_share() == 0.0


def test_what_changes_with_the_image_is_not_flicker():
    """The right half brightens; with the blur the two columns beside it are no longer still."""
    flicker, frame = Flicker(1), grey(100)
    take(flicker, frame, labels())
    frame = frame.copy()
    frame[:, 25:] = 200
    changed = labels()
    changed[:, 20:30] = 13
    take(flicker, frame, changed)
    assert flicker.still_share() == 23 / 50
    assert flicker.share() == (3 / 23,)  # columns 20, 21 and 22 of the still ones


def test_a_cameras_noise_is_no_change():
    noise = np.random.default_rng(0)
    frames = [np.clip(noise.normal(120, 6, (200, 300, 3)), 0, 255).astype(np.uint8) for _ in range(4)]
    flicker = Flicker(1)
    for frame in frames:
        take(flicker, frame, labels(shape=(200, 300)))
    assert flicker.still_share() > 0.9
    assert flicker.share() == (0.0,)


def test_each_model_has_its_own():
    flicker = Flicker(2)
    take(flicker, grey(100), labels(), labels())
    take(flicker, grey(100), labels(200), labels())
    assert flicker.share() == (0.1, 0.0)


def test_sources_are_not_compared_with_each_other():
    flicker = Flicker(1)
    for index, changed in enumerate((0, 100)):
        take(flicker, grey(100), labels(changed), source="a", index=index)
        take(flicker, grey(100), labels(2000), source="b", index=index)
    assert flicker.share() == (100 / 4000,)


def test_a_change_of_size_starts_anew():
    flicker = Flicker(1)
    take(flicker, grey(100), labels())
    take(flicker, grey(100, (20, 30)), labels(600, (20, 30)))
    assert flicker.share() == (None,)
    take(flicker, grey(100, (20, 30)), labels(0, (20, 30)))
    assert flicker.share() == (1.0,)
