"""Shows how weights were trained: the curve of what was watched, and what was reported for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segdeploy.assess.report.charts import bars, curves
from segdeploy.assess.report.findings import Findings
from segdeploy.assess.report.markup import headline, missing, paragraph, percent, table


def trainings(findings: Findings) -> Sequence[str]:
    parts = [
        part for found in findings.trainings for part in one_training(found.path.parent.name, found.facts)
    ]
    return parts or [missing("No training lies here: segdeploy finetune and distil write one.")]


def one_training(name: str, facts: Mapping[str, Any]) -> Sequence[str]:
    reported, history = facts["reported"], facts["history"]
    taught = f", taught by {facts['teacher']}" if facts["teacher"] else ""
    others = facts.get("unlabelled_images")  # a record of 0.2.0 does not tell
    beside = f" and {others} without labels" if others else ""
    watched = [(one["step"], 100 * one["miou"]) for one in history]
    losses = [(one["step"], one["loss"]) for one in history if "loss" in one]
    parts = [
        headline(name),
        paragraph(
            f"{facts['start']}{taught}, trained on {facts['images']} images of"
            f" {facts['dataset']}{beside}. The"
            f" weights are those of step {facts['best_step']}, the best on {facts['watched_images']} others of the same"
            f" split; the scores are of {reported['images']} images of {reported['split']},"
            " which nothing was chosen by."
        ),
        table(
            "What training reached, in %",
            ("images", "mIoU", "95 % interval", "pixel accuracy"),
            [
                (
                    reported["split"],
                    percent(reported["miou"]),
                    f"{percent(reported['low'])} to {percent(reported['high'])}",
                    percent(reported["pixel_accuracy"]),
                )
            ],
        ),
        curves("mIoU on the watched images", "step", "mIoU, %", {name: watched}, "%"),
    ]
    if losses:
        parts.append(curves("Loss", "step", "mean since the last point", {name: losses}, ""))
    classes = {one["name"]: {name: share_in_percent(one["iou"])} for one in reported["classes"]}
    return [*parts, bars("IoU of each class, as reported", classes, "%", highest=100)]


def share_in_percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
