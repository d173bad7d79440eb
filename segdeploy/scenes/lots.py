"""Draws the lots beside the sidewalks: buildings, walls, fences, parks, and their trees."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segdeploy.scenes.canvas import NEAR, Canvas
from segdeploy.scenes.classes import BUILDING, FENCE, VEGETATION, WALL
from segdeploy.scenes.colours import CARS, FACADES, GLASS, LEAVES, palette, pick, rgb
from segdeploy.scenes.shapes import CIRCLE, Shape, along, facing, flat
from segdeploy.scenes.street import LOT_LENGTH, Lot

Pattern = npt.NDArray[np.float64]

PATTERNS: Pattern = np.random.default_rng(7).random(
    (8, 150)
)  # tree crowns and tufts of grass are cut from them
LEAVES_A_LAYER = 20
ROOFS = palette("7a4438", "5a5560", "6b5547", "4c4f57")
BRICKS = palette("8f4a35", "7d5648", "9a5a3c")
FENCES = palette("f2f2ec", "20242a", "1d5a4c")
LAMPLIGHT = rgb("f2d58a")
DRY_GRASS = rgb("a9a65c")
BARK = rgb("5b4636")


def draw_building(canvas: Canvas, lot: Lot, sun: float) -> None:
    side, height = lot.side, 6.5 + 10 * lot.style[0]
    stone, roof = pick(FACADES, lot.style[1]) * (0.9 + 0.13 * sun * side), pick(ROOFS, lot.style[2])
    outer = lot.x + side * 12
    canvas.paint(facing(lot.x, outer, 0, height, lot.z), stone * 0.72, BUILDING)
    canvas.paint(along(lot.x, 0, height, lot.z, lot.end), stone, BUILDING)
    canvas.paint(along(lot.x, height, height + 0.5, lot.z, lot.end), roof, BUILDING)
    canvas.paint(facing(lot.x, outer, height, height + 0.5, lot.z), roof * 0.8, BUILDING)
    floors = np.arange(4.2, height - 1.6, 3.0)
    first = max(lot.z, canvas.position + NEAR)
    columns = [z for z in lot.z + (np.arange(3) + 0.5) * LOT_LENGTH / 3 if z > first]
    frames = [along(lot.x, y - 0.15, y + 1.75, z - 0.75, z + 0.75) for y in floors for z in columns]
    panes = [along(lot.x, y, y + 1.6, z - 0.58, z + 0.58) for y in floors for z in columns]
    canvas.paint(frames, stone * 0.6 + 90)
    canvas.paint(panes, LAMPLIGHT if lot.style[3] > 0.8 else GLASS + 40 * lot.style[3])
    if columns:
        canvas.paint([along(lot.x, 0.4, 2.7, z - 0.95, z + 0.95) for z in columns], GLASS * 0.8)
        canvas.paint(along(lot.x, 2.8, 3.35, lot.z + 0.3, lot.end - 0.3), pick(CARS, lot.style[4]) * 0.9)
    gable = [
        facing(lot.x + side * x, lot.x + side * (x + 1.2), y, y + 1.6, lot.z)
        for y in floors
        for x in (1.5, 4.5, 7.5)
    ]
    canvas.paint(gable, GLASS * 0.9)


def draw_wall(canvas: Canvas, lot: Lot, sun: float) -> None:
    top = 2.3 + 0.7 * lot.style[0]
    for i in range(2):
        draw_tree(canvas, lot.x + lot.side * 3.5, lot.end - 2 - 4 * i, lot.style[i + 2], 4.5)
    brick = pick(BRICKS, lot.style[1]) * (1 + 0.1 * sun * lot.side)
    canvas.paint(facing(lot.x, lot.x + lot.side * 0.6, 0, top, lot.z), brick * 0.7, WALL)
    canvas.paint(along(lot.x, 0, top, lot.z, lot.end), brick, WALL)
    courses = [along(lot.x, y, y + 0.07, lot.z, lot.end) for y in np.arange(0.35, top, 0.4)]
    canvas.paint(courses, brick * 0.7 + 50)
    canvas.paint(along(lot.x, top - 0.2, top + 0.05, lot.z, lot.end), brick * 0.4 + 110, WALL)


def draw_fence(canvas: Canvas, lot: Lot, sun: float) -> None:
    top, paint = 1.9, pick(FENCES, lot.style[1]) * (0.95 + 0.05 * sun)
    draw_tree(canvas, lot.x + lot.side * 7, lot.z + 5, lot.style[2], 6.5)
    first = max(lot.z, canvas.position + NEAR + 0.2)
    bars = [along(lot.x, 0.1, top, z, z + 0.13) for z in np.arange(lot.z, lot.end, 0.42) if z > first]
    canvas.paint(along(lot.x, 0, top, lot.z, lot.end), None, FENCE)
    canvas.paint(bars, paint)
    canvas.paint([along(lot.x, y, y + 0.14, lot.z, lot.end) for y in (0.3, 1.55)], paint * 0.9)


def draw_park(canvas: Canvas, lot: Lot, _sun: float) -> None:
    x, z, side = lot.x, lot.z, lot.side
    tufts = [
        flat(x + side * (9 * a), x + side * (9 * a + 0.5), z + 7 * b, z + 7 * b + 0.5)
        for a, b in pick(PATTERNS, lot.style[0])[:24].reshape(-1, 2)
    ]
    canvas.paint(tufts, DRY_GRASS)
    draw_tree(canvas, x + side * (6 + 4 * lot.style[1]), z + 6, lot.style[2], 7.5)
    draw_tree(canvas, x + side * 11, z + 2, lot.style[3], 6.5)
    if lot.style[4] > 0.4:
        draw_tree(canvas, x + side * 3, z + 3, lot.style[4], 1.3)


def crown(pattern: Pattern) -> tuple[Shape, list[Shape]]:
    """Make a crown of radius one: a ragged rim, and three layers of leaves, from shaded below to lit above."""
    turn = np.arange(30) * np.pi / 15
    rim = np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1) * (0.8 + 0.4 * pattern[:30, None])
    layers, leaf = [], np.arange(LEAVES_A_LAYER)
    for start, rise in ((30, -0.1), (70, 0.2), (110, 0.4)):
        # Placed like a sunflower's seeds, leaves do not overlap.
        angle = leaf * 2.4 + start + pattern[start : start + LEAVES_A_LAYER] * 0.3
        reach = np.sqrt((leaf + 0.5) / LEAVES_A_LAYER) * 0.74
        up = np.sin(angle) * reach * (1 - rise / 2) + rise / 2
        places = np.stack([np.cos(angle) * reach, up, 0 * up], -1)
        layers.append(places[:, None] + CIRCLE * 0.12)
    return rim, layers


CROWNS = [crown(pattern) for pattern in PATTERNS]


def draw_tree(canvas: Canvas, x: float, z: float, chance: float, height: float) -> None:
    if z < canvas.position + 2:
        return
    radius, centre, green = height * 0.36, (x, height * 0.68, z), pick(LEAVES, chance * 7 % 1)
    rim, layers = CROWNS[int(chance * len(CROWNS))]
    canvas.paint(facing(x - height * 0.03, x + height * 0.03, 0, height * 0.68, z), BARK, VEGETATION)
    canvas.paint(rim * radius + centre, green * 0.72, VEGETATION)
    for shade, leaves in zip((0.95, 1.2, 1.45), layers, strict=True):
        canvas.paint(leaves * radius + centre, green * shade)
