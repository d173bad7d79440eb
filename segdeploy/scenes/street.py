"""Places things along an endless street, which is made in chunks as the camera reaches them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from segdeploy.scenes.canvas import mood_of
from segdeploy.scenes.colours import palette, rgb

LEFT_KERB, RIGHT_KERB = -8.4, 4.2
SIDEWALK_WIDTH = 3.0
CHUNK = 24.0  # metres of street made at once
LOT_LENGTH = 8.0
CAMERA_SPEED = 0.3  # this and all speeds: metres per frame
ONCOMING_SPEED = -0.15
LEFT_SIDEWALK, RAILS, CARRIAGEWAY = range(3)  # bands, in the order they are drawn


@dataclass(frozen=True)
class Lot:
    kind: str
    x: float  # of the edge that faces the street
    z: float
    style: tuple[float, ...]  # eight numbers in [0, 1) that decide its looks

    @property
    def end(self) -> float:
        return self.z + LOT_LENGTH

    @property
    def side(self) -> float:
        return math.copysign(1, self.x)


@dataclass(frozen=True)
class Thing:
    kind: str
    x: float
    z: float
    style: tuple[float, ...]  # as for a lot
    speed: float = 0.0  # ahead
    band: int = CARRIAGEWAY

    def after(self, frames: int) -> Thing:
        aside = math.copysign(0.06, self.x) if self.kind == "crossing" else 0.0
        return replace(self, x=self.x + aside * frames, z=self.z + self.speed * frames)


@dataclass(frozen=True)
class Chunk:
    lots: tuple[Lot, ...]
    things: tuple[Thing, ...]


class Street:
    """Makes a street; all randomness comes from numpy Generators seeded by street and chunk."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self.seed = seed
        self.mood = mood_of(rng)
        self.verge = float(rng.uniform(0.8, 2.0))
        self.asphalt = rgb("57585c") * rng.uniform(0.85, 1.2)
        self.paving = palette("b9aea2", "a9a5a6", "c2b0a0")[int(rng.integers(3))] * rng.uniform(0.92, 1.08)
        self.grass = palette("8b8a45", "7f9148", "9c8a52")[int(rng.integers(3))] * rng.uniform(0.9, 1.1)
        self.hood = bool(rng.random() < 0.4)  # whether the camera sees its own car's hood
        self.skyline = rng.random(40)
        self.clouds = rng.random((5, 9)).astype(np.float32)
        self.chunk = lru_cache(maxsize=16)(self._chunk)

    def _chunk(self, index: int) -> Chunk:
        rng = np.random.default_rng([self.seed, index + 1])
        start = 4 + index * CHUNK
        return Chunk(tuple(self._lots(rng, start)), tuple(things(rng, start)))

    def _lots(self, rng: np.random.Generator, start: float) -> Iterator[Lot]:
        last = "wall" if start > 40 else "park"
        kinds = rng.permutation(["building", "building", "wall", "fence", "fence", last])
        edges = LEFT_KERB - SIDEWALK_WIDTH - self.verge, RIGHT_KERB + SIDEWALK_WIDTH + self.verge
        for i, kind in enumerate(kinds):
            yield Lot(str(kind), edges[i % 2], start - 4 + LOT_LENGTH * (i // 2), style(rng))


def style(rng: np.random.Generator) -> tuple[float, ...]:
    return tuple(rng.random(8).tolist())


def make(
    rng: np.random.Generator, kind: str, x: float, z: float, speed: float = 0, band: int = CARRIAGEWAY
) -> Thing:
    return Thing(str(kind), float(x), float(z), style(rng), float(speed), band)


def things(rng: np.random.Generator, start: float) -> Iterator[Thing]:
    yield from traffic(rng, start)
    yield from parked(rng, start)
    yield from riders(rng, start)
    yield from furniture(rng, start)
    yield from walkers(rng, start)


def traffic(rng: np.random.Generator, start: float) -> Iterator[Thing]:
    ahead, oncoming = rng.permutation(["truck", "bus", "car"])[:2]
    if rng.random() < 0.75:
        yield make(rng, "train", -6.8, start + rng.uniform(5, 12), -0.1, RAILS)
    else:
        for i in range(2):
            yield make(rng, "car", -7.2, start + 4 + 9 * i + rng.uniform(0, 3))
    if rng.random() < 0.8:
        yield make(rng, oncoming, -3.6, start + rng.uniform(6, 15), ONCOMING_SPEED)
    yield make(rng, ahead, rng.uniform(-0.3, 0.3), start + rng.uniform(12, 17), CAMERA_SPEED)


def parked(rng: np.random.Generator, start: float) -> Iterator[Thing]:
    for i, kind in enumerate(rng.permutation(["car", "motorcycle", "bicycle", "car"])):
        x = 3.1 if kind == "car" else rng.uniform(2.4, 3.4)
        yield make(rng, kind, x, start + 2.5 + 5.5 * i + rng.uniform(0, 1))


def riders(rng: np.random.Generator, start: float) -> Iterator[Thing]:
    """Place two or three riders on the carriageway, and sometimes a parked two-wheeler on the sidewalk."""
    kinds = rng.permutation(["cyclist", "motorcyclist", "cyclist", "motorcyclist"])
    for kind, x in zip(kinds[: int(rng.integers(2, 4))], (-1.7, 1.9, -4.8), strict=False):
        yield make(rng, kind, x + rng.uniform(-0.5, 0.5), start + rng.uniform(3, 13), CAMERA_SPEED / 2)
    if rng.random() < 0.5:
        kind = "bicycle" if rng.random() < 0.5 else "motorcycle"
        yield make(rng, kind, RIGHT_KERB + rng.uniform(1, 2), start + rng.uniform(4, 12))


def furniture(rng: np.random.Generator, start: float) -> Iterator[Thing]:
    left, right = LEFT_KERB - 0.6, RIGHT_KERB + 0.5
    for i, kind in enumerate(rng.permutation(["light", "sign", "lamp", "sign", "light"])):
        x, band = (left, LEFT_SIDEWALK) if i % 2 == 0 else (right, CARRIAGEWAY)
        yield make(rng, kind, x, start + 3 + 4.5 * i + rng.uniform(0, 2), band=band)
    for i in range(int(rng.integers(1, 4))):
        x, band = (right + 2.9, CARRIAGEWAY) if rng.random() < 0.5 else (left - 2.9, LEFT_SIDEWALK)
        yield make(rng, "tree", x, start + 4 + 7 * i + rng.uniform(0, 3), band=band)


def walkers(rng: np.random.Generator, start: float) -> Iterator[Thing]:
    """Place five persons on the sidewalks, and sometimes one on the road and a bin."""
    for i in range(5):
        right = i < 3
        x = RIGHT_KERB + rng.uniform(0.9, 2.7) if right else LEFT_KERB - rng.uniform(0.8, 2.6)
        z, pace = start + 3 + 18 * rng.random(), rng.uniform(-0.03, 0.03)
        yield make(rng, "person", x, z, pace, CARRIAGEWAY if right else LEFT_SIDEWALK)
    if rng.random() < 0.35:
        yield make(rng, "crossing", rng.uniform(-3, 3), start + rng.uniform(6, 9))
    if rng.random() < 0.4:
        yield make(rng, "bin", RIGHT_KERB + rng.uniform(0.9, 2.4), start + 20 * rng.random())
