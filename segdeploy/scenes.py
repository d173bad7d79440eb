"""Made street scenes with exact labels of Cityscapes' 19 classes, to try everything without a data set.

A `Street` is a world in metres (x to the right, y up, z ahead) that grows in chunks as the camera moves along it. Every
shape is projected by one pinhole camera, so a scene has the same layout at any size and a clip is the same street from
a moving position. All chance comes from numpy Generators that are seeded by street and chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN = range(10)
SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = range(10, 19)
VOID = 255
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

CHUNK = 24.0  # metres of street that are made at once
SIGHT = 100.0
LARGE_SIGHT, DETAIL_SIGHT, SMALL_SIGHT = (
    75.0,
    60.0,
    38.0,
)  # what is thinner than a pole is a pixel or two wide from here on
NEAR = 1.2
EYE = 1.9
STEP = 0.3  # metres the camera moves per frame of a clip


@dataclass(frozen=True)
class Scene:
    image: Bytes  # H×W×3 RGB
    labels: Bytes  # H×W trainIds, 255 void


@dataclass(frozen=True)
class Thing:
    kind: str
    x: float
    z: float
    style: tuple[float, ...]
    speed: float = 0.0  # metres per frame, ahead
    band: int = 2  # drawn from the lots (0) over the left sidewalk (1) to the carriageway (2)
    length: float = 0.0

    def after(self, frames: int) -> Thing:
        aside = math.copysign(0.06, self.x) if self.kind == "crossing" else 0.0
        return replace(self, x=self.x + aside * frames, z=self.z + self.speed * frames)


@cache
def rgb(*hexes: str) -> Array:
    return np.array([[int(text[i : i + 2], 16) for i in (0, 2, 4)] for text in hexes], float)


FACADES = rgb("e3cfa4", "d9a98b", "c9c4b8", "a9b7c4", "e6dcc8", "cdb98a", "d7b5b0", "b7c2a8", "8d97a3")
ROOFS = rgb("7a4438", "5a5560", "6b5547", "4c4f57")
CARS = rgb("b3202a", "1f4f96", "e8e8ea", "2a2d33", "8f969c", "2d7a6a", "d8b23c", "6e2d55")
BUSES = rgb("f2b705", "f08a1d", "e3c21b")
TRAIN_SKIRTS = rgb("0f5f8a", "0c7a66", "33418f")
CLOTHES = rgb("7c2f3c", "2f4a7c", "5a4a7a", "4d5b45", "8a6a4f", "3a3d45", "a05a6a", "b9a48c")
SKINS = rgb("f0c8a8", "d6a27c", "a8754f", "6e4a35")
VESTS = rgb("d8f01e", "ff7a1a", "c6ff3d")
HELMETS = rgb("ffffff", "ffe14a", "ff4fa0")
PAINTS = rgb("ff2d2d", "22a7ff", "ff5fd2", "23d18b")
LEAVES = rgb("47702f", "55803a", "3d6a3a", "6a8a34")
GLASS = rgb("33475c")[0]
INK = rgb("1d1f24")[0]
WHITE = rgb("f4f3ee")[0]
STEEL = rgb("6a7178")[0]

RAKE: Array = np.array([0.3, 3.2, 2.4, 0.8])  # where a car's windows begin and end, below and at the roof
FRAME = (  # a bicycle's tubes, from and to
    *((-0.58, 0.38, -0.2, 0.85), (-0.2, 0.85, 0.42, 0.8), (0, 0.32, 0.42, 0.8)),
    *((-0.2, 0.85, 0, 0.32), (-0.58, 0.38, 0, 0.32), (0.58, 0.38, 0.4, 1.0)),
)
FAIRING: Array = np.stack(
    [
        np.array([-0.95, -0.3, 0.05, 0.45, 0.7, 0.6, 0.3, -0.4]),
        np.array([0.85, 0.8, 1.0, 1.25, 0.95, 0.5, 0.25, 0.25]),
        np.zeros(8),
    ],
    -1,
)
TURN: Array = np.arange(16) * np.pi / 8
CIRCLE: Array = np.stack([np.cos(TURN), np.sin(TURN), 0 * TURN], -1)
CROWN: Array = np.random.default_rng(7).random((8, 150))  # eight fixed patterns that tree crowns are cut from


def pick(colours: Array, chance: float) -> Array:
    chosen: Array = colours[int(chance * len(colours)) % len(colours)]
    return chosen


def facing(x0: float, x1: float, y0: float, y1: float, z: float) -> Array:
    return np.array([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)])


def along(x: float, y0: float, y1: float, z0: float, z1: float) -> Array:
    return np.array([(x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)])


def flat(x0: float, x1: float, z0: float, z1: float, y: float = 0.0) -> Array:
    return np.array([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)])


def disc(x: float, y: float, z: float, radius: float, squeeze: float = 1.0) -> Array:
    return CIRCLE * (radius * squeeze, radius, 0) + (x, y, z)


def bar(x0: float, y0: float, x1: float, y1: float, z: float, width: float) -> Array:
    """A straight limb in the plane that faces the camera."""
    reach = float(np.hypot(x1 - x0, y1 - y0))
    dx, dy = (y1 - y0) / reach * width / 2, (x0 - x1) / reach * width / 2
    return np.array(
        [(x0 - dx, y0 - dy, z), (x0 + dx, y0 + dy, z), (x1 + dx, y1 + dy, z), (x1 - dx, y1 - dy, z)]
    )


@dataclass(frozen=True)
class Mood:
    zenith: Array
    haze: Array
    gain: Array
    sun: float  # -1 lights the left side, 1 the right
    grain: float
    blur: float
    horizon: float  # share of the height
    aside: float  # metres the camera is off the middle of its lane


def mood_of(rng: np.random.Generator) -> Mood:
    zenith, haze, gain = [
        (rgb("5f9be0"), rgb("dbe8f2"), (1.02, 1.0, 0.97)),
        (rgb("a9b4c0"), rgb("dcdfe2"), (0.93, 0.95, 0.99)),
        (rgb("6f86bd"), rgb("f4d3ae"), (1.07, 0.97, 0.86)),
        (rgb("86b6e6"), rgb("e9ecec"), (1.06, 1.05, 1.03)),
    ][int(rng.integers(4))]
    tint = np.array(gain) * rng.uniform(0.85, 1.1) * rng.uniform(0.97, 1.03, 3)
    sun, grain, blur, horizon, aside = rng.uniform((-1, 1, 0, 0.38, -0.5), (1, 4, 1, 0.46, 0.5)).tolist()
    return Mood(zenith[0], haze[0], tint, sun, grain, blur, horizon, aside)


class Canvas:
    def __init__(self, height: int, width: int, position: float, mood: Mood) -> None:
        self.image: Bytes = np.empty((height, width, 3), np.uint8)
        self.labels: Bytes = np.full((height, width), SKY, np.uint8)
        self.focal, self.horizon, self.centre = 1.25 * height, mood.horizon * height, width / 2
        self.position, self.aside, self.haze = position, mood.aside, mood.haze

    def paint(self, shapes: Array, colour: Array | None, label: int | None = None) -> None:
        """Fills polygons (n×3, or k×n×3 that do not overlap); without a colour, labels what is seen through."""
        corners = shapes if shapes.ndim == 3 else shapes[None]
        if label is None and corners[0, 0, 2] > self.position + DETAIL_SIGHT:
            return
        depth = np.maximum(corners[..., 2] - self.position, NEAR)
        scale = 16 * self.focal / depth
        pixels = np.empty((*depth.shape, 2), np.int32)
        pixels[..., 0] = (corners[..., 0] - self.aside) * scale + (16 * self.centre - 8)
        pixels[..., 1] = (EYE - corners[..., 1]) * scale + (16 * self.horizon - 8)
        if colour is not None:
            clear = math.exp(-float(depth.min()) / 220)
            mixed = (colour * clear + self.haze * (1 - clear)).tolist()
            cv2.fillPoly(self.image, list(pixels), mixed, cv2.LINE_AA, 4)
        if label is not None:
            cv2.fillPoly(self.labels, list(pixels), label, cv2.LINE_8, 4)

    def box(
        self, low: tuple[float, float, float], high: tuple[float, float, float], colour: Array, label: int
    ) -> None:
        """The three faces of a box that a camera between the kerbs can see: inner side, top and near end."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        if y1 < EYE:
            self.paint(flat(x0, x1, z0, z1, y1), colour * 1.12 + 8, label)
        if x0 > 0 or x1 < 0:
            self.paint(along(x0 if x0 > 0 else x1, y0, y1, z0, z1), colour * 0.78, label)
        self.paint(facing(x0, x1, y0, y1, z0), colour, label)


# ---- the street's own parts -------------------------------------------------------------------------------------


def draw_building(canvas: Canvas, lot: Thing, sun: float) -> None:
    side = np.sign(lot.x)
    z0, z1, height = lot.z, lot.z + lot.length, 6.5 + 10 * lot.style[0]
    stone = pick(FACADES, lot.style[1]) * (0.9 + 0.13 * sun * side)
    outer, end = lot.x + side * 12, max(z0, canvas.position + NEAR)
    canvas.paint(facing(lot.x, outer, 0, height, z0), stone * 0.72, BUILDING)
    canvas.paint(along(lot.x, 0, height, z0, z1), stone, BUILDING)
    roof = pick(ROOFS, lot.style[2])
    canvas.paint(along(lot.x, height, height + 0.5, z0, z1), roof, BUILDING)
    canvas.paint(facing(lot.x, outer, height, height + 0.5, z0), roof * 0.8, BUILDING)
    floors = np.arange(4.2, height - 1.6, 3.0)
    columns = z0 + (np.arange(3) + 0.5) * lot.length / 3
    frames = [
        along(lot.x, y - 0.15, y + 1.75, z - 0.75, z + 0.75) for y in floors for z in columns if z > end
    ]
    panes = [along(lot.x, y, y + 1.6, z - 0.58, z + 0.58) for y in floors for z in columns if z > end]
    if frames:
        lit = rgb("f2d58a")[0] if lot.style[3] > 0.8 else GLASS + 40 * lot.style[3]
        canvas.paint(np.array(frames), stone * 0.6 + 90)
        canvas.paint(np.array(panes), lit)
    shop = [along(lot.x, 0.4, 2.7, z - 0.95, z + 0.95) for z in columns if z > end]
    if shop:
        canvas.paint(np.array(shop), GLASS * 0.8)
        canvas.paint(along(lot.x, 2.8, 3.35, z0 + 0.3, z1 - 0.3), pick(CARS, lot.style[4]) * 0.9)
    gable = [
        facing(lot.x + side * x, lot.x + side * (x + 1.2), y, y + 1.6, z0)
        for y in floors
        for x in (1.5, 4.5, 7.5)
    ]
    if gable:
        canvas.paint(np.array(gable), GLASS * 0.9)


def draw_wall(canvas: Canvas, lot: Thing, sun: float) -> None:
    z0, z1, top = lot.z, lot.z + lot.length, 2.3 + 0.7 * lot.style[0]
    for i in range(2):
        draw_tree(canvas, lot.x + np.sign(lot.x) * 3.5, z1 - 2 - 4 * i, lot.style[i + 2], 4.5)
    brick = pick(rgb("8f4a35", "7d5648", "9a5a3c"), lot.style[1]) * (1 + 0.1 * sun * np.sign(lot.x))
    canvas.paint(facing(lot.x, lot.x + np.sign(lot.x) * 0.6, 0, top, z0), brick * 0.7, WALL)
    canvas.paint(along(lot.x, 0, top, z0, z1), brick, WALL)
    courses = [along(lot.x, y, y + 0.07, z0, z1) for y in np.arange(0.35, top, 0.4)]
    canvas.paint(np.array(courses), brick * 0.7 + 50)
    canvas.paint(along(lot.x, top - 0.2, top + 0.05, z0, z1), brick * 0.4 + 110, WALL)


def draw_fence(canvas: Canvas, lot: Thing, sun: float) -> None:
    z0, z1, top = lot.z, lot.z + lot.length, 1.9
    draw_tree(canvas, lot.x + np.sign(lot.x) * 7, z0 + 5, lot.style[2], 6.5)
    paint = rgb("f2f2ec", "20242a", "1d5a4c")[int(lot.style[1] * 3)] * (0.95 + 0.05 * sun)
    first = max(z0, canvas.position + NEAR + 0.2)
    bars = [along(lot.x, 0.1, top, z, z + 0.13) for z in np.arange(z0, z1, 0.42) if z > first]
    canvas.paint(along(lot.x, 0, top, z0, z1), None, FENCE)
    if bars:
        canvas.paint(np.array(bars), paint)
    canvas.paint(np.array([along(lot.x, y, y + 0.14, z0, z1) for y in (0.3, 1.55)]), paint * 0.9)


def draw_park(canvas: Canvas, lot: Thing, sun: float) -> None:
    side = np.sign(lot.x)
    tufts = [
        flat(lot.x + side * (9 * a), lot.x + side * (9 * a + 0.5), lot.z + 7 * b, lot.z + 7 * b + 0.5)
        for a, b in CROWN[int(lot.style[0] * 8), :24].reshape(-1, 2)
    ]
    canvas.paint(np.array(tufts), rgb("a9a65c")[0])
    draw_tree(canvas, lot.x + side * (6 + 4 * lot.style[1]), lot.z + 6, lot.style[2], 7.5)
    draw_tree(canvas, lot.x + side * 11, lot.z + 2, lot.style[3], 6.5)
    if lot.style[4] > 0.4:
        draw_tree(canvas, lot.x + side * 3, lot.z + 3, lot.style[4], 1.3)


def crown(pattern: Array) -> tuple[Array, list[Array]]:
    """A ragged rim, and three layers of leaves from the shaded ones below to the lit ones above; radius one."""
    turn = np.arange(30) * np.pi / 15
    rim = np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1) * (0.8 + 0.4 * pattern[:30, None])
    layers = []
    for start, rise in ((30, -0.1), (70, 0.2), (110, 0.4)):
        angle = (
            np.arange(20) * 2.4 + start + pattern[start : start + 20] * 0.3
        )  # a sunflower's seeds do not overlap
        reach = np.sqrt((np.arange(20) + 0.5) / 20) * 0.74
        up = np.sin(angle) * reach * (1 - rise / 2) + rise / 2
        places = np.stack([np.cos(angle) * reach, up, 0 * up], -1)
        layers.append(places[:, None] + CIRCLE * 0.12)
    return rim, layers


CROWNS = [crown(pattern) for pattern in CROWN]


def draw_tree(canvas: Canvas, x: float, z: float, chance: float, height: float) -> None:
    if z < canvas.position + 2:
        return
    radius, centre, green = height * 0.36, (x, height * 0.68, z), pick(LEAVES, chance * 7 % 1)
    rim, layers = CROWNS[int(chance * 8) % 8]
    trunk = facing(x - height * 0.03, x + height * 0.03, 0, height * 0.68, z)
    canvas.paint(trunk, rgb("5b4636")[0], VEGETATION)
    canvas.paint(rim * radius + centre, green * 0.72, VEGETATION)
    for shade, leaves in zip((0.95, 1.2, 1.45), layers, strict=True):
        canvas.paint(leaves * radius + centre, green * shade)


# ---- what stands and moves on it --------------------------------------------------------------------------------


def draw_wheels(canvas: Canvas, x: float, places: tuple[float, ...], radius: float, label: int) -> None:
    """Wheels on the side that faces the camera's path."""
    for z in places:
        wheel = CIRCLE[:, (2, 1, 0)] * radius + (x, radius, z)
        canvas.paint(wheel, INK, label)
        canvas.paint((wheel - wheel.mean(0)) * 0.5 + wheel.mean(0), STEEL + 60)


def inner_side(x: float, half: float) -> float:
    return x - half if x > 0 else x + half


def draw_car(canvas: Canvas, thing: Thing) -> None:
    x, z, paint = thing.x, thing.z, pick(CARS, thing.style[0])
    tall = 1.45 + 0.35 * (thing.style[1] > 0.7)
    canvas.paint(flat(x - 1.1, x + 1.1, z - 0.3, z + 4.3, 0.01), rgb("2c2d30")[0])
    canvas.paint(facing(x - 0.85, x + 0.85, 0.05, 0.4, z + 0.1), INK, CAR)
    canvas.box((x - 0.92, 0.3, z), (x + 0.92, 0.9, z + 4.2), paint, CAR)
    draw_wheels(canvas, inner_side(x, 0.92), (z + 0.8, z + 3.4), 0.34, CAR)
    base, roof = (x - 0.85, x + 0.85), (x - 0.68, x + 0.68)
    edge, heights = 0 if x > 0 else 1, [0.9, 0.9, tall, tall]
    side = np.stack([[base[edge], base[edge], roof[edge], roof[edge]], heights, z + RAKE], -1)
    canvas.paint(side, paint * 0.75, CAR)
    canvas.paint((side - side.mean(0)) * 0.76 + side.mean(0), GLASS * 0.8)
    canvas.paint(flat(*roof, z + 0.8, z + 2.4, tall), paint * 1.1 + 10, CAR)
    rear = np.stack([[*base, *roof[::-1]], heights, z + RAKE[[0, 0, 3, 3]]], -1)
    canvas.paint(rear, paint * 0.9, CAR)
    canvas.paint((rear - rear.mean(0)) * 0.8 + rear.mean(0), GLASS)
    draw_lamps(canvas, thing, 0.74, 0.65, 0.15)
    canvas.paint(facing(x - 0.26, x + 0.26, 0.42, 0.55, z), WHITE)


def draw_lamps(canvas: Canvas, thing: Thing, spread: float, y: float, size: float) -> None:
    glow = rgb("e02020")[0] if thing.speed >= 0 else rgb("fff6d0")[0]
    pair = thing.x - spread, thing.x + spread
    canvas.paint(np.array([facing(x - size, x + size, y, y + size, thing.z) for x in pair]), glow)


def draw_truck(canvas: Canvas, thing: Thing) -> None:
    x, z = thing.x, thing.z
    paint = rgb("f3f3f0", "dfe8ee", "e9e4d6")[int(thing.style[0] * 3)]
    canvas.paint(flat(x - 1.4, x + 1.4, z - 0.4, z + 8.6, 0.01), rgb("2c2d30")[0])
    if thing.speed < 0:
        canvas.box((x - 1.25, 0.9, z + 1.8), (x + 1.25, 3.7, z + 8), paint, TRUCK)
        cab = pick(CARS[:3], thing.style[1])
        canvas.box((x - 1.2, 0.35, z), (x + 1.2, 2.9, z + 1.7), cab, TRUCK)
        canvas.paint(facing(x - 1.05, x + 1.05, 1.7, 2.65, z), GLASS)
        canvas.paint(facing(x - 0.7, x + 0.7, 0.8, 1.3, z), INK)
    else:
        canvas.paint(facing(x - 1.1, x + 1.1, 0.3, 1, z + 0.3), INK, TRUCK)
        canvas.box((x - 1.25, 0.9, z), (x + 1.25, 3.7, z + 8), paint, TRUCK)
        canvas.paint(facing(x - 0.03, x + 0.03, 1, 3.6, z), STEEL)
        slant = np.array([(0, 1, z), (0.18, 1, z), (0.34, 1.3, z), (0.16, 1.3, z)])
        stripes = [np.add(slant, (a, 0, 0)) for a in np.arange(x - 1.2, x + 0.9, 0.36)]
        canvas.paint(np.array(stripes), rgb("d8262c")[0])
        canvas.paint(facing(x - 0.9, x + 0.9, 2.3, 3.2, z), pick(PAINTS, thing.style[2]) * 0.85)
    side = inner_side(x, 1.25)
    canvas.paint(along(side, 0.4, 0.9, z + 0.3, z + 7.8), INK, TRUCK)
    canvas.paint(along(side, 1.9, 3.2, z + 3, z + 6.8), pick(PAINTS, thing.style[2]) * 0.75)
    draw_wheels(canvas, side, (z + 1.2, z + 5.6, z + 6.9), 0.5, TRUCK)
    draw_lamps(canvas, thing, 0.9, 0.6, 0.16)


def draw_bus(canvas: Canvas, thing: Thing) -> None:
    x, z, paint = thing.x, thing.z, pick(BUSES, thing.style[0])
    canvas.paint(flat(x - 1.4, x + 1.4, z - 0.4, z + 11.5, 0.01), rgb("2c2d30")[0])
    canvas.box((x - 1.27, 0.3, z), (x + 1.27, 3.2, z + 11), paint, BUS)
    side = inner_side(x, 1.27)
    panes = [along(side, 1.35, 2.6, z + a, z + a + 1.25) for a in np.arange(0.5, 10, 1.45)]
    canvas.paint(np.array(panes), GLASS)
    draw_wheels(canvas, side, (z + 2, z + 8.6), 0.5, BUS)
    canvas.paint(facing(x - 1.1, x + 1.1, 1.4, 2.65, z), GLASS)
    canvas.paint(facing(x - 0.8, x + 0.8, 2.75, 3.1, z), INK)
    canvas.paint(facing(x - 0.5, x + 0.4, 2.83, 3.02, z), rgb("ffb03a")[0])
    canvas.paint(facing(x - 1.27, x + 1.27, 0.3, 0.5, z), INK)
    draw_lamps(canvas, thing, 0.95, 0.75, 0.17)


def draw_train(canvas: Canvas, thing: Thing) -> None:
    x, z, skirt = thing.x, thing.z, pick(TRAIN_SKIRTS, thing.style[0])
    side, length = inner_side(x, 1.35), 26.0
    canvas.paint(bar(x, 3.8, x, 5.2, z + 6, 0.12), STEEL, TRAIN)
    canvas.box((x - 1.35, 0.25, z), (x + 1.35, 1.6, z + length), skirt, TRAIN)
    canvas.box((x - 1.35, 1.6, z), (x + 1.35, 3.9, z + length), rgb("eef1f2")[0], TRAIN)
    canvas.paint(along(side, 1.95, 3.05, z + 0.6, z + length - 0.6), rgb("1f2730")[0])
    doors = [along(side, 0.5, 3.2, z + a, z + a + 1.5) for a in (3.5, 11, 18.5)]
    canvas.paint(np.array(doors), rgb("c9313a")[0])
    nose = np.array([(x - 1.1, 1.7, z), (x + 1.1, 1.7, z), (x + 0.85, 3.3, z), (x - 0.85, 3.3, z)])
    canvas.paint(nose, rgb("1f2730")[0])
    canvas.paint(facing(x - 0.4, x + 0.4, 3.45, 3.75, z), rgb("ffb03a")[0])
    canvas.paint(np.array([disc(x + a, 1.0, z, 0.17) for a in (-0.9, 0.9)]), rgb("fff6d0")[0])
    canvas.paint(facing(x - 1.35, x + 1.35, 1.25, 1.5, z), rgb("c9313a")[0])


def draw_person(canvas: Canvas, thing: Thing) -> None:
    x, z, tall = thing.x, thing.z, 1.0 + 0.12 * thing.style[0]
    coat, trousers = pick(CLOTHES, thing.style[1]), pick(CLOTHES, thing.style[2]) * 0.6
    stride = 0.24 * np.sin(6 * thing.style[3] + thing.z * 2 - canvas.position * 0.8)
    canvas.paint(flat(x - 0.4, x + 0.5, z - 0.15, z + 0.25, 0.01), rgb("4a4a4c")[0])
    for way in (-1, 1):
        canvas.paint(bar(x + way * 0.1, 0.9 * tall, x + way * (0.12 + stride), 0, z, 0.24), trousers, PERSON)
        arm = bar(x + way * 0.24, 1.4 * tall, x + way * (0.36 + stride / 2), 0.75 * tall, z, 0.16)
        canvas.paint(arm, coat * 0.8, PERSON)
    canvas.paint(bar(x, 0.75 * tall, x, 1.48 * tall, z, 0.56), coat, PERSON)
    canvas.paint(disc(x, 1.62 * tall, z, 0.17), pick(SKINS, thing.style[4]), PERSON)
    hair = disc(x, 1.67 * tall, z, 0.17)
    canvas.paint(hair[:9], rgb("2a1f1a", "6b4a2a", "8c8c8c")[int(thing.style[5] * 3)], PERSON)


def heading(thing: Thing) -> tuple[float, float]:
    """What one metre ahead of a two-wheeler is across the image: signed, and as a width."""
    wide = 0.55 + 0.45 * thing.style[7]
    return (wide if thing.style[6] > 0.5 else -wide), wide


def draw_rider(canvas: Canvas, thing: Thing, seat: float) -> None:
    x, z, vest, (way, _) = thing.x, thing.z, pick(VESTS, thing.style[1]), heading(thing)
    for foot in (0, 0.35):
        canvas.paint(bar(x - way * 0.2, seat, x + way * foot, 0.3, z, 0.2), rgb("26304a")[0], RIDER)
    canvas.paint(bar(x - way * 0.22, seat - 0.1, x + way * 0.1, seat + 0.68, z, 0.46), vest, RIDER)
    canvas.paint(bar(x - way * 0.1, seat + 0.3, x - way * 0.02, seat + 0.46, z, 0.46), WHITE)
    canvas.paint(bar(x + way * 0.05, seat + 0.5, x + way * 0.5, seat + 0.25, z, 0.15), vest * 0.85, RIDER)
    canvas.paint(disc(x + way * 0.17, seat + 0.84, z, 0.22), pick(HELMETS, thing.style[2]), RIDER)
    canvas.paint(disc(x + way * 0.27, seat + 0.78, z, 0.1), pick(SKINS, thing.style[4]))


def draw_bicycle(canvas: Canvas, thing: Thing) -> None:
    x, z, paint = thing.x, thing.z, pick(PAINTS, thing.style[0])
    way, wide = heading(thing)
    canvas.paint(flat(x - 0.9 * wide, x + 0.9 * wide, z - 0.1, z + 0.12, 0.01), rgb("4a4a4c")[0])
    for hub in (-0.58, 0.58):
        rim, hole = disc(x + hub * wide, 0.38, z, 0.38, wide), disc(x + hub * wide, 0.38, z, 0.28, wide)
        canvas.paint(np.concatenate([rim, rim[:1], hole[:1], hole[::-1]]), INK, None)
        canvas.paint(rim, None, BICYCLE)
    for a, b, c, d in FRAME:
        canvas.paint(bar(x + way * a, b, x + way * c, d, z, 0.1), paint, BICYCLE)
    canvas.paint(bar(x - way * 0.34, 0.92, x - way * 0.08, 0.92, z, 0.1), INK, BICYCLE)
    canvas.paint(bar(x + way * 0.28, 1.02, x + way * 0.5, 1.02, z, 0.1), INK, BICYCLE)
    if thing.kind == "cyclist":
        draw_rider(canvas, thing, 0.95)


def draw_motorcycle(canvas: Canvas, thing: Thing) -> None:
    x, z, paint = thing.x, thing.z, pick(CARS[:3], thing.style[0])
    way, wide = heading(thing)
    canvas.paint(flat(x - wide, x + wide, z - 0.15, z + 0.2, 0.01), rgb("3c3c3e")[0])
    for hub in (-0.7, 0.7):
        canvas.paint(disc(x + hub * wide, 0.36, z, 0.36, wide), INK, MOTORCYCLE)
        canvas.paint(disc(x + hub * wide, 0.36, z, 0.15, wide), STEEL + 70)
    canvas.paint(FAIRING * (way, 1, 0) + (x, 0, z), paint * 0.9, MOTORCYCLE)
    canvas.paint(bar(x - way * 0.45, 0.42, x + way * 0.35, 0.42, z, 0.3), STEEL * 0.7, MOTORCYCLE)
    canvas.paint(bar(x - way * 0.75, 0.88, x - way * 0.1, 0.88, z, 0.16), INK, MOTORCYCLE)
    canvas.paint(disc(x + way * 0.66, 1.0, z, 0.12), rgb("fff1b0")[0], MOTORCYCLE)
    if thing.kind == "motorcyclist":
        draw_rider(canvas, thing, 1.0)


def draw_pole(canvas: Canvas, thing: Thing) -> None:
    x, z = thing.x, thing.z
    inward = -1 if x > 0 else 1
    tall = {"lamp": 6.5, "light": 3.0, "sign": 2.3}[thing.kind]
    canvas.paint(bar(x, 0, x, tall, z, 0.26), STEEL, POLE)
    canvas.paint(bar(x - 0.05, 0, x - 0.05, tall, z, 0.07), STEEL + 60)
    if thing.kind == "lamp":
        canvas.paint(bar(x, 6.4, x + inward * 1.6, 6.6, z, 0.22), STEEL, POLE)
        canvas.paint(bar(x + inward * 1.2, 6.5, x + inward * 2, 6.6, z, 0.3), WHITE, POLE)
    elif thing.kind == "light":
        canvas.paint(facing(x - 0.36, x + 0.36, 2.6, 4.3, z), rgb("e8c53a")[0], LIGHT)
        canvas.paint(facing(x - 0.28, x + 0.28, 2.68, 4.22, z), INK)
        on = int(thing.style[0] * 3)
        for i, lamp in enumerate(rgb("ff3a2a", "ffc02a", "35e07a")):
            canvas.paint(disc(x, 3.95 - 0.5 * i, z, 0.2), lamp if i == on else lamp * 0.25)
    else:
        draw_sign(canvas, thing)


def draw_sign(canvas: Canvas, thing: Thing) -> None:
    x, z, shape = thing.x, thing.z, int(thing.style[0] * 4)
    red, blue = rgb("d3202a", "1c5fc4")
    triangle = np.array([(x - 0.62, 2.2, z), (x + 0.62, 2.2, z), (x, 3.3, z)])
    if shape == 0:
        canvas.paint(triangle, red, SIGN)
        canvas.paint((triangle - triangle.mean(0)) * 0.6 + triangle.mean(0), WHITE)
    elif shape == 1:
        canvas.paint(disc(x, 2.7, z, 0.55), red, SIGN)
        canvas.paint(disc(x, 2.7, z, 0.38), WHITE)
    elif shape == 2:
        canvas.paint(disc(x, 2.7, z, 0.55), blue, SIGN)
        canvas.paint(bar(x, 2.4, x, 3.0, z, 0.18), WHITE)
    else:
        canvas.paint(facing(x - 0.5, x + 0.5, 2.15, 3.2, z), blue, SIGN)
        canvas.paint(bar(x, 2.35, x, 3.0, z, 0.5), WHITE)
        canvas.paint(bar(x, 2.4, x, 2.9, z, 0.3), INK)


def draw_bin(canvas: Canvas, thing: Thing) -> None:
    x, z = thing.x, thing.z
    paint = pick(rgb("5b3f86", "b9986a", "3c4a57"), thing.style[0])
    canvas.box((x - 0.3, 0, z), (x + 0.3, 0.95, z + 0.5), paint, VOID)


def draw_street_tree(canvas: Canvas, thing: Thing) -> None:
    draw_tree(canvas, thing.x, thing.z, thing.style[0], 4.5 + 1.5 * thing.style[1])


LOTS = {"building": draw_building, "wall": draw_wall, "fence": draw_fence, "park": draw_park}
THINGS: dict[str, Callable[[Canvas, Thing], None]] = dict.fromkeys(("person", "crossing"), draw_person)
THINGS |= {"car": draw_car, "truck": draw_truck, "bus": draw_bus, "train": draw_train, "bin": draw_bin}
THINGS |= {"bicycle": draw_bicycle, "cyclist": draw_bicycle, "tree": draw_street_tree}
THINGS |= dict.fromkeys(("motorcycle", "motorcyclist"), draw_motorcycle)
THINGS |= dict.fromkeys(("lamp", "light", "sign"), draw_pole)
LENGTHS = {"train": 26.0, "bus": 11.0, "truck": 8.0, "car": 4.0}
LARGE = frozenset({"car", "truck", "bus", "train", "lamp", "tree"})


# ---- the street -------------------------------------------------------------------------------------------------


class Street:
    """One endless street: fixed widths and mood, and a chunk of lots and things for every 24 metres."""

    left_kerb, right_kerb, walk = -8.4, 4.2, 3.0

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self.seed = seed
        self.mood = mood_of(rng)
        self.verge = float(rng.uniform(0.8, 2.0))
        self.asphalt = rgb("57585c")[0] * rng.uniform(0.85, 1.2)
        self.paving = rgb("b9aea2", "a9a5a6", "c2b0a0")[int(rng.integers(3))] * rng.uniform(0.92, 1.08)
        self.grass = rgb("8b8a45", "7f9148", "9c8a52")[int(rng.integers(3))] * rng.uniform(0.9, 1.1)
        self.hood = bool(rng.random() < 0.4)
        self.skyline = rng.random(40)
        self.clouds = rng.random((5, 9)).astype(np.float32)
        self.chunk = lru_cache(maxsize=16)(self._chunk)

    def _chunk(self, index: int) -> tuple[tuple[Thing, ...], tuple[Thing, ...]]:
        rng = np.random.default_rng([self.seed, index + 1])
        start = 4 + index * CHUNK
        return tuple(self.lots(rng, start)), tuple(self.things(rng, start))

    def lots(self, rng: np.random.Generator, start: float) -> Iterator[Thing]:
        last = "wall" if start > 40 else "park"
        kinds = rng.permutation(["building", "building", "wall", "fence", "fence", last])
        edges = self.left_kerb - self.walk - self.verge, self.right_kerb + self.walk + self.verge
        for i, kind in enumerate(kinds):
            style = tuple(rng.random(8).tolist())
            yield Thing(str(kind), edges[i % 2], start - 4 + 8 * (i // 2), style, 0, 0, 8.0)

    def things(self, rng: np.random.Generator, start: float) -> Iterator[Thing]:
        yield from self.traffic(rng, start)
        left, right = self.left_kerb - 0.6, self.right_kerb + 0.5
        posts = rng.permutation(["light", "sign", "lamp", "sign", "light"])
        for i, kind in enumerate(posts):
            z = start + 3 + 4.5 * i + rng.uniform(0, 2)
            yield self.make(rng, str(kind), left if i % 2 == 0 else right, z, band=1 + i % 2)
        for i in range(int(rng.integers(1, 4))):
            x = right + 2.9 if rng.random() < 0.5 else left - 2.9
            yield self.make(rng, "tree", x, start + 4 + 7 * i + rng.uniform(0, 3), band=1 if x < 0 else 2)
        for i in range(5):
            x = self.right_kerb + rng.uniform(0.9, 2.7) if i < 3 else self.left_kerb - rng.uniform(0.8, 2.6)
            z, pace = start + 3 + 18 * rng.random(), rng.uniform(-0.03, 0.03)
            yield self.make(rng, "person", x, z, pace, 2 if i < 3 else 1)
        if rng.random() < 0.35:
            yield self.make(rng, "crossing", rng.uniform(-3, 3), start + rng.uniform(6, 9))
        if rng.random() < 0.4:
            yield self.make(rng, "bin", self.right_kerb + rng.uniform(0.9, 2.4), start + 20 * rng.random())

    def traffic(self, rng: np.random.Generator, start: float) -> Iterator[Thing]:
        ahead, oncoming = rng.permutation(["truck", "bus", "car"])[:2]
        if rng.random() < 0.75:
            yield self.make(rng, "train", -6.8, start + rng.uniform(5, 12), -0.1)
        else:
            for i in range(2):
                yield self.make(rng, "car", -7.2, start + 4 + 9 * i + rng.uniform(0, 3))
        if rng.random() < 0.8:
            yield self.make(rng, str(oncoming), -3.6, start + rng.uniform(6, 15), -0.15)
        yield self.make(rng, str(ahead), rng.uniform(-0.3, 0.3), start + rng.uniform(12, 17), STEP)
        parked = rng.permutation(["car", "motorcycle", "bicycle", "car"])
        for i, kind in enumerate(parked):
            x = 3.1 if kind == "car" else rng.uniform(2.4, 3.4)
            yield self.make(rng, str(kind), x, start + 2.5 + 5.5 * i + rng.uniform(0, 1))
        riders = rng.permutation(["cyclist", "motorcyclist", "cyclist", "motorcyclist"])
        for kind, x in zip(riders[: int(rng.integers(2, 4))], (-1.7, 1.9, -4.8), strict=False):
            beside, z = x + rng.uniform(-0.5, 0.5), start + rng.uniform(3, 13)
            yield self.make(rng, str(kind), beside, z, STEP / 2)
        if rng.random() < 0.5:
            kind = "bicycle" if rng.random() < 0.5 else "motorcycle"
            yield self.make(rng, kind, self.right_kerb + rng.uniform(1, 2), start + rng.uniform(4, 12))

    @staticmethod
    def make(
        rng: np.random.Generator, kind: str, x: float, z: float, speed: float = 0, band: int = 2
    ) -> Thing:
        return Thing(kind, float(x), float(z), tuple(rng.random(8).tolist()), float(speed), band)

    def view(self, frame: int, height: int, width: int) -> Scene:
        position = frame * STEP
        canvas = Canvas(height, width, position, self.mood)
        self.draw_sky(canvas)
        self.draw_ground(canvas)
        last = int((position + SIGHT + 0.15 * frame) // CHUNK)
        chunks = [self.chunk(i) for i in range(max(0, int(position // CHUNK) - 2), last + 1)]
        for lot in sorted((lot for lots, _ in chunks for lot in lots), key=lambda lot: -lot.z):
            if position + NEAR < lot.z + lot.length and lot.z < position + SIGHT:
                LOTS[lot.kind](canvas, lot, self.mood.sun)
        moved = [thing.after(frame) for _, things in chunks for thing in things]
        for thing in sorted(moved, key=lambda t: (1.5 if t.kind == "train" else t.band, -t.z)):
            sight = LARGE_SIGHT if thing.kind in LARGE else SMALL_SIGHT
            if position + NEAR + 1.5 < thing.z + LENGTHS.get(thing.kind, 0) and thing.z < position + sight:
                THINGS[thing.kind](canvas, thing)
        return self.developed(canvas, frame)

    def draw_sky(self, canvas: Canvas) -> None:
        _height, width = canvas.labels.shape
        rows = int(canvas.horizon) + 2
        fade = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
        sky = self.mood.zenith.astype(np.float32) * (1 - fade) + self.mood.haze.astype(np.float32) * fade
        clouds = cv2.resize(self.clouds, (width, rows), interpolation=cv2.INTER_CUBIC)
        cover = np.clip((clouds[..., None] - 0.55) * 1.6, 0, 0.75)
        canvas.image[:rows] = sky + (250 - sky) * cover
        far = canvas.position + 190
        for i, tall in enumerate(self.skyline):
            x = (i - 20) * 12.0
            green = tall < 0.6
            shape = disc(x, 2, far, 8 + 9 * tall, 1.2) if green else facing(x, x + 12, 0, 26 * tall, far)
            colour = LEAVES[0] if green else FACADES[i % 9] * 0.8
            canvas.paint(shape, colour, VEGETATION if green else BUILDING)

    def draw_ground(self, canvas: Canvas) -> None:
        near, far = canvas.position + NEAR, canvas.position + 190
        left, right = self.left_kerb, self.right_kerb
        canvas.paint(flat(-400, 400, near, far), self.grass, TERRAIN)
        canvas.paint(flat(left - self.walk, right + self.walk, near, far), self.paving, SIDEWALK)
        first = np.floor(near / 2) * 2 + 2
        for x0, x1 in ((left - self.walk, left), (right, right + self.walk)):
            joints = [flat(x0, x1, z, z + 0.07) for z in np.arange(first, near + 40, 2)]
            canvas.paint(np.array(joints), self.paving * 0.82)
        canvas.paint(flat(left - 0.12, right + 0.12, near, far), self.paving * 1.12, None)
        canvas.paint(flat(left, right, near, far), self.asphalt, ROAD)
        canvas.paint(np.array([flat(x, x + 0.12, near, far) for x in (-7.6, -6.1)]), self.asphalt * 0.5 + 80)
        canvas.paint(flat(2.1, 2.22, near, far), WHITE * 0.9)
        self.draw_marks(canvas, near)

    def draw_marks(self, canvas: Canvas, near: float) -> None:
        """What lies on the asphalt at places of its own: mended patches, dashes between lanes, crosswalks."""
        start = math.floor(near / 40) * 40 + 2
        for x, along_street in zip((-7.5, -3, 0.5, -5, 2.2), self.skyline[:5] * 30, strict=True):
            for z in (start + along_street, start + along_street + 40):
                if near < z + 2.2 and z < near + 40:
                    canvas.paint(flat(x, x + 1.2, max(z, near), z + 2.2), self.asphalt * 0.9)
        starts = np.arange(math.floor(near / 6) * 6, near + 70, 6)
        dashes = [
            flat(x, x + 0.16, max(z, near), z + 3) for x in (-1.9, -5.2) for z in starts if z + 3 > near
        ]
        canvas.paint(np.array(dashes), WHITE * 0.92)
        stripes = np.arange(self.left_kerb + 0.3, self.right_kerb - 0.4, 1.1)
        for z in np.arange(math.floor(near / 48) * 48 + 8 + 30 * self.skyline[5], near + 60, 48):
            if z + 3 > near:
                crosswalk = [flat(x, x + 0.55, max(z, near), z + 3) for x in stripes]
                canvas.paint(np.array(crosswalk), WHITE * 0.9)

    def developed(self, canvas: Canvas, frame: int) -> Scene:
        """Texture by class, light, and the camera's own grain and softness."""
        height, width = canvas.labels.shape
        rng = np.random.default_rng([self.seed, 0, frame])
        texture = np.full(256, 1.0, np.float32)
        texture[[ROAD, SIDEWALK, TERRAIN, VEGETATION, WALL, SKY]] = 3, 3, 11, 7, 6, 0
        noise = rng.standard_normal((height, width), np.float32)
        strength = texture[canvas.labels] + np.float32(self.mood.grain)
        falloff = np.linspace(-1, 1, width, dtype=np.float32)[None, :] ** 2
        light = (1 - 0.12 * falloff)[..., None] * self.mood.gain.astype(np.float32)
        image = canvas.image.astype(np.float32) * light + (noise * strength)[..., None]
        if self.mood.blur > 0.3:
            image = cv2.GaussianBlur(image, (3, 3), 0.3 + 0.4 * self.mood.blur).reshape(height, width, 3)
        finished = np.clip(image, 0, 255).astype(np.uint8)
        if self.hood:
            turn = np.linspace(0, np.pi, 24)
            across, down = 0.5 + 0.42 * np.cos(turn), 1.02 - 0.11 * np.sin(turn)
            rim = np.column_stack([width * across, height * down])
            pixels = [np.rint(rim * 16).astype(np.int32)]
            cv2.fillPoly(finished, pixels, (46, 50, 58), cv2.LINE_AA, 4)
            cv2.fillPoly(canvas.labels, pixels, VOID, cv2.LINE_8, 4)
        return Scene(finished, canvas.labels)


def make_scene(seed: int, height: int = 256, width: int = 512) -> Scene:
    return Street(seed).view(0, height, width)


def make_clip(seed: int, frames: int, height: int = 256, width: int = 512) -> Iterator[Scene]:
    """The street of `make_scene(seed)`, its first frame included, as the camera drives along it."""
    street = Street(seed)
    return (street.view(frame, height, width) for frame in range(frames))


def write_cityscapes(
    root: Path, count: int, seed: int, split: str = "val", height: int = 256, width: int = 512
) -> list[Path]:
    """Scenes in Cityscapes' own folders and file names; returns the images' paths."""
    images, truths = root / "leftImg8bit" / split / "madeup", root / "gtFine" / split / "madeup"
    images.mkdir(parents=True, exist_ok=True)
    truths.mkdir(parents=True, exist_ok=True)
    ids = np.zeros(256, np.uint8)
    ids[: len(LABEL_IDS)] = LABEL_IDS
    paths = []
    for i in range(count):
        scene = make_scene(seed + i, height, width)
        stem = f"madeup_{i:06d}_000019"
        paths.append(images / f"{stem}_leftImg8bit.png")
        for path, pixels in (
            (paths[-1], scene.image[..., ::-1]),
            (truths / f"{stem}_gtFine_labelIds.png", ids[scene.labels]),
            (truths / f"{stem}_gtFine_labelTrainIds.png", scene.labels),
        ):
            if not cv2.imwrite(str(path), pixels):
                raise OSError(f"could not write {path}")
    return paths
