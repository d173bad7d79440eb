"""Draws the picture of a rendered folder: the card's classes in their colours, over a drawn street that has some.

The network does not run for it: rendering takes no ONNX Runtime, and a large graph would take a minute. So the street's
own labels are drawn, in the way of `replay` and of our application, and the README says so.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.errors import OutputError
from segdeploy.model.labels import Labels, read_labels, truth_type
from segdeploy.picture.image import Frame
from segdeploy.picture.segmentation import FONT, Segmentation
from segdeploy.printable import printable
from segdeploy.scenes import Scene, make_scene

PICTURE = "seen.jpg"
SEED, HEIGHT, WIDTH = 5, 384, 768
COLUMNS, MOST_ROWS, LINE = 4, 12, 20  # of the list of classes below the street
LETTERS = 24  # of a class's name, in a column
QUALITY = 88


@cache
def picture_of(classes: Labels) -> bytes:
    """Give a JPEG of the street in the classes' colours, and below it the first 48 of them with their ids."""
    stored = cv2.cvtColor(np.vstack([street_in(classes), list_of(classes)]), cv2.COLOR_RGB2BGR)
    encoded, data = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not encoded:
        raise OutputError(f"{PICTURE} could not be encoded")
    return data.tobytes()


@cache
def street() -> Scene:
    return make_scene(SEED, HEIGHT, WIDTH)


def street_in(classes: Labels) -> Frame:
    """Lay the colours over the street; what none of them is called stays as it is."""
    labels = named_as(street().labels, classes)
    frame = street().image
    over = Segmentation(labels, classes).overlay(frame)
    known = labels != classes.ignore
    bare = Segmentation(labels, classes).overlay(frame, alpha=0.0)  # with the legend
    return np.where(known[..., None], over, bare).astype(np.uint8)


def named_as(train_ids: NDArray[np.uint8], classes: Labels) -> NDArray[np.uint8 | np.uint16]:
    """Give each pixel the class that is called as the street's is, in capitals or not."""
    ids = {name.lower(): index for index, name in reversed(list(enumerate(classes.names)))}
    table = np.full(256, classes.ignore, truth_type(len(classes.names)))
    for index, name in enumerate(read_labels("cityscapes").names):
        table[index] = ids.get(name, classes.ignore)
    return table[train_ids]


def list_of(classes: Labels) -> Frame:
    """Draw the list of the classes, column by column: id, colour and name, and how many are left out."""
    shown = min(len(classes.names), COLUMNS * MOST_ROWS)
    rows = -(-shown // COLUMNS)
    rest = len(classes.names) - shown
    canvas: Frame = np.full(((rows + bool(rest)) * LINE + LINE // 2, WIDTH, 3), 24, np.uint8)
    for index in range(shown):
        column, row = divmod(index, rows)
        left, bottom = column * (WIDTH // COLUMNS) + 8, (row + 1) * LINE
        cv2.rectangle(
            canvas, (left, bottom - 12), (left + 16, bottom + 2), classes.colours[index], cv2.FILLED
        )
        write(canvas, f"{index} {classes.names[index][:LETTERS]}", left + 24, bottom)
    if rest:
        write(canvas, f"and {rest} more: colours.csv", 8, (rows + 1) * LINE)
    return canvas


def write(canvas: Frame, text: str, left: int, bottom: int) -> None:
    cv2.putText(canvas, printable(text), (left, bottom), FONT, 0.42, (235, 235, 235), 1, cv2.LINE_AA)
