from types import SimpleNamespace

import numpy as np
import pytest

from segdeploy.convert.int8.job import ACCURACY_SHARE, Job, Request
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.confusion import Confusion
from segdeploy.prove.judge import Verdict


def scored(*rows):
    confusion = Confusion(2)
    confusion.counts[:, :2] = np.array(rows)
    return Verdict(Agreement(1, 1000, 990, 0.0), confusion=confusion)


OWN = scored((900, 0), (0, 100))


def job(max_drop, own=OWN, labels="cityscapes"):
    material, judge = SimpleNamespace(labels=labels), SimpleNamespace(own=own)
    return Job(None, None, Request(max_drop=max_drop), material, judge, None, None, "", None)


@pytest.mark.parametrize(
    ("rows", "points", "accuracy"),
    [
        (
            ((900, 0), (10, 90)),
            100 * (1 - (900 / 910 + 90 / 100) / 2),
            1.0,
        ),  # of the small class: mIoU suffers
        (((890, 10), (0, 100)), 100 * (1 - (890 / 900 + 100 / 110) / 2), 1.0),
    ],
)
def test_what_is_spent_of_the_miou(rows, points, accuracy):
    verdict = scored(*rows)
    assert job(20).drop(verdict) == pytest.approx(points)
    assert job(20).spent(verdict) == pytest.approx(points / 20)
    assert points / 20 > accuracy / (ACCURACY_SHARE * 20)


def test_pixel_accuracy_may_fall_by_six_tenths_of_that():
    """Where many classes are small, wrong pixels of the large one cost accuracy and hardly any mIoU."""
    own = scored((1000, 0), (50, 50))
    even = scored((988, 12), (38, 62))  # mIoU is won, and no pixel of accuracy lost
    assert job(1, own).drop(even) < 0
    assert job(1, own).spent(even) == 0
    worse = scored((976, 24), (32, 68))  # 6 of 1,100 pixels more are wrong
    assert job(1, own).drop(worse) < 0
    assert job(1, own).spent(worse) == pytest.approx(100 * 6 / 1100 / 0.6)
    assert job(0.5, own).spent(worse) == pytest.approx(100 * 6 / 1100 / 0.3)


def test_without_truth_it_is_the_share_of_changed_labels():
    own, verdict = Verdict(Agreement(1, 1000, 1000, 0.0)), Verdict(Agreement(1, 1000, 985, 0.1))
    assert job(None, own, None).limit == 3.0
    assert job(None, own, None).spent(verdict) == pytest.approx(1.5 / 3.0)
    assert job(None).limit == 0.5
