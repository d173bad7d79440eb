"""Shows the accuracy that each step costs: the ledger of every artefact, scores by class, and the worst frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from segdeploy.assess.report.charts import bars
from segdeploy.assess.report.findings import Findings, FoundFile, worst_frames
from segdeploy.assess.report.markup import (
    alert,
    details,
    figure,
    headline,
    missing,
    paragraph,
    percent,
    signed,
    table,
)
from segdeploy.assess.report.pictures import embedded, panels_of
from segdeploy.model.labels import labels_of
from segdeploy.model.record import ArtifactRecord, LedgerStep
from segdeploy.printable import printable

MOST_FRAMES = 6  # per model, so that the page can be mailed


def ledger(findings: Findings) -> Sequence[str]:
    parts = [alert(words) for words in findings.faults]
    if not findings.records:
        parts.append(
            missing("No record lies here: segdeploy export and quantize write one beside each graph.")
        )
    for path, record in findings.records.items():
        parts.append(headline(f"{record.artifact}, {record.precision}"))
        parts.append(
            paragraph(
                record.verdict or f"{record.agreement_in_words[:1].upper()}{record.agreement_in_words[1:]}."
            )
        )
        if path in findings.alone:
            parts.append(
                missing("It is not here: these are the words of its record, which is not held against it.")
            )
        if record.ledger:
            headings = (
                "step",
                "compared with",
                "equal pixels, %",
                "mIoU, %",
                "pixel accuracy, %",
                "worst class",
                "in INT8, %",
            )
            parts.append(
                table(
                    "What each step cost",
                    headings,
                    [row_of(step) for step in steps_of(record)],
                )
            )
    return parts


def steps_of(record: ArtifactRecord) -> list[LedgerStep]:
    """List all steps, an engine's own too where it was compared with nothing yet."""
    steps = [*record.source.steps, *record.ledger]
    if record.engine is None or any(step.name == "engine" for step in steps):
        return steps
    return [*steps, LedgerStep("engine", "nothing yet: segdeploy verify, on its device")]


def row_of(step: LedgerStep) -> list[str]:
    worst = step.worst_class
    return [
        step.name,
        step.compared_with or "–",
        percent(step.pixel_agreement, 4),
        miou_shown(step),
        percent(step.pixel_accuracy),
        f"{worst.name} {worst.delta_points:+.1f}" if worst else "–",
        percent(step.macs.get("int8", 0.0) if step.macs else None, 0),
    ]


def scores(findings: Findings) -> Sequence[str]:
    if not findings.evaluations:
        return [missing("No evaluation lies here: segdeploy evaluate -o writes one.")]
    parts = []
    for found in findings.evaluations:
        dataset, models = found.facts["dataset"], found.facts["models"]
        parts.append(headline(f"{dataset['name']} {dataset['split'] or ''}, {dataset['images']} images"))
        parts.append(table("Scores, in %", SCORES, [score_row(model) for model in models]))
        classes = dataset["classes"]
        rows = {
            name: {model["model"]: share_shown(model["scores"]["iou"][name]) for model in models}
            for name in classes
        }
        parts.append(bars("IoU of each class", rows, "%", highest=100))
        headings = ["class", *(f"IoU, {model['model']}" for model in models), "pixels"]
        numbers = [
            [
                name,
                *(percent(model["scores"]["iou"][name]) for model in models),
                percent(models[0]["scores"]["frequency"][name]),
            ]
            for name in classes
        ]
        parts.append(details("The same in numbers", table("IoU of each class, in %", headings, numbers)))
        parts += [robustness(name, facts) for name, facts in found.facts.get("robustness", {}).items()]
    return parts


def miou_shown(step: LedgerStep) -> str:
    """Write the mIoU with the interval of itself, or of what it lost against the step before."""
    if step.miou_interval is not None:
        low, high = step.miou_interval
        return f"{percent(step.miou)} ({low:.2f} to {high:.2f})"
    if step.drop_interval is not None and step.miou is not None:
        low, high = step.drop_interval
        return f"{percent(step.miou)} (lost {low:.2f} to {high:.2f})"
    return percent(step.miou)


SCORES = ("model", "mIoU", "95 % interval", "pixel accuracy", "Δ mIoU", "interval of Δ")


def score_row(model: Mapping[str, Any]) -> list[str]:
    own, interval, change = model["scores"], model["miou_interval"], model["delta"]
    row = [model["model"], percent(own["miou"]), f"{percent(interval['low'])} to {percent(interval['high'])}"]
    row.append(percent(own["pixel_accuracy"]))
    if change is None:
        return [*row, "–", "–"]
    between = change["miou_interval"]
    return [*row, signed(change["miou"]), f"{signed(between['low'])} to {signed(between['high'])}"]


def robustness(name: str, facts: Mapping[str, Any]) -> str:
    corruptions = facts["corruptions"]
    severities = list(next(iter(corruptions.values()))["severities"])
    rows = [
        [kind, *(percent(row["severities"][one]) for one in severities), percent(row["mean"])]
        for kind, row in corruptions.items()
    ]
    return table(f"{name} on spoilt frames, mIoU in %", ["corruption", *severities, "mean"], rows)


def share_shown(share: float | None) -> float | None:
    return None if share is None else 100 * share


# ---- frames ----------------------------------------------------------------------------------------------------


def worst(findings: Findings) -> Sequence[str]:
    parts = []
    for found in findings.evaluations:
        for model in found.facts["models"]:
            frames = worst_frames(found, model)[:MOST_FRAMES]
            if frames:
                parts.append(headline(str(model["model"])))
            for name, miou, picture in frames:
                parts.append(paragraph(f"{name}, mIoU {percent(miou)} %"))
                panels = panels_of(picture).items()
                drawn = (
                    figure(embedded(panel, kind in FLAT), f"{kind} of {name}", kind) for kind, panel in panels
                )
                parts.append(f'<div class="triptych">{"".join(drawn)}</div>')
        if parts:
            parts.append(class_key(found))
    return parts or [missing("No pictures of frames lie here: segdeploy evaluate -o draws the worst ones.")]


FLAT = ("truth", "prediction")


def slider(findings: Findings) -> Sequence[str]:
    """Show frames of which most models of an evaluation have a picture, one model over another."""
    parts = []
    for place, found in enumerate(findings.evaluations):
        frames = frames_in_common(found)
        if frames:
            parts += [comparison(frames, precisions_by_name(findings), place), class_key(found)]
    return parts or [
        missing("No pictures to compare lie here: segdeploy evaluate FP32.onnx INT8.onnx -o draws them.")
    ]


def class_key(found: FoundFile) -> str:
    """List the classes of an evaluation with the colours that its pictures have them in."""
    names = list(found.facts["models"][0]["scores"]["iou"])
    colours = labels_of(names, "unnamed").colours
    swatch = '<svg viewBox="0 0 1 1" aria-hidden="true"><rect width="1" height="1" fill="rgb{}"/></svg>'
    rows = (
        f"<li>{swatch.format(colour)}{escape(printable(name))}</li>"
        for name, colour in zip(names, colours, strict=True)
    )
    return f'<ul class="classes">{"".join(rows)}</ul>'


def precisions_by_name(findings: Findings) -> dict[str, str]:
    return {record.artifact: record.precision.upper() for record in findings.records.values()}


def frames_in_common(found: FoundFile) -> dict[str, dict[str, Any]]:
    """Map frame → model → picture, for the frames with the most models."""
    drawn: dict[str, dict[str, Any]] = {}
    for model in found.facts["models"]:
        for name, _, picture in worst_frames(found, model):
            drawn.setdefault(name, {})[model["model"]] = picture
    most = max((len(pictures) for pictures in drawn.values()), default=0)
    names = next((list(pictures) for pictures in drawn.values() if len(pictures) == most), [])
    chosen = {name: pictures for name, pictures in drawn.items() if list(pictures) == names}
    return dict(list(chosen.items())[:MOST_FRAMES])


def comparison(frames: Mapping[str, Mapping[str, Any]], precisions: Mapping[str, str], place: int) -> str:
    models = list(next(iter(frames.values())))
    kinds = ["original", "truth", *(model_title(model, precisions) for model in models)]
    sources: list[str] = []
    first: list[str] = []
    for index, (name, pictures) in enumerate(frames.items()):
        panels = [panels_of(pictures[model]) for model in models]
        layers = [embedded(panels[0]["image"]), embedded(panels[0]["truth"], flat=True)]
        layers += [embedded(blended(one["image"], one["prediction"])) for one in panels]
        first = first or layers
        for kind, source in enumerate(layers):
            sources.append(
                f'<img hidden data-of="{index}" data-kind="{kind}" src="{source}"'
                f' alt="{escape(kinds[kind])}, {escape(name)}">'
            )
    left, right = (2, 3) if len(models) > 1 else (0, 2)
    return (
        '<div data-comparison><div class="controls">'
        f"{radio('frame', 'Frame', list(frames), 0, place)}{radio('left', 'Left', kinds, left, place)}"
        f"{radio('right', 'Right', kinds, right, place)}</div>"
        f'<div class="stage" data-stage><img data-under src="{first[right]}" alt="{escape(kinds[right])}">'
        f'<img class="over" data-over src="{first[left]}" alt="{escape(kinds[left])}"></div>'
        f'<label for="wipe-{place}">How much of the left picture is seen; arrow keys move it</label>'
        f'<input class="wipe" id="wipe-{place}" data-wipe type="range" min="0" max="100" value="50">'
        f"{''.join(sources)}</div>"
    )


def model_title(model: str, precisions: Mapping[str, str]) -> str:
    return f"{precisions[model]}: {model}" if model in precisions else model


def blended(frame: np.ndarray[Any, Any], prediction: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray((frame.astype(np.uint16) * 2 + prediction.astype(np.uint16) * 3) // 5, np.uint8)


def radio(role: str, words: str, options: Sequence[str], chosen: int, place: int) -> str:
    listed = "".join(
        f"<option{' selected' if index == chosen else ''}>{escape(option)}</option>"
        for index, option in enumerate(options)
    )
    name = f"{role}-{place}"
    return f'<label for="{name}">{words} <select id="{name}" data-{role}>{listed}</select></label>'
