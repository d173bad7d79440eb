"""Reads an image and its truth together, and demands that both have one size."""

from __future__ import annotations

from segdeploy.datasets.dataset import Dataset, Pair
from segdeploy.datasets.label_files import png_size
from segdeploy.errors import EvaluationError
from segdeploy.picture.image import Frame, LabelMap, read_frame


def read_pair(dataset: Dataset, index: int) -> tuple[Frame, LabelMap]:
    pair = dataset.pairs[index]
    frame, truth = read_frame(pair.image), dataset.read_truth(pair)
    demand_one_size(pair, truth.shape, frame.shape)
    return frame, truth


def read_truth(dataset: Dataset, index: int) -> LabelMap:
    """Read a truth without its image, whose size is still compared if its header holds it."""
    pair = dataset.pairs[index]
    truth = dataset.read_truth(pair)
    size = png_size(pair.image)
    if size is not None:
        demand_one_size(pair, truth.shape, size)
    return truth


def demand_one_size(pair: Pair, truth: tuple[int, ...], image: tuple[int, ...]) -> None:
    if truth[:2] != image[:2]:
        raise EvaluationError(
            f"{pair.truth} is {truth[0]}x{truth[1]} (height x width), its image is {image[0]}x{image[1]}: "
            "labels are never resized, so both must have one size"
        )
