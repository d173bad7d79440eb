"""Chooses the layers that INT8 covers: searched for within what may be lost, or replayed from a recipe."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from segdeploy.convert.int8.job import ACCURACY_SHARE, Calibrated, Job, scales_of
from segdeploy.convert.int8.recipe import Recipe
from segdeploy.convert.int8.search import Found, Judged, measure, search
from segdeploy.errors import CalibrationError
from segdeploy.model.record import Sensitivity
from segdeploy.prove.judge import Judge, Verdict

RANKED_ON = 8  # of the probes, the sensitivity of each group
WIDENED_AT_MOST = 8  # groups that are tried with another threshold before they are kept out of INT8
WORTH_WIDENING = 0.8


def searched(job: Job, calibrated: Calibrated) -> tuple[Calibrated, Found, list[Sensitivity]]:
    every = judged(job, calibrated)(())
    enough = job.spent(every) <= 1
    if enough and not job.request.sensitivity:
        return calibrated, Found((), every, True), []
    probes = job.material.probes[:: max(len(job.material.probes) // RANKED_ON, 1)][:RANKED_ON]
    few = Judge(job.model, job.signature, probes, classes=job.judge.classes, translate=job.material.translate)
    sensitivities = [sensitivity(job, calibrated, few, group) for group in calibrated.macs]
    if enough:
        return calibrated, Found((), every, True), sensitivities
    calibrated, sensitivities = widened(job, calibrated, few, sensitivities)
    return calibrated, search(sensitivities, judged(job, calibrated), job.spent), sensitivities


def judged(job: Job, calibrated: Calibrated) -> Judged:
    def without(keep: Collection[str]) -> Verdict:
        job.progress(f"judging INT8 without {len(set(keep))} of {len(calibrated.macs)} groups")
        return calibrated.verdict(job.judge, keep)

    return without


def sensitivity(job: Job, calibrated: Calibrated, few: Judge, group: str) -> Sensitivity:
    job.progress(f"measuring {group} in INT8")
    return measure(group, calibrated.macs, few.own, lambda keep: calibrated.verdict(few, keep))


def widened(
    job: Job, calibrated: Calibrated, few: Judge, sensitivities: list[Sensitivity]
) -> tuple[Calibrated, list[Sensitivity]]:
    """The groups that suffer most get thresholds of least squared error where those do them less damage.

    Entropy clips what a GELU leaves, a crowd of small values with a long tail, much too early.
    """
    if job.request.method == "mse" or not calibrated.histograms:
        return calibrated, sensitivities
    worst = sorted(sensitivities, key=lambda one: one.kl, reverse=True)[:WIDENED_AT_MOST]
    better = {}
    for one in worst:
        again = sensitivity(job, widened_by(calibrated, [one.group]), few, one.group)
        if again.kl < WORTH_WIDENING * one.kl:
            better[one.group] = again
    return widened_by(calibrated, better), [better.get(one.group, one) for one in sensitivities]


def widened_by(calibrated: Calibrated, groups: Collection[str]) -> Calibrated:
    if not groups or not calibrated.histograms:
        return calibrated
    demand_groups(calibrated, groups, "widens")
    roots = {layer.root for layer in calibrated.layers if layer.group in groups}
    other = scales_of(calibrated.model, {root: calibrated.histograms[root] for root in roots}, "mse")
    return replace(
        calibrated,
        scales=calibrated.scales | other,
        widened=tuple(dict.fromkeys((*calibrated.widened, *groups))),
    )


def replayed(job: Job, calibrated: Calibrated, keep: tuple[str, ...]) -> Found:
    demand_groups(calibrated, keep, "keeps")
    verdict = judged(job, calibrated)(keep)
    return Found(keep, verdict, job.spent(verdict) <= 1)


def demand_groups(calibrated: Calibrated, groups: Collection[str], verb: str) -> None:
    unknown = sorted(set(groups) - {layer.group for layer in calibrated.every})
    if unknown:
        raise CalibrationError(f"the recipe {verb} {', '.join(unknown)}, which this graph does not have")


def recipe_of(job: Job, calibrated: Calibrated, even: bool, found: Found) -> Recipe:
    request, made_for, size = job.request, job.signature.card, str(job.signature.size)
    if request.scales is not None:  # the thresholds are the file's
        return Recipe(keep=found.keep, made_for=made_for, size=size)
    return Recipe(
        method=request.method,
        percentile=request.percentile,
        equalise=even,
        keep=found.keep,
        widened=calibrated.widened_inside(found.keep),
        count=len(job.material.images),
        seed=request.seed,
        aside=job.material.aside or None,
        made_for=made_for,
        size=size,
        **(request.dataset.asked_for() if request.dataset else {}),
    )


def refusal(job: Job, calibrated: Calibrated, even: bool, found: Found) -> str:
    unit = "points of mIoU" if job.material.labels else "% of the labels"
    accuracy = ""
    if found.verdict.confusion is not None and job.judge.own.confusion is not None:
        lost = job.judge.own.confusion.pixel_accuracy - found.verdict.confusion.pixel_accuracy
        accuracy = f" ({100 * lost:.2f} of pixel accuracy, {ACCURACY_SHARE * job.limit:g} allowed)"
    best = recipe_of(job, calibrated, even, found).as_text()
    return (
        f"INT8 costs {job.drop(found.verdict):.2f} {unit} even at its best{accuracy}, with"
        f" {calibrated.share(found.keep):.0%} of the multiplications with"
        f" weights in INT8; allowed are {job.limit:g}. No graph was written; try a larger --max-drop or another"
        f" --method. The best recipe:\n{best.rstrip()}"
    )
