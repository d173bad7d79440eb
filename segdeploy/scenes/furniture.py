"""Draws lamps, traffic lights, signs, bins and trees on the sidewalks."""

from __future__ import annotations

import numpy as np

from segdeploy.scenes.canvas import Canvas
from segdeploy.scenes.classes import LIGHT, POLE, SIGN, VOID
from segdeploy.scenes.colours import INK, STEEL, WHITE, palette, pick, rgb
from segdeploy.scenes.lots import draw_tree
from segdeploy.scenes.shapes import bar, disc, facing, shrunk
from segdeploy.scenes.street import Thing

LIGHT_CASE = rgb("e8c53a")
LIGHTS = palette("ff3a2a", "ffc02a", "35e07a")
SIGN_RED, SIGN_BLUE = palette("d3202a", "1c5fc4")
BINS = palette("5b3f86", "b9986a", "3c4a57")


def draw_lamp(canvas: Canvas, thing: Thing) -> None:
    x, z, inward = thing.x, thing.z, -1 if thing.x > 0 else 1
    draw_pole(canvas, thing, 6.5)
    canvas.paint(bar(x, 6.4, x + inward * 1.6, 6.6, z, 0.22), STEEL, POLE)
    canvas.paint(bar(x + inward * 1.2, 6.5, x + inward * 2, 6.6, z, 0.3), WHITE, POLE)


def draw_light(canvas: Canvas, thing: Thing) -> None:
    x, z, lit = thing.x, thing.z, int(thing.style[0] * len(LIGHTS))
    draw_pole(canvas, thing, 3.0)
    canvas.paint(facing(x - 0.36, x + 0.36, 2.6, 4.3, z), LIGHT_CASE, LIGHT)
    canvas.paint(facing(x - 0.28, x + 0.28, 2.68, 4.22, z), INK)
    for i, lamp in enumerate(LIGHTS):
        canvas.paint(disc(x, 3.95 - 0.5 * i, z, 0.2), lamp if i == lit else lamp * 0.25)


def draw_sign(canvas: Canvas, thing: Thing) -> None:
    x, z, shape = thing.x, thing.z, int(thing.style[0] * 4)
    draw_pole(canvas, thing, 2.3)
    if shape == 0:
        triangle = np.array([(x - 0.62, 2.2, z), (x + 0.62, 2.2, z), (x, 3.3, z)])
        canvas.paint(triangle, SIGN_RED, SIGN)
        canvas.paint(shrunk(triangle, 0.6), WHITE)
    elif shape == 1:
        canvas.paint(disc(x, 2.7, z, 0.55), SIGN_RED, SIGN)
        canvas.paint(disc(x, 2.7, z, 0.38), WHITE)
    elif shape == 2:
        canvas.paint(disc(x, 2.7, z, 0.55), SIGN_BLUE, SIGN)
        canvas.paint(bar(x, 2.4, x, 3.0, z, 0.18), WHITE)
    else:
        canvas.paint(facing(x - 0.5, x + 0.5, 2.15, 3.2, z), SIGN_BLUE, SIGN)
        canvas.paint(bar(x, 2.35, x, 3.0, z, 0.5), WHITE)
        canvas.paint(bar(x, 2.4, x, 2.9, z, 0.3), INK)


def draw_pole(canvas: Canvas, thing: Thing, height: float) -> None:
    x, z = thing.x, thing.z
    canvas.paint(bar(x, 0, x, height, z, 0.26), STEEL, POLE)
    canvas.paint(bar(x - 0.05, 0, x - 0.05, height, z, 0.07), STEEL + 60)


def draw_bin(canvas: Canvas, thing: Thing) -> None:
    x, z = thing.x, thing.z
    canvas.box((x - 0.3, 0, z), (x + 0.3, 0.95, z + 0.5), pick(BINS, thing.style[0]), VOID)


def draw_street_tree(canvas: Canvas, thing: Thing) -> None:
    draw_tree(canvas, thing.x, thing.z, thing.style[0], 4.5 + 1.5 * thing.style[1])
