"""Feeds TensorRT's own INT8 calibrator (up to TensorRT 10), which a DLA needs and our scales are compared with.

TensorRT either asks for batches in GPU memory, one after the other, or takes the scales of an earlier calibration. It
accepts a cache of another version silently, although tensor names and rounding differ between versions. So we give it
only a cache of its own version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segdeploy.convert.engine.request import CalibratorSource
from segdeploy.convert.int8.cache import CalibrationCache, demand_version, read_cache
from segdeploy.errors import CalibrationError, EngineError
from segdeploy.flavour import Flavour
from segdeploy.model.signature import Signature
from segdeploy.picture import image
from segdeploy.run.io import to_input

ALGORITHM = "EntropyCalibration2"


class CalibrationFeed:
    """Gives TensorRT batches, all in one block of device memory, and keeps the cache that it writes."""

    def __init__(
        self, calibration: CalibratorSource, signature: Signature, batch: int, device: Any, stop: Event
    ) -> None:
        self.batch = batch
        self.written: bytes | None = None
        self.failure: BaseException | None = None
        self._given = calibration.cache.read_bytes() if calibration.cache else None
        self._batches = batches(calibration.images, signature, batch)
        self._device = device
        self._stop = stop
        self._memory: Any = None
        self._stream: Any = None

    def next_batch(self) -> int | None:
        """Upload the next batch and return its device address; None when there are no more."""
        try:
            inputs = next(self._batches, None)
            if inputs is None:
                return None
            with self._device.active():
                if self._memory is None:
                    self._memory, self._stream = self._device.allocate(inputs.nbytes), self._device.stream()
                self._stream.upload(self._memory, inputs)
                self._stream.synchronise()
            return int(self._memory.address)
        except BaseException as error:  # noqa: BLE001 - C++ called us; `serialise` raises it after the build
            self.failure = error
            self._stop.set()  # otherwise TensorRT would build with the scales of half the images
            return None

    def read(self) -> bytes | None:
        return self._given

    def write(self, cache: bytes) -> None:
        self.written = bytes(cache)

    def close(self) -> None:
        if self._memory is None:
            return
        with self._device.active():
            self._memory.free()
            self._stream.free()
            self._memory = self._stream = None


def batches(images: Sequence[Path], signature: Signature, batch: int) -> Iterator[NDArray[Any]]:
    """Read the images as batches of the graph's input, without a last incomplete one: TensorRT takes full batches."""
    for start in range(0, len(images) - batch + 1, batch):
        frames = [image.read_frame(path) for path in images[start : start + batch]]
        fitted = [image.fit(frame, signature.size, kernel=signature.resize)[0] for frame in frames]
        yield np.ascontiguousarray(to_input(signature, np.stack(fitted)))


def calibrator_of(flavour: Flavour, feed: CalibrationFeed) -> Any:
    """Wrap `feed` in TensorRT's calibrator class."""
    kind = flavour.module.IInt8EntropyCalibrator2

    class Calibrator(kind):  # type: ignore[misc, valid-type]  # a class of the package that happens to be there
        def __init__(self) -> None:
            kind.__init__(self)

        def get_batch_size(self) -> int:
            return feed.batch

        def get_batch(self, names: list[str]) -> list[int] | None:
            address = feed.next_batch()
            return None if address is None else [address]

        def read_calibration_cache(self) -> bytes | None:
            return feed.read()

        def write_calibration_cache(self, cache: bytes) -> None:
            feed.write(cache)

    return Calibrator()


def demand_calibrating(flavour: Flavour) -> None:
    if not flavour.calibrates:
        raise EngineError(
            f"{flavour} has no calibrator: 11 removed it, and reads INT8 from the graph; leave out"
            " --calibrator, and segdeploy calibrates"
        )


def demand_cache(flavour: Flavour, path: Path) -> CalibrationCache:
    cache = read_cache(path)
    demand_version(path, cache, str(flavour.version))
    if cache.algorithm != ALGORITHM:
        raise CalibrationError(
            f"{path} is a cache of {cache.algorithm}; expected {ALGORITHM} for {flavour}. Make one with"
            f" segdeploy quantize --cache-for {flavour.version}"
        )
    return cache
