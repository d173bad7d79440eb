"""Runs a graph over images and counts the values of its tensors: memory does not grow with the number of images.

What was counted is kept beside the result under a key of all it depends on, is taken up again after an interruption,
serves every method, and is never used for anything else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segdeploy import image
from segdeploy.calibrate.histogram import Histogram
from segdeploy.errors import CalibrationError
from segdeploy.files import digest_of, replacing
from segdeploy.image import Frame, read_frame
from segdeploy.sessions import prepared
from segdeploy.sessions.taps import TapSession
from segdeploy.signature import Signature

if TYPE_CHECKING:
    from onnx import ModelProto

FEWEST = 8
KEPT_EVERY = 16  # images between two savings of the state


@dataclass(frozen=True)
class Key:
    """What a calibration depends on: three digests, of the graph, of what is done to a frame, and of the images."""

    graph: str
    preprocessing: str
    images: str

    def __str__(self) -> str:
        return f"graph {self.graph[:12]}, preprocessing {self.preprocessing[:12]}, images {self.images[:12]}"


def key_of(graph: Path, signature: Signature, images: Sequence[Path]) -> Key:
    preparation = [
        signature.interface,
        signature.mean,
        signature.scale,
        str(signature.size),
        signature.resize,
    ]
    seen = hashlib.sha256()
    for path in images:
        seen.update(f"{path.name} {digest_of(path)}\n".encode())
    return Key(
        digest_of(graph), hashlib.sha256(json.dumps(preparation).encode()).hexdigest(), seen.hexdigest()
    )


def collect(
    model: ModelProto,
    signature: Signature,
    tensors: Sequence[str],
    images: Sequence[Path],
    *,
    key: Key,
    state: Path | None = None,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Histogram]:
    """A histogram for each of `tensors` over all `images`; `state` is where it is kept, and taken up from."""
    if len(images) < FEWEST:
        raise CalibrationError(
            f"{len(images)} images are too few to calibrate on; give {FEWEST} or more, some hundred for a real network"
        )
    found = restore(state, key, tensors) if state else None
    done, histograms = found or (0, {name: Histogram() for name in tensors})
    session = TapSession(model, tensors)
    for _ in range(done):
        progress()
    with ThreadPoolExecutor(2) as pool:
        for frame in fitted(images[done:], signature, pool):
            inputs = prepared(signature, np.repeat(frame[None], signature.batch or 1, axis=0))
            for counted in [
                pool.submit(count, histograms[name], name, one_of(values, len(inputs)))
                for name, values in session.run(inputs)
            ]:
                counted.result()
            done += 1
            progress()
            if state and (done % KEPT_EVERY == 0 or done == len(images)):
                keep(state, key, done, histograms)
    return histograms


def one_of(values: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    """The first of `batch` equal frames, where the tensor has them apart."""
    return values[:1] if batch > 1 and len(values) == batch else values


def count(histogram: Histogram, name: str, values: NDArray[np.float32]) -> None:
    try:
        histogram.add(values.astype(np.float32, copy=False))
    except CalibrationError as error:
        raise CalibrationError(f"the tensor {name} {error} on a calibration image") from error


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


def keep(path: Path, key: Key, done: int, histograms: dict[str, Histogram]) -> None:
    facts = {
        "key": asdict(key),
        "done": done,
        "tensors": {name: [one.exponent, one.largest, one.seen] for name, one in histograms.items()},
    }
    counts = np.stack([one.counts for one in histograms.values()])
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, facts=json.dumps(facts), counts=counts)


def restore(path: Path, key: Key, tensors: Sequence[str]) -> tuple[int, dict[str, Histogram]] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path) as kept:
            facts, counts = json.loads(str(kept["facts"])), kept["counts"]
        of = Key(**facts["key"])
        histograms = {}
        for row, (name, (exponent, largest, seen)) in zip(counts, facts["tensors"].items(), strict=True):
            one = Histogram()
            one.counts, one.exponent, one.largest, one.seen = row, exponent, largest, seen
            histograms[name] = one
    except Exception as error:
        raise CalibrationError(
            f"{path} is not a calibration that can be read ({error}); delete it"
        ) from error
    if of != key:
        raise CalibrationError(
            f"{path} was collected for {of}; asked for now is {key}. Delete it to collect again, or name another -o"
        )
    if not set(tensors) <= set(histograms):
        return None
    return facts["done"], {name: histograms[name] for name in tensors}
