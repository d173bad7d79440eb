"""What INT8 may cover: searched for within what may be lost, or replayed from a recipe."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from segdeploy.calibrate.judge import Judge
from segdeploy.calibrate.search import Found, Sensitivity, measure, names_in, search
from segdeploy.errors import CalibrationError
from segdeploy.graph.layers import layers_of
from segdeploy.quantize.job import ACCURACY_SHARE, Calibrated, Job, scales_of

RANKED_ON = 8  # of the probes, the sensitivity of each group
WIDENED_AT_MOST = 8  # groups that are tried with another threshold before they are kept out of INT8
WORTH_WIDENING = 0.8
SHOWN = 8  # groups in a message


def searched(job: Job, calibrated: Calibrated) -> tuple[Calibrated, Found, list[Sensitivity]]:
    every = job.judge.verdict(calibrated.int8(names_in(calibrated.layers, ())))
    if job.spent(every) <= 1:
        return calibrated, Found((), every, True), []
    probes = job.material.probes
    few = Judge(job.model, job.signature, probes[:: max(len(probes) // RANKED_ON, 1)][:RANKED_ON])
    sensitivities = measure(calibrated.layers, calibrated.int8, few, job.progress)
    calibrated, sensitivities = widened(job, calibrated, few, sensitivities)
    found = search(calibrated.layers, calibrated.int8, job.judge, job.spent, sensitivities, job.progress)
    return calibrated, found, sensitivities


def widened(
    job: Job, calibrated: Calibrated, few: Judge, sensitivities: list[Sensitivity]
) -> tuple[Calibrated, list[Sensitivity]]:
    """The groups that suffer most get thresholds of least squared error where those do them less damage.

    Entropy clips what a GELU leaves, a crowd of small values with a long tail, much too early.
    """
    if job.request.method == "mse" or not calibrated.histograms:
        return calibrated, sensitivities
    other = scales_of(calibrated.model, calibrated.histograms, "mse")
    worst = sorted(sensitivities, key=lambda one: one.kl, reverse=True)[:WIDENED_AT_MOST]
    scales, better = dict(calibrated.scales), {}
    for one in worst:
        mine = [layer for layer in calibrated.layers if layer.group == one.group]
        tried = replace(
            calibrated, scales=calibrated.scales | {layer.root: other[layer.root] for layer in mine}
        )
        (again,) = measure(mine, tried.int8, few, job.progress)
        if again.kl < WORTH_WIDENING * one.kl:
            better[one.group] = again
            scales |= {layer.root: other[layer.root] for layer in mine}
    calibrated = replace(calibrated, scales=scales, widened=tuple(better))
    return calibrated, [better.get(one.group, one) for one in sensitivities]


def widened_by(calibrated: Calibrated, groups: Collection[str]) -> Calibrated:
    if not groups or not calibrated.histograms:
        return calibrated
    other = scales_of(calibrated.model, calibrated.histograms, "mse")
    roots = {layer.root for layer in calibrated.layers if layer.group in groups}
    return replace(
        calibrated, scales=calibrated.scales | {root: other[root] for root in roots}, widened=tuple(groups)
    )


def replayed(job: Job, calibrated: Calibrated, keep: tuple[str, ...]) -> Found:
    unknown = sorted(set(keep) - {layer.group for layer in layers_of(calibrated.model)})
    if unknown:
        raise CalibrationError(f"the recipe keeps {', '.join(unknown)}, which this graph does not have")
    verdict = job.judge.verdict(calibrated.int8(names_in(calibrated.layers, keep)))
    return Found(keep, verdict, job.spent(verdict) <= 1)


def refusal(job: Job, calibrated: Calibrated, found: Found) -> str:
    unit = "points of mIoU" if job.material.labels else "% of the labels"
    accuracy = ""
    if found.verdict.confusion is not None and job.judge.own.confusion is not None:
        lost = job.judge.own.confusion.pixel_accuracy - found.verdict.confusion.pixel_accuracy
        accuracy = f" ({100 * lost:.2f} of pixel accuracy, {ACCURACY_SHARE * job.limit:g} allowed)"
    shown = ", ".join(found.keep[:SHOWN]) or "nothing"
    if len(found.keep) > SHOWN:
        shown += f" and {len(found.keep) - SHOWN} more"
    return (
        f"INT8 costs {job.drop(found.verdict):.2f} {unit} even at its best{accuracy}, with"
        f" {calibrated.share(found.keep):.0%} of the multiplications in INT8 and"
        f" {shown} kept out of it; allowed are {job.limit:g}."
        " No graph was written; try a larger --max-drop or another --method"
    )
