"""Draws the textures of weather: a cloud of noise, and panes of frosted glass.

The benchmark (imagenet_c) has six photographs of frosted glass, which we may not distribute. A network's loss behind
one depends on its colour, its unevenness and its edges: behind noise of a photograph's own spectrum a network kept 12
points more of its labels than behind one photograph, and 10 fewer than behind another. So each pane here has the size,
the mean colour and about the deviations of one photograph, and consists of straight needles over an uneven cover.
`benchmarks/corruptions.py` compares the labels that a network keeps behind ours and theirs.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]  # H×W or H×W×3, 0 to 1 unless said otherwise


def cloud(height: int, width: int, decay: float, random: np.random.Generator) -> Floats:
    """Draw noise of 0 to 1 by the diamond-square method; the field is periodic.

    A new point halfway between its neighbours is their mean plus a draw, whose amplitude falls by `decay` with each
    halving of the grid.
    """
    step = 1 << (max(height, width) - 1).bit_length()
    field, amplitude = np.zeros((step, step), np.float32), 1.0
    while step > 1:
        half, corners = step // 2, field[::step, ::step]
        right, below = np.roll(corners, -1, 1), np.roll(corners, -1, 0)
        draws = random.uniform(-amplitude, amplitude, (3, *corners.shape))
        middles = (corners + right + below + np.roll(below, -1, 1)) / 4 + draws[0]
        field[::step, half::step] = (corners + right + middles + np.roll(middles, 1, 0)) / 4 + draws[1]
        field[half::step, ::step] = (corners + below + middles + np.roll(middles, 1, 1)) / 4 + draws[2]
        field[half::step, half::step] = middles
        step, amplitude = half, amplitude / decay
    field -= field.min()
    return np.asarray(field[:height, :width] / max(float(field.max()), 1e-6), np.float32)


class Pane(NamedTuple):
    """Describes a photograph of frosted glass by what affects a network, in pixels and in grey levels of 255."""

    size: tuple[int, int]
    colour: tuple[int, int, int]
    cover: tuple[float, float]  # deviation of its thickness, and the decay of `cloud`
    needles: tuple[float, float]  # deviation of their shade, and their usual length in pixels


PANES = (
    Pane((600, 900), (78, 149, 166), (14, 2.2), (10.5, 10)),
    Pane((315, 560), (201, 205, 214), (14, 1.5), (15.5, 20)),
    Pane((315, 560), (201, 205, 214), (14, 1.5), (15.5, 20)),  # the benchmark has this one twice
    Pane((350, 527), (138, 153, 165), (18, 2.2), (19, 10)),
    Pane((495, 660), (112, 123, 135), (34, 2.2), (33, 20)),
    Pane((323, 485), (71, 95, 105), (32, 1.5), (20, 20)),
)


def frosted_pane(height: int, width: int, random: np.random.Generator) -> Floats:  # H×W×3
    """Draw a part of a random pane, which is enlarged to at least 1.1 times the frame."""
    pane = PANES[random.integers(len(PANES))]
    scale = 1.1 * max(1.0, height / pane.size[0], width / pane.size[1])
    rows, columns = int(np.ceil(height / scale)), int(np.ceil(width / scale))
    (thickness, decay), (shade, length) = pane.cover, pane.needles
    ice = thickness * standardised(cloud(rows, columns, decay, random))
    ice += shade * standardised(needles(rows, columns, length, random))
    ice = np.asarray(cv2.resize(ice, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    return np.clip((ice[..., None] + np.array(pane.colour, np.float32)) / 255, 0, 1)


def standardised(values: Floats) -> Floats:
    return np.asarray((values - values.mean()) / values.std(), np.float32)


def needles(height: int, width: int, usual: float, random: np.random.Generator) -> Floats:
    """Draw bars of all directions and shades, twelve times as long as wide, enough to cover nearly everything."""
    count = int(20 * height * width / usual**2)
    lengths = usual * np.exp(random.uniform(-1, 1, count))
    angles = random.uniform(0, np.pi, count)
    middles = random.uniform(0, 1, (count, 2)) * (width, height)
    reach = np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None] / 2
    ends = np.rint([middles - reach, middles + reach]).astype(int).tolist()
    shades, widths = random.standard_normal(count), np.maximum(np.rint(lengths / 12), 1).astype(int)
    drawn = np.zeros((height, width), np.float32)
    for one, other, tone, thick in zip(*ends, shades.tolist(), widths.tolist(), strict=True):
        cv2.line(drawn, one, other, tone, thick)
    return drawn
