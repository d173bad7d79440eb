"""Logits raised to labels: the short way and the whole one, each class by each class, against PyTorch."""

import numpy as np
import pytest
import torch

from segdeploy.picture import raising
from segdeploy.picture.raising import raised, raised_to_labels
from segdeploy.size import Size


def one_by_one(logits: np.ndarray, size: Size, aligned: bool) -> np.ndarray:
    """What the labels are: the first largest of the planes that are raised one by one."""
    return np.stack([raised(plane, size, aligned) for plane in logits]).argmax(0)


def scene(shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
    """Large areas with few edges, whose values are so few that classes are often equal."""
    coarse = torch.from_numpy(draw.standard_normal((1, shape[0], 2, 3)))
    smooth = torch.nn.functional.interpolate(coarse, shape[1:], mode="bilinear")[0]
    return np.round(8 * smooth.float().numpy()) / 8


def noise(shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
    return draw.standard_normal(shape).astype(np.float32)


def nearly_equal(shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
    """A later class leads everywhere by one rounding, which interpolating may take away."""
    logits = np.repeat(draw.uniform(1, 2, (1, *shape[1:])).astype(np.float32), shape[0], axis=0)
    logits[-1] = np.nextafter(logits[-1], np.float32(3))
    return logits


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("make", [scene, noise, nearly_equal])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((19, 16, 24), (64, 96)), ((150, 9, 7), (41, 53)), ((3, 33, 20), (17, 41)), ((2, 1, 1), (5, 4)),
     ((300, 6, 5), (24, 23))],
)  # fmt: skip
def test_both_ways_give_the_first_largest_of_the_raised_planes(shape, size, make, aligned, monkeypatch):
    logits = make(shape, np.random.default_rng(3))
    expected = one_by_one(logits, Size(*size), aligned)
    for least in (0, 2):  # of the cells: always the short way, and never
        monkeypatch.setattr(raising, "LEAST_ALONE", least)
        labels = raised_to_labels(logits, Size(*size), aligned)
        assert np.array_equal(labels, expected)
        assert labels.dtype == (np.uint16 if shape[0] > 256 else np.uint8)


def test_what_leads_by_a_rounding_is_not_taken_for_clear():
    logits = nearly_equal((2, 32, 32), np.random.default_rng(0))
    assert (logits.argmax(0) == 1).all()
    assert (raised_to_labels(logits, Size(100, 100), False) == 0).any()  # or the test above shows nothing
    assert (raising.leaders(logits) == -1).all()
    assert (raising.leaders(logits[::-1]) == 0).all()  # the first of equals needs no lead


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_number_is_clear_beside_one_that_is_none(value):
    logits = scene((4, 12, 12), np.random.default_rng(1))
    logits[2, 5, 5] = value
    assert raising.leaders(logits)[5, 5] == -1


def test_a_large_area_is_not_interpolated(monkeypatch):
    logits = np.zeros((2, 40, 40), np.float32)
    logits[1, :, 20:] = 1
    seen = []
    monkeypatch.setattr(raising, "mixed", lambda *parts: seen.append(parts[0].size) or parts[0])
    raised_to_labels(logits, Size(160, 160), False)
    assert 0 < sum(seen) < 0.1 * 3 * 2 * 160 * 160
