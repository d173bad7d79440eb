"""Shows an evaluation: tables for a terminal, JSON for scripts, and pictures.

Pictures are drawn with OpenCV, which is needed anyway; a plotting library would be the largest thing to install.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from segdeploy.assess.evaluate.evaluate import Evaluation, Sight
from segdeploy.assess.evaluate.scores import Delta, Scores, delta
from segdeploy.model.labels import Labels
from segdeploy.picture.image import Frame
from segdeploy.picture.segmentation import write_image
from segdeploy.version import __version__

SCHEMA = 1
INK, PAPER, GRID, WRONG = (32, 32, 32), (255, 255, 255), (225, 225, 225), (230, 30, 30)
FONT = cv2.FONT_HERSHEY_SIMPLEX
PANELS, TITLE_HEIGHT = ("image", "truth", "prediction", "difference"), 28  # of a frame that is looked at

Results = Mapping[str, Evaluation]  # by model, the one that others are compared with first


def deltas(results: Results) -> dict[str, Delta]:
    """Compare each further model with the first."""
    (_, first), *others = results.items()
    return {name: delta((first.scores, first.sums), (other.scores, other.sums)) for name, other in others}


def result_tables(results: Results) -> list[Table]:
    changes = deltas(results)
    return [summary_table(results, changes), class_table(results, changes)]


def summary_table(results: Results, changes: Mapping[str, Delta]) -> Table:
    first = next(iter(results.values()))
    level = f"{first.interval.level:.0%}"
    table = Table(
        title=f"{first.dataset}, {len(first.dataset)} images, in %", title_justify="left", box=SIMPLE_HEAD
    )
    table.add_column("model", overflow="fold")
    headings = ["mIoU", f"{level} interval", "pixels", "weighted IoU"]
    headings += ["category IoU"] if first.scores.category_miou is not None else []
    headings += ["Δ mIoU", f"{level} interval", "Δ pixels"] if changes else []
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, result in results.items():
        scores, interval = result.scores, result.interval
        row = [in_percent(scores.miou), f"{in_percent(interval.low)} to {in_percent(interval.high)}"]
        row += [in_percent(scores.pixel_accuracy), in_percent(scores.frequency_weighted_iou)]
        row += [in_percent(scores.category_miou)] if scores.category_miou is not None else []
        if name in changes:
            change = changes[name]
            row += [
                signed_points(change.miou),
                f"{signed_points(change.interval.low)} to {signed_points(change.interval.high)}",
            ]
            row += [signed_points(change.pixel_accuracy)]
        table.add_row(name, *row)
    return table


def class_table(results: Results, changes: Mapping[str, Delta]) -> Table:
    """Show one model's IoU, precision and recall, or the first model's IoU and each other model's difference."""
    first = next(iter(results.values()))
    table = Table(title="classes, in %", title_justify="left", box=SIMPLE_HEAD)
    headings = ["pixels", "IoU"]
    headings += [f"Δ {name}" for name in changes] if changes else ["precision", "recall"]
    table.add_column("class")
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    scores = first.scores
    for index, name in enumerate(first.dataset.labels.names):
        row = [in_percent(scores.frequency[index]), in_percent(scores.iou[index])]
        if changes:
            row += [signed_points(change.iou[index]) for change in changes.values()]
        else:
            row += [in_percent(scores.precision[index]), in_percent(scores.recall[index])]
        table.add_row(name, *row)
    return table


def robustness_shown(name: str, table: Mapping[str, Any]) -> Table:
    rows = table["corruptions"]
    severities = list(next(iter(rows.values()))["severities"])
    shown = Table(title=f"{name} on spoilt frames, mIoU in %", title_justify="left", box=SIMPLE_HEAD)
    shown.add_column("corruption")
    for heading in [*map(str, severities), "mean"]:
        shown.add_column(heading, justify="right")
    for corruption, row in rows.items():
        shown.add_row(
            corruption, *(in_percent(row["severities"][one]) for one in severities), in_percent(row["mean"])
        )
    shown.add_row("mean", *[""] * len(severities), in_percent(table["mean"]))
    return shown


def results_as_json(
    results: Results, facts: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the report: scores are shares of 1, null where a class has none; `facts` describes each model by name."""
    changes = deltas(results)
    dataset = next(iter(results.values())).dataset
    models = []
    for name, result in results.items():
        ranked = result.sums.worst(len(dataset))
        mious = result.sums.mious
        models.append(
            {
                "model": name,
                **facts.get(name, {}),
                "scores": scores_as_json(result.scores),
                "miou_interval": vars(result.interval),
                "delta": delta_as_json(changes[name], dataset.labels.names) if name in changes else None,
                "images": [
                    {"image": dataset.named(dataset.pairs[index].image), "miou": float(mious[index])}
                    for index in ranked
                ],
                "confusion": result.scores.counts.tolist(),
            }
        )
    report = {
        "schema": SCHEMA,
        "segdeploy": __version__,
        "dataset": {
            "name": dataset.name,
            "split": dataset.split,
            "images": len(dataset),
            "digest": dataset.digest,
            "classes": list(dataset.labels.names),
        },
        "options": dict(options),
        "models": models,
    }
    plain: dict[str, Any] = finite(report)
    return plain


def scores_as_json(scores: Scores) -> dict[str, Any]:
    names = scores.labels.names
    return {
        "miou": scores.miou,
        "pixel_accuracy": scores.pixel_accuracy,
        "frequency_weighted_iou": scores.frequency_weighted_iou,
        "category_miou": scores.category_miou,
        "category_iou": scores.category_iou or None,
        "iou": by_name(names, scores.iou),
        "precision": by_name(names, scores.precision),
        "recall": by_name(names, scores.recall),
        "frequency": by_name(names, scores.frequency),
    }


def delta_as_json(change: Delta, names: Iterable[str]) -> dict[str, Any]:
    return {
        "miou": change.miou,
        "miou_interval": vars(change.interval),
        "pixel_accuracy": change.pixel_accuracy,
        "iou": by_name(names, change.iou),
    }


def by_name(names: Iterable[str], values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def finite(value: Any) -> Any:
    """Replace NaN, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_pictures(evaluation: Evaluation, sights: Iterable[Sight], folder: Path, stem: str) -> list[Path]:
    """Write `STEM.confusion.png`, `STEM.classes.png`, and `STEM.worst-01.png`, … for the frames in `sights`."""
    written = [folder / f"{stem}.confusion.png", folder / f"{stem}.classes.png"]
    write_image(written[0], draw_confusion(evaluation.scores))
    write_image(written[1], draw_classes(evaluation.scores))
    for place, sight in enumerate(sights, start=1):
        written.append(folder / f"{stem}.worst-{place:02d}.png")
        write_image(written[-1], draw_sight(sight, evaluation.dataset.labels))
    return written


def draw_confusion(scores: Scores) -> Frame:
    """Draw a row per true class with the shares of its predictions; the last column is none of the classes."""
    names = scores.labels.names
    shares = np.nan_to_num(scores.counts / np.maximum(scores.counts.sum(axis=1, keepdims=True), 1))
    side, numbered = (40, True) if len(names) <= 40 else (16, False)
    left = top = width_of((*names, "none")) + 20
    rows, columns = scores.counts.shape
    canvas = np.full((top + rows * side + 10, left + columns * side + 10, 3), PAPER, np.uint8)
    for row in range(rows):
        for column in range(columns):
            share = float(shares[row, column])
            x, y = left + column * side, top + row * side
            colour = blend((8, 48, 107) if row == column else (165, 15, 21), share)
            cv2.rectangle(canvas, (x, y), (x + side - 1, y + side - 1), colour, cv2.FILLED)
            if numbered and share >= 0.005:
                write_on(
                    canvas, f"{100 * share:.0f}", (x + 9, y + side // 2 + 5), PAPER if share > 0.5 else INK
                )
    for row, name in enumerate(names):
        write_on(canvas, name, (10, top + row * side + side // 2 + 5), INK)
    for column, name in enumerate((*names, "none")):
        write_upright(canvas, name, (left + column * side + side // 2 + 5, top - 8))
    return canvas


def draw_classes(scores: Scores) -> Frame:
    """Draw each class's IoU as a bar in its own colour, none where there is no IoU; the red line is the mean."""
    names, line, top, reach = scores.labels.names, 26, 30, 500
    left, bottom = width_of(names) + 20, top + line * len(names)
    canvas = np.full((bottom + 40, left + reach + 80, 3), PAPER, np.uint8)
    for tenth in range(0, 11, 2):
        x = left + reach * tenth // 10
        cv2.line(canvas, (x, top), (x, bottom), GRID)
        write_on(canvas, f"{10 * tenth}", (x - 8, bottom + 22), INK)
    for row, (name, iou) in enumerate(zip(names, scores.iou, strict=True)):
        y = top + row * line
        write_on(canvas, name, (10, y + 18), INK)
        length = 0 if math.isnan(iou) else round(reach * float(iou))
        start, end = (left, y + 4), (left + length, y + line - 4)
        cv2.rectangle(canvas, start, end, scores.labels.colours[row], cv2.FILLED)
        cv2.rectangle(canvas, start, end, INK)
        write_on(canvas, in_percent(float(iou)), (left + length + 8, y + 18), INK)
    if not math.isnan(scores.miou):
        x = left + round(reach * scores.miou)
        cv2.line(canvas, (x, top), (x, bottom), WRONG, 2)
        write_on(canvas, f"mIoU {in_percent(scores.miou)}", (x - 40, top - 10), WRONG)
    return canvas


def draw_sight(sight: Sight, labels: Labels) -> Frame:
    """Draw image | truth | prediction | difference, in which wrong pixels are red and unscored ones black."""
    difference = sight.frame // 3 + 160
    difference[sight.predicted != sight.truth] = WRONG
    difference[sight.truth == labels.ignore] = 0
    palette = labels.palette()
    panels = [sight.frame, palette[sight.truth], palette[sight.predicted], difference]
    titles = [sight.name, *PANELS[1:]]
    strips = []
    for panel, title in zip(panels, titles, strict=True):
        strip = np.full((TITLE_HEIGHT, panel.shape[1], 3), PAPER, np.uint8)
        write_on(strip, title, (6, 19), INK)
        strips.append(np.vstack([strip, panel]))
    return np.hstack(strips)


def write_on(canvas: Frame, text: str, at: tuple[int, int], ink: tuple[int, int, int]) -> None:
    plain = text.encode("ascii", "replace").decode()  # OpenCV's fonts have only these letters
    cv2.putText(canvas, plain, at, FONT, 0.45, ink, 1, cv2.LINE_AA)


def write_upright(canvas: Frame, text: str, foot: tuple[int, int]) -> None:
    """Write text upwards, from `foot`."""
    width = width_of([text])
    strip = np.full((18, width, 3), PAPER, np.uint8)
    write_on(strip, text, (0, 13), INK)
    turned = np.rot90(strip)
    canvas[foot[1] - width : foot[1], foot[0] - 13 : foot[0] + 5] = turned


def width_of(names: Iterable[str]) -> int:
    return max(int(cv2.getTextSize(name, FONT, 0.45, 1)[0][0]) for name in names) + 4


def blend(colour: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 + (channel - 255) * share) for channel in colour)
    return red, green, blue


def in_percent(share: float | None) -> str:
    return "–" if share is None or math.isnan(share) else f"{100 * share:.2f}"


def signed_points(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:+.2f}"
