"""Measures how far two answers to the same frames differ: in their logits, and in their labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Agreement:
    """Holds how far two answers agree, over all samples.

    `logits_error` is the largest |Δlogit| and `logits_rms` the root mean square of Δlogit, as shares of the
    reference's range. For several samples each is the largest of theirs.
    """

    samples: int
    pixels: int
    equal_pixels: int
    logits_error: float | None
    logits_rms: float | None = None

    @property
    def pixel_agreement(self) -> float:
        return self.equal_pixels / self.pixels

    def __str__(self) -> str:
        words = f"{self.pixel_agreement:.4%} of {self.pixels:,} pixels equal over {self.samples} inputs"
        if self.logits_error is not None:
            words += f", largest logits error {self.logits_error:.1e} of their range"
        return words

    def as_json(self) -> dict[str, float | None]:
        return {
            "samples": self.samples,
            "pixels": self.pixels,
            "pixel_agreement": self.pixel_agreement,
            "logits_error": self.logits_error,
            "logits_rms": self.logits_rms,
        }


def compare_labels(reference: NDArray[Any], candidate: NDArray[Any]) -> Agreement:
    if reference.shape != candidate.shape:
        raise ValueError(f"label maps of different shapes: {reference.shape} and {candidate.shape}")
    equal = int(np.count_nonzero(reference == candidate))
    return Agreement(len(reference), reference.size, equal, None)


def compare_logits(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    """Give the largest difference as a share of the reference's range; infinite if the candidate is not finite."""
    if reference.shape != candidate.shape:
        raise ValueError(f"logits of different shapes: {reference.shape} and {candidate.shape}")
    if not np.isfinite(candidate).all():
        return float("inf")
    spread = float(reference.max() - reference.min())
    return float(np.abs(reference - candidate).max()) / max(spread, 1e-30)


def rms_of_logits(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> float:
    """Give the root mean square of the differences, as a share of the reference's range; infinite as above."""
    if not np.isfinite(candidate).all():
        return float("inf")
    spread = float(reference.max() - reference.min())
    return float(np.sqrt(np.mean(np.square(reference - candidate), dtype=np.float64))) / max(spread, 1e-30)


def total(agreements: Iterable[Agreement]) -> Agreement:
    every = list(agreements)
    errors = [one.logits_error for one in every if one.logits_error is not None]
    typical = [one.logits_rms for one in every if one.logits_rms is not None]
    return Agreement(
        sum(one.samples for one in every),
        sum(one.pixels for one in every),
        sum(one.equal_pixels for one in every),
        max(errors, default=None),
        max(typical, default=None),
    )
