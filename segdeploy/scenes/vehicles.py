"""Draws cars, trucks, buses and trains."""

from __future__ import annotations

import numpy as np

from segdeploy.scenes.canvas import Canvas
from segdeploy.scenes.classes import BUS, CAR, TRAIN, TRUCK
from segdeploy.scenes.colours import (
    CARS,
    GLASS,
    HEADLIGHT,
    INK,
    PAINTS,
    STEEL,
    STRONG_CARS,
    WHITE,
    palette,
    pick,
    rgb,
)
from segdeploy.scenes.shapes import CIRCLE, along, bar, disc, facing, flat, inner_side, shrunk
from segdeploy.scenes.street import Thing

CAR_LENGTH, TRUCK_LENGTH, BUS_LENGTH, TRAIN_LENGTH = 4.0, 8.0, 11.0, 26.0
RAKE = np.array([0.3, 3.2, 2.4, 0.8])  # z where a car's windows begin and end: at their foot, at the roof
SHADOW = rgb("2c2d30")
TAIL_LIGHT = rgb("e02020")
DESTINATION = rgb("ffb03a")
TRUCKS = palette("f3f3f0", "dfe8ee", "e9e4d6")
TRUCK_STRIPE = rgb("d8262c")
BUSES = palette("f2b705", "f08a1d", "e3c21b")
TRAIN_BODY, TRAIN_GLASS, TRAIN_DOOR = palette("eef1f2", "1f2730", "c9313a")
TRAIN_SKIRTS = palette("0f5f8a", "0c7a66", "33418f")


def draw_car(canvas: Canvas, thing: Thing) -> None:
    x, z, paint = thing.x, thing.z, pick(CARS, thing.style[0])
    tall = 1.45 + 0.35 * (thing.style[1] > 0.7)
    canvas.paint(flat(x - 1.1, x + 1.1, z - 0.3, z + 4.3, 0.01), SHADOW)
    canvas.paint(facing(x - 0.85, x + 0.85, 0.05, 0.4, z + 0.1), INK, CAR)
    canvas.box((x - 0.92, 0.3, z), (x + 0.92, 0.9, z + 4.2), paint, CAR)
    draw_wheels(canvas, inner_side(x, 0.92), (z + 0.8, z + 3.4), 0.34, CAR)
    base, roof = (x - 0.85, x + 0.85), (x - 0.68, x + 0.68)
    edge, heights = 0 if x > 0 else 1, [0.9, 0.9, tall, tall]
    side = np.stack([[base[edge], base[edge], roof[edge], roof[edge]], heights, z + RAKE], -1)
    canvas.paint(side, paint * 0.75, CAR)
    canvas.paint(shrunk(side, 0.76), GLASS * 0.8)
    canvas.paint(flat(*roof, z + 0.8, z + 2.4, tall), paint * 1.1 + 10, CAR)
    rear = np.stack([[*base, *roof[::-1]], heights, z + RAKE[[0, 0, 3, 3]]], -1)
    canvas.paint(rear, paint * 0.9, CAR)
    canvas.paint(shrunk(rear, 0.8), GLASS)
    draw_lamps(canvas, thing, 0.74, 0.65, 0.15)
    canvas.paint(facing(x - 0.26, x + 0.26, 0.42, 0.55, z), WHITE)


def draw_truck(canvas: Canvas, thing: Thing) -> None:
    x, z = thing.x, thing.z
    paint, mark = pick(TRUCKS, thing.style[0]), pick(PAINTS, thing.style[2])
    canvas.paint(flat(x - 1.4, x + 1.4, z - 0.4, z + 8.6, 0.01), SHADOW)
    if thing.speed < 0:
        canvas.box((x - 1.25, 0.9, z + 1.8), (x + 1.25, 3.7, z + 8), paint, TRUCK)
        canvas.box((x - 1.2, 0.35, z), (x + 1.2, 2.9, z + 1.7), pick(STRONG_CARS, thing.style[1]), TRUCK)
        canvas.paint(facing(x - 1.05, x + 1.05, 1.7, 2.65, z), GLASS)
        canvas.paint(facing(x - 0.7, x + 0.7, 0.8, 1.3, z), INK)
    else:
        canvas.paint(facing(x - 1.1, x + 1.1, 0.3, 1, z + 0.3), INK, TRUCK)
        canvas.box((x - 1.25, 0.9, z), (x + 1.25, 3.7, z + 8), paint, TRUCK)
        canvas.paint(facing(x - 0.03, x + 0.03, 1, 3.6, z), STEEL)
        slant = np.array([(0, 1, z), (0.18, 1, z), (0.34, 1.3, z), (0.16, 1.3, z)])
        canvas.paint([np.add(slant, (a, 0, 0)) for a in np.arange(x - 1.2, x + 0.9, 0.36)], TRUCK_STRIPE)
        canvas.paint(facing(x - 0.9, x + 0.9, 2.3, 3.2, z), mark * 0.85)
    side = inner_side(x, 1.25)
    canvas.paint(along(side, 0.4, 0.9, z + 0.3, z + 7.8), INK, TRUCK)
    canvas.paint(along(side, 1.9, 3.2, z + 3, z + 6.8), mark * 0.75)
    draw_wheels(canvas, side, (z + 1.2, z + 5.6, z + 6.9), 0.5, TRUCK)
    draw_lamps(canvas, thing, 0.9, 0.6, 0.16)


def draw_bus(canvas: Canvas, thing: Thing) -> None:
    x, z, paint = thing.x, thing.z, pick(BUSES, thing.style[0])
    canvas.paint(flat(x - 1.4, x + 1.4, z - 0.4, z + 11.5, 0.01), SHADOW)
    canvas.box((x - 1.27, 0.3, z), (x + 1.27, 3.2, z + BUS_LENGTH), paint, BUS)
    side = inner_side(x, 1.27)
    canvas.paint([along(side, 1.35, 2.6, z + a, z + a + 1.25) for a in np.arange(0.5, 10, 1.45)], GLASS)
    draw_wheels(canvas, side, (z + 2, z + 8.6), 0.5, BUS)
    canvas.paint(facing(x - 1.1, x + 1.1, 1.4, 2.65, z), GLASS)
    canvas.paint(facing(x - 0.8, x + 0.8, 2.75, 3.1, z), INK)
    canvas.paint(facing(x - 0.5, x + 0.4, 2.83, 3.02, z), DESTINATION)
    canvas.paint(facing(x - 1.27, x + 1.27, 0.3, 0.5, z), INK)
    draw_lamps(canvas, thing, 0.95, 0.75, 0.17)


def draw_train(canvas: Canvas, thing: Thing) -> None:
    x, z, skirt = thing.x, thing.z, pick(TRAIN_SKIRTS, thing.style[0])
    side, end = inner_side(x, 1.35), z + TRAIN_LENGTH
    canvas.paint(bar(x, 3.8, x, 5.2, z + 6, 0.12), STEEL, TRAIN)
    canvas.box((x - 1.35, 0.25, z), (x + 1.35, 1.6, end), skirt, TRAIN)
    canvas.box((x - 1.35, 1.6, z), (x + 1.35, 3.9, end), TRAIN_BODY, TRAIN)
    canvas.paint(along(side, 1.95, 3.05, z + 0.6, end - 0.6), TRAIN_GLASS)
    canvas.paint([along(side, 0.5, 3.2, z + a, z + a + 1.5) for a in (3.5, 11, 18.5)], TRAIN_DOOR)
    nose = np.array([(x - 1.1, 1.7, z), (x + 1.1, 1.7, z), (x + 0.85, 3.3, z), (x - 0.85, 3.3, z)])
    canvas.paint(nose, TRAIN_GLASS)
    canvas.paint(facing(x - 0.4, x + 0.4, 3.45, 3.75, z), DESTINATION)
    canvas.paint([disc(x + a, 1.0, z, 0.17) for a in (-0.9, 0.9)], HEADLIGHT)
    canvas.paint(facing(x - 1.35, x + 1.35, 1.25, 1.5, z), TRAIN_DOOR)


def draw_wheels(canvas: Canvas, x: float, places: tuple[float, ...], radius: float, label: int) -> None:
    """Draw the wheels on the side that faces the camera's path."""
    for z in places:
        wheel = CIRCLE[:, (2, 1, 0)] * radius + (x, radius, z)
        canvas.paint(wheel, INK, label)
        canvas.paint(shrunk(wheel, 0.5), STEEL + 60)


def draw_lamps(canvas: Canvas, thing: Thing, spread: float, y: float, size: float) -> None:
    pair = thing.x - spread, thing.x + spread
    lamps = [facing(x - size, x + size, y, y + size, thing.z) for x in pair]
    canvas.paint(lamps, TAIL_LIGHT if thing.speed >= 0 else HEADLIGHT)
