"""Draws the camera's view of a street at one frame, back to front: sky, ground, lots, things; then light and grain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from segdeploy.scenes import furniture, lots, people, vehicles
from segdeploy.scenes.canvas import FRACTION_BITS, NEAR, SUBPIXELS, Bytes, Canvas
from segdeploy.scenes.classes import BUILDING, ROAD, SIDEWALK, SKY, TERRAIN, VEGETATION, VOID, WALL
from segdeploy.scenes.colours import FACADES, LEAVES, WHITE
from segdeploy.scenes.shapes import disc, facing, flat
from segdeploy.scenes.street import (
    CAMERA_SPEED,
    CHUNK,
    LEFT_KERB,
    ONCOMING_SPEED,
    RIGHT_KERB,
    SIDEWALK_WIDTH,
    Lot,
    Street,
    Thing,
)

LOT_SIGHT, LARGE_SIGHT, SMALL_SIGHT = 100.0, 75.0, 38.0  # metres ahead of the camera
SKYLINE = 190  # metres ahead of the camera, where the ground ends
RAILS_X = (-7.6, -6.1)
LANE_MARKS_X = (-1.9, -5.2)
PATCHES_X = (-7.5, -3, 0.5, -5, 2.2)
HOOD = (46, 50, 58)

TEXTURE = np.ones(256, np.float32)  # grain by class
TEXTURE[[ROAD, SIDEWALK, TERRAIN, VEGETATION, WALL, SKY]] = 3, 3, 11, 7, 6, 0


@dataclass(frozen=True)
class Scene:
    image: Bytes  # H×W×3 RGB
    labels: Bytes  # H×W train ids, 255 void


@dataclass(frozen=True)
class Kind:
    draw: Callable[[Canvas, Thing], None]
    sight: float = SMALL_SIGHT
    length: float = 0.0


LOTS: dict[str, Callable[[Canvas, Lot, float], None]] = {
    "building": lots.draw_building,
    "wall": lots.draw_wall,
    "fence": lots.draw_fence,
    "park": lots.draw_park,
}
THINGS = {
    "car": Kind(vehicles.draw_car, LARGE_SIGHT, vehicles.CAR_LENGTH),
    "truck": Kind(vehicles.draw_truck, LARGE_SIGHT, vehicles.TRUCK_LENGTH),
    "bus": Kind(vehicles.draw_bus, LARGE_SIGHT, vehicles.BUS_LENGTH),
    "train": Kind(vehicles.draw_train, LARGE_SIGHT, vehicles.TRAIN_LENGTH),
    "person": Kind(people.draw_person),
    "crossing": Kind(people.draw_person),
    "bicycle": Kind(people.draw_bicycle),
    "cyclist": Kind(people.draw_bicycle),
    "motorcycle": Kind(people.draw_motorcycle),
    "motorcyclist": Kind(people.draw_motorcycle),
    "lamp": Kind(furniture.draw_lamp, LARGE_SIGHT),
    "light": Kind(furniture.draw_light),
    "sign": Kind(furniture.draw_sign),
    "tree": Kind(furniture.draw_street_tree, LARGE_SIGHT),
    "bin": Kind(furniture.draw_bin),
}


def view(street: Street, frame: int, height: int, width: int) -> Scene:
    position = frame * CAMERA_SPEED
    canvas = Canvas(height, width, position, street.mood)
    draw_sky(canvas, street)
    draw_ground(canvas, street)
    last = int((position + LOT_SIGHT - ONCOMING_SPEED * frame) // CHUNK)
    chunks = [street.chunk(i) for i in range(max(0, int(position // CHUNK) - 2), last + 1)]
    for lot in sorted((lot for chunk in chunks for lot in chunk.lots), key=lambda lot: -lot.z):
        if position + NEAR < lot.end and lot.z < position + LOT_SIGHT:
            LOTS[lot.kind](canvas, lot, street.mood.sun)
    moved = [thing.after(frame) for chunk in chunks for thing in chunk.things]
    for thing in sorted(moved, key=lambda thing: (thing.band, -thing.z)):
        kind = THINGS[thing.kind]
        if position + NEAR + 1.5 < thing.z + kind.length and thing.z < position + kind.sight:
            kind.draw(canvas, thing)
    image = developed(canvas, street, frame)
    if street.hood:
        draw_hood(image, canvas.labels)
    return Scene(image, canvas.labels)


def draw_sky(canvas: Canvas, street: Street) -> None:
    rows, width = int(canvas.horizon) + 2, canvas.labels.shape[1]
    fade = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    zenith, haze = street.mood.zenith.astype(np.float32), street.mood.haze.astype(np.float32)
    sky = zenith * (1 - fade) + haze * fade
    clouds = cv2.resize(street.clouds, (width, rows), interpolation=cv2.INTER_CUBIC)
    cover = np.clip((clouds[..., None] - 0.55) * 1.6, 0, 0.75)
    canvas.image[:rows] = sky + (250 - sky) * cover
    far = canvas.position + SKYLINE
    for i, tall in enumerate(street.skyline):
        x = (i - 20) * 12.0
        if tall < 0.6:
            canvas.paint(disc(x, 2, far, 8 + 9 * tall, 1.2), LEAVES[0], VEGETATION)
        else:
            canvas.paint(facing(x, x + 12, 0, 26 * tall, far), FACADES[i % len(FACADES)] * 0.8, BUILDING)


def draw_ground(canvas: Canvas, street: Street) -> None:
    near, far = canvas.position + NEAR, canvas.position + SKYLINE
    left, right = LEFT_KERB - SIDEWALK_WIDTH, RIGHT_KERB + SIDEWALK_WIDTH
    canvas.paint(flat(-400, 400, near, far), street.grass, TERRAIN)
    canvas.paint(flat(left, right, near, far), street.paving, SIDEWALK)
    first = np.floor(near / 2) * 2 + 2
    for x0, x1 in ((left, LEFT_KERB), (RIGHT_KERB, right)):
        joints = [flat(x0, x1, z, z + 0.07) for z in np.arange(first, near + 40, 2)]
        canvas.paint(joints, street.paving * 0.82)
    canvas.paint(flat(LEFT_KERB - 0.12, RIGHT_KERB + 0.12, near, far), street.paving * 1.12)
    canvas.paint(flat(LEFT_KERB, RIGHT_KERB, near, far), street.asphalt, ROAD)
    canvas.paint([flat(x, x + 0.12, near, far) for x in RAILS_X], street.asphalt * 0.5 + 80)
    canvas.paint(flat(2.1, 2.22, near, far), WHITE * 0.9)
    draw_marks(canvas, street, near)


def draw_marks(canvas: Canvas, street: Street, near: float) -> None:
    """Draw the marks on the asphalt, which are not in chunks: mended patches, dashes between lanes, crosswalks."""
    start = math.floor(near / 40) * 40 + 2
    for x, along_street in zip(PATCHES_X, street.skyline[:5] * 30, strict=True):
        for z in (start + along_street, start + along_street + 40):
            if near < z + 2.2 and z < near + 40:
                canvas.paint(flat(x, x + 1.2, max(z, near), z + 2.2), street.asphalt * 0.9)
    starts = np.arange(math.floor(near / 6) * 6, near + 70, 6)
    dashes = [flat(x, x + 0.16, max(z, near), z + 3) for x in LANE_MARKS_X for z in starts if z + 3 > near]
    canvas.paint(dashes, WHITE * 0.92)
    stripes = np.arange(LEFT_KERB + 0.3, RIGHT_KERB - 0.4, 1.1)
    for z in np.arange(math.floor(near / 48) * 48 + 8 + 30 * street.skyline[5], near + 60, 48):
        if z + 3 > near:
            canvas.paint([flat(x, x + 0.55, max(z, near), z + 3) for x in stripes], WHITE * 0.9)


def developed(canvas: Canvas, street: Street, frame: int) -> Bytes:
    """Give the image light, texture by class, and the camera's grain and blur."""
    (height, width), mood = canvas.labels.shape, street.mood
    noise = np.random.default_rng([street.seed, 0, frame]).standard_normal((height, width), np.float32)
    strength = TEXTURE[canvas.labels] + np.float32(mood.grain)
    falloff = np.linspace(-1, 1, width, dtype=np.float32)[None, :] ** 2
    light = (1 - 0.12 * falloff)[..., None] * mood.gain.astype(np.float32)
    image = canvas.image.astype(np.float32) * light + (noise * strength)[..., None]
    if mood.blur > 0.3:
        image = cv2.GaussianBlur(image, (3, 3), 0.3 + 0.4 * mood.blur).reshape(height, width, 3)
    finished: Bytes = np.clip(image, 0, 255).astype(np.uint8)
    return finished


def draw_hood(image: Bytes, labels: Bytes) -> None:
    height, width = labels.shape
    turn = np.linspace(0, np.pi, 24)
    across, down = 0.5 + 0.42 * np.cos(turn), 1.02 - 0.11 * np.sin(turn)
    rim = np.column_stack([width * across, height * down])
    pixels = [np.rint(rim * SUBPIXELS).astype(np.int32)]
    cv2.fillPoly(image, pixels, HOOD, cv2.LINE_AA, FRACTION_BITS)
    cv2.fillPoly(labels, pixels, VOID, cv2.LINE_8, FRACTION_BITS)
