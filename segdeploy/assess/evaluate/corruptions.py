"""Applies the 16 corruptions × 5 severities of Cityscapes-C (Kamann and Rother, CVPR 2020), each seeded by its image.

The definitions and the numbers are those of ImageNet-C (Hendrycks and Dietterich, ICLR 2019), in pixels whatever the
size of the frame, as in Cityscapes-C; the code is ours, on numpy and OpenCV. So figures are comparable with published
ones in kind, not to the decimal. These differ by more than their random numbers:

* frost: the benchmark lays photographs of frosted panes over the frame; ours are drawn (`textures.py`);
* glass_blur: a row of pixels is displaced at once, the rows in turn;
* motion_blur, snow: the half Gaussian along the path becomes a kernel with sub-pixel weights.

`benchmarks/corruptions.py` compares all sixteen with the benchmark's own code, by the labels that a network keeps.
A higher severity is not always stronger: `saturate` removes colour at 1 and 2 and exaggerates it from 3 on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.assess.evaluate.textures import Floats, cloud, frosted_pane
from segdeploy.errors import ImageError, RequestError
from segdeploy.picture.image import Frame
from segdeploy.size import SMALLEST

Corrupt = Callable[..., Frame]  # takes a frame, a generator and the strengths at one severity

SEVERITIES = (1, 2, 3, 4, 5)
CATEGORIES: dict[str, tuple[str, ...]] = {
    "blur": ("motion_blur", "defocus_blur", "glass_blur", "gaussian_blur"),
    "noise": ("gaussian_noise", "impulse_noise", "shot_noise", "speckle_noise"),
    "digital": ("brightness", "contrast", "saturate", "jpeg_compression"),
    "weather": ("snow", "spatter", "fog", "frost"),
}
CORRUPTIONS: tuple[str, ...] = tuple(name for names in CATEGORIES.values() for name in names)


# The arguments of each function below at severity 1 to 5: c in imagenet_c/corruptions.py (hendrycks/robustness), and in
# imagecorruptions (bethgelab), from which Cityscapes-C is made.
STRENGTHS: dict[str, tuple[tuple[float, ...], ...]] = {
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "gaussian_blur": ((1,), (2,), (3,), (4,), (6,)),
    "gaussian_noise": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    "impulse_noise": ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    "shot_noise": ((60,), (25,), (12,), (5,), (3,)),
    "speckle_noise": ((0.15,), (0.2,), (0.35,), (0.45,), (0.6,)),
    "brightness": ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    "contrast": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    "jpeg_compression": ((25,), (18,), (15,), (10,), (7,)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
}


def corrupt(frame: Frame, name: str, severity: int, seed: int) -> Frame:
    """Apply the corruption `name` at severity 1 to 5; callers make `seed` from the pixels, so noise differs."""
    demand_corruption(name, severity)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ImageError(f"a frame is uint8 H×W×3 RGB, got {frame.dtype} {frame.shape}")
    if min(frame.shape[:2]) < SMALLEST:
        raise ImageError(
            f"a frame of {frame.shape[0]}x{frame.shape[1]} is too small; expected {SMALLEST} pixels a side"
        )
    random = np.random.default_rng([*name.encode(), severity, seed])
    return _HOW[name](frame, random, *STRENGTHS[name][severity - 1])


def robustness_table(
    score: Callable[[str, int], float],
    names: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
) -> dict[str, Any]:
    """Call `score(name, severity)` for all of them, and add means per corruption and over the corruptions.

    `mean_as_published` is the mean of the Cityscapes-C tables, in which noise counts with severities 1 to 3 only.
    """
    for name in names:
        for severity in severities:
            demand_corruption(name, severity)
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        scores = {severity: score(name, severity) for severity in severities}
        milder = [scores[severity] for severity in scores if name not in CATEGORIES["noise"] or severity <= 3]
        rows[name] = {
            "severities": scores,
            "mean": mean_of_levels(scores.values()),
            "mean_as_published": mean_of_levels(milder),
        }
    overall = {
        key: mean_of_levels(row[key] for row in rows.values()) for key in ("mean", "mean_as_published")
    }
    return {"corruptions": rows, **overall}


def mean_of_levels(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else float("nan")


def demand_corruption(name: str, severity: float) -> None:
    if name not in CORRUPTIONS:
        raise RequestError(f"no corruption is called {name!r}; known: {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise RequestError(f"{severity:g} is not a severity; known: {', '.join(map(str, SEVERITIES))}")


def shares(frame: Frame) -> Floats:
    return np.multiply(frame, np.float32(1 / 255), dtype=np.float32)


def pixels(values: Floats) -> Frame:
    """Convert 0 to 1 into 8 bits; overwrites `values`."""
    values *= 255
    values += 0.5
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


# ---- blur ------------------------------------------------------------------------------------------------------


def motion_blur(frame: Frame, random: np.random.Generator, radius: int, sigma: float) -> Frame:
    return pixels(smear(shares(frame), radius, sigma, random.uniform(-45, 45)))


def defocus_blur(frame: Frame, random: np.random.Generator, radius: int, softness: float) -> Frame:
    edge = 3 if radius <= 8 else 5
    reach = radius + edge // 2  # room for the soft edge, so that the kernel sums to one
    rows, columns = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc = (rows**2 + columns**2 <= radius**2).astype(np.float32)
    kernel = cv2.GaussianBlur(disc / disc.sum(), (edge, edge), softness, borderType=cv2.BORDER_CONSTANT)
    return pixels(np.asarray(cv2.filter2D(shares(frame), -1, kernel), np.float32))


def glass_blur(frame: Frame, random: np.random.Generator, sigma: float, reach: int, times: int) -> Frame:
    seen = gaussian(frame, sigma)
    height, width = seen.shape[:2]
    columns = np.arange(width)
    for _ in range(times):
        steps = random.integers(-reach, reach, (2, height, width), np.int32)
        for row in range(height - 1, -1, -1):  # upwards: the rows below are displaced already
            down = np.clip(row + steps[0, row], 0, height - 1)
            across = np.clip(columns + steps[1, row], 0, width - 1)
            seen[row] = seen[down, across]
    return np.asarray(gaussian(seen, sigma), np.uint8)


def gaussian_blur(frame: Frame, random: np.random.Generator, sigma: float) -> Frame:
    return np.asarray(gaussian(frame, sigma), np.uint8)


def gaussian(values: NDArray[Any], sigma: float) -> NDArray[Any]:
    side = 2 * int(4 * sigma + 0.5) + 1
    return np.asarray(cv2.GaussianBlur(values, (side, side), sigma, borderType=cv2.BORDER_REPLICATE))


def smear(values: Floats, radius: int, sigma: float, degrees: float) -> Floats:
    """Blur along a straight path from each pixel, 2·radius + 1 steps long, with the weights of half a Gaussian."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    kernel = np.zeros((4 * radius + 3, 4 * radius + 3), np.float32)
    rows = 2 * radius + 1 + steps * np.sin(np.deg2rad(degrees))
    columns = 2 * radius + 1 + steps * np.cos(np.deg2rad(degrees))
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        down, across = np.floor(rows).astype(int) + row, np.floor(columns).astype(int) + column
        near = np.maximum(1 - np.abs(rows - down), 0) * np.maximum(1 - np.abs(columns - across), 0)
        inside = near > 0
        np.add.at(kernel, (down[inside], across[inside]), (weights * near)[inside])
    kernel /= kernel.sum()
    return np.asarray(cv2.filter2D(values, -1, kernel, borderType=cv2.BORDER_REPLICATE), np.float32)


# ---- noise -----------------------------------------------------------------------------------------------------


def gaussian_noise(frame: Frame, random: np.random.Generator, deviation: float) -> Frame:
    noise = random.standard_normal(frame.shape, np.float32)
    noise *= np.float32(deviation)
    noise += shares(frame)
    return pixels(noise)


def impulse_noise(frame: Frame, random: np.random.Generator, share: float) -> Frame:
    drawn = random.random(frame.shape, np.float32)  # each colour on its own
    noisy = frame.copy()
    noisy[drawn < share / 2] = 0
    noisy[drawn > 1 - share / 2] = 255
    return noisy


def shot_noise(frame: Frame, random: np.random.Generator, photons: float) -> Frame:
    expected = (np.arange(256) * (photons / 255))[frame]
    return pixels((random.poisson(expected) / photons).astype(np.float32))


def speckle_noise(frame: Frame, random: np.random.Generator, deviation: float) -> Frame:
    noise = random.standard_normal(frame.shape, np.float32)
    noise *= np.float32(deviation)
    noise += 1
    noise *= shares(frame)
    return pixels(noise)


# ---- digital ---------------------------------------------------------------------------------------------------


def brightness(frame: Frame, random: np.random.Generator, added: float) -> Frame:
    colours = cv2.cvtColor(shares(frame), cv2.COLOR_RGB2HSV)
    colours[..., 2] = np.minimum(colours[..., 2] + added, 1)
    return pixels(np.asarray(cv2.cvtColor(colours, cv2.COLOR_HSV2RGB), np.float32))


def contrast(frame: Frame, random: np.random.Generator, kept: float) -> Frame:
    middle = frame.mean(axis=(0, 1))  # per channel
    table = (np.arange(256)[:, None] - middle) * kept + middle
    return np.asarray(cv2.LUT(frame, np.rint(table).astype(np.uint8)[None]), np.uint8)


def saturate(frame: Frame, random: np.random.Generator, factor: float, offset: float) -> Frame:
    colours = cv2.cvtColor(shares(frame), cv2.COLOR_RGB2HSV)
    colours[..., 1] = np.clip(colours[..., 1] * factor + offset, 0, 1)
    return pixels(np.asarray(cv2.cvtColor(colours, cv2.COLOR_HSV2RGB), np.float32))


def jpeg_compression(frame: Frame, random: np.random.Generator, quality: int) -> Frame:
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


# ---- weather ---------------------------------------------------------------------------------------------------


def snow(
    frame: Frame,
    random: np.random.Generator,
    centre: float,
    spread: float,
    zoom: float,
    threshold: float,
    radius: int,
    sigma: float,
    kept: float,
) -> Frame:
    height, width = frame.shape[:2]
    small = (int(np.ceil(height / zoom)), int(np.ceil(width / zoom)))
    flakes = stretched(random.normal(centre, spread, small).astype(np.float32), height, width)
    flakes[flakes < threshold] = 0
    flakes = smear(np.clip(flakes, 0, 1), radius, sigma, random.uniform(-135, -45))
    seen = shares(frame)
    paler = cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY)[..., None] * 1.5 + 0.5
    snowy = kept * seen + (1 - kept) * np.maximum(seen, paler)
    snowy += (flakes + flakes[::-1, ::-1])[..., None]  # falling, and the same seen upside down
    return pixels(snowy)


def stretched(values: Floats, height: int, width: int) -> Floats:
    """Corner to corner, as scipy's zoom stretches: where cv2.resize hits each third value, more of them are flakes."""
    rows, columns = (
        np.linspace(0, had - 1, side, dtype=np.float32)
        for had, side in zip(values.shape, (height, width), strict=True)
    )
    down, across = np.meshgrid(rows, columns, indexing="ij")
    return np.asarray(cv2.remap(values, across, down, cv2.INTER_LINEAR), np.float32)


WATER = np.array((175, 238, 238), np.float32) / 255
MUD = np.array((63, 42, 20), np.float32) / 255
LIGHT = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)  # from the upper left


def spatter(
    frame: Frame,
    random: np.random.Generator,
    centre: float,
    spread: float,
    size: float,
    threshold: float,
    strength: float,
    muddy: int,
) -> Frame:
    noise = random.standard_normal(frame.shape[:2], np.float32) * np.float32(spread) + np.float32(centre)
    liquid = gaussian(noise, size)
    seen = shares(frame)
    if not muddy:
        liquid[liquid < threshold] = 0
        seen += glare(liquid, strength)[..., None] * WATER
        return pixels(seen)
    cover = gaussian((liquid > threshold).astype(np.float32), strength)[..., None]
    cover[cover < 0.8] = 0
    return pixels(np.asarray(seen * (1 - cover) + cover * MUD, np.float32))


def glare(depth: Floats, strength: float) -> Floats:
    """Light water of this depth; its surface rises with the distance from its edge, up to 20 pixels."""
    water = (depth * 255).astype(np.uint8)
    inland = cv2.distanceTransform(255 - cv2.Canny(water, 50, 150), cv2.DIST_L2, 5)
    height = cv2.equalizeHist(cv2.blur(np.minimum(inland, 20), (3, 3)).astype(np.uint8))
    light = cv2.blur(cv2.filter2D(height, cv2.CV_8U, LIGHT), (3, 3)).astype(np.float32) * water
    return np.asarray(light * (strength / max(float(light.max()), 1e-6)), np.float32)


def fog(frame: Frame, random: np.random.Generator, thickness: float, decay: float) -> Frame:
    height, width = frame.shape[:2]
    seen = shares(frame)
    brightest = float(seen.max())
    seen += thickness * cloud(height, width, decay**2, random)[..., None]
    seen *= brightest / (brightest + thickness)
    return pixels(seen)


def frost(frame: Frame, random: np.random.Generator, kept: float, laid: float) -> Frame:
    height, width = frame.shape[:2]
    seen = shares(frame)
    seen *= kept
    seen += laid * frosted_pane(height, width, random)
    return pixels(seen)


_HOW: dict[str, Corrupt] = {
    "motion_blur": motion_blur,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "gaussian_blur": gaussian_blur,
    "gaussian_noise": gaussian_noise,
    "impulse_noise": impulse_noise,
    "shot_noise": shot_noise,
    "speckle_noise": speckle_noise,
    "brightness": brightness,
    "contrast": contrast,
    "saturate": saturate,
    "jpeg_compression": jpeg_compression,
    "snow": snow,
    "spatter": spatter,
    "fog": fog,
    "frost": frost,
}
