"""Draws persons, and two-wheelers with and without a rider."""

from __future__ import annotations

import numpy as np

from segdeploy.scenes.canvas import Canvas
from segdeploy.scenes.classes import BICYCLE, MOTORCYCLE, PERSON, RIDER
from segdeploy.scenes.colours import INK, PAINTS, STEEL, STRONG_CARS, WHITE, palette, pick, rgb
from segdeploy.scenes.shapes import bar, disc, flat
from segdeploy.scenes.street import Thing

CLOTHES = palette("7c2f3c", "2f4a7c", "5a4a7a", "4d5b45", "8a6a4f", "3a3d45", "a05a6a", "b9a48c")
SKINS = palette("f0c8a8", "d6a27c", "a8754f", "6e4a35")
HAIR = palette("2a1f1a", "6b4a2a", "8c8c8c")
VESTS = palette("d8f01e", "ff7a1a", "c6ff3d")
HELMETS = palette("ffffff", "ffe14a", "ff4fa0")
RIDING_TROUSERS = rgb("26304a")
MOTORCYCLE_LAMP = rgb("fff1b0")
SHADOW, MOTORCYCLE_SHADOW = palette("4a4a4c", "3c3c3e")

# A bicycle seen from its side: (ahead, up).
REAR_HUB, FRONT_HUB, PEDALS = (-0.58, 0.38), (0.58, 0.38), (0.0, 0.32)
SADDLE, HEAD, HANDLEBAR = (-0.2, 0.85), (0.42, 0.8), (0.4, 1.0)
TUBES = (
    (REAR_HUB, SADDLE),
    (SADDLE, HEAD),
    (PEDALS, HEAD),
    (SADDLE, PEDALS),
    (REAR_HUB, PEDALS),
    (FRONT_HUB, HANDLEBAR),
)
FAIRING = np.array(  # of a motorcycle, in the plane that faces the camera
    [
        (-0.95, 0.85, 0),
        (-0.3, 0.8, 0),
        (0.05, 1.0, 0),
        (0.45, 1.25, 0),
        (0.7, 0.95, 0),
        (0.6, 0.5, 0),
        (0.3, 0.25, 0),
        (-0.4, 0.25, 0),
    ]
)


def draw_person(canvas: Canvas, thing: Thing) -> None:
    x, z, tall = thing.x, thing.z, 1.0 + 0.12 * thing.style[0]
    coat, trousers = pick(CLOTHES, thing.style[1]), pick(CLOTHES, thing.style[2]) * 0.6
    stride = 0.24 * np.sin(6 * thing.style[3] + thing.z * 2 - canvas.position * 0.8)
    canvas.paint(flat(x - 0.4, x + 0.5, z - 0.15, z + 0.25, 0.01), SHADOW)
    for way in (-1, 1):
        canvas.paint(bar(x + way * 0.1, 0.9 * tall, x + way * (0.12 + stride), 0, z, 0.24), trousers, PERSON)
        arm = bar(x + way * 0.24, 1.4 * tall, x + way * (0.36 + stride / 2), 0.75 * tall, z, 0.16)
        canvas.paint(arm, coat * 0.8, PERSON)
    canvas.paint(bar(x, 0.75 * tall, x, 1.48 * tall, z, 0.56), coat, PERSON)
    canvas.paint(disc(x, 1.62 * tall, z, 0.17), pick(SKINS, thing.style[4]), PERSON)
    upper_half = disc(x, 1.67 * tall, z, 0.17)[:9]
    canvas.paint(upper_half, pick(HAIR, thing.style[5]), PERSON)


def draw_bicycle(canvas: Canvas, thing: Thing) -> None:
    x, z, paint = thing.x, thing.z, pick(PAINTS, thing.style[0])
    way, wide = heading(thing)
    canvas.paint(flat(x - 0.9 * wide, x + 0.9 * wide, z - 0.1, z + 0.12, 0.01), SHADOW)
    for ahead, up in (REAR_HUB, FRONT_HUB):
        rim, hole = disc(x + ahead * wide, up, z, 0.38, wide), disc(x + ahead * wide, up, z, 0.28, wide)
        canvas.paint(np.concatenate([rim, rim[:1], hole[:1], hole[::-1]]), INK)
        canvas.paint(rim, None, BICYCLE)
    for (a, low), (b, high) in TUBES:
        canvas.paint(bar(x + way * a, low, x + way * b, high, z, 0.1), paint, BICYCLE)
    canvas.paint(bar(x - way * 0.34, 0.92, x - way * 0.08, 0.92, z, 0.1), INK, BICYCLE)
    canvas.paint(bar(x + way * 0.28, 1.02, x + way * 0.5, 1.02, z, 0.1), INK, BICYCLE)
    if thing.kind == "cyclist":
        draw_rider(canvas, thing, 0.95)


def draw_motorcycle(canvas: Canvas, thing: Thing) -> None:
    x, z, paint = thing.x, thing.z, pick(STRONG_CARS, thing.style[0])
    way, wide = heading(thing)
    canvas.paint(flat(x - wide, x + wide, z - 0.15, z + 0.2, 0.01), MOTORCYCLE_SHADOW)
    for hub in (-0.7, 0.7):
        canvas.paint(disc(x + hub * wide, 0.36, z, 0.36, wide), INK, MOTORCYCLE)
        canvas.paint(disc(x + hub * wide, 0.36, z, 0.15, wide), STEEL + 70)
    canvas.paint(FAIRING * (way, 1, 0) + (x, 0, z), paint * 0.9, MOTORCYCLE)
    canvas.paint(bar(x - way * 0.45, 0.42, x + way * 0.35, 0.42, z, 0.3), STEEL * 0.7, MOTORCYCLE)
    canvas.paint(bar(x - way * 0.75, 0.88, x - way * 0.1, 0.88, z, 0.16), INK, MOTORCYCLE)
    canvas.paint(disc(x + way * 0.66, 1.0, z, 0.12), MOTORCYCLE_LAMP, MOTORCYCLE)
    if thing.kind == "motorcyclist":
        draw_rider(canvas, thing, 1.0)


def heading(thing: Thing) -> tuple[float, float]:
    """Project a metre along a two-wheeler onto the image's x axis; returns it with its sign and without."""
    wide = 0.55 + 0.45 * thing.style[7]
    return (wide if thing.style[6] > 0.5 else -wide), wide


def draw_rider(canvas: Canvas, thing: Thing, seat: float) -> None:
    x, z, vest, (way, _) = thing.x, thing.z, pick(VESTS, thing.style[1]), heading(thing)
    for foot in (0, 0.35):
        canvas.paint(bar(x - way * 0.2, seat, x + way * foot, 0.3, z, 0.2), RIDING_TROUSERS, RIDER)
    canvas.paint(bar(x - way * 0.22, seat - 0.1, x + way * 0.1, seat + 0.68, z, 0.46), vest, RIDER)
    canvas.paint(bar(x - way * 0.1, seat + 0.3, x - way * 0.02, seat + 0.46, z, 0.46), WHITE)
    canvas.paint(bar(x + way * 0.05, seat + 0.5, x + way * 0.5, seat + 0.25, z, 0.15), vest * 0.85, RIDER)
    canvas.paint(disc(x + way * 0.17, seat + 0.84, z, 0.22), pick(HELMETS, thing.style[2]), RIDER)
    canvas.paint(disc(x + way * 0.27, seat + 0.78, z, 0.1), pick(SKINS, thing.style[4]))
