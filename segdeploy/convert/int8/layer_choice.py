"""Chooses the layers that INT8 covers: searched for within what may be lost, or replayed from a recipe."""

from __future__ import annotations

from collections.abc import Collection

from segdeploy.convert.int8.by_group import by_group, widened_by
from segdeploy.convert.int8.job import ACCURACY_SHARE, Calibrated, Job, scales_of
from segdeploy.convert.int8.options import AUTO
from segdeploy.convert.int8.recipe import Recipe
from segdeploy.convert.int8.search import Found, Judged, measure, search
from segdeploy.errors import CalibrationError
from segdeploy.model.record import Sensitivity
from segdeploy.prove.judge import Judge, Verdict

# Probes that rank the groups. On CamVid, with the 41 groups of B0, any 4 of 10 put them in the order of all 10 with a
# rank correlation of 0.98 or more; any 8 with 0.97 or more.
RANKED_ON = 4


def searched(job: Job, calibrated: Calibrated) -> tuple[Found, list[Sensitivity]]:
    every = judged(job, calibrated)(())
    enough = job.spent(every) <= 1
    if enough and not job.request.sensitivity:
        return Found((), every, True), []
    # To tell which groups to leave out first their order is enough, which fewer frames show as well.
    judge = job.few if job.request.sensitivity else job.few.on(range(len(job.few.probes))[:RANKED_ON])
    sensitivities = [sensitivity(job, calibrated, group, judge) for group in calibrated.macs]
    if enough:
        return Found((), every, True), sensitivities
    return search(sensitivities, judged(job, calibrated), job.spent), sensitivities


def judged(job: Job, calibrated: Calibrated) -> Judged:
    def without(keep: Collection[str]) -> Verdict:
        job.progress(f"judging INT8 without {len(set(keep))} of {len(calibrated.macs)} groups")
        return calibrated.verdict(job.judge, keep)

    return without


def sensitivity(job: Job, calibrated: Calibrated, group: str, judge: Judge) -> Sensitivity:
    job.progress(f"measuring {group} in INT8")
    return measure(group, calibrated.macs, judge.own, lambda keep: calibrated.verdict(judge, keep))


def widened(job: Job, calibrated: Calibrated) -> Calibrated:
    """Take the thresholds that a recipe widens, or choose where the request leaves that to us."""
    recipe = job.request.recipe
    if recipe is not None and recipe.widened:
        demand_groups(calibrated, recipe.widened, "widens")
        squared = scales_of(calibrated.model, calibrated.histograms, "mse")
        return widened_by(calibrated, recipe.widened, squared)
    if job.method == AUTO:
        return by_group(job, calibrated)
    return calibrated


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
        method=calibrated.method,
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
    best = recipe_of(job, calibrated, even, found).as_text(lines=False)
    return (
        f"INT8 costs {job.drop(found.verdict):.2f} {unit} even at its best{accuracy}, with"
        f" {calibrated.share(found.keep):.0%} of the multiplications with"
        f" weights in INT8; allowed are {job.limit:g}. No graph was written; try a larger --max-drop or another"
        f" --method. The best recipe: {best}"
    )
