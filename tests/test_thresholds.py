"""The searches against slow ones written from their definitions, and against thresholds measured elsewhere."""

import math

import numpy as np
import pytest

from segdeploy.convert.int8 import thresholds as module
from segdeploy.convert.int8.cache import hex_of
from segdeploy.convert.int8.thresholds import THRESHOLDS, divergences, int8_scales, thresholds
from segdeploy.errors import CalibrationError, RequestError

BINS, LEVELS, N = 2048, 128, 200_000
erf = np.vectorize(math.erf)


def histogram(values):
    size = np.abs(values)
    largest = float(size.max())
    return np.histogram(size, BINS, (0, largest))[0].astype(float), largest


def threshold(counts, largest, method="entropy", percentile=99.99):
    return float(thresholds(counts[None], np.array([largest]), method, percentile)[0])


# Drawn in the order in which the measured table was, so that its values come out, not merely near ones.
def distributions():
    rng = np.random.default_rng(0)
    drawn = {"normal": rng.normal(size=N), "laplace": rng.laplace(size=N)}
    drawn["outlier"] = np.concatenate([rng.laplace(size=N), [120.0]])
    drawn["student"] = rng.standard_t(3, size=N)
    normal = rng.normal(size=N)
    drawn["gelu"] = normal * (1 + erf(normal / math.sqrt(2))) / 2
    powers = np.exp(2 * rng.normal(size=(1000, 200)))
    drawn["softmax"] = powers / powers.sum(axis=1, keepdims=True)
    drawn["relu"] = np.maximum(rng.normal(size=N), 0)
    return {name: histogram(values) for name, values in drawn.items()}


DRAWN = distributions()


def planted():
    """Histograms that no smooth distribution gives: sparse, few bins, gaps, fractions, nothing at the top."""
    rng = np.random.default_rng(7)
    made = {}
    for bins in (1, 2, 5, 40, 300):
        counts = np.zeros(BINS)
        counts[rng.choice(BINS, bins, replace=False)] = rng.integers(1, 1000, bins)
        made[f"{bins} bins"] = counts
    made["one in the middle"] = np.eye(BINS)[1000]
    made["low half only"] = np.where(np.arange(BINS) < 1024, rng.poisson(50, BINS), 0).astype(float)
    made["gaps"] = DRAWN["laplace"][0] * (np.arange(BINS) % 7 != 3)
    made["fractions"] = (DRAWN["normal"][0] * 0.3 + np.roll(DRAWN["normal"][0], 1) * 0.7) * np.pi
    made["flat"] = np.ones(BINS)
    made["rising"] = np.arange(BINS, dtype=float)
    made["half zeros"] = DRAWN["relu"][0] + np.eye(BINS)[0] * 1e9
    return made


HISTOGRAMS = {name: counts for name, (counts, _) in DRAWN.items()} | planted()


def slow_divergence(counts, kept):
    """KL(P‖Q) of one candidate, bin by bin from the definition."""
    bins = [float(count) for count in counts]
    bins[0] = bins[1]
    clipped, tail = bins[:kept], sum(bins[kept:])
    p = list(clipped)
    p[-1] += tail
    mass, holding = [0.0] * LEVELS, [0] * LEVELS
    for k, count in enumerate(clipped):
        mass[k * LEVELS // kept] += count
        holding[k * LEVELS // kept] += count > 0
    q = [
        mass[k * LEVELS // kept] / holding[k * LEVELS // kept] if count > 0 else 0.0
        for k, count in enumerate(clipped)
    ]
    p_sum, q_sum = math.fsum(p), math.fsum(q)
    terms = []
    for p_k, q_k in zip(p, q, strict=True):
        if p_k > 0 and q_k == 0:
            return math.inf
        if p_k > 0:
            terms.append(p_k / p_sum * math.log((p_k / p_sum) / (q_k / q_sum)))
    return math.fsum(terms)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "outlier", "gelu", "softmax", "5 bins", "gaps", "fractions"])
def test_entropy_is_the_slow_search_over_all_candidates(name):
    counts = HISTOGRAMS[name]
    slow = [slow_divergence(counts, kept) for kept in range(LEVELS, BINS + 1)]
    best = min(slow)
    kept = max(LEVELS + place for place, value in enumerate(slow) if value <= best + 1e-10)
    assert threshold(counts, 1.0) == (kept + 0.5) / BINS
    assert threshold(counts, float(BINS)) == kept + 0.5


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_divergences_are_the_slow_ones(name):
    counts = HISTOGRAMS[name].copy()
    counts[0] = counts[1]
    fast = divergences(counts)
    for kept in (128, 129, 255, 256, 2047, 2048, *np.random.default_rng(1).integers(128, 2049, 60)):
        assert fast[kept - LEVELS] == pytest.approx(slow_divergence(counts, kept), rel=0, abs=1e-11), kept


@pytest.mark.parametrize(
    ("name", "largest", "edge", "within"),
    [
        ("normal", 4.73, 4.27, 0.003),
        ("laplace", 11.7, 10.5, 0.003),
        ("outlier", 120, 9.67, 0.003),
        ("student", 57.1, 22.6, 0.003),
        ("gelu", 4.55, 3.10, 0.003),
        ("softmax", 0.836, 0.102, 0.05),  # of rows whose number the table does not tell
        ("relu", 4.60, 4.05, 0.003),
    ],
)
def test_entropy_gives_the_measured_table(name, largest, edge, within):
    counts, found = DRAWN[name]
    assert found == pytest.approx(largest, rel=within)
    # The table is of another tool, which takes the bin's edge where TensorRT takes half a bin more.
    assert threshold(counts, found) - 0.5 * found / BINS == pytest.approx(edge, rel=within)


def test_zeros_do_not_move_entropy_or_mse():
    counts, largest = DRAWN["relu"]
    more = counts.copy()
    more[0] *= 1000
    assert threshold(more, largest) == threshold(counts, largest)
    assert threshold(more, largest, "mse") == pytest.approx(threshold(counts, largest, "mse"), rel=0.02)
    assert threshold(more, largest, "percentile") < threshold(counts, largest, "percentile")


@pytest.mark.parametrize(
    ("exponent", "digits"), [(0, "3c010a14"), (1.5, "3cb67d3d"), (-1.5, "3b367d3d"), (-0.75, "3b99745c")]
)
def test_constants_have_the_scales_of_tensorrt(exponent, digits):
    counts, largest = histogram(np.full(10, 2.0**exponent, np.float32))
    found = thresholds(counts[None], np.array([largest]), "entropy")
    assert found[0] == largest * 2048.5 / 2048
    assert hex_of(float(int8_scales(found)[0])) == digits


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_constants_are_kept_whole(method):
    counts, largest = histogram(np.full(10, 0.3))
    assert threshold(counts, largest, method) == largest


def test_equal_candidates_clip_least():
    below = np.eye(BINS)[1000]  # nothing above: every candidate from 1001 on is as good
    assert threshold(below, 1.0) == 2048.5 / 2048
    only_zeros = np.eye(BINS)[0]
    assert threshold(only_zeros, 1.0) == 2048.5 / 2048


@pytest.mark.parametrize("percentile", [50, 99, 99.9, 99.99])
def test_percentile_is_the_quantile_of_the_values(percentile):
    values = np.abs(np.random.default_rng(3).normal(size=N))
    counts, largest = histogram(values)
    expected = np.percentile(values, percentile)
    assert threshold(counts, largest, "percentile", percentile) == pytest.approx(expected, abs=largest / BINS)


def test_percentile_divides_a_bin():
    counts = np.zeros(BINS)
    counts[[4, 9]] = 30, 70
    wanted = {15: 4.5, 30: 5, 65: 9.5, 100: 10}
    for percentile, bins in wanted.items():
        assert threshold(counts, float(BINS), "percentile", percentile) == pytest.approx(bins)
    full, largest = DRAWN["laplace"]
    assert threshold(full, largest, "percentile", 100) == largest


def rounding_error(values, found):
    step = found / 127
    return np.mean((values - step * np.clip(np.rint(values / step), -127, 127)) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("draw", ["normal", "laplace", "exponential"])
def test_mse_is_the_best_on_the_values_themselves(draw):
    values = getattr(np.random.default_rng(5), draw)(size=N)
    counts, largest = histogram(values)
    found = rounding_error(values, threshold(counts, largest, "mse"))
    others = [rounding_error(values, largest * kept / BINS) for kept in range(128, BINS + 1, 8)]
    assert found <= 1.001 * min(others)
    assert found < rounding_error(values, largest)


def test_mse_is_the_slow_search_with_finely_divided_bins():
    rng = np.random.default_rng(11)
    for bins in (3, 200):
        counts = np.zeros(BINS)
        counts[rng.choice(BINS, bins, replace=False)] = rng.exponential(size=bins) ** 4
        inside = (np.arange(32) + 0.5) / 32
        places = (np.flatnonzero(counts)[:, None] + inside).ravel()
        weights = np.repeat(counts[counts > 0], 32)

        def error(kept, places=places, weights=weights):
            step = kept / 127
            return weights @ (places - step * np.minimum(np.rint(places / step), 127)) ** 2

        found = threshold(counts, float(BINS), "mse")
        assert error(found) <= 1.001 * min(error(kept) for kept in range(128, BINS + 1))


def stacked():
    return np.array([counts for counts, _ in DRAWN.values()]), np.array([top for _, top in DRAWN.values()])


@pytest.mark.parametrize("method", THRESHOLDS)
def test_rows_and_scale_are_independent(method):
    counts, largest = stacked()
    found = thresholds(counts, largest, method)
    order = np.random.default_rng(0).permutation(len(counts))
    np.testing.assert_array_equal(thresholds(counts[order], largest[order], method), found[order])
    scaled = thresholds(counts * 0.37, largest * 3.7e-5, method)
    np.testing.assert_allclose(scaled, found * 3.7e-5, rtol=1e-9)
    assert (found <= largest * 2048.5 / 2048).all()


@pytest.mark.parametrize("method", THRESHOLDS)
def test_what_is_given_is_not_changed(method):
    counts, largest = stacked()
    before = counts.copy(), largest.copy()
    thresholds(counts, largest, method)[:] = -1
    np.testing.assert_array_equal(counts, before[0])
    np.testing.assert_array_equal(largest, before[1])


@pytest.mark.parametrize("method", THRESHOLDS)
def test_dead_tensors_have_the_threshold_0(method):
    counts, largest = DRAWN["normal"]
    rows = np.array([np.zeros(BINS), counts, 500 * np.eye(BINS)[0]])
    found = thresholds(rows, np.array([0, largest, 0]), method)
    assert found.tolist() == [0, threshold(counts, largest, method), 0]
    assert thresholds(rows[:1], np.zeros(1), method).tolist() == [0]
    assert thresholds(rows[:0], np.zeros(0), method).shape == (0,)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_values_that_no_tensor_has(bad):
    counts, largest = np.ones((3, BINS)), np.ones(3)
    with pytest.raises(
        CalibrationError, match=rf"^the largest \|x\| of tensor 1 is {bad}; it must be finite"
    ):
        thresholds(counts, np.array([1, bad, bad]), "minmax")
    counts[2, 17] = bad
    with pytest.raises(
        CalibrationError, match=rf"^the histogram of tensor 2 holds {bad} in bin 17; counts are"
    ):
        thresholds(counts, largest, "entropy")


def test_histograms_that_do_not_hold():
    with pytest.raises(
        CalibrationError, match=r"tensor 1 is empty, but its largest \|x\| is 2\.5: collect it again"
    ):
        thresholds(np.array([np.ones(BINS), np.zeros(BINS)]), np.array([1, 2.5]), "mse")
    for shape, rows in (((2, 2047), 2), ((BINS,), 1), ((2, BINS), 3)):
        with pytest.raises(CalibrationError, match=r"expected \(tensors, 2048\) and \(tensors,\)"):
            thresholds(np.ones(shape), np.ones(rows), "entropy")


def test_requests_that_make_no_sense():
    rows, largest = np.ones((1, BINS)), np.ones(1)
    with pytest.raises(RequestError, match="is called 'max'; known: entropy, percentile, minmax, mse"):
        thresholds(rows, largest, "max")
    for percentile in (0, -1, 100.1, math.nan):
        with pytest.raises(RequestError, match=f"the percentile {percentile} is not above 0 and up to 100"):
            thresholds(rows, largest, "percentile", percentile)


def test_the_levels_of_the_table_are_those_of_the_module():
    assert (module.BINS, module.LEVELS, module.CANDIDATES[0], module.CANDIDATES[-1]) == (
        BINS,
        LEVELS,
        128,
        BINS,
    )
