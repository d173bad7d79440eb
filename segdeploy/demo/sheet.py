"""Draws made scenes, their truth and a model's answers in rows, with headings and a key to the colours."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from segdeploy import scenes
from segdeploy.model.labels import Labels
from segdeploy.picture.image import Frame
from segdeploy.picture.segmentation import FONT, Segmentation
from segdeploy.run.session import Session, segment_many
from segdeploy.size import Size

TILE = Size(360, 640)
GAP, EDGE = 12, 28
HEADING, KEY_LINE, SWATCH = 64, 40, 20
PAPER, INK, FAINT = (255, 255, 255), (28, 32, 40), (92, 100, 112)
NO_CLASS = (0, 0, 0)
HEADINGS = ("made scene", "truth", "answer")


def sheet_of(session: Session, seeds: Sequence[int]) -> Frame:
    """Draw a row for each scene: its image, its labels, and the answer in the same colours."""
    made = [scenes.make_scene(seed, TILE.height, TILE.width) for seed in seeds]
    answers = segment_many(session, [scene.image for scene in made])
    classes = session.signature.labels
    rows = []
    for scene, answer in zip(made, answers, strict=True):
        truth = Segmentation(scene.labels, classes)
        judged = scene.labels != classes.ignore
        right = float(np.mean(answer.labels[judged] == scene.labels[judged]))
        tiles = [scene.image, *(one.overlay(scene.image, legend=False) for one in (truth, answer))]
        rows.append((tiles, f"{right:.1%} of the pixels as in the truth"))
    key = colour_key(classes, len(HEADINGS) * (TILE.width + GAP) - GAP)
    width = 2 * EDGE + key.shape[1]
    height = HEADING + len(rows) * (TILE.height + GAP) + key.shape[0] + EDGE
    canvas = np.full((height, width, 3), PAPER, np.uint8)
    lefts = [EDGE + column * (TILE.width + GAP) for column in range(len(HEADINGS))]
    for left, heading in zip(lefts, HEADINGS, strict=True):
        put(canvas, heading, left, HEADING - 22, 0.9, INK)
    for row, (tiles, words) in enumerate(rows):
        top = HEADING + row * (TILE.height + GAP)
        for left, tile in zip(lefts, tiles, strict=True):
            canvas[top : top + TILE.height, left : left + TILE.width] = tile
        label(canvas, words, lefts[-1], top + TILE.height)
    canvas[-EDGE - key.shape[0] : -EDGE, EDGE:-EDGE] = key
    return canvas


def colour_key(classes: Labels, width: int) -> Frame:
    """Name each class beside its colour, and what is of none, in columns of one width."""
    columns = 7
    named = [*zip(classes.names, classes.colours, strict=True), ("no class", NO_CLASS)]
    step, lines = width // columns, -(-len(named) // columns)
    canvas = np.full((lines * KEY_LINE, width, 3), PAPER, np.uint8)
    for place, (name, colour) in enumerate(named):
        line, column = divmod(place, columns)
        left, top = column * step, line * KEY_LINE + (KEY_LINE - SWATCH) // 2
        cv2.rectangle(canvas, (left, top), (left + SWATCH, top + SWATCH), colour, cv2.FILLED)
        put(canvas, name, left + SWATCH + 10, top + SWATCH - 3, 0.62, FAINT)
    return canvas


def label(canvas: Frame, text: str, left: int, bottom: int) -> None:
    """Write white on black at the lower left corner of a tile."""
    (width, _), _ = cv2.getTextSize(text, FONT, 0.5, 1)
    canvas[bottom - 28 : bottom, left : left + width + 20] = INK
    put(canvas, text, left + 10, bottom - 9, 0.5, PAPER)


def put(canvas: Frame, text: str, left: int, bottom: int, size: float, colour: tuple[int, int, int]) -> None:
    cv2.putText(canvas, text, (left, bottom), FONT, size, colour, 1, cv2.LINE_AA)
