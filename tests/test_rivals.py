import pytest

from segdeploy.convert.int8.rivals import FIRST, WORTH, better

BEST = [100] * 8


def rival(*changes):
    """Tells in `rival.asked` how many probes were run."""
    rival.asked = 0
    for one in changes:
        rival.asked += 1
        yield one


def test_one_that_is_clearly_better_is_taken():
    assert better(BEST, rival(*[79] * 8)) == [79] * 8


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ([100] * 8, FIRST),  # no better at first
        ([300] * 8, FIRST),
        ([1000] * 8, 1),  # more on one probe than on all together it may
        ([90] * 8, 8),  # better, but not by more than chance
        ([0, 0, 299, 170, 171, 0, 0, 0], 5),  # as soon as it is sure
    ],
)
def test_one_that_loses_is_given_up_early(changes, asked):
    assert (better(BEST, rival(*changes)), rival.asked) == (None, asked)


def test_nothing_is_better_than_nothing():
    assert (better([0] * 8, rival(*[0] * 8)), rival.asked) == (None, 1)


def test_of_few_probes_all_are_asked():
    assert better([100, 100], rival(10, 149)) == [10, 149]
    assert better([100, 100], rival(10, 151)) is None
    assert WORTH == 0.8
