import numpy as np
import pytest

from segdeploy.prove.agreement import Agreement, compare_labels, compare_logits, rms_of_logits, total


def test_labels():
    reference = np.zeros((2, 10, 10), np.uint8)
    candidate = reference.copy()
    candidate[1, 0, :5] = 1
    seen = compare_labels(reference, candidate)
    assert seen == Agreement(2, 200, 195, None)
    assert seen.pixel_agreement == 0.975
    with pytest.raises(ValueError, match="different shapes"):
        compare_labels(reference, candidate[:1])


def test_logits_are_compared_on_their_own_scale():
    reference = np.array([-5.0, 0, 15], np.float32)
    assert compare_logits(reference, reference) == 0
    assert compare_logits(reference, reference + np.float32([0, 2, 0])) == pytest.approx(0.1)
    assert compare_logits(reference * 1000, reference * 1000 + np.float32([0, 2000, 0])) == pytest.approx(0.1)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_agrees(wrong):
    reference = np.zeros(3, np.float32)
    assert compare_logits(reference, np.float32([0, wrong, 0])) == np.inf


def test_total_adds_pixels_and_keeps_the_worst_error():
    seen = total([Agreement(1, 100, 100, 1e-6), Agreement(1, 300, 296, 2e-4), Agreement(0, 0, 0, None)])
    assert seen == Agreement(2, 400, 396, 2e-4)
    assert (
        str(seen) == "99.0000% of 400 pixels equal over 2 inputs, largest logits error 2.0e-04 of their range"
    )
    assert seen.as_json()["pixel_agreement"] == 0.99
    assert total([Agreement(1, 1, 1, None)]).logits_error is None


def test_the_root_mean_square_of_the_logits():
    reference = np.float32([[0, 10], [5, 5]])
    assert rms_of_logits(reference, reference + np.float32([[0, 2], [0, 0]])) == pytest.approx(0.1)
    assert rms_of_logits(reference, np.float32([[0, np.nan], [5, 5]])) == np.inf
    seen = total(
        [Agreement(1, 100, 100, 1e-6, 1e-7), Agreement(1, 100, 100, 2e-2, 6e-3), Agreement(1, 9, 9, None)]
    )
    assert (seen.logits_error, seen.logits_rms) == (2e-2, 6e-3)
    assert str(seen).endswith("largest logits error 2.0e-02 of their range")


@pytest.mark.parametrize("measured", [compare_logits, rms_of_logits])
def test_small_logits_are_held_to_their_own_small_range(measured):
    reference = np.float32([[0, 1, 2, 3]]) * np.float32(1e-9)
    assert measured(reference, reference[:, ::-1]) == pytest.approx(
        measured(reference * 1e9, reference[:, ::-1] * 1e9)
    )
