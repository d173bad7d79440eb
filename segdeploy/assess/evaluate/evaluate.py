"""Scores a model on a data set: threads decode images ahead, each is predicted in turn, and one matrix counts all.

The function from a frame to labels is a parameter, so whole images, windows and scales are scored by the same lines.
Each image's counts are kept on disk until the last one is done, so that a stopped evaluation can go on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from segdeploy.assess.evaluate.scores import ImageSums, Interval, Scores, bootstrap_mious, interval_of
from segdeploy.datasets.dataset import Dataset
from segdeploy.datasets.reading import read_pair
from segdeploy.errors import EvaluationError, OutputError, RequestError
from segdeploy.files import make_folder
from segdeploy.model.labels import Labels
from segdeploy.picture.image import Frame, LabelMap
from segdeploy.prove.confusion import count_pairs
from segdeploy.run.session import Session, segment
from segdeploy.untrusted import parse_json

Predict = Callable[[Frame], LabelMap]  # takes an H×W×3 frame, gives the model's class of each pixel
Matrix = NDArray[np.int64]  # truth × predicted, the last column none of the classes
Count = Callable[[Sequence[int]], Iterator[tuple[int, Matrix]]]  # takes images' numbers, in any order

SCHEMA = 1
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Evaluation:
    dataset: Dataset
    scores: Scores
    sums: ImageSums
    interval: Interval  # of the mIoU, over the choice of images

    def __str__(self) -> str:
        low, high = 100 * self.interval.low, 100 * self.interval.high
        return (
            f"{self.dataset}: mIoU {100 * self.scores.miou:.2f} % ({low:.2f} to {high:.2f}),"
            f" pixel accuracy {100 * self.scores.pixel_accuracy:.2f} %, {len(self.dataset)} images"
        )


@dataclass(frozen=True)
class Sight:
    """Holds one image with its truth and its prediction, to draw the worst frames from."""

    name: str
    frame: Frame
    truth: LabelMap
    predicted: LabelMap  # classes of the data set


def whole_image(session: Session, how: str = "stretch", kernel: str | None = None) -> Predict:
    """Predict each frame in one piece, resized to the graph's input; `kernel` None: as the model was trained."""

    def predict(frame: Frame) -> LabelMap:
        return segment(session, frame, how, kernel).labels

    return predict


def evaluate(
    predict: Predict,
    dataset: Dataset,
    classes: Labels,
    *,
    workers: int = 2,
    callers: int = 1,
    progress: Callable[[], None] = lambda: None,
    unfinished: Unfinished | None = None,
    count: Count | None = None,
) -> Evaluation:
    """Score `predict`, whose labels are of `classes`; `progress` is called once for each image.

    As many threads as there are `workers` decode, and as many as `callers` predict. `count` counts the images
    somewhere else, in other processes: counts are sums, so the scores are the same ones. The caller removes
    `unfinished`, once its report of the scores is written.
    """
    if workers < 1:
        raise RequestError(f"{workers} workers cannot decode anything; expected 1 or more")
    size = len(dataset.labels.names)
    sums, counts = ImageSums.empty(len(dataset), size), np.zeros((size, size + 1), np.int64)
    done = unfinished.read(len(dataset), counts.shape) if unfinished else {}
    for index, matrix in done.items():
        counts += matrix
        sums.put(index, matrix)
        progress()
    todo = [index for index in range(len(dataset)) if index not in done]
    counted = count(todo) if count else counted_here(predict, dataset, classes, todo, workers, callers)
    for index, matrix in counted:
        if unfinished:
            unfinished.append(index, matrix)
        counts += matrix
        sums.put(index, matrix)
        progress()
    if not counts.any():
        raise EvaluationError(
            f"no pixel of the {len(dataset)} label files of {dataset} is of a class that is scored; "
            "label files of a test split are often blank"
        )
    return Evaluation(dataset, Scores(counts, dataset.labels), sums, interval_of(bootstrap_mious(sums)))


def counted_here(
    predict: Predict,
    dataset: Dataset,
    classes: Labels,
    todo: Sequence[int],
    workers: int,
    callers: int = 1,
) -> Iterator[tuple[int, Matrix]]:
    """Count images in turn, while threads decode the next ones."""
    lookup = dataset.lookup_from(classes)

    def count(image: tuple[int, Frame, LabelMap]) -> tuple[int, Matrix]:
        index, frame, truth = image
        return index, matrix_of(predict, dataset, lookup, frame, truth)

    with closing(decoded(dataset, todo, workers)) as images:
        yield from map(count, images) if callers == 1 else in_threads(count, images, callers)


def matrix_of(
    predict: Predict, dataset: Dataset, lookup: NDArray[Any], frame: Frame, truth: LabelMap
) -> Matrix:
    """Count one image; `lookup` gives the data set's class for each of the model's."""
    predicted = lookup[predicted_for(predict, frame)]
    return count_pairs(truth, predicted, len(dataset.labels.names), dataset.labels.ignore)


def look(predict: Predict, dataset: Dataset, classes: Labels, index: int) -> Sight:
    frame, truth = read_pair(dataset, index)
    predicted = dataset.lookup_from(classes)[predicted_for(predict, frame)]
    return Sight(dataset.named(dataset.pairs[index].image), frame, truth, predicted)


def predicted_for(predict: Predict, frame: Frame) -> LabelMap:
    labels = predict(frame)
    if labels.shape != frame.shape[:2] or labels.dtype not in (np.uint8, np.uint16):
        raise RequestError(
            f"a frame of {frame.shape[:2]} got {labels.dtype} {labels.shape} labels; expected its size in uint8 or"
            " uint16"
        )
    return labels


def decoded(
    dataset: Dataset, todo: Iterable[int], workers: int
) -> Generator[tuple[int, Frame, LabelMap], None, None]:  # in order
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[int, Future[tuple[Frame, LabelMap]]]] = deque()
        try:
            for index in todo:
                waiting.append((index, pool.submit(read_pair, dataset, index)))
                if len(waiting) > 2 * workers:  # bounds the memory, whatever the data set's size
                    first, pair = waiting.popleft()
                    yield first, *pair.result()
            while waiting:
                first, pair = waiting.popleft()
                yield first, *pair.result()
        finally:
            for _, pair in waiting:
                pair.cancel()


def in_threads(work: Callable[[A], B], given: Iterable[A], threads: int) -> Iterator[B]:
    """Do as `map`, in several threads, of which none is more than one piece of work ahead."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[B]] = deque()
        try:
            for one in given:
                waiting.append(pool.submit(work, one))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one_more in waiting:
                one_more.cancel()


class Unfinished:
    """Keeps the finished images in a file: a line with the key, then the nonzero cells of each image's matrix.

    A record that was cut off when the machine went down is dropped, and its image is done again.
    """

    def __init__(self, path: Path, key: Mapping[str, str]) -> None:
        self.path, self.key = path, dict(key)

    def read(self, images: int, shape: tuple[int, int]) -> dict[int, NDArray[np.int64]]:
        if not self.path.is_file():
            return {}
        header, _, records = self.path.read_bytes().partition(b"\n")
        self._demand(header)
        done: dict[int, NDArray[np.int64]] = {}
        place, cells = 0, shape[0] * shape[1]
        while len(records) - place >= 8:
            index, count = np.frombuffer(records, "<u4", 2, place)
            end = place + 8 + int(count) * 12
            if end > len(records):
                break
            where = np.frombuffer(records, "<u4", count, place + 8)
            if index >= images or (where >= cells).any():
                raise EvaluationError(f"{self.path} is damaged; delete it to begin again")
            matrix = np.zeros(cells, np.int64)
            matrix[where] = np.frombuffer(records, "<i8", count, place + 8 + int(count) * 4)
            done[int(index)] = matrix.reshape(shape)
            place = end
        with self.path.open("r+b") as file:
            file.truncate(len(header) + 1 + place)
        return done

    def append(self, index: int, counts: NDArray[np.int64]) -> None:
        flat = counts.ravel()
        where = np.flatnonzero(flat)
        record = np.array([index, where.size], "<u4").tobytes()
        record += where.astype("<u4").tobytes() + flat[where].astype("<i8").tobytes()
        try:
            make_folder(self.path.parent)
            flags = (
                os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            )  # its name can be foreseen
            with os.fdopen(os.open(self.path, flags, 0o666), "ab") as file:
                if not file.tell():
                    file.write(json.dumps({"schema": SCHEMA, **self.key}).encode() + b"\n")
                file.write(record)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _demand(self, header: bytes) -> None:
        try:
            found = parse_json(header)
            schema = found.pop("schema")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise EvaluationError(f"{self.path} is not of an unfinished evaluation; delete it") from error
        if (schema, found) != (SCHEMA, self.key):
            raise EvaluationError(
                f"{self.path} is left from another evaluation, of {key_text(found)}; this one is of "
                f"{key_text(self.key)}. Finish that one with its own command, or delete the file to begin again"
            )


def evaluation_key(model: str, dataset: Dataset, options: str, provider: str | None) -> dict[str, str]:
    """Make the key of one evaluation; it includes label mtimes: a file of equal size may hold other classes."""
    times = [pair.truth.stat().st_mtime_ns for pair in dataset.pairs]
    return {
        "model": model,
        "dataset": dataset.digest,
        "labels": hashlib.sha256(json.dumps(times).encode()).hexdigest(),
        "options": options,
        "provider": provider or "cpu",
    }


def key_text(key: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value[:12] if len(value) == 64 else value}" for name, value in key.items())
