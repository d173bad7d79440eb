import numpy as np
import pytest

from segdeploy.convert.int8.histogram import BINS, Histogram
from segdeploy.errors import CalibrationError


def filled(*batches):
    histogram = Histogram()
    for batch in batches:
        histogram.add(np.asarray(batch, np.float32))
    return histogram


def batches_of(seed, count=20):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(5000).astype(np.float32) * 10.0 ** rng.integers(-3, 3) for _ in range(count)]


def test_the_order_of_the_images_does_not_matter():
    batches = batches_of(0)
    first, second = filled(*batches), filled(*reversed(batches))
    joined = filled(np.concatenate(batches))
    for other in (second, joined):
        assert np.array_equal(first.counts, other.counts)
        assert (first.exponent, first.largest, first.seen) == (other.exponent, other.largest, other.seen)


@pytest.mark.parametrize("seed", range(5))
def test_bins_over_the_range_are_as_if_counted_there(seed):
    values = np.concatenate(batches_of(seed, 3))
    histogram = filled(*np.split(values, 3))
    direct, _ = np.histogram(np.abs(values), BINS, (0, np.abs(values).max()))
    bins = histogram.over_range()
    assert bins.sum() == pytest.approx(values.size)
    assert np.abs(bins.cumsum() - direct.cumsum()).max() <= 1 + histogram.counts.max()


def test_a_bin_of_the_range_takes_in_its_last_value():
    for value in (1.0, 0.75, 3.1):
        bins = filled(np.full(100, value)).over_range()
        assert bins[-1] == 100
        assert bins[:-1].sum() == 0


def test_nothing_but_zeros():
    histogram = filled(np.zeros(10))
    assert histogram.largest == 0
    assert histogram.over_range()[-1] + histogram.over_range()[0] == 10


def test_a_large_jump_keeps_every_count():
    histogram = filled(np.full(7, 1e-30), np.full(5, 1e30))
    assert histogram.seen == histogram.counts.sum() == 12
    assert histogram.counts[0] == 7


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_none(wrong):
    with pytest.raises(CalibrationError, match="holds NaN or infinity"):
        filled([1.0, wrong])


@pytest.mark.parametrize("value", [2.0**127, 3e38, float("inf"), float("nan")])
def test_what_is_not_finite_or_too_large_for_bins_in_float32(value):
    assert filled([2.0**127 * 0.99]).largest < 2.0**127
    with pytest.raises(CalibrationError, match="holds NaN or infinity"):
        filled([1.0, value])
