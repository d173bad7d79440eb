"""How much of what may be lost a quantisation has spent: by mIoU, by pixel accuracy, or by labels without truth."""

from types import SimpleNamespace

import pytest

from segdeploy.convert.int8.job import ACCURACY_SHARE, MAX_DISAGREEMENT, MAX_DROP, Job, Request
from segdeploy.prove.agreement import Agreement
from segdeploy.prove.confusion import Confusion
from segdeploy.prove.judge import Verdict


def verdict(*rows, equal=1.0):
    confusion = None
    if rows:
        confusion = Confusion(len(rows))
        confusion.counts[:, :-1] = rows
    return Verdict(Agreement(1, 10_000, round(10_000 * equal), 0.0), 0.0, confusion)


def spent(own, other, max_drop=None):
    judge, material = SimpleNamespace(own=own), SimpleNamespace(labels=own.confusion)
    job = Job(None, None, Request(max_drop=max_drop), material, judge, None, None, "", print)
    return job.spent(other)


def test_the_bounds_are_those_of_the_readme():
    assert (MAX_DROP, MAX_DISAGREEMENT, ACCURACY_SHARE) == (0.25, 3.0, 0.6)


def test_miou_where_it_is_nearer_to_its_limit():
    own, other = verdict((900, 0), (0, 100)), verdict((900, 0), (2, 98))
    lost = 100 * (1 - (900 / 902 + 98 / 100) / 2)
    assert spent(own, other, 2.0) == pytest.approx(lost / 2.0)
    assert spent(own, other) == pytest.approx(lost / 0.25)


def test_pixel_accuracy_where_that_is_nearer():
    """A class of 9000 pixels loses 90 of them to none of the classes, and its IoU as much; two small ones gain."""
    own = verdict((9000, 0, 0), (0, 50, 50), (0, 50, 50))
    other = verdict((8910, 0, 0), (0, 60, 40), (0, 40, 60))
    other.confusion.counts[0, -1] = 90
    assert other.miou > own.miou
    lost = 100 * (9100 - 9030) / 9200
    assert spent(own, other, 1.0) == pytest.approx(lost / 0.6)
    assert spent(own, other) == pytest.approx(lost / 0.15)


def test_labels_where_there_is_no_truth():
    assert spent(verdict(), verdict(equal=0.98)) == pytest.approx(2.0 / 3.0)
    assert spent(verdict(), verdict(equal=0.98), 1.0) == pytest.approx(2.0)
