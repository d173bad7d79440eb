"""Draws crops of a labelled data set: which image, which place, and how it is changed.

Beside images without labels, which only a teacher can teach, every second crop is of one of those.
All that is drawn for a slot depends on the seed and the slot's number alone. So any number of threads or processes sees
the same crops, and training goes on after a stop as if there had been none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segdeploy.datasets.dataset import Dataset
from segdeploy.datasets.reading import read_pair, read_truth
from segdeploy.errors import TrainingError
from segdeploy.model.labels import truth_type
from segdeploy.picture.image import Frame, LabelMap, read_frame
from segdeploy.train.recipe import TrainingRecipe

TRIES = 10  # places that are drawn until one fits
RARITY = 0.1  # how much more often rare classes are drawn: exp((1 - share) / RARITY), as DAFormer does
ENOUGH_PIXELS = 64  # pixels of a class that was drawn
KEPT_IMAGES = 64  # decoded images that stay in memory


@dataclass(frozen=True)
class Crops:
    dataset: Dataset
    recipe: TrainingRecipe
    fill: tuple[
        float, float, float
    ]  # where a scaled image is smaller than the crop: the mean, which becomes 0
    unlabelled: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.dataset):
            raise TrainingError(f"{self.dataset} has no image to train on")
        if not self.counts.any():
            raise TrainingError(f"no pixel of {self.dataset} is of a class; its label files are blank")

    @cached_property
    def counts(self) -> NDArray[np.int64]:  # images × classes
        """Count the pixels of each class in each image."""
        classes = len(self.dataset.labels.names)
        counts = np.zeros((len(self.dataset), classes), np.int64)
        for index in range(len(self.dataset)):
            truth = read_truth(self.dataset, index).ravel()
            counts[index] = np.bincount(truth[truth < classes], minlength=classes)[:classes]
        return counts

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        counts = self.counts.sum(0)
        return np.asarray(counts / counts.sum())

    @property
    def without_pixels(self) -> tuple[str, ...]:
        """Name the classes that no image shows: they cannot be learnt."""
        return tuple(
            name for name, share in zip(self.dataset.labels.names, self.shares, strict=True) if share == 0
        )

    def batches(
        self, slots: Iterator[list[int]], threads: int
    ) -> Iterator[tuple[NDArray[np.uint8], LabelMap]]:
        """Give the crops of each list of slots, N×H×W×3 with N×H×W labels, drawn ahead by `threads`."""
        with ThreadPoolExecutor(max(threads, 1)) as pool:
            ahead = []
            for wanted in slots:
                ahead.append([pool.submit(self.drawn, slot) for slot in wanted])
                if len(ahead) > 2:
                    yield stacked([one.result() for one in ahead.pop(0)])
            for waiting in ahead:
                yield stacked([one.result() for one in waiting])

    def drawn(self, slot: int) -> tuple[Frame, LabelMap]:
        rng = np.random.default_rng([self.recipe.seed, slot])
        index, wanted = self.chosen(slot, rng)
        frame, truth = self.read(index)
        size, recipe = self.recipe.crop_size, self.recipe
        scale = rng.uniform(recipe.least_scale, recipe.most_scale)
        mirrored = recipe.flip and rng.random() < 0.5
        top, left, side = self.placed(truth, scale, wanted, rng)
        frame, truth = warped(
            frame, truth, (top, left), side, (size.height, size.width), self.fill, self.dataset.labels.ignore
        )
        if mirrored:
            frame, truth = frame[:, ::-1], truth[:, ::-1]
        if recipe.distort:
            frame = distorted(frame, rng)
        return np.ascontiguousarray(frame), np.ascontiguousarray(truth)

    def chosen(self, slot: int, rng: np.random.Generator) -> tuple[int, int | None]:
        """Choose the image of a slot, and the class that its crop has to show, if one was drawn."""
        if self.unlabelled:
            slot, second = divmod(slot, 2)
            if second:
                return len(self.dataset) + self.in_turn(slot, len(self.unlabelled)), None
        if not self.recipe.rare:
            return self.in_turn(slot, len(self.dataset)), None
        there = self.shares > 0
        weights = np.where(there, np.exp((1 - self.shares) / RARITY), 0)
        wanted = int(rng.choice(len(weights), p=weights / weights.sum()))
        showing = np.flatnonzero(self.counts[:, wanted] >= min(ENOUGH_PIXELS, self.counts[:, wanted].max()))
        return int(rng.choice(showing)), wanted

    def in_turn(self, slot: int, count: int) -> int:
        """Choose one of `count` images: each once, in an order that is drawn, before one comes again."""
        turn, place = divmod(slot, count)
        return int(np.random.default_rng([self.recipe.seed, turn, 1]).permutation(count)[place])

    def placed(
        self, truth: LabelMap, scale: float, wanted: int | None, rng: np.random.Generator
    ) -> tuple[float, float, float]:
        """Draw the corner of a crop in the image's own pixels, and how many of those are one of the crop's."""
        side, size = 1 / scale, self.recipe.crop_size
        height, width = size.height * side, size.width * side
        best, most = (0.0, 0.0), -1.0
        for _ in range(TRIES):
            top = rng.uniform(0, max(truth.shape[0] - height, 0))
            left = rng.uniform(0, max(truth.shape[1] - width, 0))
            seen = truth[int(top) : int(top + height) + 1, int(left) : int(left + width) + 1]
            fits = self.fitness(seen, wanted)
            if fits > most:
                best, most = (top, left), fits
            if fits >= 1:
                break
        return (*best, side)

    def fitness(self, seen: LabelMap, wanted: int | None) -> float:
        """Tell how well a place fits, 1 if there is nothing to better."""
        classes = len(self.dataset.labels.names)
        counts = np.bincount(seen[seen < classes].ravel(), minlength=classes)
        if not counts.any():
            return 0
        mixed = min(self.recipe.most_of_one / (counts.max() / counts.sum()), 1)
        shown = 1.0 if wanted is None else min(counts[wanted] / ENOUGH_PIXELS, 1)
        return float(mixed * shown)

    @cached_property
    def read(self) -> Callable[[int], tuple[Frame, LabelMap]]:
        return lru_cache(KEPT_IMAGES)(self._read)

    def _read(self, index: int) -> tuple[Frame, LabelMap]:
        if index < len(self.dataset):
            return read_pair(self.dataset, index)
        frame = read_frame(self.unlabelled[index - len(self.dataset)])
        labels = self.dataset.labels
        return frame, np.full(frame.shape[:2], labels.ignore, truth_type(len(labels.names)))


def stacked(crops: list[tuple[Frame, LabelMap]]) -> tuple[NDArray[np.uint8], LabelMap]:
    return np.stack([frame for frame, _ in crops]), np.stack([truth for _, truth in crops])


def warped(
    frame: Frame,
    truth: LabelMap,
    corner: tuple[float, float],
    side: float,
    size: tuple[int, int],
    fill: tuple[float, float, float],
    ignore: int,
) -> tuple[Frame, LabelMap]:
    """Cut and scale in one step; what lies beyond the image is `fill`, and of no class."""
    top, left = corner
    # of the crop's pixel (x, y) the image's is (left + (x + ½)·side - ½, top + (y + ½)·side - ½)
    move = np.array([[side, 0, left + side / 2 - 0.5], [0, side, top + side / 2 - 0.5]])
    shape, how = (size[1], size[0]), cv2.WARP_INVERSE_MAP
    # bilinear interpolation alone would leave pixels out
    blur = cv2.blur(frame, (round(side), round(side))) if side > 1 else frame
    pixels = cv2.warpAffine(blur, move, shape, flags=how | cv2.INTER_LINEAR, borderValue=fill)
    labels = cv2.warpAffine(truth, move, shape, flags=how | cv2.INTER_NEAREST, borderValue=ignore)
    return np.asarray(pixels, np.uint8), np.asarray(labels, truth.dtype)


def distorted(frame: Frame, rng: np.random.Generator) -> Frame:
    """Change brightness, contrast, saturation and hue, each with the chance of a half, as SSD and mmsegmentation do."""
    pixels = frame.astype(np.float32)
    if rng.random() < 0.5:
        pixels += rng.uniform(-32, 32)
    if rng.random() < 0.5:
        pixels *= rng.uniform(0.5, 1.5)
    changed = np.clip(pixels, 0, 255).astype(np.uint8)
    saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    hue = int(rng.integers(-9, 10)) if rng.random() < 0.5 else 0  # of 180
    if saturation == 1.0 and hue == 0:
        return changed
    tones = cv2.cvtColor(changed, cv2.COLOR_RGB2HSV).astype(np.int16)
    tones[..., 0] = (tones[..., 0] + hue) % 180
    tones[..., 1] = np.clip(tones[..., 1] * saturation, 0, 255)
    return np.asarray(cv2.cvtColor(tones.astype(np.uint8), cv2.COLOR_HSV2RGB), np.uint8)
