"""Histograms of |x| to thresholds: the |x| that int8's 127 stands for, one per tensor.

| method | threshold |
|---|---|
| entropy | the clipping whose 128-level version loses least information, as TensorRT's entropy calibrator searches it |
| percentile | the |x| that the given share of all values stays below |
| minmax | the largest |x| |
| mse | the clipping with the smallest expected squared error after rounding to 128 levels |

Entropy and mse try the lowest i of the 2048 bins, for every i from 128 (a bin per level) to 2048. Candidates equal
up to rounding errors go to the largest i, which clips least.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from segdeploy.convert.int8.options import THRESHOLDS
from segdeploy.errors import CalibrationError, RequestError

BINS = 2048
LEVELS = 128  # 0 … 127: the histogram is of |x|, and int8 is used symmetrically
CANDIDATES = np.arange(LEVELS, BINS + 1)
TIE = 1e-10  # above the rounding errors of the sums below, far below what tells two thresholds apart

# GROUP_EDGES[c, g] is the first bin of level g when CANDIDATES[c] bins are merged into LEVELS: bin k belongs to
# level floor(k·LEVELS/i), so level g begins at ceil(g·i/LEVELS).
GROUP_EDGES = -(-CANDIDATES[:, None] * np.arange(LEVELS + 1) // LEVELS)


def thresholds(
    counts: NDArray[np.float64], largest: NDArray[np.float64], method: str, percentile: float = 99.99
) -> NDArray[np.float64]:
    """One threshold per row of `counts`, a histogram of |x| in 2048 equal bins over 0 … `largest`.

    A dead tensor (`largest` is 0) has the threshold 0; what to do with it is the caller's decision.
    """
    demand_method(method, percentile)
    demand_histograms(counts, largest)
    found = np.array(largest, np.float64)
    alive = found > 0
    if method == "minmax" or not alive.any():
        return found
    bins_kept = {
        "entropy": lambda rows: np.array([entropy_bins(row) + 0.5 for row in rows]),
        "percentile": lambda rows: percentile_bins(rows, percentile),
        "mse": mse_bins,
    }[method](counts[alive])
    found[alive] *= bins_kept / BINS
    return found


def demand_method(method: str, percentile: float) -> None:
    if method not in THRESHOLDS:
        raise RequestError(f"no calibration method is called {method!r}; known: {', '.join(THRESHOLDS)}")
    if not 0 < percentile <= 100:
        raise RequestError(f"the percentile {percentile} is not above 0 and up to 100; 99.99 is usual")


def int8_scales(found: NDArray[np.float64]) -> NDArray[np.float32]:
    """threshold/127, rounded to float32 before and after the division as TensorRT's own caches are."""
    return found.astype(np.float32) / np.float32(LEVELS - 1)


def demand_histograms(counts: NDArray[np.float64], largest: NDArray[np.float64]) -> None:
    if counts.ndim != 2 or counts.shape[1] != BINS or largest.shape != counts.shape[:1]:
        raise CalibrationError(
            f"histograms of shape {counts.shape} with {largest.shape} largest values; expected"
            f" (tensors, {BINS}) and (tensors,): collect them again"
        )
    for row in np.flatnonzero(~(np.isfinite(largest) & (largest >= 0))):
        raise CalibrationError(
            f"the largest |x| of tensor {row} is {largest[row]}; it must be finite and not negative:"
            " find the image that gives it, and leave out the image or the tensor"
        )
    wrong = ~(np.isfinite(counts) & (counts >= 0))
    for row in np.flatnonzero(wrong.any(axis=1)):
        place = int(wrong[row].argmax())
        raise CalibrationError(
            f"the histogram of tensor {row} holds {counts[row, place]} in bin {place}; counts are finite and"
            " not negative: collect them again"
        )
    for row in np.flatnonzero((largest > 0) & ~counts.any(axis=1)):
        raise CalibrationError(
            f"the histogram of tensor {row} is empty, but its largest |x| is {largest[row]}: collect it again"
        )


def entropy_bins(row: NDArray[np.float64]) -> int:
    """Count the bins to keep; TensorRT's threshold is half a bin above them, even where all are kept."""
    histogram = row.copy()
    # The zeros that ReLU, GELU and padding make would outweigh all else, though every threshold keeps them exact.
    histogram[0] = histogram[1]
    if not histogram.any():
        return BINS
    return int(CANDIDATES[last_smallest(divergences(histogram), TIE)])


def divergences(histogram: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(P‖Q) of every candidate i, ∞ where P has mass that Q has not.

    P is the lowest i bins with everything above added to the last of them. Q is the same bins without what is
    above, merged into 128 levels, the mass of a level spread evenly over its bins that were not empty. Both are
    normalised. With H the bins, G and n the mass and the non-empty bins of a level, tail what is above, and last
    the level of the last bin, the sums over bins fall to sums over levels, and all of those are differences of
    prefix sums:

        Σ P·ln P = Σ H·ln H without the last bin + (H + tail)·ln(H + tail) of the last bin
        Σ P·ln Q = Σ G·ln(G/n) + tail·ln(G/n of last)
    """
    # A running sum grows only where a bin is not empty, so an empty level has a difference of exactly 0.
    mass = running(histogram)
    self_information = running(x_log_x(histogram))
    level_mass = np.diff(mass[GROUP_EDGES], axis=1)
    level_bins = np.diff(running(histogram > 0)[GROUP_EDGES], axis=1)
    level_log = logarithm(level_mass / np.maximum(level_bins, 1))

    last = histogram[CANDIDATES - 1]
    tail = running(histogram[::-1])[
        BINS - CANDIDATES
    ]  # from above: total − mass would round a small one to 0
    p_log_p = self_information[CANDIDATES - 1] + x_log_x(last + tail)
    p_log_q = np.einsum("cg,cg->c", level_mass, level_log) + tail * level_log[:, -1]
    divergence: NDArray[np.float64] = (
        (p_log_p - p_log_q) / mass[-1] + logarithm(mass[CANDIDATES]) - np.log(mass[-1])
    )
    divergence[(last == 0) & (tail > 0)] = np.inf
    divergence[mass[CANDIDATES] == 0] = np.inf
    return divergence


def running(values: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sums of the first 0, 1, …, all values."""
    return np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))


def logarithm(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln x, and 0 for 0: those terms have no mass."""
    return np.log(np.where(values > 0, values, 1.0))


def x_log_x(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values * logarithm(values)


def percentile_bins(counts: NDArray[np.float64], percentile: float) -> NDArray[np.float64]:
    """The bins, and the part of the last one, that hold `percentile` of the mass; zeros are values too."""
    mass = np.cumsum(counts, axis=1)
    wanted = mass[:, -1:] * (percentile / 100)
    crossing = (mass < wanted).sum(axis=1, keepdims=True)
    above = np.take_along_axis(mass, crossing, 1) - wanted
    inside = 1 - above / np.take_along_axis(counts, crossing, 1)
    bins: NDArray[np.float64] = crossing + np.clip(inside, 0, 1)
    return bins[:, 0]


def mse_bins(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """A bin's mass is taken as spread evenly over it: at its centre it would flatter levels that fall there."""
    edges = np.arange(BINS + 1.0)
    errors = np.empty((len(counts), len(CANDIDATES)))
    for start in range(0, len(CANDIDATES), 128):  # by parts: the whole table would take 32 MB several times
        part = slice(start, start + 128)
        step = CANDIDATES[part, None] / (LEVELS - 1)
        level = np.minimum(np.rint(edges / step), LEVELS - 1)
        # ∫ (x − its level)² from 0 to each edge: every level passed adds step³/12, the way past the last one r³/3,
        # and beyond the threshold the same r³/3 is the clipping error.
        rest = edges - level * step
        integral = level * step**3 / 12 + rest * rest * rest / 3
        errors[:, part] = counts @ np.diff(integral, axis=1).T
    return np.array([float(CANDIDATES[last_smallest(row, TIE * row.min())]) for row in errors])


def last_smallest(values: NDArray[np.float64], tolerance: float) -> int:
    return int(np.flatnonzero(values <= values.min() + tolerance)[-1])
