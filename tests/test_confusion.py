import numpy as np
import pytest

from segdeploy.errors import RequestError
from segdeploy.prove.confusion import Confusion


def test_scores_are_of_the_sums_over_all_images():
    confusion = Confusion(3)
    confusion.add(np.uint8([[0, 0], [1, 255]]), np.uint8([[0, 1], [1, 2]]))
    confusion.add(np.uint8([[1, 1]]), np.uint8([[1, 0]]))
    assert confusion.counts.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(confusion.iou, [1 / 3, 2 / 4, np.nan])
    assert confusion.miou == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert confusion.pixel_accuracy == 3 / 5


def test_a_prediction_outside_the_classes_counts_as_wrong():
    confusion = Confusion(2)
    confusion.add(np.uint8([0, 0, 0, 1, 1]), np.uint8([0, 255, 254, 1, 2]))  # 2: the first that is none
    assert confusion.counts.tolist() == [[1, 0, 2], [0, 1, 1]]
    assert confusion.pixel_accuracy == 2 / 5
    np.testing.assert_allclose(confusion.iou, [1 / 3, 1 / 2])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_the_first_id_that_is_no_class_is_none(kind):
    """Of a prediction it counts as wrong, of a truth it is refused; labels of 16 bits are counted another way."""
    confusion = Confusion(2)
    confusion.add(kind([0, 1, 1]), kind([0, 1, 2]))
    assert confusion.counts.tolist() == [[1, 0, 0], [0, 1, 1]]
    with pytest.raises(RequestError, match="the truth holds the label 2; expected 0 to 1"):
        confusion.add(kind([0, 2]), kind([0, 0]))


def test_a_truth_outside_the_classes_is_a_wrong_mapping():
    with pytest.raises(RequestError, match="the truth holds the label 33; expected 0 to 18, or 255"):
        Confusion(19).add(np.uint8([0, 255, 33]), np.uint8([0, 0, 0]))
