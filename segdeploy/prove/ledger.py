"""What each step cost, as numbers for the record and as a sentence for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from segdeploy.model.labels import Labels
from segdeploy.prove.judge import Verdict

HALF = 0.5


def drop_of(own: Verdict, verdict: Verdict) -> float:
    """Points of mIoU with truth, per cent of other labels without."""
    if own.miou is None or verdict.miou is None:
        return 100 * (1 - verdict.pixel_agreement)
    return 100 * (own.miou - verdict.miou)


def worst_class(own: Verdict, verdict: Verdict, labels: Labels | None) -> tuple[str, float] | None:
    if own.confusion is None or verdict.confusion is None or labels is None:
        return None
    deltas = 100 * (verdict.confusion.iou - own.confusion.iou)
    deltas[own.confusion.counts.sum(axis=1) == 0] = np.nan
    if not np.isfinite(deltas).any():
        return None
    place = int(np.nanargmin(deltas))
    return labels.names[place], float(deltas[place])


def in_words(
    with_weights: float, of_all: float, own: Verdict, verdict: Verdict, labels: Labels | None, judged: str
) -> str:
    """`with_weights`, `of_all`: the shares of those multiplications that are in INT8."""
    words = f"INT8 covers {with_weights:.0%} of the multiplications with weights, {of_all:.0%} of all,"
    if own.miou is None:
        words += f" and changes {100 * (1 - verdict.pixel_agreement):.2f} % of the labels {judged}"
    else:
        words += f" and costs {drop_of(own, verdict):.2f} mIoU {judged}"
    worst = worst_class(own, verdict, labels)
    if worst is not None:
        words += f"; {worst[0]} {worst[1]:+.1f}"
    if with_weights < HALF:
        words += (
            "; that is less than half of the multiplications with weights: most of the network is not in INT8"
        )
    return words


def judged_on(probes: int, held_out: bool | None) -> str:
    """`held_out`: None where it is not known what the scales were calibrated on."""
    seen = {None: "", True: " that calibration did not see", False: " that calibration saw"}[held_out]
    return f"on {probes} image{'' if probes == 1 else 's'}{seen}"


def step(
    name: str, own: Verdict, verdict: Verdict, labels: Labels | None, macs: Mapping[str, float]
) -> dict[str, Any]:
    """`verdict` against the FP32 graph's `own`; `macs`: the share of the multiplications in each precision."""
    worst = worst_class(own, verdict, labels) if verdict is not own else None
    return {
        "step": name,
        "compared_with": "the FP32 graph",
        "logits_error": verdict.logits_error,
        "pixel_agreement": verdict.pixel_agreement,
        "kl": verdict.kl,
        **scores_of(verdict),
        "worst_class": None if worst is None else {"name": worst[0], "delta_points": worst[1]},
        "macs": dict(macs),
    }


def first_step(own: Verdict, exported: Mapping[str, Any] | None, macs: Mapping[str, float]) -> dict[str, Any]:
    """The FP32 graph: as it was compared with PyTorch when it was exported, and scored where the others are."""
    seen = exported or {}
    return {
        "step": "fp32",
        "compared_with": seen.get("with"),
        "logits_error": seen.get("logits_error"),
        "pixel_agreement": seen.get("pixel_agreement"),
        **scores_of(own),
        "macs": dict(macs),
    }


def scores_of(verdict: Verdict) -> dict[str, float | None]:
    scored = verdict.confusion
    return {
        "miou": verdict.miou,
        "pixel_accuracy": None if scored is None else scored.pixel_accuracy,
    }
