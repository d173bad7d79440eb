"""Runs a graph over images and counts the values of its tensors: memory does not grow with the number of images.

What was counted is kept beside the result under a key of all it depends on, is taken up again after whatever stopped
it, serves every method, and is never used for anything else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.convert.int8.histogram import FINE, Histogram
from segdeploy.errors import CalibrationError, ImageError
from segdeploy.files import digest_of, replacing
from segdeploy.graph.load import Graph
from segdeploy.graph.parts import parts_of
from segdeploy.model.signature import Signature
from segdeploy.model.typed_json import from_json
from segdeploy.picture import image
from segdeploy.picture.image import Frame, read_frame
from segdeploy.prove.material import FEWEST
from segdeploy.run.inner_tensors import TapChain
from segdeploy.run.io import to_input
from segdeploy.untrusted import Unreadable, parse_json, read_arrays

if TYPE_CHECKING:
    from onnx import ModelProto

KEPT_EVERY = 16  # images between two savings of the state
SCHEMA = 1  # of the state
MOST_KEPT = 1 << 32  # images
# Adds images to a tally, in their order, and yields how many more are in it.
Add = Callable[["Tally", Sequence[Path]], Generator[int, None, None]]


@dataclass(frozen=True)
class CalibrationKey:
    """Names what a calibration depends on by three digests: the graph's, the preprocessing's and the images'."""

    graph: str
    preprocessing: str
    images: str

    def __str__(self) -> str:
        return f"graph {self.graph[:12]}, preprocessing {self.preprocessing[:12]}, images {self.images[:12]}"


@dataclass(frozen=True)
class Kept:
    """Holds what is kept of a calibration under way, beside the counts."""

    key: CalibrationKey
    done: Annotated[int, range(1, MOST_KEPT)]  # images
    tensors: dict[str, tuple[int, float, int]]  # exponent, largest and seen of each one's histogram
    schema: int = SCHEMA
    bins: int = FINE


def key_of(graph: Graph, images: Sequence[Path]) -> CalibrationKey:
    signature = graph.signature
    preparation = [
        signature.interface,
        signature.mean,
        signature.scale,
        str(signature.size),
        signature.resize,
    ]
    seen = hashlib.sha256()
    for path in images:
        seen.update(os.fsencode(path.name) + f" {image_digest(path)}\n".encode())
    return CalibrationKey(
        graph.digest, hashlib.sha256(json.dumps(preparation).encode()).hexdigest(), seen.hexdigest()
    )


def image_digest(path: Path) -> str:
    try:
        return digest_of(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error


def collect(
    model: ModelProto,
    signature: Signature,
    tensors: Sequence[str],
    images: Sequence[Path],
    *,
    key: CalibrationKey,
    state: Path | None = None,
    progress: Callable[[], None] = lambda: None,
    add: Add | None = None,
) -> dict[str, Histogram]:
    """A histogram for each of `tensors` over all `images`; `state` is where it is kept, and taken up from.

    `add` counts images elsewhere; without it they are counted here.
    """
    demand_enough(images)
    tally = restore(state, key, tensors) if state else None
    if tally is not None and tally.done > len(images):
        raise CalibrationError(
            f"{state} says that {tally.done:,} images were counted, and there are {len(images)}; delete it"
        )
    tally = tally or Tally.of(tensors)
    add = add or ImageCounter(model, signature, tensors).add
    kept = tally.done
    for _ in range(kept):
        progress()
    try:
        with closing(add(tally, images[kept:])) as added:
            for count in added:
                for _ in range(count):
                    progress()
                if state and (tally.done - kept >= KEPT_EVERY or tally.done == len(images)):
                    keep(state, key, tally)
                    kept = tally.done
    except BaseException:
        if state and tally.whole and tally.done > kept:
            keep(state, key, tally)
        raise
    return tally.histograms


class ImageCounter:
    """Runs a graph over images here, one after the other."""

    def __init__(
        self,
        model: ModelProto,
        signature: Signature,
        tensors: Sequence[str],
        threads: int | None = None,
        every: int = 1,
    ) -> None:
        """Prepare to count one of `every` so many values."""
        self._every = every
        self._input, self._signature = model.graph.input[0].name, signature
        parts = [(part.model, part.tensors, part.passed) for part in parts_of(model, tensors)]
        self._chain = TapChain(parts, threads)

    def add(self, tally: Tally, images: Sequence[Path]) -> Generator[int, None, None]:
        """Add the images to a tally; after each it says that one more is there."""
        # Counted in a thread, because Ctrl-C reaches the main one only: an image is counted wholly or not at all.
        with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as runner:
            for path, frame in zip(images, fitted(images, self._signature, pool), strict=True):
                runner.submit(self._add_frame, tally, path, frame, pool).result()
                yield 1

    def _add_frame(self, tally: Tally, path: Path, frame: Frame, pool: ThreadPoolExecutor) -> None:
        inputs = to_input(self._signature, np.repeat(frame[None], self._signature.batch or 1, axis=0))
        parts = self._chain.run(self._input, inputs)
        tally.add(
            (
                [(name, one_of(values, len(inputs)).reshape(-1)[:: self._every]) for name, values in part]
                for part in parts
            ),
            path,
            pool,
        )


def demand_enough(images: Sequence[Path]) -> None:
    distinct: set[str] = set()
    for path in images:
        distinct.add(image_digest(path))
        if len(distinct) == FEWEST:
            return
    copies = f" ({len(images)} files, some of them copies)" if len(images) > len(distinct) else ""
    raise CalibrationError(
        f"{len(distinct)} images{copies} are too few to calibrate on; give {FEWEST} or more, some hundred for a real"
        " network"
    )


@dataclass
class Tally:
    """Histograms that have all seen the same images, unless one image was given up half way."""

    histograms: dict[str, Histogram]
    done: int = 0  # images
    whole: bool = True

    @classmethod
    def of(cls, tensors: Sequence[str]) -> Tally:
        """Begin one for these tensors."""
        return cls({name: Histogram() for name in tensors})

    def merge(self, other: Tally) -> None:
        """Add what was counted on other images."""
        self.whole = False
        for name, histogram in self.histograms.items():
            histogram.merge(other.histograms[name])
        self.done += other.done
        self.whole = True

    def add(
        self, parts: Iterable[list[tuple[str, NDArray[Any]]]], seen_on: Path, pool: ThreadPoolExecutor
    ) -> None:
        self.whole = False
        for tensors in parts:
            for counted in [
                pool.submit(count, self.histograms[name], name, values, seen_on) for name, values in tensors
            ]:
                counted.result()
        self.done += 1
        self.whole = True


def one_of(values: NDArray[Any], batch: int) -> NDArray[Any]:
    """The first of `batch` equal frames, where the tensor has them apart."""
    return values[:1] if batch > 1 and len(values) == batch else values


def count(histogram: Histogram, name: str, values: NDArray[Any], seen_on: Path) -> None:
    try:
        histogram.add(values.astype(np.float32, copy=False))
    except CalibrationError as error:
        raise CalibrationError(f"the tensor {name} {error} on the calibration image {seen_on}") from error


def fitted(paths: Sequence[Path], signature: Signature, pool: ThreadPoolExecutor) -> Iterator[Frame]:
    """Frames at the graph's size, the next one read while the last one is run."""

    def read(path: Path) -> Frame:
        return image.fit(read_frame(path), signature.size, kernel=signature.resize)[0]

    waiting = pool.submit(read, paths[0]) if paths else None
    for following in [*paths[1:], None]:
        if waiting is None:
            return
        frame = waiting.result()
        waiting = pool.submit(read, following) if following else None
        yield frame


def keep(path: Path, key: CalibrationKey, tally: Tally) -> None:
    tensors = {name: (one.exponent, one.largest, one.seen) for name, one in tally.histograms.items()}
    facts = asdict(Kept(key, tally.done, tensors))
    counts = np.stack([one.counts for one in tally.histograms.values()])
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, facts=json.dumps(facts), counts=counts)


def restore(path: Path, key: CalibrationKey, tensors: Sequence[str]) -> Tally | None:
    if not path.is_file():
        return None
    try:
        arrays = read_arrays(path, {"facts": "U", "counts": "iu"})
        facts = parse_json(str(arrays["facts"]))
        if isinstance(facts, dict) and (facts.get("schema"), facts.get("bins")) != (SCHEMA, FINE):
            raise CalibrationError(
                f"{path} has schema {facts.get('schema')} and {facts.get('bins')} bins, this version of segdeploy"
                f" reads schema {SCHEMA} with {FINE}; delete it to collect again"
            )
        kept = from_json(Kept, facts)
        histograms = histograms_in(kept, arrays["counts"])
    except ValueError as error:  # of the file, of its JSON, of a field, of a count
        why = f"it {error}" if isinstance(error, Unreadable) else error
        raise CalibrationError(f"{path} is not a calibration that can be read ({why}); delete it") from error
    if kept.key != key:
        raise CalibrationError(
            f"{path} was collected for {kept.key}; asked for now is {key}. Delete it to collect again, or name"
            " another -o"
        )
    if not set(tensors) <= set(histograms):
        return None
    return Tally({name: histograms[name] for name in tensors}, kept.done)


def histograms_in(kept: Kept, counts: NDArray[Any]) -> dict[str, Histogram]:
    """Take the state of each tensor, whose counts are a row; a ValueError says what does not hold."""
    if counts.shape != (len(kept.tensors), FINE):
        raise ValueError(f"its counts are {counts.shape}, not {len(kept.tensors)} rows of {FINE}")
    return {
        name: Histogram.of(row.astype(np.int64), *facts)
        for row, (name, facts) in zip(counts, kept.tensors.items(), strict=True)
    }
