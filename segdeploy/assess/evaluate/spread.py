"""Counts the images of an evaluation in several processes, or on a cluster.

Each image's counts come back, and are added up by whoever asked. They are whole numbers, so the scores are those of one
process to the last digit, whoever counted what, and whoever died meanwhile: an image that was not answered for is
counted again.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segdeploy.assess.evaluate.evaluate import Count, Matrix, matrix_of
from segdeploy.assess.evaluate.modes import Mode, spoilt
from segdeploy.datasets.dataset import Dataset, Pair
from segdeploy.datasets.known import FOLDER
from segdeploy.datasets.layouts import open_dataset
from segdeploy.datasets.reading import read_pair
from segdeploy.errors import EvaluationError
from segdeploy.files import digest_of
from segdeploy.model.card import name_for_others, read_card
from segdeploy.model.typed_json import from_json
from segdeploy.run.crew import Answer, Order, Task
from segdeploy.run.hands import Hands
from segdeploy.run.session import open_session
from segdeploy.size import Size


@dataclass(frozen=True)
class CounterSetup:
    """Holds what a worker is told once: a model, how frames go through it, and a data set by name."""

    model: str
    digest: str
    dataset: str
    root: str
    split: str | None
    mapping: str | None
    fit: str
    kernel: str | None
    windows: bool
    stride: str | None
    frame: str | None
    scales: tuple[float, ...]
    flip: bool
    card: str | None
    provider: str | None
    threads: int | None
    size: str | None = None


def order_to_count(
    model: Path,
    dataset: Dataset,
    mode: Mode,
    card: str | None,
    provider: str | None,
    threads: int | None,
    size: Size | None = None,
) -> Order:
    """Say what workers are that count; `card` is the name of a card."""
    mapping = dataset.mapping and dataset.mapping.absolute()
    setup = CounterSetup(
        str(model.absolute()), digest_of(model), FOLDER if dataset.mapping else dataset.name,
        str(dataset.root.absolute()), dataset.split or None, text_if_any(mapping),
        mode.fit, mode.kernel, mode.windows, text_if_any(mode.stride), text_if_any(mode.frame), mode.scales, mode.flip,
        name_for_others(card), provider, threads, text_if_any(size),
    )  # fmt: skip
    return Order("segdeploy.assess.evaluate.spread:open_counter", asdict(setup))


def text_if_any(value: object) -> str | None:
    return None if value is None else str(value)


def open_counter(setup: Mapping[str, Any], worker: str) -> PairCounter:
    return PairCounter(from_json(CounterSetup, {**setup, "scales": list(setup["scales"])}))


class PairCounter:
    """Is a worker that counts images."""

    batch = 1

    def __init__(self, setup: CounterSetup) -> None:
        model = Path(setup.model)
        if model.is_file() and digest_of(model) != setup.digest:
            raise EvaluationError(
                f"{model} on {socket.gethostname()} is another model than where the evaluation was started;"
                " put the same there"
            )
        mapping = Path(setup.mapping) if setup.mapping else None
        self._dataset = open_dataset(setup.dataset, Path(setup.root), setup.split, mapping)
        card = read_card(setup.card) if setup.card else None
        stride, frame, size = (
            Size.parse(text) if text else None for text in (setup.stride, setup.frame, setup.size)
        )
        self._session = open_session(
            model, provider=setup.provider, threads=setup.threads, card=card, size=size
        )
        mode = Mode(setup.fit, setup.kernel, setup.windows, stride, frame, setup.scales, setup.flip)
        self._predict = mode.predictor(self._session)
        self._lookup = self._dataset.lookup_from(self._session.signature.labels)

    def work(self, tasks: Sequence[Task]) -> Iterator[Answer]:
        for key, image, truth, corruption, severity in tasks:
            one = replace(self._dataset, pairs=(Pair(Path(image), Path(truth)),))
            predict = spoilt(self._predict, corruption, severity) if corruption else self._predict
            matrix = matrix_of(predict, one, self._lookup, *read_pair(one, 0)).ravel()
            where = np.flatnonzero(matrix)
            yield {"key": key, "where": where.tolist(), "counts": matrix[where].tolist()}


def counted_by(hands: Hands, dataset: Dataset, corruption: str = "", severity: int = 0) -> Count:
    """Give a function that lets a crew count the images of `dataset`, whose numbers it takes."""
    size = len(dataset.labels.names)

    def count(todo: Sequence[int]) -> Iterator[tuple[int, Matrix]]:
        tasks: Iterator[Task] = (
            [str(index), *(str(path.absolute()) for path in (pair.image, pair.truth)), corruption, severity]
            for index, pair in ((index, dataset.pairs[index]) for index in todo)
        )
        for (key, image, *_), answer in hands.work(tasks):
            if "reason" in answer:
                raise EvaluationError(f"{image} cannot be counted: {answer['reason']}")
            matrix: Matrix = np.zeros(size * (size + 1), np.int64)
            matrix[answer["where"]] = answer["counts"]
            yield int(key), matrix.reshape(size, size + 1)

    return count
